"""The files of one log: the current one and the older ones, and finding them while they are rotated.

PATH is the newest; PATH.1, PATH.2 ... are older, each perhaps compressed as PATH.1.gz. The supervisor renames them
(runtime/logdrivers/rotation.py) while we look, so names are only believed when they are the same before and after the
files were opened. What is open stays readable, whatever becomes of its name.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import zlib
from dataclasses import dataclass

from wherry.errors import SystemFailure
from wherry.runtime.logdrivers.rotation import origin

_TRIES = 200
_CHUNK = 1 << 18
_HEAD = 64
_SHORT = 1 << 12


@dataclass(slots=True)
class LogFile:
    """An open file of a log. inode: of the file as the supervisor wrote it, whether compressed since or not."""

    descriptor: int
    inode: int
    compressed: bool

    def hold(self) -> None:
        """Show the supervisor that this file is being read: it keeps what is newer a little longer for us."""
        fcntl.flock(self.descriptor, fcntl.LOCK_SH)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self.descriptor)


def names(path: str) -> dict[int, tuple[str, int]]:
    """Return the names of the files by number, 0 the current one, each with the inode that it has now."""
    found: dict[int, tuple[str, int]] = {}
    folder, base = os.path.split(path)
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return found
    for entry in entries:
        number = _number(entry.name, base)
        if number is None or (number in found and entry.name.endswith(".gz")):
            continue  # of a file that is being replaced by its compressed form, the former is there until the end
        found[number] = (entry.path, entry.inode())
    return found


def _number(name: str, base: str) -> int | None:
    if name == base:
        return 0
    text = name.removeprefix(f"{base}.").removesuffix(".gz")
    return int(text) if name.startswith(f"{base}.") and text.isdecimal() else None


def open_newer(path: str, known: int) -> list[LogFile]:
    """Open the files that are newer than the one with the inode `known`, oldest first; all when it is 0 or gone."""
    for _ in range(_TRIES):
        before = names(path)
        opened: list[LogFile] = []
        for number in sorted(before):  # from the newest on
            file = _open(before[number][0])
            if file is None or (known and file.inode == known):
                if file is not None:
                    file.close()
                break
            opened.insert(0, file)
        if names(path) == before:
            return opened
        for file in opened:
            file.close()
    raise SystemFailure(f"cannot read the log {path}: it is rotated faster than it can be opened")


def _open(path: str) -> LogFile | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SystemFailure(f"cannot read the log {path}: {error.strerror}") from error
    if path.endswith(".gz"):
        return LogFile(descriptor, origin(os.pread(descriptor, _HEAD, 0)), compressed=True)
    return LogFile(descriptor, os.fstat(descriptor).st_ino, compressed=False)


def head(file: LogFile, size: int) -> bytes:
    """Return the first `size` bytes of the content of a file, or what there is; raises SystemFailure."""
    if not file.compressed:
        return os.pread(file.descriptor, size, 0)
    inflate = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    offset, content = 0, b""
    try:
        while len(content) < size and (chunk := os.pread(file.descriptor, _SHORT, offset)):
            offset += len(chunk)
            content += inflate.decompress(chunk, size - len(content))
    except zlib.error as error:
        raise SystemFailure(f"cannot read a compressed log: {error}") from error
    return content


def expand(file: LogFile) -> None:
    """Put the content of a compressed file in its place, in a file without a name; raises SystemFailure."""
    if not file.compressed:
        return
    inflate = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    offset = 0
    with tempfile.TemporaryFile() as target:
        try:
            while chunk := os.pread(file.descriptor, _CHUNK, offset):
                offset += len(chunk)
                target.write(inflate.decompress(chunk))
            target.write(inflate.flush())
            target.flush()
        except (OSError, zlib.error) as error:
            raise SystemFailure(f"cannot read a compressed log: {error}") from error
        os.dup2(target.fileno(), file.descriptor, inheritable=False)
    file.compressed = False
