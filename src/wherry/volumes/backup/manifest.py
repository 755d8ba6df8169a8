"""What was in a volume at a moment: a line of JSON for each file, and what changed since another moment. PURE.

    {"path": "a/b", "kind": "file", "mode": 420, "uid": 0, "gid": 0, "mtime": NS, "size": 5, "digest": HEX,
     "ctime": NS, "inode": 42, "attributes": HEX}

kind: file, folder, link (`target` is what it says), hard (`target` is the path of the same file), pipe, character or
block (`target` is MAJOR:MINOR). digest: of the content, see `digest`. attributes: SHA-256 of the extended attributes,
"" without any. A path that is not UTF-8 has "path64" instead, its bytes in base 64. Lines are in the order of the walk,
so two manifests are compared in one pass over both, and of neither anything is kept in memory.

ctime and inode are of the machine on which it was made: together with size and mtime they say that nobody has written
to a file since. On another machine, or after a restoration, they say nothing, and content is compared by its digest.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable, Iterator
from typing import IO

import msgspec

from wherry.errors import InvalidArgument

FILE, FOLDER, LINK, HARD, PIPE, CHARACTER, BLOCK = "file", "folder", "link", "hard", "pipe", "character", "block"

LONGEST = 64 << 10
"""Bytes of one line: a path of 4096 in base 64, and a link's target."""


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One file of a volume. Times in ns, size in bytes."""

    kind: str
    path: str = ""
    path64: str = ""
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    size: int = 0
    digest: str = ""
    target: str = ""
    attributes: str = ""
    ctime: int = 0
    inode: int = 0

    @property
    def name(self) -> bytes:
        """The path as the file system has it, "" for the volume's root."""
        return base64.b64decode(self.path64, validate=True) if self.path64 else self.path.encode()

    def differs(self, other: Line) -> list[str]:
        """Return the fields in which two differ, leaving out those that belong to a machine."""
        return [field for field in _FACTS if getattr(self, field) != getattr(other, field)]

    def untouched(self, other: Line) -> bool:
        """Whether nobody has written to the file that this was, on this machine, when it looks like `other` now."""
        mine, its = ((each.kind, each.ctime, each.inode, each.size, each.mtime) for each in (self, other))
        return bool(other.ctime) and mine == its


def named(name: bytes) -> dict[str, str]:
    """Return the fields of a line that tell its path."""
    try:
        return {"path": name.decode()}
    except UnicodeDecodeError:
        return {"path64": base64.b64encode(name).decode()}


def shown(name: bytes) -> str:
    """Return a path as a line tells it."""
    fields = named(name)
    return fields.get("path") or fields.get("path64", "")


def place(name: bytes) -> list[str]:
    """Return where a path stands in the order of the walk: a directory, then what is in it, names as Python sorts."""
    return os.fsdecode(name).split("/") if name else []


_FACTS = tuple(field for field in Line.__struct_fields__ if field not in ("ctime", "inode"))
replace = msgspec.structs.replace
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Line)


def encode(line: Line) -> bytes:
    """Return a line of the manifest."""
    return _encoder.encode(line) + b"\n"


def read(file: IO[bytes]) -> Iterator[Line]:
    """Yield the lines of a manifest; raises InvalidArgument for what is none."""
    number = 0
    while text := file.readline(LONGEST):
        number += 1
        try:
            if not text.endswith(b"\n"):
                raise ValueError("too long, or cut off")
            line = _decoder.decode(text)
            place(line.name)
        except (msgspec.MsgspecError, ValueError) as error:
            raise InvalidArgument(f"line {number} of the manifest cannot be read: {error}") from error
        yield line


def ordered(lines: Iterable[Line]) -> Iterator[Line]:
    """Yield lines that are in the order of the walk, each path once; raises InvalidArgument for others."""
    before: list[str] | None = None
    for line in lines:
        here = place(line.name)
        if before is not None and here <= before:
            raise InvalidArgument(f"the manifest is not in order at {line.path or line.path64!r}")
        before = here
        yield line


def digest_of(attributes: dict[bytes, bytes] | None) -> str:
    """Return what stands for extended attributes in a line."""
    if not attributes:
        return ""
    text = b"".join(b"%d %b %d %b" % (len(key), key, len(value), value) for key, value in sorted(attributes.items()))
    return hashlib.sha256(text).hexdigest()
