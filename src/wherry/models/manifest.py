"""Manifests and indexes, as archives and registries hold them: parsed with limits, kept as their bytes.

https://github.com/opencontainers/image-spec, image-index.md, manifest.md, descriptor.md;
https://distribution.github.io/distribution/spec/manifest-v2-2/
"""

from __future__ import annotations

import platform
from typing import Any

import msgspec

from wherry.errors import InvalidArgument

JSON_LIMIT = 4 << 20
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEXES = frozenset({OCI_INDEX, DOCKER_INDEX})
MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


class Platform(msgspec.Struct, frozen=True, rename={"os_version": "os.version"}, omit_defaults=True):
    """For which machines an image is."""

    architecture: str = ""
    os: str = ""
    variant: str = ""
    os_version: str = ""


class Descriptor(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What a document says of another blob. size: bytes. urls: other places of it, outside of the registry."""

    digest: str
    size: int
    media_type: str = ""
    annotations: dict[str, str] | None = None
    platform: Platform | None = None
    urls: list[str] | None = None


class Document(msgspec.Struct, frozen=True, rename="camel"):
    """An index or a manifest; which of the two its fields decide, and they may not decide for both."""

    schema_version: int = 0
    media_type: str = ""
    manifests: list[Descriptor] | None = None
    config: Descriptor | None = None
    layers: list[Descriptor] | None = None


def host_architecture() -> str:
    """Return this machine's architecture under the name that images use."""
    machine = platform.machine()
    return ARCHITECTURES.get(machine, machine)


def decode(data: bytes, what: str, kind: Any) -> Any:
    """Decode a JSON document as `kind`; InvalidArgument names `what` and the place that is wrong."""
    if len(data) > JSON_LIMIT:
        raise InvalidArgument(f"{what} has {len(data)} bytes; more than {JSON_LIMIT} are not accepted")
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"invalid {what}: {error}") from error


def parse_document(data: bytes, what: str, media_type: str) -> Document:
    """Return an index or a manifest whose fields fit its media types. Raises InvalidArgument."""
    document: Document = decode(data, what, Document)
    is_index = document.manifests is not None
    is_manifest = document.config is not None or document.layers is not None
    if is_index == is_manifest:  # CVE-2021-41190: read as one by us and as the other by somebody else
        raise InvalidArgument(
            f"{what} is {'both' if is_index else 'neither'} an index {'and' if is_index else 'nor'} a manifest"
        )
    kinds = INDEXES if is_index else MANIFESTS
    for each in (document.media_type, media_type):
        if each and each not in kinds:
            raise InvalidArgument(f"{what} has the media type {each[:100]!r}, which does not fit its content")
    if document.schema_version not in (0, 2):
        raise InvalidArgument(f"{what} has schema version {document.schema_version}; only 2 is supported")
    return document
