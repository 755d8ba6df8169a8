"""Images, layers and blobs: rows, files and snapshots compared with each other.

Nothing that a lease holds is a finding: it belongs to work that is not over. What is mended is looked at once more
under the locks that the work takes, for it may have come or gone since.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from wherry.errors import EngineError, SystemFailure
from wherry.images.content import Content
from wherry.images.layers import Layers
from wherry.images.load import opened
from wherry.images.references import from_stored, is_digest
from wherry.images.rows import ImageRow, LayerRow, Rows
from wherry.images.spool import Member
from wherry.models.check import Problem, problem
from wherry.store.database import Database

SMALL = 1 << 20
"""Blobs up to so many bytes, configs and manifests, are read in every check."""
_PIECE = 1 << 20
_LOAD_AGAIN = "load or pull it again"


class Audit:
    """One look at the image store. deep: every blob is read and its digest computed, about a second for each GiB."""

    def __init__(self, database: Database, rows: Rows, content: Content, layers: Layers, *, deep: bool) -> None:
        self._database = database
        self._rows = rows
        self._content = content
        self._layers = layers
        self._deep = deep
        self._images = rows.all_images()
        self._known = rows.layers()

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong, layers after the archives from which they are made anew."""
        yield from self._records()
        yield from self._blobs()
        yield from self._files()
        yield from self._missing_layers()
        yield from self._other_snapshots()
        yield from self._incomplete_images()

    # The database

    def _records(self) -> Iterator[Problem]:
        if self._deep:
            for (text,) in self._database.query("PRAGMA integrity_check"):
                if text != "ok":
                    yield problem("damaged database", "meta.db", str(text), "restore it from a backup")
        for name, image_id in self._rows.dangling_tags():
            remedy = f"the name is taken away; {_LOAD_AGAIN}"
            mend = partial(self._rows.drop_tag, name)
            text = f"it is a name of the image {image_id}, which is not there"
            yield problem("dangling name", from_stored(name).familiar, text, remedy, mend=mend)

    # Blobs that have a row

    def _blobs(self) -> Iterator[Problem]:
        needed = self._needed()
        for digest, size, media_type in self._content.rows():
            if digest not in needed and digest not in self._content.leases:
                text = f"no image and no layer needs this blob ({media_type})"
                mend = partial(self._drop, digest)
                yield problem("unneeded blob", digest, text, "it is deleted", mend=mend, size=max(size, 0))
                continue
            wrong = self._wrong(digest, size)
            if wrong:
                yield self._bad_blob(digest, wrong)

    def _needed(self) -> set[str]:
        return self._rows.diff_ids() | self._rows.referred()

    def _wrong(self, digest: str, size: int) -> str:
        """Return what is wrong with a blob, "" for nothing."""
        path = self._content.path(digest)
        try:
            found = path.stat().st_size
            if size < 0:
                return "it was found damaged before"
            if found != size:
                return f"the file has {found} bytes instead of {size}"
            if (self._deep or size <= SMALL) and sha256_of(path) != digest:
                return "the bytes of the file are not those of its digest"
        except FileNotFoundError:
            return "its file is missing"
        except OSError as error:
            return f"its file cannot be read: {error}"
        return ""

    def _bad_blob(self, digest: str, wrong: str) -> Problem:
        kind = "missing blob" if wrong.endswith("missing") else "damaged blob"
        names = self._names_of(digest)
        if names:
            text = f"{wrong}; it is the configuration of {names}, which cannot be used"
            return problem(kind, digest, text, f"docker rmi {digest[7:19]}, then {_LOAD_AGAIN}")
        layers = [row for row in self._known.values() if row.diff_id == digest]
        if not layers:
            text, remedy = f"{wrong}; it is the manifest of an image", "the image forgets it; it can be pulled again"
            return problem(kind, digest, text, remedy, mend=partial(self._forget_manifest, digest))
        users = ", ".join(self._standing_on({row.chain_id for row in layers})) or "no image"
        means = "cannot be saved or pushed" if self._layers.unpacked else "may give containers wrong files"
        text = f"{wrong}; it is the archive of a layer of {users}, which {means}"
        if self._content.size(digest) < 0:
            return problem(kind, digest, text, f"{_LOAD_AGAIN}: the archive is then replaced")
        remedy = f"it is no longer given out; {_LOAD_AGAIN}, and it is replaced"
        return problem(kind, digest, text, remedy, mend=partial(self._content.distrust, digest))

    def _names_of(self, image_id: str) -> str:
        if not any(image.id == image_id for image in self._images):
            return ""
        return ", ".join(self._familiar(image_id))

    def _familiar(self, image_id: str) -> list[str]:
        return [from_stored(name).familiar for name in self._rows.tags(image_id)] or [f"the image {image_id[7:19]}"]

    def _standing_on(self, chains: set[str]) -> list[str]:
        return [
            name for image in self._images if chains & self._chain(image.chain_id) for name in self._familiar(image.id)
        ]

    def _chain(self, chain: str) -> set[str]:
        found: set[str] = set()
        while chain in self._known and chain not in found:
            found.add(chain)
            chain = self._known[chain].parent
        return found

    def _drop(self, digest: str) -> None:
        with self._content.leases.lock:
            if digest not in self._content.leases and digest not in self._needed():
                self._content.forget(digest)
                self._content.delete(digest)

    def _forget_manifest(self, digest: str) -> None:
        with self._database.transaction():
            self._rows.forget_manifest(digest)
            self._content.forget(digest)
        self._content.delete(digest)

    # Files

    def _files(self) -> Iterator[Problem]:
        known = {digest for digest, _, _ in self._content.rows()}
        for entry in self._content.files():
            digest = f"sha256:{entry.name}"
            if digest in known or digest in self._content.leases:
                continue
            size = entry.stat().st_size if entry.exists() else 0
            mend = partial(self._delete_file, digest, entry)
            text = f"{entry} has no record: it is what work that was cut off has left"
            yield problem("unaccounted blob", entry.name, text, "it is deleted", mend=mend, size=size)

    def _delete_file(self, digest: str, path: Path) -> None:
        with self._content.leases.lock:
            if digest not in self._content.leases and not (is_digest(digest) and self._content.is_recorded(digest)):
                path.unlink(missing_ok=True)

    # Layers

    def _missing_layers(self) -> Iterator[Problem]:
        present = self._layers.present()
        missing = [row for chain, row in self._known.items() if chain not in present]
        can = set(present)
        for row in sorted(missing, key=lambda each: len(self._chain(each.chain_id))):
            users = ", ".join(self._standing_on({row.chain_id})) or "no image"
            text = f"the storage driver has lost this layer of {users}"
            if (not row.parent or row.parent in can) and not self._wrong_archive(row.diff_id):
                can.add(row.chain_id)
                remedy = "it is made anew from its archive"
                yield problem("missing layer", row.chain_id, text, remedy, mend=partial(self._remake, row))
            else:
                yield problem("missing layer", row.chain_id, text, f"its archive is not whole: {_LOAD_AGAIN}")

    def _wrong_archive(self, diff_id: str) -> bool:
        return not self._content.has(diff_id) or bool(self._wrong(diff_id, self._content.size(diff_id)))

    def _remake(self, row: LayerRow) -> None:
        """Make a layer anew. Raises SystemFailure when its archive is not what it should be."""
        path = self._content.path(row.diff_id)
        with self._content.leases.hold([row.chain_id, row.diff_id]):
            if sha256_of(path) != row.diff_id:
                raise SystemFailure(f"{path} is damaged: {_LOAD_AGAIN}")
            archive = Member(path, path.stat().st_size, row.diff_id)
            self._layers.ingest_one(row, lambda: opened(archive, row.diff_id, lambda _: None))
            self._layers.flush()

    def _other_snapshots(self) -> Iterator[Problem]:
        for chain in sorted(self._layers.present()):
            if chain in self._content.leases:
                continue
            if chain not in self._known:
                text, remedy = "no image needs this layer of the storage driver", "it is deleted"
                yield problem("unaccounted layer", chain, text, remedy, mend=self._collect)
                continue
            try:
                self._layers.usage(chain)
            except (EngineError, OSError, ValueError) as error:
                users = ", ".join(self._standing_on({chain})) or "no image"
                text = f"the storage driver cannot read this layer of {users}: {error}"
                yield problem("damaged layer", chain, text, f"docker rmi, with its containers, then {_LOAD_AGAIN}")

    def _collect(self) -> None:
        self._layers.collect()

    # Images

    def _incomplete_images(self) -> Iterator[Problem]:
        for image in self._images:
            if not self._rows.has_config(image.id):
                yield self._incomplete(image, "its configuration has no record")
            elif image.chain_id and not self._rows.has_chain(image.chain_id):
                yield self._incomplete(image, "no storage driver has a record of its layers")

    def _incomplete(self, image: ImageRow, wrong: str) -> Problem:
        names = ", ".join(self._familiar(image.id))
        text = f"{wrong}; {names} cannot be used"
        mend = partial(self._remove_image, image.id)
        return problem("incomplete image", image.id, text, f"its record goes; {_LOAD_AGAIN}", mend=mend)

    def _remove_image(self, image_id: str) -> None:
        with self._database.transaction(power_safe=True):
            for name in self._rows.tags(image_id):
                self._rows.drop_tag(name)
            self._rows.drop_image(image_id)


def sha256_of(path: Path) -> str:
    """Return the digest of a file. Raises OSError."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        while piece := file.read(_PIECE):
            digest.update(piece)
    return f"sha256:{digest.hexdigest()}"
