"""An image store with a root of its own, and the archives it is given."""

from __future__ import annotations

import gzip
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests import tars
from tests.tars import config_of, digest, file, folder
from tests.trash import settle
from wherry.images.images import Images
from wherry.snapshots.drivers.overlay2 import Overlay2
from wherry.store.database import Database

LAYER = tars.archive([folder("bin"), file("bin/sh", b"#!\n" * 10, mode=0o755)])
UPPER = tars.archive([file("etc/name", b"upper")])
NO_FILTERS: dict[str, list[str]] = {}


class Store:
    """An image store with its own root, whose state on disk and in the database can be compared."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now = 1_700_000_000_000_000_000
        self.said: list[dict[str, Any]] = []
        self.open()

    def open(self) -> None:
        self.database = Database(self.root / "meta.db")
        self.driver = Overlay2(self.root / "snapshots" / "overlay2")
        self.images = Images(self.database, self.root, self.driver, clock=self.tick)

    def close(self) -> None:
        self.database.close()
        settle()

    def tick(self) -> int:
        self.now += 1_000_000_000
        return self.now

    def load(self, data: bytes) -> list[str]:
        self.said = []
        return self.images.load(io.BytesIO(data), self.said.append)

    def put(self, data: bytes = LAYER, repo: str = "", tag: str = "", **more: Any) -> str:
        options: dict[str, Any] = {"message": "", "changes": [], "platform": ""} | more
        return self.images.import_(io.BytesIO(data), repo=repo, tag=tag, **options)

    def remove(self, ref: str, *, force: bool = False, users: Any = None) -> list[dict[str, str]]:
        return self.images.remove(ref, force=force, noprune=False, users=users or (lambda _: []))

    def tags(self) -> list[str]:
        return sorted(tag for entry in self.images.listing(all=False, filters=NO_FILTERS) for tag in entry["RepoTags"])

    def state(self) -> tuple[Any, ...]:
        """Everything that an image can leave behind."""
        folders = ("content/blobs/sha256", "content/tmp", "content/spool")
        names = [sorted(os.listdir(self.root / each)) for each in folders]
        tables = [self.database.query(f"SELECT * FROM {each}") for each in ("images", "layers", "tags", "content")]
        making = [sorted(os.listdir(self.root / "snapshots/overlay2" / each)) for each in ("layers", "ingest", "new")]
        return (*names, *tables, *making)


def layout(*, name: str = "", break_it: Callable[[dict[str, Any]], None] | None = None) -> bytes:
    """An OCI layout with one gzip layer, reached by way of an index for two architectures."""
    layer = gzip.compress(LAYER, mtime=0)
    config = config_of([LAYER])
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _descriptor(config, "application/vnd.oci.image.config.v1+json"),
        "layers": [_descriptor(layer, "application/vnd.oci.image.layer.v1.tar+gzip")],
    }
    if break_it:
        break_it(manifest)
    manifest_bytes = json.dumps(manifest).encode()
    here = _descriptor(manifest_bytes, "application/vnd.oci.image.manifest.v1+json")
    other = here | {"digest": digest(b"not there"), "platform": {"architecture": "s390x", "os": "linux"}}
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    inner = json.dumps({"schemaVersion": 2, "manifests": [other, here | {
        "platform": {"architecture": machine, "os": "linux"}}]}).encode()  # fmt: skip
    outer = _descriptor(inner, "application/vnd.oci.image.index.v1+json")
    outer["annotations"] = {"io.containerd.image.name": name} if name else {}
    blobs = [layer, config, manifest_bytes, inner]
    members = [file(f"blobs/sha256/{digest(each)[7:]}", each) for each in blobs]
    index = json.dumps({"schemaVersion": 2, "manifests": [outer]}).encode()
    return tars.archive([*members, file("index.json", index), file("oci-layout", b"{}")])


def _descriptor(data: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest(data), "size": len(data)}
