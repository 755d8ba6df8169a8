"""docker save: images as one tar, an OCI layout with Docker's manifest.json and repositories beside it.

Layers go out as the archives they came as, so their digests are the same wherever they are loaded. The same images
always make the same bytes: entries are sorted by name, and dated by the image they belong to.
https://github.com/opencontainers/image-spec, image-layout.md, manifest.md
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wherry.archive.tar import CHUNK, DIRECTORY, REGULAR, Entry
from wherry.archive.writer import END, header, padding
from wherry.errors import Conflict, NotFound, SystemFailure
from wherry.images.config import ImageConfig
from wherry.images.references import Reference, hex_of
from wherry.models import platforms
from wherry.models.manifest import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, Platform
from wherry.models.parts import FilePart, Part

_BLOBS = "blobs/sha256/"
LAST = 256 << 10
"""Bytes of a blob that are held back until all its bytes are known to be right; at most CHUNK."""


class Damaged(SystemFailure):
    """A layer's archive is not what it was."""

    def __init__(self, digest: str, what: str) -> None:
        super().__init__(f"{what}; load the image again")
        self.digest = digest


@dataclass(frozen=True, slots=True)
class Saved:
    """An image to save. created: Unix ns. names: that go with it. layers: (diff id, size in bytes), lowest first."""

    id: str
    config: bytes
    created: int
    names: tuple[Reference, ...]
    layers: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Member:
    """A file of the archive. mtime: Unix ns. source: its bytes, or where they are."""

    size: int
    mtime: int
    source: bytes | Path


@dataclass(slots=True)
class _Documents:
    """What the documents of the archive say."""

    index: list[dict[str, Any]] = field(default_factory=list)
    images: list[dict[str, Any]] = field(default_factory=list)
    repositories: dict[str, dict[str, str]] = field(default_factory=dict)
    members: dict[str, Member] = field(default_factory=dict)

    def add(self, image: Saved, layers: Mapping[str, Path]) -> None:
        """Add an image. layers: diff id -> its archive."""
        descriptors = [_descriptor(OCI_LAYER, diff_id, size) for diff_id, size in image.layers]
        config = _descriptor(OCI_CONFIG, image.id, len(image.config))
        manifest = _json({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": descriptors})
        digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
        self._member(image.id, Member(len(image.config), image.created, image.config))
        self._member(digest, Member(len(manifest), 0, manifest))
        for diff_id, size in image.layers:
            self._member(diff_id, Member(size, image.created, layers[diff_id]))
        described = _descriptor(OCI_MANIFEST, digest, len(manifest))
        self.index += [described | {"annotations": _annotations(name)} for name in image.names] or [described]
        self.images.append({
            "Config": _BLOBS + hex_of(image.id),
            "RepoTags": [name.familiar for name in image.names] or None,
            "Layers": [_BLOBS + hex_of(diff_id) for diff_id, _ in image.layers],
            "LayerSources": {each["digest"]: _source(each) for each in descriptors},
        })  # fmt: skip
        for name in image.names:
            top = hex_of(image.layers[-1][0]) if image.layers else ""
            self.repositories.setdefault(name.familiar_name, {})[name.tag] = top

    def _member(self, digest: str, member: Member) -> None:
        self.members.setdefault(_BLOBS + hex_of(digest), member)

    def finish(self) -> dict[str, Member]:
        """Return all files of the archive."""
        documents: dict[str, Any] = {
            "index.json": {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": self.index},
            "manifest.json": self.images,
            "oci-layout": {"imageLayoutVersion": "1.0.0"},
        }
        if self.repositories:
            documents["repositories"] = self.repositories
        for name, document in documents.items():
            data = _json(document)
            self.members[name] = Member(len(data), 0, data)
        return self.members


def check_platform(config: ImageConfig, wanted: Platform | None) -> None:
    """Raise NotFound when an image is not for a platform."""
    if wanted is not None and not platforms.fits(wanted, config.platform):
        raise NotFound(f"no suitable export target found for platform {platforms.plain(wanted)}")


def with_sizes(diff_ids: list[str], sizes: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    """Return layers with the sizes of their archives. Raises Conflict for one that has none."""
    for diff_id in diff_ids:
        if diff_id not in sizes:
            raise Conflict(
                f"layer {diff_id} was unpacked by an earlier version, which did not keep its archive; "
                "load the image again, then it can be saved"
            )
    return tuple((diff_id, sizes[diff_id]) for diff_id in diff_ids)


def members(images: list[Saved], layers: Mapping[str, Path]) -> dict[str, Member]:
    """Return the files of the archive by name. layers: diff id -> its archive."""
    documents = _Documents()
    for image in images:
        documents.add(image, layers)
    return documents.finish()


def archive(files: Mapping[str, Member]) -> Generator[Part, None, None]:
    """Yield the tar: bytes, at most CHUNK at a time, and parts of files. Raises SystemFailure for a damaged layer."""
    for folder in ("blobs/", _BLOBS):
        yield header(_entry(folder, DIRECTORY, 0o755))
    for name, member in sorted(files.items()):
        entry = _entry(name, REGULAR, 0o644)
        entry.size, entry.mtime = member.size, member.mtime // 1_000_000_000 * 1_000_000_000
        yield header(entry)
        if isinstance(member.source, bytes):
            yield member.source
        else:
            yield from _content(member.source, member.size)
        yield padding(member.size)
    yield END


def _content(path: Path, size: int) -> Iterator[Part]:
    """Yield a blob, whose name is the digest of its bytes; the last ones only when all were right.

    What is before them is sent as it is, while we are asked for the next piece already, and so compute the digest.
    """
    if size > LAST:
        yield FilePart(path, size - LAST)
    digest, left = hashlib.sha256(), size
    with open(path, "rb") as file:
        while left > LAST and (data := file.read(min(CHUNK, left - LAST))):
            left -= len(data)
            digest.update(data)
        last = file.read(left)
        digest.update(last)
    if len(last) != left or digest.hexdigest() != path.name:
        raise Damaged(f"sha256:{path.name}", f"{path} is damaged: its bytes are not those of its digest")
    yield last


def _entry(name: str, kind: int, mode: int) -> Entry:
    entry = Entry()
    entry.name, entry.type, entry.mode = name.encode(), kind, mode
    return entry


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _descriptor(media_type: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest, "size": size}


def _source(descriptor: dict[str, Any]) -> dict[str, Any]:
    return {key: descriptor[key] for key in ("mediaType", "size", "digest")}


def _annotations(name: Reference) -> dict[str, str]:
    return {"io.containerd.image.name": name.stored, "org.opencontainers.image.ref.name": name.tag}
