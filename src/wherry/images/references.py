"""Names of images: grammar, the full form that is stored and the familiar form that people read.

    reference  = name [":" tag] ["@" digest]         tag     = [A-Za-z0-9_][A-Za-z0-9_.-]{0,127}
    name       = [domain "/"] path                   digest  = "sha256:" 64 lower-case hex digits
    path       = part {"/" part}                     part    = [a-z0-9]+ {("." | "_" | "__" | "-"+) [a-z0-9]+}

The first component is a domain when it has a dot, a colon or a capital, or is "localhost"; otherwise the domain is
docker.io, and a path of one component gets "library/" before it.
https://github.com/distribution/reference
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from wherry.errors import InvalidArgument

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
OFFICIAL = "library/"
_LONGEST = 255

_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_PART}(?:/{_PART})*\Z")
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_HEX64 = re.compile(r"[0-9a-f]{64}\Z")
_LONGEST_INPUT = 1024


@dataclass(frozen=True, slots=True)
class Reference:
    """A name with a tag or a digest or both or neither."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """The full name without tag and digest."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The name as people write it: "busybox" for "docker.io/library/busybox"."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        path = self.path.removeprefix(OFFICIAL)
        return path if "/" not in path else self.path

    @property
    def stored(self) -> str:
        """The key in the table of tags; a digest decides when there is one, as with Docker."""
        return f"{self.name}@{self.digest}" if self.digest else f"{self.name}:{self.tag or DEFAULT_TAG}"

    @property
    def familiar(self) -> str:
        """What is shown: with "latest" when there is neither tag nor digest."""
        if self.digest:
            return f"{self.familiar_name}{':' + self.tag if self.tag else ''}@{self.digest}"
        return f"{self.familiar_name}:{self.tag or DEFAULT_TAG}"


def is_digest(text: str) -> bool:
    """Return whether the text is a digest of the one algorithm that is known."""
    return bool(_DIGEST.match(text))


def hex_of(digest: str) -> str:
    """Return the hex digits of a digest; InvalidArgument when it is none, so that it can be part of a path."""
    if not _DIGEST.match(digest):
        raise InvalidArgument(f"invalid digest: {digest[:80]!r}; only sha256 with 64 lower-case digits is supported")
    return digest[7:]


def is_hex(text: str) -> bool:
    """Return whether the text can be the start of an id, without "sha256:"."""
    return 0 < len(text) <= 64 and not set(text) - set("0123456789abcdef")


def image_id(text: str) -> str:
    """Return the image id that the text spells out in full, with or without "sha256:", or "" when it does not."""
    if _DIGEST.match(text):
        return text
    return f"sha256:{text}" if _HEX64.match(text) else ""


def parse(text: str) -> Reference:
    """Parse what a user gave. Raises InvalidArgument with Docker's text."""
    if _HEX64.match(text):
        raise InvalidArgument(f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
    if not text or len(text) > _LONGEST_INPUT:
        raise InvalidArgument("invalid reference format")
    rest, at, digest = text.partition("@")
    name, tag = _split_tag(rest)
    domain, path = _split_domain(name)
    if path != path.lower():
        raise InvalidArgument(f"invalid reference format: repository name ({path}) must be lowercase")
    bad_tag = bool(tag is not None and not _TAG.match(tag))
    if not _PATH.match(path) or not _DOMAIN.match(domain) or bad_tag or (at and not _DIGEST.match(digest)):
        raise InvalidArgument("invalid reference format")
    if len(path) > _LONGEST:
        raise InvalidArgument("repository name must not be more than 255 characters")
    return Reference(domain, path, tag or "", digest)


def _split_tag(text: str) -> tuple[str, str | None]:
    """A colon after the last slash starts the tag; one before it belongs to the domain's port."""
    slash = text.rfind("/")
    colon = text.find(":", slash + 1)
    return (text, None) if colon < 0 else (text[:colon], text[colon + 1 :])


def _split_domain(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if not slash or not (set(first) & set(".:") or first == "localhost" or first.lower() != first):
        domain, path = DEFAULT_DOMAIN, name
    else:
        domain, path = first, rest
    if domain == "index.docker.io":
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = OFFICIAL + path
    return domain, path


def parse_target(repository: str, tag: str) -> Reference | None:
    """Parse the repo and tag of a request that names an image; None for an empty repo, which names nothing."""
    if not repository:
        return None
    reference = parse(repository)
    if reference.digest:
        raise InvalidArgument("cannot import digest reference")
    if tag:
        if not _TAG.match(tag):
            raise InvalidArgument("invalid tag format")
        reference = Reference(reference.domain, reference.path, tag)
    if reference.familiar_name == "sha256":
        raise InvalidArgument("refusing to create an ambiguous tag using digest algorithm as name")
    return reference


def from_stored(name: str) -> Reference:
    """Return the reference of a row of the table of tags, which was valid when it was written."""
    rest, _, digest = name.partition("@")
    spelled, tag = _split_tag(rest)
    domain, _, path = spelled.partition("/")
    return Reference(domain, path, tag or "", digest)
