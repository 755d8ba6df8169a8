"""Steps that fill /dev, hide and protect paths, and give the container a terminal."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass

from wherry.kernel import const, mountapi, pathsafe, terminal
from wherry.runtime import channel, places
from wherry.runtime.ops_mounts import make_filesystem
from wherry.runtime.setup import Operation, Setup, SetupError, close

_NULL = os.makedev(1, 3)
_EMPTY = ("ro", "size=4k", "nr_inodes=1")
_STRICT = pathsafe.IN_ROOT | const.RESOLVE_NO_SYMLINKS


@dataclass(slots=True)
class Device:
    """A device node: mode has the type bits."""

    path: str
    mode: int
    number: int
    uid: int = 0
    gid: int = 0


@dataclass(slots=True)
class MakeDevices(Operation):
    """Make the device nodes and links of /dev."""

    devices: tuple[Device, ...]
    links: tuple[tuple[str, str], ...]

    def describe(self) -> str:
        return "make the devices"

    def run(self, setup: Setup) -> None:
        if setup.dev < 0:
            setup.dev = places.directory(setup, "/dev")
        for device in self.devices:
            self._make(setup, device)
        links = self.links
        if setup.procfs >= 0 and _exists(setup.procfs, "kcore"):
            links += (("core", "/proc/kcore"),)
        for name, target in links:
            try:
                os.symlink(target, name, dir_fd=setup.dev)
            except FileExistsError:
                pass  # no tmpfs at /dev, so the image has its own

    def _make(self, setup: Setup, device: Device) -> None:
        folder, _, name = device.path.rpartition("/")
        parent = setup.dev if folder == "/dev" else places.directory(setup, folder)
        try:
            os.mknod(name, device.mode, device.number, dir_fd=parent)
        except FileExistsError:
            state = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_IFMT(state.st_mode) != stat.S_IFMT(device.mode) or state.st_rdev != device.number:
                raise SetupError(f"{device.path} is there and is another device", errno.EEXIST, device.path) from None
        if device.uid or device.gid:
            uid, gid = device.uid, device.gid
            if setup.ids is not None:
                uid, gid = setup.ids.uid(uid), setup.ids.gid(gid)
            os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False)
        if parent != setup.dev:
            os.close(parent)


def _exists(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


@dataclass(slots=True)
class MakeTerminal(Operation):
    """Make a terminal from the container's own devpts and send its master side; with `console` it is /dev/console.

    Neither side is ever opened by a name that an image could have put a link at (CVE-2025-52565).
    """

    rows: int
    columns: int
    console: bool

    def describe(self) -> str:
        return "make the terminal"

    def run(self, setup: Setup) -> None:
        devpts = setup.devpts if setup.devpts >= 0 else _open_devpts(setup.root)
        master = terminal.open_master(devpts)
        setup.terminal = terminal.open_peer(master)
        if self.rows or self.columns:
            terminal.set_size(master, self.rows, self.columns)
        if self.console:
            self._bind_console(setup)
        channel.send(setup.sync, {"console": True}, [master])
        os.close(master)
        os.close(devpts)
        setup.devpts = -1

    def _bind_console(self, setup: Setup) -> None:
        try:
            target = pathsafe.open_path(setup.root, "/dev/console", resolve=_STRICT)
        except FileNotFoundError:
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            os.close(os.open("console", flags, 0o600, dir_fd=setup.dev))
            target = pathsafe.open_path(setup.root, "/dev/console", resolve=_STRICT)
        tree = mountapi.clone_fd(setup.terminal)
        mountapi.move_mount(tree, target, "/dev/console")
        os.close(tree)
        os.close(target)


def _open_devpts(root: int) -> int:
    """The container's devpts, which must be one: anything can be mounted there by now."""
    devpts = pathsafe.open_path(root, "/dev/pts", directory=True, resolve=_STRICT)
    if pathsafe.filesystem_magic(devpts) != const.DEVPTS_SUPER_MAGIC:
        os.close(devpts)
        raise SetupError("/dev/pts is not a devpts file system", errno.EINVAL, "/dev/pts")
    return devpts


@dataclass(slots=True)
class MaskPaths(Operation):
    """Hide paths: files behind /dev/null, directories behind one empty read-only tmpfs that all of them share."""

    paths: tuple[str, ...]

    def describe(self) -> str:
        return "mask paths"

    def run(self, setup: Setup) -> None:
        null = empty = -1
        for path in self.paths:
            try:
                target = pathsafe.open_path(setup.root, path)
            except (FileNotFoundError, NotADirectoryError):
                continue  # this kernel has no such file: there is nothing to hide
            if not stat.S_ISDIR(os.fstat(target).st_mode):
                null = null if null >= 0 else _open_null(setup)
                tree = mountapi.clone_fd(null)
            elif empty >= 0:
                tree = mountapi.clone_fd(empty)
            else:
                # Put to use itself: closing a mount that is attached nowhere waits for RCU
                tree = empty = make_filesystem("tmpfs", "tmpfs", _EMPTY, const.MOUNT_ATTR_RDONLY)
            mountapi.move_mount(tree, target, path)
            if tree != empty:
                os.close(tree)
            os.close(target)
        close(null)
        close(empty)


def _open_null(setup: Setup) -> int:
    """The container's /dev/null, checked after it was opened: an image can bring another one (CVE-2025-31133)."""
    if setup.dev >= 0:
        null = os.open("null", const.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=setup.dev)
    else:
        null = pathsafe.open_path(setup.root, "/dev/null", resolve=_STRICT)
    state = os.fstat(null)
    if not stat.S_ISCHR(state.st_mode) or state.st_rdev != _NULL:
        raise SetupError("/dev/null of the container is not the null device", errno.EINVAL, "/dev/null")
    return null


@dataclass(slots=True)
class ReadonlyPaths(Operation):
    """Make paths read-only by mounting them on themselves."""

    paths: tuple[str, ...]

    def describe(self) -> str:
        return "make paths read-only"

    def run(self, setup: Setup) -> None:
        for path in self.paths:
            try:
                target = pathsafe.open_path(setup.root, path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            tree = mountapi.clone_fd(target, const.AT_RECURSIVE)
            mountapi.mount_setattr(tree, const.MOUNT_ATTR_RDONLY, recursive=True)
            mountapi.move_mount(tree, target, path)
            os.close(tree)
            os.close(target)


@dataclass(slots=True)
class FinishRoot(Operation):
    """Make the root read-only, and give it the propagation that the spec asks for."""

    readonly: bool
    propagation: int

    def describe(self) -> str:
        return "make the root file system read-only" if self.readonly else "set the root's propagation"

    def run(self, setup: Setup) -> None:
        attributes = const.MOUNT_ATTR_RDONLY if self.readonly else 0
        mountapi.mount_setattr(setup.root, attributes, propagation=self.propagation)


@dataclass(slots=True)
class MakeWorkingDirectory(Operation):
    """Make the working directory when the image lacks it, as dockerd does for WORKDIR."""

    path: str

    def describe(self) -> str:
        return f"mkdir {self.path}"

    def run(self, setup: Setup) -> None:
        try:
            os.close(places.directory(setup, self.path))
        except NotADirectoryError as error:
            raise SetupError(f"Cannot mkdir: {self.path} is not a directory", errno.ENOTDIR, self.path) from error
