"""The files of sandboxes: RUN_ROOT/netns/SANDBOX, the NetworkSettings.SandboxKey of clients, for nsenter and ip netns.

    sandbox made       an empty file, which holds nothing
    container started  `begin`; a moment later, or when somebody asks for the path, the namespace is mounted on the file
    container ended    its supervisor unlinks the file, with or without an engine: unlink(2) of a file that is a mount
                       point in another mount namespace only takes the mounts away (since Linux 3.18, detach_mounts);
                       the engine, in whose mount namespace it is one, unmounts and unlinks when it hears of the end

So a namespace has a mount only while its container lives, whoever is killed when: nothing can be mounted on a file that
has been unlinked (ENOENT), and what is left of an engine that was killed is empty files, which the next one deletes.
A start waits for none of this, and a container that ends within a moment never gets a mount.

The folder is a mount of itself and private. Otherwise each mount in it would be copied into every mount namespace that
receives mounts from the host's, and be a mount point for supervisors too, who could not unlink it (EBUSY).
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from wherry.errors import SystemFailure
from wherry.kernel import const, mountapi, netns
from wherry.kernel.netlink.socket import NetlinkSocket
from wherry.network.workshop import Job

log = logging.getLogger(__name__)

NAME_LENGTH = 12
HOST = "default"
"""The file of the host's own namespace, for containers with --network host."""

PAUSE = 0.05
"""Seconds after a start until its namespace is mounted: later than the stock is refilled, which starts wait for."""

_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW


