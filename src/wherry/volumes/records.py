"""What the engine remembers of a volume: the JSON of ``volumes.record``."""

from __future__ import annotations

import secrets

from msgspec import json

from wherry.models.base import Model

ANONYMOUS = "com.docker.volume.anonymous"
"""The label of a volume that nobody named; prune takes only those unless told otherwise."""


class Volume(Model, frozen=True):
    """A volume of the local driver. created: Unix ns. labels, options: as the client gave them, None when not."""

    name: str
    created: int
    labels: dict[str, str] | None = None
    options: dict[str, str] | None = None

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
