"""The tables images, layers and tags, as far as the current storage driver has the layers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from wherry.store.database import Database


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One image. created: Unix ns."""

    id: str
    chain_id: str
    created: int
    size: int
    manifest: str = ""
    parent: str = ""


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One committed snapshot."""

    chain_id: str
    parent: str
    diff_id: str
    size: int


_IMAGE = "SELECT id, chain_id, created, size, manifest, parent FROM images"
_PRESENT = "(chain_id = '' OR EXISTS (SELECT 1 FROM layers l WHERE l.driver = ? AND l.chain_id = images.chain_id))"


class Rows:
    """Reads and writes rows; transactions are the caller's."""

    def __init__(self, database: Database, driver: str) -> None:
        self._database = database
        self._driver = driver

    def image(self, image_id: str) -> ImageRow | None:
        """Return an image by its full id."""
        rows = self._database.query(f"{_IMAGE} WHERE id = ? AND {_PRESENT}", (image_id, self._driver))
        return ImageRow(*rows[0]) if rows else None

    def images(self) -> list[ImageRow]:
        """Return all images, newest first."""
        rows = self._database.query(f"{_IMAGE} WHERE {_PRESENT} ORDER BY created DESC, id", (self._driver,))
        return [ImageRow(*row) for row in rows]

    def lineage(self, row: ImageRow) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yield an image and those it was made from, as far as they are here: id and stored names."""
        seen: set[str] = set()
        each: ImageRow | None = row
        while each and each.id not in seen:
            seen.add(each.id)
            yield each.id, tuple(self.tags(each.id))
            each = self.image(each.parent) if each.parent else None

    def starting_with(self, prefix: str) -> list[str]:
        """Return up to two ids that start with "sha256:HEX..."."""
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        rows = self._database.query(
            f"SELECT id FROM images WHERE id >= ? AND id < ? AND {_PRESENT} LIMIT 2", (prefix, end, self._driver)
        )
        return [str(row[0]) for row in rows]

    def tagged(self, name: str) -> str:
        """Return the id of the image that a stored name means, "" when it means none."""
        rows = self._database.query("SELECT image FROM tags WHERE name = ?", (name,))
        return str(rows[0][0]) if rows else ""

    def tags(self, image_id: str) -> list[str]:
        """Return the stored names of an image, sorted."""
        rows = self._database.query("SELECT name FROM tags WHERE image = ? ORDER BY name", (image_id,))
        return [str(row[0]) for row in rows]

    def all_tags(self) -> dict[str, list[str]]:
        """Return the stored names of every image that has some."""
        found: dict[str, list[str]] = {}
        for name, image in self._database.query("SELECT name, image FROM tags ORDER BY name"):
            found.setdefault(str(image), []).append(str(name))
        return found

    def tags_of(self, name: str) -> list[str]:
        """Return the stored names that are this full name with a tag, sorted."""
        rows = self._database.query("SELECT name FROM tags WHERE name >= ? AND name < ? ORDER BY name",
                                    (f"{name}:", f"{name};"))  # fmt: skip
        return [str(row[0]) for row in rows]

    def last_tagged(self, image_id: str) -> int:
        """Return when an image got a name last (Unix ns), 0 for never."""
        rows = self._database.query("SELECT max(updated) FROM tags WHERE image = ?", (image_id,))
        return int(rows[0][0] or 0)

    def layers(self) -> dict[str, LayerRow]:
        """Return the layers of this driver by chain ID."""
        rows = self._database.query(
            "SELECT chain_id, parent, diff_id, size FROM layers WHERE driver = ?", (self._driver,)
        )
        return {str(row[0]): LayerRow(*row) for row in rows}

    def layer_size(self, chain_id: str) -> int:
        """Return the size of one layer, 0 when it is not there."""
        rows = self._database.query(
            "SELECT size FROM layers WHERE driver = ? AND chain_id = ?", (self._driver, chain_id)
        )
        return int(rows[0][0]) if rows else 0

    def diff_ids(self) -> set[str]:
        """Return the digests of the layers of all drivers."""
        return {str(row[0]) for row in self._database.query("SELECT DISTINCT diff_id FROM layers")}

    def put_image(self, row: ImageRow) -> None:
        """Add an image; one that is there already stays."""
        self._database.execute(
            "INSERT OR IGNORE INTO images (id, chain_id, created, size, driver, manifest, parent) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (row.id, row.chain_id, row.created, row.size, self._driver, row.manifest, row.parent),
        )

    def set_manifest(self, image_id: str, manifest: str) -> None:
        """Let an image that is there have come with a manifest."""
        self._database.execute("UPDATE images SET manifest = ? WHERE id = ?", (manifest, image_id))

    def put_layer(self, row: LayerRow) -> None:
        """Add a layer; one that is there already stays."""
        self._database.execute(
            "INSERT OR IGNORE INTO layers (chain_id, driver, parent, diff_id, size) VALUES (?, ?, ?, ?, ?)",
            (row.chain_id, self._driver, row.parent, row.diff_id, row.size),
        )

    def put_tag(self, name: str, image_id: str, now: int) -> None:
        """Let a stored name mean an image from now on."""
        self._database.execute("INSERT OR REPLACE INTO tags VALUES (?, ?, ?)", (name, image_id, now))

    def drop_tag(self, name: str) -> None:
        """Let a stored name mean nothing."""
        self._database.execute("DELETE FROM tags WHERE name = ?", (name,))

    def drop_image(self, image_id: str) -> None:
        """Remove an image, which has no tags any more."""
        self._database.execute("DELETE FROM images WHERE id = ?", (image_id,))

    def drop_layer(self, chain_id: str) -> None:
        """Remove a layer."""
        self._database.execute("DELETE FROM layers WHERE driver = ? AND chain_id = ?", (self._driver, chain_id))

    def dangling_tags(self) -> list[tuple[str, str]]:
        """Return the stored names of images that are not there, and the ids of those."""
        rows = self._database.query("SELECT name, image FROM tags WHERE image NOT IN (SELECT id FROM images)")
        return [(str(name), str(image)) for name, image in rows]

    def all_images(self) -> list[ImageRow]:
        """Return the images of all drivers."""
        return [ImageRow(*row) for row in self._database.query(f"{_IMAGE} ORDER BY id")]

    def has_config(self, image_id: str) -> bool:
        """Return whether the config of an image has a row among the blobs."""
        return bool(self._database.query("SELECT 1 FROM content WHERE digest = ?", (image_id,)))

    def has_chain(self, chain_id: str) -> bool:
        """Return whether some driver has a row of a layer."""
        return bool(self._database.query("SELECT 1 FROM layers WHERE chain_id = ? LIMIT 1", (chain_id,)))

    def referred(self) -> set[str]:
        """Return the digests of configs and manifests of the images of all drivers."""
        return {digest for row in self.all_images() for digest in (row.id, row.manifest) if digest}

    def forget_manifest(self, digest: str) -> None:
        """Let no image say any more that this is its manifest."""
        self._database.execute("UPDATE images SET manifest = '' WHERE manifest = ?", (digest,))

    def is_used(self, digest: str) -> bool:
        """Return whether an image refers to a blob, as its config or its manifest."""
        query = "SELECT 1 FROM images WHERE id = ? OR manifest = ? LIMIT 1"
        return bool(self._database.query(query, (digest, digest)))

    def is_child_of(self, image_id: str) -> bool:
        """Return whether an image was built on this one."""
        return bool(self._database.query("SELECT 1 FROM images WHERE parent = ? LIMIT 1", (image_id,)))
