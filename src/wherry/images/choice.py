"""Which image a name or an id means, and which images and names a docker save means."""

from __future__ import annotations

from collections.abc import Callable

from wherry.errors import NotFound
from wherry.images import references
from wherry.images.references import Reference
from wherry.images.rows import ImageRow, Rows

Find = Callable[[str], tuple[ImageRow, str]]
"""Returns the image that the user means and its stored name, "" when it was found by id. Raises NotFound."""


def choose(rows: Rows, find: Find, refs: list[str]) -> list[tuple[ImageRow, tuple[Reference, ...]]]:
    """Return images and the names to save: all tags of a bare name, and none of an image given by its id."""
    chosen: dict[str, tuple[ImageRow, dict[str, Reference]]] = {}
    for ref in refs:
        bare = None if references.image_id(ref) else references.parse(ref)
        same = rows.tags_of(bare.name) if bare and not (bare.tag or bare.digest) else []
        for name in same or [ref]:
            row, stored = _found(find, name, bare=bool(bare and not bare.tag))
            names = chosen.setdefault(row.id, (row, {}))[1]
            if stored and "@" not in stored:
                names[stored] = references.from_stored(stored)
    return [(row, tuple(names.values())) for row, names in chosen.values()]


def _found(find: Find, name: str, *, bare: bool) -> tuple[ImageRow, str]:
    try:
        return find(name)
    except NotFound as error:
        raise NotFound(f"No such image: {name}") if bare else error from None


def find(rows: Rows, ref: str) -> tuple[ImageRow, str]:
    """Return the image that the user means and its stored name, "" when it was found by id."""
    full = references.image_id(ref)
    if full:
        row = rows.image(full)
        if row is None:
            raise NotFound(f"No such image: {full}")
        return row, ""
    reference = references.parse(ref)
    row = rows.image(rows.tagged(reference.stored))
    if row is not None:
        return row, reference.stored
    prefix = ref.removeprefix("sha256:")
    found = rows.starting_with(f"sha256:{prefix}") if references.is_hex(prefix) else []
    row = rows.image(found[0]) if len(found) == 1 else None
    if row is None:  # an ambiguous prefix is no answer either; Docker says the same of both
        raise NotFound(f"No such image: {reference.familiar}")
    return row, ""
