"""What an archive says it holds: Docker's manifest.json, or the index.json of an OCI layout.

Both end as `Candidate`s: config, layers (uncompressed digests come from the config) and names.
https://github.com/opencontainers/image-spec, image-layout.md, image-index.md, manifest.md
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import msgspec

from wherry.errors import InvalidArgument, NotFound
from wherry.images.config import ImageConfig, chain_ids, parse
from wherry.images.distribution import Form
from wherry.images.references import Reference, hex_of
from wherry.images.references import parse as parse_reference
from wherry.images.spool import Member, Spool
from wherry.models import platforms
from wherry.models.manifest import (
    JSON_LIMIT,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Platform,
    decode,
    parse_document,
)

_DEPTH = 4
_IMAGES = 1000


@dataclass(frozen=True, slots=True)
class Candidate:
    """An image to come, checked for consistency but not for the content of its layers. parent: the id of an image.

    forms: in which its layers have come from a registry.
    """

    config_bytes: bytes
    config: ImageConfig
    layers: tuple[Member, ...]
    names: tuple[Reference, ...]
    manifest: bytes = b""
    media_type: str = ""
    parent: str = ""
    forms: tuple[Form, ...] = ()


def needs(image: Candidate) -> set[str]:
    """Return what has to stay until the image is visible: its layers by chain ID, its blobs by digest."""
    diff_ids = image.config.rootfs.diff_ids
    blobs = (f"sha256:{hashlib.sha256(data).hexdigest()}" for data in (image.config_bytes, image.manifest) if data)
    return {*chain_ids(diff_ids), *diff_ids, *blobs}


class _ArchiveImage(msgspec.Struct, rename="pascal"):
    """One entry of manifest.json."""

    config: str
    repo_tags: list[str] | None = None
    layers: list[str] | None = None


def parse_platform(text: str) -> dict[str, str]:
    """Return os, architecture and variant of a specifier, as an image config has them. Raises InvalidArgument."""
    wanted = platforms.from_words(text)
    if wanted.os != "linux":
        raise InvalidArgument("operating system is not supported")
    system = {"architecture": wanted.architecture, "os": wanted.os}
    return system | ({"variant": wanted.variant} if wanted.variant else {})


def candidates(spool: Spool, platform: Platform | None = None) -> list[Candidate]:
    """Return the images of an archive, or those for a platform. Raises InvalidArgument, NotFound."""
    if spool.has("manifest.json"):
        entries = decode(spool.read("manifest.json", JSON_LIMIT), "manifest.json", list[_ArchiveImage])
        found = [_from_archive(spool, entry) for entry in entries[: _IMAGES + 1]]
    elif spool.has("index.json"):
        found = _from_layout(spool, platform or platforms.here())
    else:
        raise InvalidArgument(
            "the archive has no manifest.json and no index.json; it was not made by docker save. "
            "A plain file system is loaded with docker import"
        )
    if len(found) > _IMAGES:
        raise InvalidArgument(f"more than {_IMAGES} images in one archive")
    wanted = [each for each in found if platform is None or platforms.fits(platform, each.config.platform)]
    if found and not wanted and platform is not None:
        raise NotFound(f"the archive has no image for {platforms.plain(platform)}")
    return wanted


def _from_archive(spool: Spool, entry: _ArchiveImage) -> Candidate:
    config = _member(spool, entry.config)
    layers = tuple(_member(spool, name) for name in entry.layers or ())
    names = tuple(_tag(name) for name in entry.repo_tags or ())
    return _candidate(spool, _path(entry.config), layers, names, config=config)


def _path(name: str) -> str:
    return str(PurePosixPath(name))


def _member(spool: Spool, name: str) -> Member:
    """Find a file by the name in manifest.json; where the name is a digest, the bytes must be the digest's."""
    member = spool.find(_path(name))
    path = PurePosixPath(name)
    digits = path.name if path.parent.name == "sha256" else path.stem if path.suffix == ".json" else ""
    if len(digits) == 64 and f"sha256:{digits}" != member.digest:
        raise InvalidArgument(f"{name[:200]} is not what its name says: its digest is {member.digest}")
    return member


