"""What a volume's folder remembers of its restoration, so that the next backup can be put on top of it.

    DATA_ROOT/volumes/NAME/restored.json        {"id": ID, "complete": true}; false while a backup is being put on top
    DATA_ROOT/volumes/NAME/restored.jsonl       the manifest, with ctime and inode of this machine
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from wherry.volumes.backup.ledger import Spool

STATE, LINES = "restored.json", "restored.jsonl"


class Restored(msgspec.Struct, frozen=True):
    """id: of the backup that the volume has; complete: whether it has all of it."""

    id: str = ""
    complete: bool = True


def read(folder: Path) -> Restored:
    """Return what a volume was restored from, an empty id for nothing. Raises OSError, msgspec.MsgspecError."""
    try:
        return msgspec.json.decode((folder / STATE).read_bytes(), type=Restored)
    except FileNotFoundError:
        return Restored()


def lines(folder: Path, scratch: Path) -> Spool:
    """Return the manifest as it was written down. Raises OSError."""
    spool = Spool(scratch)
    try:
        with open(folder / LINES, "rb", buffering=0) as file:
            while piece := file.read(1 << 20):
                spool.write(piece)
    except FileNotFoundError:
        return spool
    except BaseException:
        spool.close()
        raise
    return spool


def write(folder: Path, state: Restored, spool: Spool | None = None) -> None:
    """Write both down, the manifest first: a state that is there has its manifest. Raises OSError."""
    if spool is not None:
        _replace(folder / LINES, spool.pieces())
    _replace(folder / STATE, [msgspec.json.encode(state)])


def _replace(path: Path, pieces: Iterable[bytes]) -> None:
    aside = path.with_name(f"{path.name}.new")
    with open(aside, "wb") as file:
        for piece in pieces:
            file.write(piece)
    os.replace(aside, path)
