"""docker commit: a new layer on top of a container's, and the config that describes the image."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from wherry.archive.writer import END
from wherry.images.config import History, ImageConfig

EMPTY = f"sha256:{hashlib.sha256(END).hexdigest()}"
"""The digest of a layer in which nothing is: it is noted in the history, and not kept."""


@dataclass(frozen=True, slots=True)
class Commit:
    """What becomes an image. chain_id: the layers that the container stands on. image_id: the image it was made from.

    run: the defaults for its containers, in wire names. created_by: the container's command. repo, tag: its name, "".
    """

    chain_id: str
    image_id: str
    run: dict[str, Any]
    created_by: str
    repo: str = ""
    tag: str = ""
    comment: str = ""
    author: str = ""
    system: dict[str, str] = field(default_factory=dict)


class Joined(io.RawIOBase):
    """Chunks of bytes as a file to read from."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        super().__init__()
        self._chunks = chunks
        self._rest = b""

    def read(self, size: int = -1, /) -> bytes:
        """Return what is there of the next `size` bytes; b"" at the end."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._rest = chunk
        data, self._rest = (self._rest, b"") if size < 0 else (self._rest[:size], self._rest[size:])
        return data


def commit_config(
    wanted: Commit, parent: ImageConfig | None, diff_ids: list[str], *, created: str, empty: bool
) -> dict[str, Any]:
    """Return the image config. diff_ids: of all layers. empty: whether the container has changed nothing."""
    step = History(created, wanted.created_by, wanted.author, wanted.comment, empty)
    below = (parent.history if parent else None) or []
    system = dict(wanted.system)
    if parent:
        named = {"architecture": parent.architecture, "os": parent.os, "variant": parent.variant}
        system |= {key: value for key, value in named.items() if value}
    return {
        **system,
        "created": created,
        "author": wanted.author,
        "comment": wanted.comment,
        "config": wanted.run,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [*below, step],
    }
