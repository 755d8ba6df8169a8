"""What a volume's options make of it: a directory of ours, one of the host, or a file system to be mounted.

The options are those of mount(8): type, device, and o for the rest. "size" is for quotas, see `quotas`.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace

from wherry.errors import InvalidArgument, SystemFailure
from wherry.volumes import quotas
from wherry.volumes.records import LOCAL

NEEDS = {"device": ("type",), "type": ("device",), "o": ("device", "type"), "size": ()}
"""The options that there are, and those without which one means nothing."""

SIZE = re.compile(r"\d+(\.\d+)?\s*([kmgtpKMGTP]?([iI]?[bB])?)\Z", re.ASCII)

_FLAGS = {
    "ro": 0x1, "nosuid": 0x2, "nodev": 0x4, "noexec": 0x8, "sync": 0x10, "remount": 0x20, "mand": 0x40,
    "dirsync": 0x80, "noatime": 0x400, "nodiratime": 0x800, "bind": 0x1000, "rbind": 0x5000,
    "relatime": 0x200000, "strictatime": 0x1000000,
}  # fmt: skip
_CLEARED = {
    "rw": 0x1, "suid": 0x2, "dev": 0x4, "exec": 0x8, "async": 0x10, "nomand": 0x40, "atime": 0x400,
    "diratime": 0x800, "norelatime": 0x200000, "nostrictatime": 0x1000000, "defaults": 0,
}  # fmt: skip
"""MS_* of mount(2), uapi/linux/mount.h."""

NETWORKED = frozenset({"nfs", "nfs4", "cifs"})
SHARE = re.compile(r"//(?P<name>[^/]+)(?P<path>.*)\Z", re.DOTALL)
SECRET = re.compile(r"((?:^|,)password=)[^,]*")
MS_BIND = 0x1000
_ATTRIBUTES = {"ro": "rro", "nosuid": "nosuid", "nodev": "nodev", "noexec": "noexec"}
_REFUSED = frozenset({"remount", "private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable"})


@dataclass(frozen=True, slots=True)
class Backing:
    """What lies behind a volume.

    device: "" for a directory of ours. flags: MS_* of mount(2); with MS_BIND `device` is a directory of the host and
    `attributes` are what its mount in a container has on top. data: what the file system itself is told. driver: the
    plugin that mounts it, "" for the local driver.
    """

    fstype: str = ""
    device: str = ""
    flags: int = 0
    data: str = ""
    attributes: tuple[str, ...] = ()
    driver: str = ""

    @property
    def plain(self) -> bool:
        """A directory of ours."""
        return not self.device and not self.fstype and not self.driver

    @property
    def bind(self) -> bool:
        """A directory of the host."""
        return bool(self.flags & MS_BIND)

    @property
    def mounted(self) -> bool:
        """A file system that has to be mounted."""
        return not self.plain and not self.bind and not self.driver

    @property
    def while_used(self) -> bool:
        """There only while a container that has it runs."""
        return self.mounted or bool(self.driver)

    def complaint(self, place: str, reason: str) -> str:
        """Return dockerd's sentence for a mount at `place` that failed, without the password that it was tried with."""
        flags = f", flags: {self.flags:#x}" if self.flags else ""
        told = SECRET.sub(r"\1********", self.data)
        data = f", data: {told}" if told else ""
        mount = f"mount {self.device}:{place}{flags}{data}: {reason}"
        return f"error while mounting volume '{place}': failed to mount local volume: {mount}"


def resolved(behind: Backing, place: str) -> Backing:
    """Return a network file system with its server's address in place of its name, as the kernel wants it. Blocks.

    The server is named by "addr=", or by the device of cifs. Raises SystemFailure with dockerd's text.
    """
    if behind.fstype not in NETWORKED:
        return behind
    words = behind.data.split(",")
    named = [word for word in words if word.startswith("addr=") and not _is_address(word.removeprefix("addr="))]
    if named:
        address = _address(named[0].removeprefix("addr="), place)
        data = ",".join(f"addr={address}" if word == named[0] else word for word in words)
        return replace(behind, data=data)
    server = SHARE.match(behind.device) if behind.fstype == "cifs" else None
    if server and not _is_address(server["name"]):
        return replace(behind, device=f"//{_address(server['name'], place)}{server['path']}")
    return behind


def _address(name: str, place: str) -> str:
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # UnicodeError: a label of more than 63 characters, or none
        reason = error.strerror if isinstance(error, OSError) else "no such host"
        raise SystemFailure(
            f"error while mounting volume '{place}': error resolving passed in network volume address: "
            f"lookup {name}: {reason}"
        ) from error
    return sorted((family != socket.AF_INET, str(address[0])) for family, _, _, _, address in found)[0][1]


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def check(name: str, options: Mapping[str, str]) -> None:
    """Raise InvalidArgument, with dockerd's text, for options that no volume can have."""
    for option, value in options.items():
        if option not in NEEDS:
            raise InvalidArgument(f'create {name}: invalid option: "{option}"')
        if "\0" in value:
            raise InvalidArgument(f'create {name}: option "{option}" has a NUL byte in it')
    for option, needed in NEEDS.items():
        for other in needed if option in options else ():
            if other not in options:
                raise InvalidArgument(f'create {name}: missing required option: "{other}"')
    if "size" in options:
        _check_size(name, options)
    for word in options.get("o", "").split(","):
        if word in _REFUSED:
            raise InvalidArgument(f'create {name}: option "{word}" cannot be used for a volume')


def _check_size(name: str, options: Mapping[str, str]) -> None:
    if not SIZE.match(options["size"]) or quotas.parse_size(options["size"]) > quotas.LARGEST:
        raise InvalidArgument(f"create {name}: invalid size: '{options['size']}'")
    if len(options) > 1:
        raise InvalidArgument(f"create {name}: quota size requested but no quota support for what is mounted")


def of(options: Mapping[str, str] | None, driver: str = LOCAL) -> Backing:
    """Return what checked options mean; those of another driver mean something to that one alone."""
    if driver != LOCAL:
        return Backing(driver=driver)
    given = options or {}
    flags = 0
    data: list[str] = []
    for word in filter(None, given.get("o", "").split(",")):
        if word in _FLAGS:
            flags |= _FLAGS[word]
        elif word in _CLEARED:
            flags &= ~_CLEARED[word]
        else:
            data.append(word)
    device, fstype = given.get("device", ""), given.get("type", "")
    if not device and not fstype:
        return Backing()
    attributes = tuple(words for word, words in _ATTRIBUTES.items() if flags & _FLAGS[word])
    return Backing(fstype, device, flags, ",".join(data), attributes)
