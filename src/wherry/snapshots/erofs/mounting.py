"""The mounts of layers: each one once, in a mount namespace that nobody lives in, for all containers that stand on it.

    engine's descriptors                    zygote, first processes of containers
      the namespace  -------- inherited --->  enter it, make the overlay of a start, detached, and leave (ops_mounts)
      the root of each layer's mount          (an overlay has its own copy of each mount that it was made of)

The kernel unmounts a layer when nobody has the namespace and no overlay is made of it any more: after a crash there is
nothing to unmount, and unmounting disturbs no container. What is mounted comes when it is first needed, and goes
when the layer is removed, or when there are more than MOST and it was not needed for a while.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from wherry.kernel import const, loop, mountapi
from wherry.kernel.aside import aside
from wherry.kernel.namespaces import setns, unshare
from wherry.snapshots.erofs.format import TABLE_END, tar_length

T = TypeVar("T")

MOST = 512
QUIET = 600.0
"""Seconds: whoever was told of a mount has used it by then."""

_ATTRIBUTES = const.MOUNT_ATTR_RDONLY | const.MOUNT_ATTR_NOSUID | const.MOUNT_ATTR_NODEV
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW


class LayerMounts:
    """The mounted layers of one driver. `find` says where a layer's mount point, index and tar are."""

    def __init__(self, find: Callable[[str], tuple[Path, Path, Path]], *, by_files: bool | None = None) -> None:
        """by_files forces the form of the mounts, for tests: of files (Linux 6.12), or of loop devices."""
        self.namespace = aside(_new_namespace)
        self.by_files = by_files
        self._find = find
        self._lock = threading.Lock()
        self._mounted: OrderedDict[str, tuple[int, float]] = OrderedDict()
        """Chain ID -> a descriptor of the root of its mount, and when it was last needed."""

    def close(self) -> None:
        """Unmount everything that no container is made of."""
        with self._lock:
            for fd, _ in self._mounted.values():
                os.close(fd)
            self._mounted.clear()
            if self.namespace >= 0:
                os.close(self.namespace)
                self.namespace = -1

    def need(self, chains: Iterable[str]) -> None:
        """Mount the layers that are not mounted. Raises OSError."""
        with self._lock:
            self._need(chains)

    def _need(self, chains: Iterable[str]) -> None:
        now = time.monotonic()
        missing = []
        for chain in chains:
            if chain in self._mounted:
                self._mounted[chain] = self._mounted[chain][0], now
                self._mounted.move_to_end(chain)
            else:
                missing.append(chain)
        if missing:
            self._inside(lambda: self._mount(missing, now))

    def _mount(self, chains: Iterable[str], now: float) -> None:
        for chain in chains:
            place, index, tar = self._find(chain)
            target = os.open(place, const.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                _check_length(index, tar)
                tree = self._make(index, tar)
                self._mounted[chain] = tree, now
                mountapi.move_mount(tree, target, str(place))
            finally:
                os.close(target)
        self._thin_out(now)

    def _thin_out(self, now: float) -> None:
        while len(self._mounted) > MOST:
            chain, (_, needed) = next(iter(self._mounted.items()))
            if now - needed < QUIET:
                return
            self._unmount(chain)

    def _make(self, index: Path, tar: Path) -> int:
        """Return the mount of an index, detached."""
        if self.by_files is not False:
            try:
                tree = make_layer(str(index), str(tar))
            except OSError as error:
                if error.errno != errno.ENOTBLK or self.by_files:
                    raise
            else:
                self.by_files = True
                return tree
        self.by_files = False
        with ExitStack() as opened:
            devices = []
            for path in (index, tar):
                file = os.open(path, _OPEN)
                opened.callback(os.close, file)
                device, name = loop.attach(file)
                opened.callback(os.close, device)
                devices.append(name)
            return make_layer(*devices)

    def forget(self, chain: str) -> None:
        """Unmount a layer, if it is mounted. Raises OSError."""
        with self._lock:
            if chain in self._mounted:
                self._inside(lambda: self._unmount(chain))

    def _unmount(self, chain: str) -> None:
        fd, _ = self._mounted.pop(chain)
        try:
            mountapi.umount2(f"/proc/self/fd/{fd}", const.MNT_DETACH)
        except OSError as error:
            if error.errno != errno.EINVAL:  # the kernel has, when somebody removed the mount point
                raise
        finally:
            os.close(fd)

    @contextmanager
    def seen(self, chains: Iterable[str]) -> Iterator[list[Path]]:
        """Give paths at which this process sees the layers, mounted or not, for as long as the block takes."""
        wanted = list(chains)
        with ExitStack() as opened:
            with self._lock:
                self._need(wanted)
                fds = [os.dup(self._mounted[chain][0]) for chain in wanted]
            for fd in fds:
                opened.callback(os.close, fd)
            yield [Path(f"/proc/self/fd/{fd}") for fd in fds]

    def _inside(self, work: Callable[[], T]) -> T:
        """Do work in the namespace, from a thread that ends with it."""

        def job() -> T:
            unshare(const.CLONE_FS)  # who shares root and working directory with others cannot enter, setns(2)
            setns(self.namespace, const.CLONE_NEWNS)
            return work()

        return aside(job)


def _new_namespace() -> int:
    """Return a descriptor of a new mount namespace; what the host unmounts goes in here as well."""
    unshare(const.CLONE_FS | const.CLONE_NEWNS)
    root = os.open("/", const.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mountapi.mount_setattr(root, 0, propagation=const.MS_SLAVE, recursive=True)
    finally:
        os.close(root)
    return os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)


def _check_length(index: Path, tar: Path) -> None:
    """Raise OSError when a tar has fewer bytes than when it was read: the kernel would show zeros instead of them."""
    fd = os.open(index, _OPEN)
    try:
        needed = tar_length(os.pread(fd, TABLE_END, 0))
    finally:
        os.close(fd)
    if os.stat(tar).st_size < needed:
        raise OSError(errno.EIO, f"the tar of a layer has lost bytes: of {needed}", str(tar))


def make_layer(index: str, tar: str) -> int:
    """Return a detached mount of an EROFS index whose further device is a tar; both files (6.12) or block devices.

    Raises OSError: ENOTBLK from a kernel that mounts block devices only.
    """
    with ExitStack() as opened:
        context = mountapi.fsopen("erofs")
        opened.callback(os.close, context)
        for key, path in (("source", index), ("device", tar)):
            if len(os.fsencode(path)) > const.FSCONFIG_STRING_MAX:
                fd = os.open(path, _OPEN)
                opened.callback(os.close, fd)
                path = f"/proc/self/fd/{fd}"
            mountapi.fsconfig_string(context, key, path)
        mountapi.fsconfig_flag(context, "ro")  # or a read-only block device answers EACCES
        return mountapi.fsmount(context, _ATTRIBUTES)
