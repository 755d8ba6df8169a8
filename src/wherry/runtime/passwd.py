"""Who a container's process is: user[:group] looked up in the image's own passwd and group files.

    "name", "name:group"   by name; HOME and, without ":group", the supplementary groups come with it
    "1000", "1000:1000"    exactly these numbers; a line that has "1000" for a name is not meant (CVE-2016-3697)
    "", ":group"           user 0

We parse the files ourselves: libc's functions would load code from the image (nsswitch.conf). The files are the
image's, so they are read bounded, only when regular, and resolved inside the root. The texts are dockerd's.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator

from wherry.kernel.pathsafe import open_path, read_regular
from wherry.runtime.setup import Identity, SetupError, reason

LIMIT = 2 * 1024 * 1024
MAXIMUM_ID = 2**31 - 1
_RANGE = f"uids and gids must be in range 0-{MAXIMUM_ID}"


class Accounts:
    """The passwd and group files below one root, each read at most once, and only when asked for."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._passwd: list[list[bytes]] | None = None
        self._group: list[list[bytes]] | None = None

    def passwd(self) -> list[list[bytes]]:
        """Return the well-formed lines of /etc/passwd, split."""
        if self._passwd is None:
            self._passwd = list(_lines(self._read("/etc/passwd"), 7, (2, 3)))
        return self._passwd

    def group(self) -> list[list[bytes]]:
        """Return the well-formed lines of /etc/group, split."""
        if self._group is None:
            self._group = list(_lines(self._read("/etc/group"), 4, (2,)))
        return self._group

    def remember(self) -> None:
        """Have the kernel know both files, or that they are not there, for who must not ask their file system.

        See `accountfiles`.
        """
        for path in ("/etc/passwd", "/etc/group"):
            try:
                os.close(open_path(self._root, path))
            except OSError:  # who needs it says so
                continue

    def _read(self, path: str) -> bytes:
        try:
            return read_regular(self._root, path, LIMIT)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR):  # e.g. a volume at its place
                return b""
            detail = error.strerror if error.errno in (errno.EINVAL, errno.EFBIG) else reason(error)
            raise SetupError(f"cannot look up users in {path}: {detail}", error.errno or 0, path) from error

    def home(self, uid: int) -> str:
        """Return the home directory of the first entry of a user id, or ""."""
        entry = self._by_uid(uid)
        return entry[5].decode(errors="surrogateescape") if entry else ""

    def _by_uid(self, uid: int) -> list[bytes] | None:
        return next((entry for entry in self.passwd() if int(entry[2]) == uid), None)

    def identify(self, text: str, additional: Iterable[str] = ()) -> Identity:
        """Resolve a USER string and further groups; raises `SetupError` with dockerd's text."""
        user, _, group = text.partition(":")
        uid = number(user) if user else 0
        entry = self._by_uid(uid) if uid is not None else self._by_name(user)
        if uid is None:
            if entry is None:
                raise SetupError(f"unable to find user {user}: no matching entries in passwd file")
            uid = int(entry[2])
        if group:
            gid = self._gid(group)
            groups = [gid]
        else:
            gid = int(entry[3]) if entry else 0
            groups = [gid, *(self._memberships(entry[0]) if entry else ())]
        groups += [self._gid(each) for each in additional]
        home = entry[5].decode(errors="surrogateescape") if entry else ""
        return Identity(uid, gid, tuple(dict.fromkeys(groups)), home)

    def _by_name(self, name: str) -> list[bytes] | None:
        wanted = name.encode(errors="surrogateescape")
        return next((entry for entry in self.passwd() if entry[0] == wanted), None)

    def _gid(self, text: str) -> int:
        gid = number(text)
        if gid is not None:
            return gid
        wanted = text.encode(errors="surrogateescape")
        for entry in self.group():
            if entry[0] == wanted:
                return int(entry[2])
        raise SetupError(f"unable to find group {text}: no matching entries in group file")

    def _memberships(self, name: bytes) -> list[int]:
        return [int(entry[2]) for entry in self.group() if name in entry[3].split(b",")]


def number(text: str) -> int | None:
    """Return an id that is written as a number, None for a name; raises `SetupError` out of range.

    Only ASCII digits count: int() would also take full-width digits and "1_0", and a kernel id wraps.
    """
    digits = text[1:] if text[:1] in ("-", "+") else text
    if not digits.isascii() or not digits.isdigit():
        return None
    if text != digits or len(digits) > 10 or int(digits) > MAXIMUM_ID:
        raise SetupError(_RANGE)
    return int(digits)


def _lines(data: bytes, fields: int, numeric: tuple[int, ...]) -> Iterator[list[bytes]]:
    """The lines that have all fields and in-range numbers where numbers belong; others are passed over, as by libc."""
    for line in data.split(b"\n"):
        entry = line.strip().split(b":")
        if len(entry) == fields and entry[0] and all(_is_id(entry[index]) for index in numeric):
            yield entry


def _is_id(text: bytes) -> bool:
    return text.isdigit() and len(text) <= 10 and int(text) <= MAXIMUM_ID
