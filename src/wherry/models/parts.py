"""What a client is sent beside bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class FilePart:
    """The first `size` bytes of a file, which goes to the client as it is, without a way through memory."""

    path: Path
    size: int


Part = bytes | FilePart
"""A piece of an answer."""
