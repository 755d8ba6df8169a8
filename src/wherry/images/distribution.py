"""In which form registries have our layers: a layer that was pulled or pushed need not be compressed and sent again.

That a row is true is never relied on: a push asks the registry first.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wherry.images.references import Reference
from wherry.store.database import Database


@dataclass(frozen=True, slots=True)
class Form:
    """A layer as a blob. digest, size (bytes): of the blob. repository: its full name, "docker.io/library/busybox"."""

    diff_id: str
    digest: str
    size: int
    media_type: str
    repository: str


@dataclass(frozen=True, slots=True)
class OutgoingLayer:
    """A layer to push. path: its uncompressed tar, of `size` bytes. forms: the newest knowledge last."""

    diff_id: str
    size: int
    path: Path
    forms: tuple[Form, ...]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An image to push. manifest: the one it came with, b"" for none, and its media type."""

    id: str
    config: bytes
    manifest: bytes
    media_type: str
    layers: tuple[OutgoingLayer, ...]


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push has taught: the image is there as NAME@DIGEST, and its layers in these forms."""

    image_id: str
    name: Reference
    forms: tuple[Form, ...]


class Distribution:
    """Reads and writes rows; transactions are the caller's."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def forms(self, diff_id: str) -> tuple[Form, ...]:
        """Return the known forms of a layer."""
        rows = self._database.query(
            "SELECT diff_id, digest, size, media_type, repository FROM distribution WHERE diff_id = ? "
            "ORDER BY repository, digest",
            (diff_id,),
        )
        return tuple(Form(*row) for row in rows)

    def put(self, form: Form) -> None:
        """Remember a form."""
        self._database.execute(
            "INSERT OR REPLACE INTO distribution (diff_id, digest, repository, size, media_type) "
            "VALUES (?, ?, ?, ?, ?)",
            (form.diff_id, form.digest, form.repository, form.size, form.media_type),
        )

    def forget_unneeded(self) -> None:
        """Forget the forms of layers that are gone."""
        self._database.execute("DELETE FROM distribution WHERE diff_id NOT IN (SELECT diff_id FROM layers)")
