"""Steps that mount. A tree is made detached, its target is opened below the root, and one is put on the other.

Sources on the host are opened before the root changes; what was opened is what gets mounted. Targets are found with
the container's root as the root (`pathsafe`), so a link in an image or in a shared volume leads nowhere else
(CVE-2021-30465, CVE-2024-45310, CVE-2026-41579).
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass

from wherry.kernel import const, mountapi, namespaces, pathsafe
from wherry.runtime import places
from wherry.runtime.cgroups import MountSources
from wherry.runtime.mountoptions import Options
from wherry.runtime.ops_volumes import copy_up, fill_empty
from wherry.runtime.setup import Operation, Setup, SetupError, close, reason

PROC_ALLOWED = {
    "/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat", "/proc/swaps", "/proc/uptime",
    "/proc/loadavg", "/proc/slabinfo", "/proc/sys/kernel/ns_last_pid", "/proc/sys/crypto/fips_enabled",
}  # fmt: skip
"""What may be replaced inside /proc: files that say nothing about what is confined how (lxcfs replaces them)."""

_PROC_ROOT_INODE = 1
_MISMATCH = (
    ": Are you trying to mount a directory onto a file (or vice-versa)? "
    "Check if the specified host path exists and is the expected type"
)


def make_filesystem(fstype: str, source: str, data: tuple[str, ...], attributes: int) -> int:
    """Return a new file system as a detached mount."""
    context = mountapi.fsopen(fstype)
    try:
        if source:
            mountapi.fsconfig_string(context, "source", source)
        for key, value in settings(fstype, data):
            _configure(context, key, value)
        return mountapi.fsmount(context, attributes)
    finally:
        os.close(context)


def settings(fstype: str, data: tuple[str, ...]) -> list[tuple[str, str | None]]:
    """Options as (key, value). Overlay's list of lower directories becomes one setting each: a value has 255 bytes."""
    settings: list[tuple[str, str | None]] = []
    for word in data:
        key, equals, value = word.partition("=")
        if fstype == "overlay" and key == "lowerdir":
            settings += [("lowerdir+", each) for each in _split_lower(value)]
        else:
            settings.append((key, value if equals else None))
    return settings


def _split_lower(value: str) -> list[str]:
    """Split at the colons that are not escaped, and take the escapes out: "lowerdir+" takes a plain path."""
    parts = value.replace("\\\\", "\0").replace("\\:", "\1").split(":")
    return [part.replace("\1", ":").replace("\0", "\\") for part in parts]


