"""What a container changed, as the tar of a layer (OCI image spec, "Layer Changes"): docker commit.

Made from the list of changes, so it is the same for every driver, and an opaque directory becomes a whiteout for each
name that it hides. What the engine itself put into the tree for a start is not in that list.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from wherry.errors import Conflict
from wherry.packing.layers import PREFIX
from wherry.packing.pack import Packer
from wherry.snapshots.changes import DELETED, Change


def layer(now: Path, changes: Sequence[Change]) -> Iterator[bytes]:
    """Yield the tar. now: the container's tree. changes: sorted by path.

    Raises OSError, and Conflict for a name that would mean something else in a layer.
    """
    root = os.open(now, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        packer = Packer(root)
        for change in changes:
            path = change.path.removeprefix("/")
            above, slash, name = path.rpartition("/")
            if name.startswith(PREFIX.decode()):
                raise Conflict(f"{change.path}: in a layer, a name that begins with .wh. means a removed file")
            if change.kind == DELETED:
                packer.mark(os.fsencode(f"{above}{slash}") + PREFIX + os.fsencode(name))
            else:
                yield from packer.one(path, os.fsencode(path))
        yield from packer.end()
    finally:
        os.close(root)
