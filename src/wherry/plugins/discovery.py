"""Finding plugins: sockets and descriptions in folders.

    FOLDER/NAME.sock, FOLDER/NAME/NAME.sock     a socket
    FOLDER/NAME.spec, FOLDER/NAME/NAME.spec     one line: unix:///PATH, tcp://HOST:PORT, http://..., https://...
    FOLDER/NAME.json, FOLDER/NAME/NAME.json     {"Addr": "https://HOST:PORT", "TLSConfig": {"CAFile": ...}}
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from wherry.errors import NotFound
from wherry.models.base import Model
from wherry.plugins.api import PluginSilent, Roots

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
DESCRIPTION_LIMIT = 64 << 10


class Tls(Model, frozen=True):
    """How a plugin is recognised, and how we are, by files."""

    insecure_skip_verify: bool = False
    ca_file: str = msgspec.field(default="", name="CAFile")
    cert_file: str = ""
    key_file: str = ""


class Description(Model, frozen=True):
    """A description in JSON."""

    name: str = ""
    addr: str = ""
    tls_config: Tls | None = msgspec.field(default=None, name="TLSConfig")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a plugin is: path of a socket, or host and port. identity changes when a socket was made anew."""

    path: str = ""
    host: str = ""
    port: int = 0
    tls: Tls | None = None
    identity: tuple[int, ...] = ()


def find(roots: Roots, name: str) -> Address:
    """Return where a plugin is; raises NotFound, PluginSilent for a description that says nothing."""
    if NAME.fullmatch(name):
        for folder in roots.sockets:
            for path in _places(folder, name, ".sock"):
                found = _socket(path)
                if found is not None:
                    return found
        for folder in roots.descriptions:
            for end in (".spec", ".json"):
                for path in _places(folder, name, end):
                    text = _read(path)
                    if text is not None:
                        return _described(name, path, text)
    raise NotFound(f'plugin "{name}" not found')


def names(roots: Roots) -> list[str]:
    """Return the names that plugins can be found by, in order. What cannot be read has none."""
    found = set()
    for folders, ends in ((roots.sockets, (".sock",)), (roots.descriptions, (".spec", ".json"))):
        for folder in folders:
            for entry in _listed(folder):
                base, end = os.path.splitext(entry)
                if end in ends:
                    found.add(base)
                elif any((folder / entry / f"{entry}{each}").exists() for each in ends):
                    found.add(entry)
    return sorted(name for name in found if NAME.fullmatch(name))


def _listed(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _places(folder: Path, name: str, end: str) -> Iterator[Path]:
    yield folder / f"{name}{end}"
    yield folder / name / f"{name}{end}"


def _socket(path: Path) -> Address | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISSOCK(status.st_mode):
        return None
    return Address(path=str(path), identity=(status.st_dev, status.st_ino, status.st_ctime_ns))


def _read(path: Path) -> bytes | None:
    """Return a description, None when there is none. Not a fifo, which would let us wait."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PluginSilent(f"cannot read {path}: {error.strerror}") from error
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        data = file.read(DESCRIPTION_LIMIT + 1)
    if len(data) > DESCRIPTION_LIMIT:
        raise PluginSilent(f"{path}: larger than {DESCRIPTION_LIMIT} bytes")
    return data


def _described(name: str, path: Path, data: bytes) -> Address:
    try:
        if path.suffix == ".json":
            given = msgspec.json.decode(data, type=Description)
            return _address(given.addr, given.tls_config)
        return _address(data.decode().strip(), None)
    except (ValueError, msgspec.DecodeError) as error:
        raise PluginSilent(f"cannot use plugin {name}: {path}: {error}") from error


def _address(url: str, tls: Tls | None) -> Address:
    """Return what a URL means; raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        path = parts.netloc + parts.path
        if not path.startswith("/") or "\0" in path:
            raise ValueError(f"not the path of a socket: {url!r}")
        return _socket(Path(path)) or Address(path=path)
    if parts.scheme not in ("tcp", "http", "https") or not parts.hostname:
        raise ValueError(f"not an address (unix:///path, tcp://host:port): {url!r}")
    if parts.scheme != "https":
        return Address(host=parts.hostname, port=parts.port or 80)
    return Address(host=parts.hostname, port=parts.port or 443, tls=tls or Tls())
