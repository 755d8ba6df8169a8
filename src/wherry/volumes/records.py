"""What the engine remembers of a volume: the JSON of ``volumes.record``."""

from __future__ import annotations

import secrets

from msgspec import json

from wherry.models.base import Model

LOCAL = "local"
"""The driver that is a part of this engine; all others are plugins."""

ANONYMOUS = "com.docker.volume.anonymous"
"""The label of a volume that nobody named; prune takes only those unless told otherwise."""


class Volume(Model, frozen=True):
    """A volume. created: Unix ns. labels, options: as the client gave them, None when not. driver: who keeps it.

    moved_from: the name that its folder may still have; "" but while it is renamed.
    """

    name: str
    created: int
    driver: str = LOCAL
    labels: dict[str, str] | None = None
    options: dict[str, str] | None = None
    moved_from: str = ""

    @property
    def local(self) -> bool:
        """Whether it is ours to keep."""
        return self.driver == LOCAL

    @property
    def anonymous(self) -> bool:
        """Whether nobody named it."""
        return ANONYMOUS in (self.labels or {})

    def encode(self) -> bytes:
        """Return the record as the store keeps it."""
        return json.encode(self)


_decoder = json.Decoder(Volume)


def decode(data: bytes) -> Volume:
    """Read a volume back; raises msgspec.ValidationError when it was not written by `Volume.encode`."""
    return _decoder.decode(data)


def invent_name() -> str:
    """Return a name for a volume that nobody named."""
    return secrets.token_hex(32)
