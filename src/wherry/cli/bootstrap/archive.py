"""An image as docker load takes it, made of one layer: the same input always gives the same bytes.

    HEX.json       the image config; its digest is the image's id
    layer.tar      the layer, uncompressed
    manifest.json  which file is what, and the name
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any

PIECE = 1 << 20
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


def layer_writer(target: IO[bytes]) -> tarfile.TarFile:
    """A tar whose bytes depend on nothing but what is added to it."""
    return tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT)


def plain(info: tarfile.TarInfo, newest: int) -> tarfile.TarInfo:
    """The entry without names of users and groups, of no later time (Unix s) than `newest`, in whole seconds."""
    info.uname = info.gname = ""
    info.mtime = min(int(info.mtime), newest)
    info.pax_headers = {key: value for key, value in info.pax_headers.items() if key.startswith("SCHILY.xattr.")}
    return info


def image_config(diff_id: str, created: int, run: dict[str, Any], created_by: str) -> bytes:
    """The image config. created: Unix s. run: what containers get by default."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(created))
    machine = os.uname().machine
    document = {
        "architecture": _ARCHITECTURES.get(machine, machine),
        "os": "linux",
        "created": stamp,
        "config": run,
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": stamp, "created_by": created_by}],
    }
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


class ImageArchive:
    """The archive as something to read from; the layer stays in its file."""

    def __init__(self, layer: IO[bytes], created: int, run: dict[str, Any], *, name: str, created_by: str) -> None:
        """layer: a whole tar, seekable. created: Unix s."""
        digest, size = _digest(layer)
        config = image_config(f"sha256:{digest}", created, run, created_by)
        self.image_id = f"sha256:{hashlib.sha256(config).hexdigest()}"
        manifest = [{"Config": f"{self.image_id[7:]}.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
        layer.seek(0)
        self._parts: list[IO[bytes]] = [
            io.BytesIO(_member(f"{self.image_id[7:]}.json", config)),
            io.BytesIO(_member("manifest.json", json.dumps(manifest).encode())),
            io.BytesIO(_header("layer.tar", size)),
            layer,
            io.BytesIO(bytes(-size % tarfile.BLOCKSIZE) + bytes(2 * tarfile.BLOCKSIZE)),
        ]

    def read(self, size: int) -> bytes:
        """The next bytes, at most `size`; nothing at the end."""
        while self._parts:
            data = self._parts[0].read(size)
            if data:
                return data
            self._parts.pop(0)
        return b""


def _digest(file: IO[bytes]) -> tuple[str, int]:
    file.seek(0)
    digest, size = hashlib.sha256(), 0
    while piece := file.read(PIECE):
        digest.update(piece)
        size += len(piece)
    return digest.hexdigest(), size


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def _member(name: str, data: bytes) -> bytes:
    return _header(name, len(data)) + data + bytes(-len(data) % tarfile.BLOCKSIZE)
