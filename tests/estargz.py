"""A writer of eStargz layers for tests: a gzip member for each file's data, the table of contents, the footer."""

from __future__ import annotations

import base64
import gzip
import io
import json
import struct
import tarfile
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tests.liars import descriptor
from tests.registries import Registry
from tests.tars import END, Member, config_of, digest, padded

TOC_DIGEST = "containerd.io/snapshot/stargz/toc.digest"
_KINDS = {
    tarfile.REGTYPE: "reg", tarfile.DIRTYPE: "dir", tarfile.SYMTYPE: "symlink", tarfile.LNKTYPE: "hardlink",
    tarfile.CHRTYPE: "char", tarfile.BLKTYPE: "block", tarfile.FIFOTYPE: "fifo",
}  # fmt: skip
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
Table = dict[str, Any]


@dataclass(frozen=True)
class Estargz:
    """blob: compressed. tar: what it unpacks to. table: the JSON. end: where its member begins."""

    blob: bytes
    tar: bytes
    table: bytes
    end: int

    @property
    def annotations(self) -> dict[str, str]:
        return {TOC_DIGEST: digest(self.table)}


class _Blob:
    """What has been written: finished gzip members, and the plain bytes of the one to come."""

    def __init__(self) -> None:
        self.plain = io.BytesIO()
        self.blob = io.BytesIO()
        self._member = b""

    def add(self, data: bytes) -> None:
        self.plain.write(data)
        self._member += data

    def cut(self) -> int:
        """End the member; return where the next one begins."""
        if self._member:
            self.blob.write(gzip.compress(self._member, 6, mtime=0))
        self._member = b""
        return self.blob.tell()


def footer(offset: int) -> bytes:
    extra = b"SG" + struct.pack("<H", 22) + b"%016xSTARGZ" % offset
    head = b"\x1f\x8b\x08\x04" + bytes(4) + b"\0\xff" + struct.pack("<H", len(extra))
    return head + extra + b"\x01\x00\x00\xff\xff" + bytes(8)


def estargz(
    members: Iterable[Member], *, chunk: int = 1 << 22, change: Callable[[Table], Any] | None = None,
    offset: int | None = None, raw: bytes | None = None,
) -> Estargz:  # fmt: skip
    """Make a layer. change: what to do to the honest table; raw: JSON instead of it; offset: what the footer says."""
    out = _Blob()
    entries: list[dict[str, Any]] = []
    for info, data in members:
        out.add(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
        entry = _entry(info)
        entries.append(entry)
        for start in range(0, len(data), chunk):
            piece = data[start : start + chunk]
            where = entry if not start else {"name": info.name, "type": "chunk"}
            where |= {"offset": out.cut(), "chunkDigest": digest(piece)}
            where |= {"chunkOffset": start} if start else {}
            where |= {"chunkSize": len(piece)} if start + chunk < len(data) else {}
            if start:
                entries.append(where)
            out.add(piece)
        out.add(bytes(-len(data) % 512))
    table: Table = {"version": 1, "entries": entries}
    if change is not None:
        change(table)
    text = json.dumps(table).encode() if raw is None else raw
    end = out.cut()
    info = tarfile.TarInfo("stargz.index.json")
    info.size = len(text)
    out.add(info.tobuf(tarfile.PAX_FORMAT) + padded(text) + END)
    out.cut()
    blob = out.blob.getvalue() + footer(end if offset is None else offset)
    return Estargz(blob, out.plain.getvalue(), text, end)


def _entry(info: tarfile.TarInfo) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": info.name, "type": _KINDS[info.type], "mode": info.mode}
    entry |= {"uid": info.uid, "gid": info.gid, "NumLink": 0}
    if info.mtime:
        entry["modtime"] = datetime.fromtimestamp(round(info.mtime), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if info.size:
        entry["size"] = info.size
    if info.linkname:
        entry["linkName"] = info.linkname
    if info.type in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        entry |= {"devMajor": info.devmajor, "devMinor": info.devminor}
    values = {name[13:]: value for name, value in info.pax_headers.items() if name.startswith("SCHILY.xattr.")}
    if values:
        entry["xattrs"] = {name: base64.b64encode(value.encode()).decode() for name, value in values.items()}
    return entry


def push(registry: Registry, *layers: Estargz, name: str = "a/b") -> None:
    """Push an image NAME:1 by hand, with the tables' digests."""
    config = config_of([each.tar for each in layers])
    for data in (config, *(each.blob for each in layers)):
        with _send(registry, "POST", f"/v2/{name}/blobs/uploads/") as answer:
            place = answer.headers["Location"]
        _send(registry, "PUT", f"{place}&digest={digest(data)}", data).close()
    document = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": descriptor(config, "application/vnd.oci.image.config.v1+json"),
        "layers": [
            descriptor(each.blob, "application/vnd.oci.image.layer.v1.tar+gzip", annotations=each.annotations)
            for each in layers
        ],
    }
    _send(registry, "PUT", f"/v2/{name}/manifests/1", json.dumps(document).encode(), _MANIFEST).close()


def _send(registry: Registry, method: str, url: str, data: bytes = b"", kind: str = "application/octet-stream") -> Any:
    where = url if "://" in url else f"http://{registry.host}{url}"
    request = urllib.request.Request(where, data, {"Content-Type": kind}, method=method)
    return urllib.request.urlopen(request, timeout=20)
