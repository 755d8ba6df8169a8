"""Platforms: how they are written, which of two are the same, and which entry of an index a machine takes.

    os[/architecture[/variant]]                          what people write: --platform linux/arm/v7, or arm64 alone
    {"os": ..., "architecture": ..., "variant": ...}     what the Engine API takes (OCI image spec, image-index.md)

A machine also runs what is for older ones of its kind: the first in the list of `suitable` ones is taken.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from wherry.errors import InvalidArgument, NotFound
from wherry.models.manifest import Descriptor, Platform, decode, host_architecture

_ALIASES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386", "i686": "386"}
_ARM = ("v8", "v7", "v6", "v5")
_NEWEST = 20  # no architecture has had so many variants; what is beyond fits only itself
_PART = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
_SYSTEMS = (
    "aix", "android", "darwin", "dragonfly", "freebsd", "hurd", "illumos", "ios", "js", "linux", "nacl", "netbsd",
    "openbsd", "plan9", "solaris", "windows", "zos",
)  # fmt: skip
_ARCHITECTURES = (
    "386", "amd64", "arm", "arm64", "armel", "armhf", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64",
    "ppc64le", "riscv64", "s390x", "sparc64", "wasm",
)  # fmt: skip


def here() -> Platform:
    """Return what this machine is."""
    return Platform(host_architecture(), "linux")


def from_words(text: str) -> Platform:
    """Return the platform of a specifier, "" meaning this machine. Raises InvalidArgument in dockerd's words."""
    if not text:
        return here()
    parts = text.split("/")
    if len(parts) > 3 or not all(_PART.match(part) for part in parts):
        raise InvalidArgument(f'"{text[:100]}": cannot parse platform specifier: invalid argument')
    first = parts[0].lower()
    if len(parts) > 1:
        return Platform(parts[1].lower(), first, parts[2].lower() if len(parts) > 2 else "")
    if first in _SYSTEMS:
        return Platform(host_architecture(), first)
    if _ALIASES.get(first, first) in _ARCHITECTURES:
        return Platform(first, "linux")
    raise InvalidArgument(f'"{text[:100]}": unknown operating system or architecture: invalid argument')


def from_json(text: str) -> Platform | None:
    """Return the platform that a query gives as JSON, None for "". Raises InvalidArgument."""
    if not text:
        return None
    try:
        platform: Platform = decode(text.encode(), "platform", Platform)
    except InvalidArgument as error:
        raise InvalidArgument(f"failed to parse platform: {error.message}") from error
    if not platform.os or not platform.architecture:
        if platform != Platform():
            raise InvalidArgument("both OS and Architecture must be provided")
        return None
    return platform


def normal(platform: Platform) -> Platform:
    """Return a platform with the usual name of its architecture, and a variant only where it says something."""
    architecture, variant = platform.architecture.lower(), platform.variant.lower()
    architecture = _ALIASES.get(architecture, architecture)
    if architecture in ("armhf", "armel"):
        architecture, variant = "arm", "v7" if architecture == "armhf" else "v6"
    variant = variant if variant.startswith("v") or not variant else f"v{variant}"
    if (architecture, variant) in (("arm64", "v8"), ("amd64", "v1")):
        variant = ""
    if (architecture, variant) == ("arm", ""):
        variant = "v7"
    return Platform(architecture, platform.os.lower(), variant)


def fits(wanted: Platform, image: Platform) -> bool:
    """Return whether an image is for a platform; what either does not say fits, but for the system."""
    one, other = normal(wanted), normal(image)
    if one.os != (other.os or "linux"):
        return False
    if image.architecture and one.architecture != other.architecture:
        return False
    return not wanted.variant or not image.variant or one.variant == other.variant


def suitable(platform: Platform) -> list[Platform]:
    """Return what a machine runs, the best first."""
    wanted = normal(platform)
    os, variant = wanted.os, wanted.variant
    if wanted.architecture == "arm":
        older = _ARM[_ARM.index(variant) :] if variant in _ARM else (variant,)
        return [Platform("arm", os, each) for each in older]
    if wanted.architecture == "arm64":
        return [*_variants(wanted, 8), Platform("arm64", os), *(Platform("arm", os, each) for each in _ARM)]
    if wanted.architecture == "amd64":
        return [*_variants(wanted, 1), Platform("amd64", os), Platform("386", os)]
    return [wanted]


def _variants(platform: Platform, oldest: int) -> list[Platform]:
    digits = platform.variant[1:]
    if not re.match(r"\d{1,2}\Z", digits, re.ASCII) or int(digits) > _NEWEST:
        return [platform] if platform.variant else []
    return [Platform(platform.architecture, platform.os, f"v{each}") for each in range(int(digits), oldest, -1)]


def is_image(entry: Descriptor) -> bool:
    """Return whether an entry of an index is an image and not an attestation, which BuildKit puts beside it."""
    unknown = entry.platform is not None and "unknown" in (entry.platform.os, entry.platform.architecture)
    return not (unknown or (entry.annotations or {}).get("vnd.docker.reference.type"))


def choose(entries: Sequence[Descriptor], platform: Platform) -> Descriptor:
    """Return the entry for a machine; one alone that says nothing is taken. Raises NotFound in dockerd's words."""
    images = [each for each in entries if is_image(each)]
    for wanted in suitable(platform):
        for each in images:
            if each.platform is not None and normal(each.platform) == wanted:
                return each
    if len(images) == 1 and images[0].platform is None:
        return images[0]
    raise NotFound(f"no matching manifest for {words(platform)} in the manifest list entries")


def plain(platform: Platform) -> str:
    """Return os/architecture/variant as they were given."""
    return "/".join(each for each in (platform.os, platform.architecture, platform.variant) if each)


def words(platform: Platform) -> str:
    """Return os/architecture/variant, as dockerd spells it."""
    wanted = normal(platform)
    variant = "v8" if wanted.architecture == "arm64" and not wanted.variant else wanted.variant
    return "/".join(each for each in (wanted.os, wanted.architecture, variant) if each)
