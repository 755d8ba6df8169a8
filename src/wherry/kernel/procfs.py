"""Another process as /proc/PID shows it: proc(5), proc_pid_status(5), proc_pid_stat(5), and so on.

The folder is opened once: a descriptor of it stays that process's, so that a number which was given to another process
meanwhile cannot mislead a reader. Once the process is gone, every file of it fails with ESRCH (or ENOENT, ENXIO).
What a process decides itself (its name, its arguments) is bytes of a stranger: bounded here, and never a path to
follow. Nothing is read through cwd, root or fd.
"""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass

LIMIT = 4 << 20
"""Bytes of one file at most; a table of 30,000 sockets has as many."""
GONE = frozenset({errno.ESRCH, errno.ENOENT, errno.ENXIO})
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mounted:
    """One line of mountinfo. root: which part of the file system is mounted. source: in the words of who mounted it.

    options: of this mount; super_options: of the file system. device: "major:minor".
    """

    id: int
    parent: int
    device: str
    root: str
    target: str
    options: tuple[str, ...]
    propagation: tuple[str, ...]
    type: str
    source: str
    super_options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stat:
    """What of stat is asked for. state: a letter of proc_pid_stat(5). start_time: ticks since boot."""

    name: str
    state: str
    parent: int
    threads: int
    start_time: int
    user_ticks: int
    system_ticks: int


