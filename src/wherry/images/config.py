"""The image config (OCI image spec, config.md, and Docker's additions): parsed with limits, kept as its bytes.

The id of an image is the digest of these bytes, so they are never re-encoded; what is parsed here is for use.
"""

from __future__ import annotations

import calendar
import hashlib
import re
import time
from typing import Any

import msgspec

from wherry.errors import InvalidArgument
from wherry.images.references import is_digest
from wherry.models.image import Image, ImageRunConfig
from wherry.models.manifest import Platform, decode

LAYER_LIMIT = 125
_LIST_LIMIT = 10_000
_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9})\d*)?(?:[Zz]|([+-])(\d\d):(\d\d))\Z"
)


class RootFS(msgspec.Struct, frozen=True):
    """The layers of an image, lowest first, by the digests of their uncompressed tars."""

    diff_ids: list[str] = []
    type: str = "layers"


class History(msgspec.Struct, frozen=True, omit_defaults=True):
    """How one layer, or one step without a layer, came about."""

    created: str | None = None
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class ImageConfig(msgspec.Struct, frozen=True, rename={"os_version": "os.version"}):
    """An image config; what is not listed here stays in the bytes."""

    rootfs: RootFS
    architecture: str = ""
    os: str = "linux"
    variant: str = ""
    os_version: str = ""
    created: str | None = None
    author: str = ""
    comment: str = ""
    docker_version: str = ""
    config: ImageRunConfig | None = None
    history: list[History] | None = None

    @property
    def platform(self) -> Platform:
        """For which machines the image says it is."""
        return Platform(self.architecture, self.os or "linux", self.variant)


def parse(data: bytes) -> ImageConfig:
    """Parse an image config. Raises InvalidArgument."""
    plain = decode(data, "image config", dict[str, Any])
    run = plain.get("config")
    if isinstance(run, dict):
        for name in ("Cmd", "Entrypoint"):
            if isinstance(run.get(name), str):  # images made before Docker 1.10
                run[name] = [run[name]]
    try:
        config: ImageConfig = msgspec.convert(plain, ImageConfig)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"invalid image config: {error}") from error
    _check(config)
    return config


def _check(config: ImageConfig) -> None:
    if config.rootfs.type != "layers":
        raise InvalidArgument(f"invalid image config: rootfs type {config.rootfs.type[:80]!r} is not supported")
    if not all(is_digest(each) for each in config.rootfs.diff_ids):
        raise InvalidArgument("invalid image config: a diff_id is not a sha256 digest")
    if len(config.rootfs.diff_ids) > LAYER_LIMIT:
        raise InvalidArgument("max depth exceeded")
    if config.os not in ("linux", ""):
        raise InvalidArgument(f'cannot load {config.os[:80]} image on linux: operating system is not supported')
    if config.created:
        to_unix_ns(config.created)
    run = config.config
    if run is None:
        return
    words = [*(run.env or ()), *(run.cmd or ()), *(run.entrypoint or ()), run.user, run.working_dir]
    if any("\0" in word for word in words):
        raise InvalidArgument("invalid image config: a NUL character in Env, Cmd, Entrypoint, User or WorkingDir")
    if len(words) > _LIST_LIMIT:
        raise InvalidArgument(f"invalid image config: more than {_LIST_LIMIT} words in Env, Cmd and Entrypoint")


def chain_ids(diff_ids: list[str]) -> list[str]:
    """Return the chain ID of every layer, lowest first, without "sha256:" (OCI image spec, "Layer ChainID")."""
    chains: list[str] = []
    for diff_id in diff_ids:
        if chains:
            chains.append(hashlib.sha256(f"sha256:{chains[-1]} {diff_id}".encode()).hexdigest())
        else:
            chains.append(diff_id.removeprefix("sha256:"))
    return chains


def to_unix_ns(text: str) -> int:
    """Return RFC 3339 as Unix ns. Raises InvalidArgument."""
    match = _RFC3339.match(text)
    if not match:
        raise InvalidArgument(f"invalid time: {text[:80]!r}")
    year, month, day, hour, minute, second = (int(each) for each in match.groups()[:6])
    seconds = calendar.timegm((year, month, day, hour, minute, second, 0, 0, 0))
    if match[8]:
        offset = int(match[9]) * 3600 + int(match[10]) * 60
        seconds += offset if match[8] == "-" else -offset
    return seconds * 1_000_000_000 + int((match[7] or "0").ljust(9, "0"))


def created_ns(config: ImageConfig) -> int:
    """Return when the image was made, 0 when it does not say."""
    return to_unix_ns(config.created) if config.created else 0


def encode(config: dict[str, Any]) -> bytes:
    """Return the bytes of a new image config."""
    return msgspec.json.encode(config)


def to_image(image_id: str, chain_id: str, size: int, config: ImageConfig, names: list[str]) -> Image:
    """Return what the other layers see of an image."""
    return Image(
        id=image_id,
        chain_id=chain_id,
        config=config.config or ImageRunConfig(),
        os=config.os or "linux",
        architecture=config.architecture,
        variant=config.variant,
        created=config.created or "",
        size=size,
        repo_tags=tuple(name for name in names if "@" not in name),
        repo_digests=tuple(name for name in names if "@" in name),
    )


def now_rfc3339(clock: int) -> str:
    """Return Unix ns in the form of `created`, always with nine decimals so that ids differ."""
    seconds, nanoseconds = divmod(clock, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanoseconds:09d}Z"
