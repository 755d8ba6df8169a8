"""The control group of one container, over every hierarchy that the machine has.

    Layout     version 1 or version 2, read once per process
    Cgroup     one path, such as "/wherry/ID", in all of them; made and removed as a whole. With SLICE:PREFIX:NAME the
               group is a scope of systemd's: it makes and removes the group, on `scoping`'s word

On a hybrid machine the limits are version 1's, and the unified hierarchy beside it is left alone: it limits nothing,
and a process that is moved into a group of it waits for RCU, about 10 ms at each start (see kernel/clone.py).
What is written where is decided, without touching the kernel, by cgroups_v1, cgroups_v2 and cgroups_devices.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from wherry.kernel import bpf_device, cgroup
from wherry.kernel.clone import fork_into
from wherry.runtime import cgroups_tree, cgroups_v1, cgroups_v2
from wherry.runtime.cgroups_devices import permissions
from wherry.runtime.scopes import Scope

Resources = Mapping[str, Any]

FREEZE_SECONDS = 5.0
KILL_ROUNDS = 20


@dataclass(frozen=True, slots=True)
class Layout:
    """version: whose limits apply, 1 or 2. hierarchies: all of that version."""

    version: int
    hierarchies: tuple[cgroup.Hierarchy, ...]

    @classmethod
    def of(cls, hierarchies: tuple[cgroup.Hierarchy, ...]) -> Layout:
        """Return the layout that these mounts make; raises OSError when there are none."""
        old = tuple(each for each in hierarchies if not each.unified)
        new = tuple(each for each in hierarchies if each.unified)
        if not old and not new:
            raise OSError(errno.ENOENT, "no cgroup hierarchy is mounted", "/sys/fs/cgroup")
        return cls(1, old) if old else cls(2, new)


_detected: list[Layout] = []


def detect() -> Layout:
    """Return this machine's layout, read on the first call; forked processes inherit it."""
    if not _detected:
        _detected.append(Layout.of(cgroup.hierarchies()))
    return _detected[0]


@dataclass(frozen=True, slots=True)
class MountSources:
    """What /sys/fs/cgroup of a container is made of.

    version: 1: a tmpfs with binds; 2: one file system. binds: (name below /sys/fs/cgroup, directory of the host); of
    version 2 one with the name "". links: (name, target) of controllers that are mounted together.
    """

    version: int
    binds: tuple[tuple[str, str], ...]
    links: tuple[tuple[str, str], ...] = ()