def _tag(name: str) -> Reference:
    reference = parse_reference(name)
    if reference.digest or not reference.tag:
        raise InvalidArgument(f'invalid tag "{name[:200]}"')
    return reference


def _candidate(
    spool: Spool, name: str, layers: tuple[Member, ...], names: tuple[Reference, ...], **more: Any
) -> Candidate:
    data = spool.read(name, JSON_LIMIT)
    config = parse(data)
    wanted = len(config.rootfs.diff_ids)
    if wanted != len(layers):
        raise InvalidArgument(f"invalid manifest, layers length mismatch: expected {wanted}, got {len(layers)}")
    more.pop("config", None)
    return Candidate(data, config, layers, names, **more)


def _from_layout(spool: Spool, platform: Platform) -> list[Candidate]:
    index = parse_document(spool.read("index.json", JSON_LIMIT), "index.json", OCI_INDEX)
    images = [each for each in index.manifests or () if platforms.is_image(each)]
    if len(images) > _IMAGES:
        raise InvalidArgument(f"more than {_IMAGES} images in one archive")
    named: dict[tuple[Reference, ...], list[Descriptor]] = {}
    for each in images:
        named.setdefault(_layout_names(each.annotations or {}), []).append(each)
    return [
        _resolve(spool, each, names, platform)
        for names, entries in named.items()
        for each in _of_one_name(entries, platform)
    ]


def _of_one_name(entries: list[Descriptor], platform: Platform) -> list[Descriptor]:
    """Return the one for a machine when all say for which they are: one image, without an index around it."""
    if len(entries) < 2 or any(each.platform is None for each in entries):
        return entries
    return [platforms.choose(entries, platform)]


def _layout_names(annotations: dict[str, str]) -> tuple[Reference, ...]:
    """The name that containerd writes, or a reference name when it is more than a tag."""
    name = annotations.get("io.containerd.image.name") or annotations.get("org.opencontainers.image.ref.name", "")
    if not name or not set(name) & set(":/"):
        return ()
    reference = parse_reference(name)
    return (Reference(reference.domain, reference.path, reference.tag or "latest"),)


def _resolve(
    spool: Spool, descriptor: Descriptor, names: tuple[Reference, ...], platform: Platform, *, depth: int = _DEPTH
) -> Candidate:
    """Follow a descriptor to one image, by way of indexes, of which the entry for the platform is taken."""
    member = _blob(spool, descriptor)
    data = spool.read(f"blobs/sha256/{hex_of(member.digest)}", JSON_LIMIT)
    document = parse_document(data, descriptor.digest, descriptor.media_type)
    if document.manifests is not None:
        if not depth:
            raise InvalidArgument("indexes nested too deep")
        entry = platforms.choose(document.manifests, platform)
        return _resolve(spool, entry, names, platform, depth=depth - 1)
    if document.config is None or document.layers is None:
        raise InvalidArgument(f"{descriptor.digest} has no config or no layers")
    _blob(spool, document.config)
    layers = tuple(_blob(spool, each) for each in document.layers)
    name = f"blobs/sha256/{hex_of(document.config.digest)}"
    media_type = descriptor.media_type or OCI_MANIFEST
    return _candidate(spool, name, layers, names, manifest=data, media_type=media_type)


def _blob(spool: Spool, descriptor: Descriptor) -> Member:
    member = spool.find(f"blobs/sha256/{hex_of(descriptor.digest)}")
    if member.digest != descriptor.digest or member.size != descriptor.size:
        raise InvalidArgument(
            f"blob {descriptor.digest} is damaged: expected {descriptor.size} bytes of that digest, "
            f"got {member.size} of {member.digest}"
        )
    return member