class SandboxFiles:
    """Thread-safe. All but `show_soon` and `path` block for some microseconds, or when many mounts change at once."""

    def __init__(self, run_root: Path) -> None:
        """Touch nothing until `open`."""
        self._folder = run_root / "netns"
        self._lock = threading.Lock()
        self._soon: dict[str, tuple[int, float]] = {}
        """Sandbox ID -> a descriptor of its namespace, and when to mount it."""

    # The life of an engine

    def open(self) -> None:
        """Make the folder and the file of the namespace that this thread is in. Raises SystemFailure."""
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            if not _is_mount(self._folder):
                _mount_on_itself(self._folder)
            host = netns.current()
            try:
                self._delete(HOST)  # of another engine, maybe in another namespace
                self._make(HOST)
                self._mount(HOST, host)
            finally:
                os.close(host)
        except OSError as error:
            raise SystemFailure(f"cannot set up {self._folder}: {error}") from error

    def restore(self, alive: Mapping[str, str], open_namespace: Callable[[str], int | None]) -> None:
        """See to the files of these sandboxes, which belong to running containers, and delete all others.

        alive: container by sandbox. A file that is missing, or was not mounted any more, is made.
        """
        known = {_name(sandbox_id) for sandbox_id in alive} | {HOST}
        for name in os.listdir(self._folder):
            if name not in known:
                self._delete(name)
        for sandbox_id, container in alive.items():
            fd = open_namespace(container)
            if fd is None:
                continue
            try:
                self._make(_name(sandbox_id))
                self._mount(_name(sandbox_id), fd)
            except OSError as error:
                log.error("no file for a sandbox", extra={"container": container, "error": str(error)})
            finally:
                os.close(fd)

    def close(self) -> None:
        """Leave what running containers have, for the next engine, else take the folder away. Idempotent."""
        if not self._folder.exists():
            return
        for sandbox_id in tuple(self._soon):
            self._show(sandbox_id)
        if set(os.listdir(self._folder)) - {HOST}:
            return
        self._delete(HOST)
        mountapi.umount2(str(self._folder), const.MNT_DETACH)
        self._folder.rmdir()

    # The life of a sandbox

    def path(self, sandbox_id: str) -> str:
        """Return where the file of a sandbox is, or will be."""
        return str(self._folder / _name(sandbox_id))

    @property
    def of_host(self) -> str:
        """The file of the host's namespace."""
        return str(self._folder / HOST)

    def make(self, sandbox_id: str) -> None:
        """Make the file of a new sandbox, empty. Raises OSError (EEXIST: another sandbox has that name)."""
        os.close(os.open(self.path(sandbox_id), _OPEN | os.O_CREAT | os.O_EXCL, 0o444))

    def show_soon(self, sandbox_id: str, netns_fd: int) -> None:
        """The container runs, and its supervisor knows the file: mount the namespace when there is time."""
        with self._lock:
            self._soon[sandbox_id] = os.dup(netns_fd), time.monotonic() + PAUSE

    def shown(self, sandbox_id: str) -> str:
        """Return the path of the file, which has the namespace by now; "" when it cannot be made."""
        return self.path(sandbox_id) if self._show(sandbox_id) else ""

    def remove(self, sandbox_ids: Iterable[str]) -> None:
        """Delete the files of sandboxes that are over. Idempotent. Raises OSError."""
        for sandbox_id in sandbox_ids:
            with self._lock:
                fd, _ = self._soon.pop(sandbox_id, (-1, 0.0))
            if fd >= 0:
                os.close(fd)
            self._delete(_name(sandbox_id))

    def next_chore(self) -> tuple[Job | None, float | None]:
        """Return the next mount that is due, else after how many seconds to ask again."""
        with self._lock:
            if not self._soon:
                return None, None
            sandbox_id, (_, due) = next(iter(self._soon.items()))
        pause = due - time.monotonic()
        if pause > 0:
            return None, pause

        def show(_netlink: NetlinkSocket) -> None:
            self._show(sandbox_id)

        return show, None

    def _show(self, sandbox_id: str) -> bool:
        """Mount a namespace that waits for it; False when that is impossible."""
        with self._lock:  # until it is mounted: whoever asks meanwhile wants to find it mounted
            fd, _ = self._soon.pop(sandbox_id, (-1, 0.0))
            if fd < 0:
                return True
            try:
                self._mount(_name(sandbox_id), fd)
            except FileNotFoundError:
                return False  # it has ended
            except OSError as error:
                log.error("no file for a sandbox", extra={"sandbox": sandbox_id, "error": str(error)})
                return False
            else:
                return True
            finally:
                os.close(fd)

    # One file

    def _make(self, name: str) -> None:
        os.close(os.open(self._folder / name, _OPEN | os.O_CREAT, 0o444))

    def _mount(self, name: str, fd: int) -> None:
        """Mount a namespace on its file, unless it is there. Raises OSError (ENOENT: unlinked)."""
        path = self._folder / name
        target = os.open(path, const.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            if os.path.sameopenfile(target, fd):
                return
            tree = mountapi.clone_fd(fd)
            try:
                mountapi.move_mount(tree, target, str(path))
            finally:
                os.close(tree)
        finally:
            os.close(target)

    def _delete(self, name: str) -> None:
        path = self._folder / name
        try:
            mountapi.umount2(str(path), const.MNT_DETACH | const.UMOUNT_NOFOLLOW)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT):  # no mount, no file
                raise
        with suppress(FileNotFoundError):
            os.unlink(path)


def _name(sandbox_id: str) -> str:
    return sandbox_id[:NAME_LENGTH]


def _mount_on_itself(folder: Path) -> None:
    fd = os.open(folder, const.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        tree = mountapi.clone_fd(fd)
        try:
            mountapi.move_mount(tree, fd, str(folder))
            mountapi.mount_setattr(tree, 0, propagation=const.MS_PRIVATE)
        finally:
            os.close(tree)
    finally:
        os.close(fd)


def _is_mount(folder: Path) -> bool:
    """Whether a folder is the root of a mount, also of one of the same file system."""
    return _mount_id(folder) != _mount_id(folder.parent)


def _mount_id(folder: Path) -> str:
    fd = os.open(folder, const.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        lines: Collection[str] = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
    finally:
        os.close(fd)
    return next(line for line in lines if line.startswith("mnt_id:"))