class Cgroup:
    """One control group; every method raises OSError with the path of the file that refused."""

    __slots__ = ("_born", "_by_controller", "_layout", "_unified", "directories", "path", "scope")

    def __init__(self, path: str, layout: Layout) -> None:
        self.scope = Scope.parse(path)
        self.path = checked_path(self.scope.path if self.scope else path)
        self._layout = layout
        self.directories = tuple(each.mount + self.path for each in layout.hierarchies)
        self._by_controller: dict[str, str] = {}
        self._unified = ""
        self._born = False  # this process is the group's by birth in the unified hierarchy
        for hierarchy, directory in zip(layout.hierarchies, self.directories, strict=True):
            if hierarchy.unified:
                self._unified = directory
            if hierarchy.unified == (layout.version == 2):
                self._by_controller.update(dict.fromkeys(hierarchy.controllers, directory))

    @classmethod
    def open(cls, path: str, *, layout: Layout | None = None) -> Cgroup:
        """Return a group that is (or was) there already."""
        return cls(path, layout or detect())

    @classmethod
    def create(cls, path: str, resources: Resources, *, layout: Layout | None = None) -> Cgroup:
        """Make the group with its limits and device rules (OCI linux.resources); on failure nothing of it remains.

        What a dead container left behind under the same path is replaced; EBUSY when processes are in it. There is no
        scope without a process: for one, this is called by the process that is to live in it, and moves it there;
        what is left on failure is for another one to `remove`.
        """
        self = cls.open(path, layout=layout)
        made: list[str] = []
        try:
            if self.scope is not None:
                self._start_scope(self.scope, resources)
            for hierarchy, directory in zip(self._layout.hierarchies, self.directories, strict=True):
                make = cgroups_tree.make if self.scope is None else cgroups_tree.make_parents
                make(hierarchy, directory)
                made.append(directory)
            self._limit(resources, fresh=True)
            self._limit_devices(resources.get("devices") or ())
        except OSError as error:
            for directory in reversed(made) if self.scope is None else ():
                cgroups_tree.undo(directory, error)
            raise
        return self

    def _start_scope(self, scope: Scope, resources: Resources) -> None:
        from wherry.runtime import scoping  # with D-Bus, which only machines with systemd need

        if self.pids():
            raise OSError(errno.EBUSY, f"processes {self.pids()} are in the group", self.directories[0])
        scoping.start(scope, resources, version=self._layout.version, bfq=self._bfq())
        self._born = True

    def fork(self) -> int:
        """Fork as os.fork does; the child is born in the unified hierarchy's group where the kernel can do that.

        It still has to `join`, which then has nothing slow left to do.
        """
        if not self._unified:
            return os.fork()
        try:
            group = os.open(self._unified, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return os.fork()  # its first process makes a scope, and another runtime its group
        self._born = True
        try:
            pid = fork_into(group)
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.E2BIG):
                raise
            self._born = False
            return os.fork()
        finally:
            os.close(group)
        if pid:
            self._born = False
        return pid

    def join(self) -> None:
        """Move the calling process, which has one thread, into the group; its later children are born there."""
        for directory in self.directories:
            if directory != self._unified:
                # Not cgroup.procs: a thread that moves itself needs no lock over all of the machine's processes
                # (5.18), which is 10 ms of waiting for RCU.
                cgroup.write(directory + "/tasks", "0")
            elif not self._born:
                cgroup.write(directory + "/cgroup.procs", "0")

    def add(self, pid: int) -> None:
        """Move another process into the group."""
        for directory in self.directories:
            cgroup.write(directory + "/cgroup.procs", str(pid))

    @property
    def version(self) -> int:
        """Whose limits apply, 1 or 2."""
        return self._layout.version

    def directory(self, controller: str) -> str | None:
        """Return the group's directory in the hierarchy of a controller; None when that is not mounted."""
        return self._by_controller.get(controller)

    def pids(self) -> list[int]:
        """Return the processes in it and in the groups made below it; none when it is gone."""
        return cgroup.processes(self.directories[0])

    def kill(self) -> None:
        """Send SIGKILL to all processes in it, frozen ones too. They are not gone yet when this returns."""
        if self._unified and cgroup.exists(self._unified + "/cgroup.kill"):
            cgroup.write(self._unified + "/cgroup.kill", "1")
        if self._layout.version == 1 or not cgroup.exists(self._unified + "/cgroup.kill"):
            self._kill_each()

    def empty(self, seconds: float, *, reap: Callable[[], None]) -> None:
        """Kill until nobody is left, for a while at most. reap: collects children, which count until then."""
        deadline = time.monotonic() + seconds
        self.kill()
        while self.pids() and time.monotonic() < deadline:
            reap()
            time.sleep(0.002)
            self.kill()

    def _kill_each(self) -> None:
        """Signal one by one, with the group freezing meanwhile, so that none can fork out of the list."""
        freezer = self._by_controller.get("freezer")
        killed: set[int] = set()
        for _ in range(KILL_ROUNDS):
            fresh = set(self.pids()) - killed
            if not fresh:
                break
            if freezer and not killed:
                cgroup.write(freezer + "/freezer.state", "FROZEN")
            for pid in fresh:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass  # ended since it was listed
            killed |= fresh
        if freezer and killed:
            self.thaw()  # the frozen die when they are thawed

    def oom_kills(self) -> int:
        """Return how many of its processes the OOM killer ended; 0 when memory is not accounted."""
        directory = self._by_controller.get("memory")
        if directory is None:
            return 0
        name = "memory.events" if self._layout.version == 2 else "memory.oom_control"
        for line in cgroup.read(f"{directory}/{name}").splitlines():
            key, _, value = line.partition(" ")
            if key == "oom_kill":
                return int(value)
        return 0

    def freeze(self) -> None:
        """Stop all processes in it; raises OSError ETIMEDOUT, with them running again, when they do not stop."""
        self._freeze(True)

    def thaw(self) -> None:
        """Let the processes run again."""
        self._freeze(False)

    def frozen(self) -> bool:
        """Return whether all processes in it are stopped; False when it is gone or cannot freeze."""
        try:
            if "freezer" in self._by_controller:
                return cgroup.read(self._by_controller["freezer"] + "/freezer.state").strip() == "FROZEN"
            return bool(self._unified) and "frozen 1" in cgroup.read(self._unified + "/cgroup.events")
        except FileNotFoundError:
            return False

    def _freeze(self, stop: bool) -> None:
        if "freezer" in self._by_controller:
            path, texts = self._by_controller["freezer"] + "/freezer.state", ("THAWED", "FROZEN")
        elif self._unified:
            path, texts = self._unified + "/cgroup.freeze", ("0", "1")
        else:
            raise OSError(errno.EOPNOTSUPP, "no freezer controller is mounted", self.path)
        cgroup.write(path, texts[stop])
        deadline = time.monotonic() + FREEZE_SECONDS
        while stop and not self.frozen():
            if time.monotonic() > deadline:
                cgroup.write(path, texts[0])
                raise OSError(errno.ETIMEDOUT, "processes do not freeze", path)
            time.sleep(0.001)
            # version 1 stays at FREEZING when a task forked at the wrong moment; writing again catches it
            cgroup.write(path, texts[1])

    def update(self, resources: Resources) -> None:
        """Change the limits that are given; devices only when the key is there."""
        if self.scope is not None:
            from wherry.runtime import scoping

            scoping.change(self.scope, resources, version=self._layout.version, bfq=self._bfq())
        self._limit(resources, fresh=False)
        if "devices" in resources:
            self._limit_devices(resources["devices"] or ())

    def remove(self) -> None:
        """Remove it and what was made below it, waiting a little for dying processes; not there is fine."""
        first: OSError | None = None
        if self.scope is not None and any(map(cgroup.exists, self.directories)):  # else systemd was faster
            from wherry.runtime import scoping

            scoping.stop(self.scope)
        for directory in self.directories:
            try:
                cgroups_tree.remove(directory)
            except OSError as error:
                first = first or error
        if first is not None:
            raise first

    def mount_sources(self) -> MountSources:
        """Return what to mount at /sys/fs/cgroup in the container."""
        if self._layout.version == 2:
            return MountSources(2, (("", self._unified),))
        binds, links = [], []
        for hierarchy, directory in zip(self._layout.hierarchies, self.directories, strict=True):
            name = hierarchy.mount.rpartition("/")[2]
            binds.append((name, directory))
            links += [(each, name) for each in hierarchy.controllers if each != name and "=" not in each]
        return MountSources(1, tuple(binds), tuple(links))

    def _limit(self, resources: Resources, *, fresh: bool) -> None:
        if self._layout.version == 2:
            found = cgroups_v2.writes(resources, bfq=self._bfq())
            if fresh:
                needed = cgroups_v2.controllers(found)
                cgroups_tree.enable(self._layout.hierarchies[-1], self.path, needed, others=self.scope is None)
            for file, text in found:
                cgroup.write(f"{self._unified}/{file}", text)
            return
        cpu = resources.get("cpu") or {}
        if "cpuset" in self._by_controller:
            cgroups_tree.cpuset(self._by_controller["cpuset"], cpu.get("cpus"), cpu.get("mems"), fresh=fresh)
        bfq = bool(resources.get("blockIO")) and self._bfq()
        for controller, file, text in cgroups_v1.writes(resources, swap_limit=self._swap_limit(fresh), bfq=bfq):
            self._write_old(self._file(controller, file), text)

    def _bfq(self) -> bool:
        """Whether block weights belong to that scheduler's own files; known once the group is there."""
        if self._layout.version == 2:
            return cgroup.exists(self._unified + "/io.bfq.weight")
        return "blkio" in self._by_controller and cgroup.exists(self._file("blkio", "blkio.bfq.weight"))

    def _write_old(self, path: str, text: str) -> None:
        try:
            cgroup.write(path, text)
        except OSError as error:
            if error.errno == errno.EINVAL and path.endswith("/cpu.rt_runtime_us"):
                why = f"write {text!r}: more than the groups above have: see --cpu-rt-runtime of the engine"
                raise OSError(errno.EINVAL, why, path) from error
            raise

    def _swap_limit(self, fresh: bool) -> int:
        directory = self._by_controller.get("memory", "")
        path = f"{directory}/memory.memsw.limit_in_bytes"
        if fresh or not directory or not cgroup.exists(path):
            return cgroups_v1.UNLIMITED
        return int(cgroup.read(path))

    def _file(self, controller: str, name: str) -> str:
        """Return the path of a controller's file; raises OSError when the controller is not mounted."""
        directory = self._by_controller.get(controller)
        if directory is None:
            raise OSError(errno.ENOENT, f"the {controller} controller is not mounted", name)
        return f"{directory}/{name}"

    def _limit_devices(self, rules: Any) -> None:
        allowed = permissions(rules)
        if self._layout.version == 2:
            bpf_device.attach(self._unified, bpf_device.program(allowed.allow_all, list(allowed.entries.items())))
        elif "devices" in self._by_controller:
            directory = self._by_controller["devices"]
            whole, entries = allowed.texts()
            cgroup.write(f"{directory}/{whole}", "a")
            if entries:
                other = "devices.deny" if allowed.allow_all else "devices.allow"
                cgroup.write(f"{directory}/{other}", *entries)
        else:
            raise OSError(errno.ENOENT, "the devices controller is not mounted", "devices.deny")


