"""Tar archives for tests: made by the standard library where it can, by hand where they must be wrong."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable
from typing import Any

Member = tuple[tarfile.TarInfo, bytes]


def file(name: str, data: bytes = b"", *, xattrs: dict[str, str] | None = None, **fields: Any) -> Member:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    info.mode = 0o644
    return _with(info, xattrs, fields), data


def folder(name: str, *, xattrs: dict[str, str] | None = None, **fields: Any) -> Member:
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE
    info.mode = 0o755
    return _with(info, xattrs, fields), b""


def link(name: str, target: str, *, xattrs: dict[str, str] | None = None, **fields: Any) -> Member:
    return _special(name, tarfile.SYMTYPE, xattrs, {"linkname": target, **fields})


def hard(name: str, target: str, **fields: Any) -> Member:
    return _special(name, tarfile.LNKTYPE, None, {"linkname": target, **fields})


def node(name: str, kind: bytes, major: int = 0, minor: int = 0, **fields: Any) -> Member:
    return _special(name, kind, None, {"devmajor": major, "devminor": minor, **fields})


def _special(name: str, kind: bytes, xattrs: dict[str, str] | None, fields: dict[str, Any]) -> Member:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.mode = 0o644
    return _with(info, xattrs, fields), b""


def _with(info: tarfile.TarInfo, xattrs: dict[str, str] | None, fields: dict[str, Any]) -> tarfile.TarInfo:
    for name, value in fields.items():
        setattr(info, name, value)
    for name, value in (xattrs or {}).items():
        info.pax_headers[f"SCHILY.xattr.{name}"] = value
    return info


def archive(members: Iterable[Member], *, form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def header(name: bytes, *, size: int = 0, kind: bytes = b"0", link: bytes = b"", mode: bytes = b"0000644\0") -> bytes:
    """One header block with a right checksum, whatever else is wrong with it."""
    block = bytearray(512)
    block[0 : len(name)] = name
    block[100:108] = mode
    block[108:124] = b"0000000\0" * 2
    block[124:136] = b"%011o\0" % size
    block[136:148] = b"00000000000\0"
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[157 : 157 + len(link)] = link
    block[257:265] = b"ustar\x0000"
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


END = bytes(1024)


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def config_of(layers: list[bytes], **more: Any) -> bytes:
    document = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2024-05-06T07:08:09.123456789Z",
        "config": {"Cmd": ["sh"], "Env": ["A=b"], "Labels": {"a": "b"}},
        "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
        "history": [{"created": "2024-05-06T07:08:09Z", "created_by": f"step {n}"} for n in range(len(layers))],
    }
    return json.dumps(document | more).encode()


def docker_archive(layers: list[bytes], tags: list[str], *, config: bytes | None = None) -> bytes:
    """What docker save writes, with the manifest at its end."""
    return docker_archives([(layers, tags, config_of(layers) if config is None else config)])


def docker_archives(images: list[tuple[list[bytes], list[str], bytes]]) -> bytes:
    members: dict[str, bytes] = {}
    entries = []
    for layers, tags, config in images:
        names = [f"blobs/sha256/{digest(layer)[7:]}" for layer in layers]
        config_name = f"blobs/sha256/{digest(config)[7:]}"
        members |= dict(zip(names, layers, strict=True)) | {config_name: config}
        entries.append({"Config": config_name, "RepoTags": tags, "Layers": names})
    members["manifest.json"] = json.dumps(entries).encode()
    return archive(file(name, data) for name, data in members.items())