class Process:
    """An opened /proc/PID. Close it, or use it as a context; every method raises OSError, ESRCH when it is gone."""

    __slots__ = ("_fd", "pid")

    def __init__(self, pid: int) -> None:
        """Open the folder; raises OSError ENOENT when there is no such process."""
        self.pid = pid
        self._fd = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def read(self, name: str, limit: int = LIMIT) -> bytes:
        """Return the first `limit` bytes of a file of the folder."""
        try:
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=self._fd)
        except OSError as error:
            raise OSError(error.errno, f"open: {error.strerror}", f"/proc/{self.pid}/{name}") from error
        try:
            parts: list[bytes] = []
            while limit > 0 and (part := os.read(fd, min(limit, 1 << 16))):
                parts.append(part)
                limit -= len(part)
        except OSError as error:
            raise OSError(error.errno, f"read: {error.strerror}", f"/proc/{self.pid}/{name}") from error
        finally:
            os.close(fd)
        return b"".join(parts)

    def text(self, name: str, limit: int = LIMIT) -> str:
        """Return a file as text; bytes that are not UTF-8 become lone surrogates."""
        return self.read(name, limit).decode(errors="surrogateescape")

    def lines(self, name: str, limit: int = LIMIT) -> list[str]:
        """Return the lines of a table; what is beyond the limit, and the line it cuts, are left out."""
        data = self.read(name, limit)
        whole = data[: data.rfind(b"\n") + 1] if len(data) >= limit else data
        return whole.decode(errors="surrogateescape").split("\n")[: -1 if whole.endswith(b"\n") else None]

    def open_namespace(self, kind: str) -> int:
        """Return a descriptor of one of its namespaces, named as in `NAMESPACES`."""
        return os.open(f"ns/{kind}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._fd)

    def namespace(self, kind: str) -> int:
        """Return the inode number of a namespace: what readlink shows in brackets (namespaces(7))."""
        return os.stat(f"ns/{kind}", dir_fd=self._fd).st_ino

    def status(self) -> dict[str, str]:
        """Return the lines of status by their names."""
        lines = (line.partition(":") for line in self.text("status").splitlines())
        return {name: value.strip() for name, _, value in lines}

    def stat(self) -> Stat:
        """Return what stat says; the name may hold spaces and parentheses."""
        before, _, after = self.text("stat", 8192).rpartition(")")
        fields = after.split()
        return Stat(
            name=before.partition("(")[2],
            state=fields[0],
            parent=int(fields[1]),
            threads=int(fields[17]),
            start_time=int(fields[19]),
            user_ticks=int(fields[11]),
            system_ticks=int(fields[12]),
        )

    def arguments(self, limit: int = 4096) -> list[str]:
        """Return the words of cmdline, cut after `limit` bytes; none for a kernel thread or a zombie."""
        words = self.read("cmdline", limit).rstrip(b"\0").split(b"\0")
        return [word.decode(errors="surrogateescape") for word in words] if words != [b""] else []

    def limits(self) -> list[tuple[str, str, str, str]]:
        """Return (limit, soft, hard, unit) of each resource limit, in the kernel's words (getrlimit(2))."""
        lines = self.text("limits").splitlines()[1:]
        return [(line[:26].strip(), line[26:47].strip(), line[47:68].strip(), line[68:].strip()) for line in lines]

    def groups(self) -> list[tuple[str, str]]:
        """Return (controllers, path) of its control groups; controllers is "" for version 2 (cgroups(7))."""
        lines = (line.split(":", 2) for line in self.text("cgroup").splitlines())
        return [(fields[1], fields[2]) for fields in lines]

    def mounts(self) -> list[Mounted]:
        """Return its mounts in the order in which they were made."""
        return [parse_mount(line) for line in self.lines("mountinfo")]

    def id_map(self, name: str) -> list[tuple[int, int, int]]:
        """Return (inside, outside, how many) of uid_map or gid_map (user_namespaces(7))."""
        rows = []
        for line in self.text(name).splitlines():
            inside, outside, count = line.split()
            rows.append((int(inside), int(outside), int(count)))
        return rows

    def label(self, name: str = "current") -> str:
        """Return a label of a Linux security module; "" when none gives any (EINVAL, or no such file)."""
        try:
            return self.text(f"attr/{name}", 4096).rstrip("\0\n")
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                return ""
            raise

    def clock_offsets(self) -> list[tuple[str, int, int]]:
        """Return (clock, seconds, nanoseconds) of its time namespace (time_namespaces(7)); none before 5.6."""
        try:
            lines = self.text("timens_offsets").splitlines()
        except OSError as error:
            if error.errno == errno.ENOENT:
                return []
            raise
        return [(name, int(seconds), int(rest)) for name, seconds, rest in (line.split() for line in lines)]

    def children(self) -> list[int]:
        """Return the children of its first thread (5.x with CONFIG_PROC_CHILDREN); none without."""
        try:
            return [int(word) for word in self.text(f"task/{self.pid}/children").split()]
        except OSError as error:
            if error.errno in GONE:
                return []
            raise

    def socket_inodes(self, limit: int) -> set[int]:
        """Return the inode numbers of the sockets among its first `limit` descriptors; links are read, not followed."""
        try:
            folder = os.open("fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._fd)
        except OSError as error:
            if error.errno in GONE:
                return set()
            raise
        found = set()
        try:
            for name in os.listdir(folder)[:limit]:
                try:
                    link = os.readlink(name, dir_fd=folder)
                except OSError as error:
                    if error.errno in GONE:
                        continue
                    raise
                if link.startswith("socket:["):
                    found.add(int(link[8:-1]))
        finally:
            os.close(folder)
        return found


def parse_mount(line: str) -> Mounted:
    """Return one line of mountinfo (proc_pid_mountinfo(5)); raises ValueError for what is none."""
    before, separator, after = line.partition(" - ")
    if not separator:
        raise ValueError(f"not a line of mountinfo: {line!r}")
    fields, rest = before.split(" "), after.split(" ")
    return Mounted(
        id=int(fields[0]),
        parent=int(fields[1]),
        device=fields[2],
        root=unescaped(fields[3]),
        target=unescaped(fields[4]),
        options=tuple(fields[5].split(",")),
        propagation=tuple(fields[6:]),
        type=rest[0],
        source=unescaped(rest[1]),
        super_options=tuple(unescaped(each) for each in rest[2].split(",")) if len(rest) > 2 else (),
    )


def unescaped(text: str) -> str:
    """Undo the octal escapes of mount tables: space, tab, newline, backslash and number sign."""
    return _ESCAPE.sub(lambda found: chr(int(found[1], 8)), text)