def grant_realtime(path: str, period: int, runtime: int, *, layout: Layout | None = None) -> None:
    """Let the real-time processes below a group, and below its parents, run for `runtime` in each `period` (us).

    Version 1 with CONFIG_RT_GROUP_SCHED only: there a group has what its parents have been given. 0 leaves a value.
    Raises OSError with the path: EINVAL when a parent, at last the kernel's sched_rt_runtime_us, has less.
    """
    directory = Cgroup.open(path, layout=layout).directory("cpu")
    hierarchy = next(each for each in (layout or detect()).hierarchies if "cpu" in each.controllers)
    if directory is None or not cgroup.exists(f"{hierarchy.mount}/cpu.rt_runtime_us"):
        raise OSError(errno.ENOENT, "the kernel has no real-time budgets of groups", "cpu.rt_runtime_us")
    cgroups_tree.make_parents(hierarchy, directory)
    group = hierarchy.mount
    for part in checked_path(path).strip("/").split("/"):
        group = f"{group}/{part}"
        for name, value in (("cpu.rt_period_us", period), ("cpu.rt_runtime_us", runtime)):
            if value and int(cgroup.read(f"{group}/{name}")) != value:
                cgroup.write(f"{group}/{name}", str(value))


def remove_empty(path: str, *, layout: Layout | None = None) -> None:
    """Remove a parent of containers' groups where nothing is in it any more."""
    for directory in Cgroup.open(path, layout=layout).directories:
        try:
            os.rmdir(directory)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EBUSY, errno.ENOTEMPTY):
                raise


def checked_path(path: str) -> str:
    """Return an OCI cgroupsPath with a leading slash; raises OSError EINVAL for one that leaves its hierarchy."""
    parts = path.strip("/").split("/")
    if any(part in ("", ".", "..") or "\0" in part or len(part) > 255 for part in parts):
        raise OSError(errno.EINVAL, "not a path below the root of a cgroup hierarchy", path)
    return "/" + "/".join(parts)