def _configure(context: int, key: str, value: str | None) -> None:
    if value is None:
        mountapi.fsconfig_flag(context, key)
    elif len(os.fsencode(value)) <= const.FSCONFIG_STRING_MAX:
        mountapi.fsconfig_string(context, key, value)
    else:  # a long path: as a descriptor, which overlayfs takes since 6.13
        fd = os.open(value, const.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            mountapi.fsconfig_fd(context, key, fd)
        finally:
            os.close(fd)


def apply_options(tree: int, options: Options) -> None:
    """Give a detached mount its attributes and propagation; all in one call when they reach equally deep."""
    on, off = options.attributes, options.cleared
    deep_on, deep_off = options.recursive_attributes, options.recursive_cleared
    propagation = options.propagation
    if (deep_on or deep_off) or (propagation and options.propagation_recursive):
        mountapi.mount_setattr(
            tree, deep_on, clear=deep_off,
            propagation=propagation if options.propagation_recursive else 0, recursive=True,
        )  # fmt: skip
        propagation = 0 if options.propagation_recursive else propagation
    if on or off or propagation:
        mountapi.mount_setattr(tree, on, clear=off, propagation=propagation)


@dataclass(slots=True)
class MountFilesystem(Operation):
    """Make a file system and mount it below the root."""

    fstype: str
    source: str
    target: str
    options: Options
    made: bool = False
    """Whether the directory was not in the image; then a tmpfs has the kernel's own mode, 1777."""

    def describe(self) -> str:
        return f'error mounting "{self.source or self.fstype}" to rootfs at "{self.target}"'

    def run(self, setup: Setup) -> None:
        target = self._open_target(setup)
        try:
            tree = self._make(setup, target)
            apply_options(tree, Options(propagation=self.options.propagation))
            mountapi.move_mount(tree, target, self.target)
        finally:
            os.close(target)
        self._keep(setup, tree)

    def _open_target(self, setup: Setup) -> int:
        if self.fstype not in ("proc", "sysfs"):
            try:
                target = pathsafe.open_path(setup.root, self.target, directory=True)
            except FileNotFoundError:
                target = places.directory(setup, self.target)
                self.made = True
            check_outside_proc(target, self.target)
            return target
        try:
            # A link would put them where the masks and labels that go by path do not reach: CVE-2023-27561
            return pathsafe.open_path(
                setup.root, self.target, directory=True, resolve=pathsafe.IN_ROOT | const.RESOLVE_NO_SYMLINKS
            )
        except FileNotFoundError:
            return places.directory(setup, self.target)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
            message = f'filesystem "{self.fstype}" must be mounted on ordinary directory'
            raise SetupError(f"{self.describe()}: {message}", error.errno, self.target) from error

    def _make(self, setup: Setup, target: int) -> int:
        options = self.options
        if self.fstype == "proc" and not options.data and setup.procfs >= 0 and self.target == "/proc":
            mountapi.mount_setattr(setup.procfs, options.attributes)
            return setup.procfs
        data = options.data
        if self.fstype == "tmpfs" and not self.made and not any(word.startswith("mode=") for word in data):
            data += (f"mode={stat.S_IMODE(os.fstat(target).st_mode):o}",)  # the image's, as for a directory of its own
        if setup.ids is not None:
            tree = _make_for(setup, self.fstype, self.source, data, options.attributes)
        else:
            tree = make_filesystem(self.fstype, self.source, data, options.attributes)
        if options.copy_up:
            copy_up(target, tree)
        return tree

    def _keep(self, setup: Setup, tree: int) -> None:
        """Later steps work in some of the mounts; the others' descriptors are of no more use."""
        if self.target == "/dev":
            close(setup.dev)
            setup.dev = tree
        elif self.target == "/dev/pts" and self.fstype == "devpts":
            close(setup.devpts)
            setup.devpts = tree
        elif tree != setup.procfs:
            os.close(tree)


def _make_for(setup: Setup, fstype: str, source: str, data: tuple[str, ...], attributes: int) -> int:
    """Return a new file system, detached, that belongs to a container with a user namespace; see `ops_users`."""
    assert setup.ids is not None
    words = setup.ids.settings(data)
    if fstype not in ("proc", "sysfs"):
        tree = make_filesystem(fstype, source, words, attributes)
        if fstype == "mqueue":  # made by the kernel when the namespace was, or by root
            os.chown(".", setup.ids.uid(0), setup.ids.gid(0), dir_fd=tree)
        return tree
    with namespaces.visiting_mounts(setup.outside, setup.procfs):
        return make_filesystem(fstype, source, words, attributes)


@dataclass(slots=True)
class BindMount(Operation):
    """Mount what `OpenSources` opened under `key`."""

    key: int
    source: str
    target: str
    options: Options

    def describe(self) -> str:
        return f'error mounting "{self.source}" to rootfs at "{self.target}"'

    def run(self, setup: Setup) -> None:
        tree = setup.sources.pop(self.key)
        try:
            directory = stat.S_ISDIR(os.fstat(tree).st_mode)
            if self.options.copy_up and directory:
                fill_empty(setup.root, self.target, tree)
            apply_options(tree, self.options)
            target = self._open_target(setup, directory)
            try:
                check_outside_proc(target, self.target, tree)
                if not directory and stat.S_ISDIR(os.fstat(target).st_mode):
                    raise OSError(errno.ENOTDIR, "the source is a file", self.target)  # the kernel says EINVAL
                mountapi.move_mount(tree, target, self.target)
            finally:
                os.close(target)
        finally:
            os.close(tree)

    def _open_target(self, setup: Setup, directory: bool) -> int:
        if directory:
            return places.directory(setup, self.target)
        return places.file(setup, self.target)

    def explain(self, error: OSError) -> str:
        """Add the question that helps most people, in the words they find when they search for it."""
        hint = _MISMATCH if error.errno == errno.ENOTDIR else ""
        return f"{self.describe()}: {reason(error)}{hint}"


@dataclass(slots=True)
class MountCgroups(Operation):
    """Show the container its own control groups: a file system (version 2) or a tmpfs of binds (version 1).

    own: a new cgroup namespace, in which version 2 is mounted anew. The tmpfs stays writable, as with runc: programs
    make directories for further version 1 hierarchies in it.
    """

    layout: MountSources
    first_key: int
    target: str
    options: Options
    own: bool

    def describe(self) -> str:
        return f'error mounting "cgroup" to rootfs at "{self.target}"'

    def run(self, setup: Setup) -> None:
        target = places.directory(setup, self.target)
        check_outside_proc(target, self.target)
        if self.layout.version == 2:
            tree = make_filesystem("cgroup2", "cgroup", (), 0) if self.own else setup.sources.pop(self.first_key)
            apply_options(tree, self.options)
            mountapi.move_mount(tree, target, self.target)
            os.close(tree)
        else:
            self._fill(setup, target)
        os.close(target)

    def _fill(self, setup: Setup, target: int) -> None:
        attributes = self.options.attributes & ~const.MOUNT_ATTR_RDONLY
        top = make_filesystem("tmpfs", "tmpfs", ("mode=755",), attributes)
        mountapi.move_mount(top, target, self.target)
        for offset, (name, _) in enumerate(self.layout.binds):
            tree = setup.sources.pop(self.first_key + offset)
            apply_options(tree, self.options)
            os.mkdir(name, 0o755, dir_fd=top)
            place = os.open(name, const.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
            mountapi.move_mount(tree, place, f"{self.target}/{name}")
            os.close(place)
            os.close(tree)
        for name, link in self.layout.links:
            os.symlink(link, name, dir_fd=top)
        os.close(top)


def check_outside_proc(target: int, path: str, source: int = -1) -> None:
    """Refuse a mount at /proc, or over procfs or inside it wherever links led, but for `PROC_ALLOWED`.

    A procfs may lie there (-v /proc:/proc). Our own later writes, and the program's view of how it is
    confined, go through there (CVE-2019-16884).
    """
    inside = pathsafe.filesystem_magic(target) == const.PROC_SUPER_MAGIC
    if path != "/proc" and (not inside or path in PROC_ALLOWED):
        return
    over = path == "/proc" or _is_proc_root(target)
    if over and source >= 0 and _is_proc_root(source):
        return
    why = "it is not of type proc" if over else "it is inside /proc"
    raise OSError(errno.EPERM, f"{path} (cannot be mounted because {why})", path)


def _is_proc_root(fd: int) -> bool:
    return os.fstat(fd).st_ino == _PROC_ROOT_INODE and pathsafe.filesystem_magic(fd) == const.PROC_SUPER_MAGIC
