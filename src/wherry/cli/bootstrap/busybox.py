"""A base image from the machine's static busybox: the program, a link for each of its applets, and a few files."""

from __future__ import annotations

import io
import os
import shutil
import struct
import subprocess
import tarfile

from wherry.cli.bootstrap.archive import layer_writer
from wherry.cli.failures import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

RUN = {"Cmd": ["sh"], "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}
_FOLDERS = {
    "bin": 0o755, "dev": 0o755, "etc": 0o755, "home": 0o755, "proc": 0o755, "root": 0o700, "sbin": 0o755, "sys": 0o755,
    "tmp": 0o1777, "usr": 0o755, "usr/bin": 0o755, "usr/sbin": 0o755, "var": 0o755, "var/spool": 0o755,
    "var/spool/mail": 0o755, "var/www": 0o755,
}  # fmt: skip
_USERS = (
    "root:0:root:/root:/bin/sh", "daemon:1:daemon:/usr/sbin:/bin/false", "bin:2:bin:/bin:/bin/false",
    "sys:3:sys:/dev:/bin/false", "mail:8:mail:/var/spool/mail:/bin/false", "www-data:33:www-data:/var/www:/bin/false",
    "nobody:65534:nobody:/home:/bin/false",
)  # fmt: skip
_GROUPS = (
    "root:0", "daemon:1", "bin:2", "sys:3", "adm:4", "tty:5", "disk:6", "mail:8", "www-data:33", "users:100",
    "nogroup:65534",
)  # fmt: skip
_PROGRAM_INTERPRETER = 3  # PT_INTERP of elf(5)
_ADVICE = "install Debian's busybox-static, or another busybox that is linked statically"


def build(target: IO[bytes], date: int | None) -> int:
    """Write the layer; return its date (Unix s): the one given, or that of the program.

    Raises Failure when there is no busybox that works without libraries.
    """
    program = find()
    with open(program, "rb") as file:
        data = file.read()
    if not is_static(data):
        raise Failure(f"{program} needs libraries, so it cannot be a whole image: {_ADVICE}")
    when = int(os.stat(program).st_mtime) if date is None else date
    members = _members(data, applets(program))
    with layer_writer(target) as tar:
        for info, content in sorted(members, key=lambda each: each[0].name):
            info.mtime = when
            tar.addfile(info, io.BytesIO(content))
    return when


def find() -> str:
    """The path of the machine's busybox. Raises Failure."""
    found = shutil.which("busybox")
    if not found:
        raise Failure(f"there is no busybox on this machine: {_ADVICE}")
    return os.path.realpath(found)


def is_static(data: bytes) -> bool:
    """Whether an ELF program names no interpreter, i.e. needs no libraries; elf(5), 64 and 32 bits."""
    if data[:4] != b"\x7fELF" or len(data) < 64:
        return False
    order = "<" if data[5] == 1 else ">"
    at, pointer, sizes = (32, "Q", 54) if data[4] == 2 else (28, "I", 42)
    (table,) = struct.unpack_from(order + pointer, data, at)
    size, count = struct.unpack_from(f"{order}HH", data, sizes)
    try:
        kinds = [struct.unpack_from(f"{order}I", data, table + index * size)[0] for index in range(count)]
    except (struct.error, OverflowError):
        return False
    return _PROGRAM_INTERPRETER not in kinds


def applets(program: str) -> list[str]:
    """Where busybox says that its applets are: "bin/ls". Raises Failure."""
    try:
        ran = subprocess.run([program, "--list-full"], capture_output=True, text=True, check=True, env={}, timeout=10)
    except (OSError, subprocess.SubprocessError) as error:
        raise Failure(f"{program} does not tell its applets: {error}") from error
    places = {line.strip() for line in ran.stdout.splitlines()}
    return sorted(place for place in places if os.path.dirname(place) in _FOLDERS and ".." not in place)


def _members(program: bytes, places: list[str]) -> list[tuple[tarfile.TarInfo, bytes]]:
    members = [(_info(name, tarfile.DIRTYPE, mode), b"") for name, mode in _FOLDERS.items()]
    members.append((_info("bin/busybox", tarfile.REGTYPE, 0o755, len(program)), program))
    for name, text in _files().items():
        mode = 0o640 if name == "etc/shadow" else 0o644
        members.append((_info(name, tarfile.REGTYPE, mode, len(text)), text.encode()))
    for place in places:
        if place != "bin/busybox":
            link = _info(place, tarfile.SYMTYPE, 0o777)
            link.linkname = "busybox" if place.startswith("bin/") else "/bin/busybox"
            members.append((link, b""))
    return members


def _files() -> dict[str, str]:
    users = [line.split(":", 2) for line in _USERS]
    return {
        "etc/group": "".join(f"{name}:x:{number}:\n" for name, number in (line.split(":") for line in _GROUPS)),
        "etc/passwd": "".join(f"{name}:x:{number}:{number}:{rest}\n" for name, number, rest in users),
        "etc/shadow": "".join(f"{name}:*:::::::\n" for name, _, _ in users),
    }


def _info(name: str, kind: bytes, mode: int, size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.size = kind, mode, size
    return info
