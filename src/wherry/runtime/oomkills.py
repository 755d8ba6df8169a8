"""How many of a container's processes the OOM killer ended, also when the group that counts them has gone.

systemd removes a scope's group as soon as nobody is in it, often before the supervisor gets to hear of the end. So the
count is read when it changes:

    version 2    memory.events: the kernel counts a victim, then wakes who polls the file, then kills (mm/oom_kill.c)
    version 1    memory.oom_control, through an eventfd and cgroup.event_control: it is signalled when the group is out
                 of memory, before the victim is counted, so a group that is gone at the next look has had a victim
                 (Documentation/admin-guide/cgroup-v1/memory.rst, "OOM Control")
"""

from __future__ import annotations

import os
import select

from wherry.kernel import cgroup
from wherry.runtime.cgroups import Cgroup
from wherry.runtime.poller import READ, Poller


class OomKills:
    """The count of one container's group, from `watch` on."""

    def __init__(self, poller: Poller) -> None:
        self._poller = poller
        self._group: Cgroup | None = None
        self._seen = 0
        self._alarmed = False
        self._fd = -1

    def watch(self, group: Cgroup | None) -> None:
        """Begin, when the group is there; only one that may go unasked is watched."""
        self._group = group
        directory = group.directory("memory") if group is not None else None
        if group is None or group.scope is None or directory is None:
            return
        try:
            if group.version == 1:
                self._fd = _alarm(directory)
                self._poller.watch(self._fd, READ, lambda events: self._hear())
            else:
                self._fd = os.open(f"{directory}/memory.events", os.O_RDONLY | os.O_CLOEXEC)
                self._poller.watch(self._fd, select.EPOLLPRI, lambda events: self._look())
                self._look()
        except FileNotFoundError:
            pass  # it ended at once

    def count(self) -> int:
        """Return the number as far as it can be known now. Raises OSError for a group that should be there."""
        if self._group is None:
            return 0
        try:
            return max(self._seen, self._group.oom_kills())
        except OSError:  # ENOENT, ENODEV
            if self._group.scope is None:
                raise
            return max(self._seen, int(self._alarmed))  # systemd was faster

    def close(self) -> None:
        """Watch no more."""
        if self._fd >= 0:
            self._poller.forget(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _look(self) -> None:
        """Read what there is; the file of a group that has gone says ENODEV, and is ready for ever."""
        assert self._group is not None
        try:
            self._seen = self._group.oom_kills()
            os.pread(self._fd, 4096, 0)  # takes note of the change, so that the next one wakes again
        except OSError:
            self.close()

    def _hear(self) -> None:
        """Out of memory; or the group goes, which is signalled as well."""
        assert self._group is not None
        os.eventfd_read(self._fd)
        try:
            self._seen = self._group.oom_kills()
            self._alarmed = True
        except OSError:
            self.close()


def _alarm(directory: str) -> int:
    """Return an eventfd that is signalled when the version 1 group is out of memory. Raises OSError."""
    event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        control = os.open(f"{directory}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
        try:
            cgroup.write(f"{directory}/cgroup.event_control", f"{event} {control}")
        finally:
            os.close(control)
    except OSError:
        os.close(event)
        raise
    return event
