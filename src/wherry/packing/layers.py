"""From a layer's tar to a directory: unpacking with whiteouts (OCI image spec, "Layer Changes")."""

from __future__ import annotations

import os
import stat
from typing import Protocol

from wherry.archive import tar
from wherry.archive.tar import Entry, TarError, TarReader, clean_name
from wherry.packing.unpack import Unpacker

PREFIX = b".wh."
OPAQUE = b".wh..wh..opq"
_META = b".wh..wh."


def is_meta(name: bytes) -> bool:
    """Return whether a name is one of AUFS' own, which says nothing of the layers below."""
    return name.startswith(_META)


class Whiteouts(Protocol):
    """How a driver says that something of the layers below is not there any more."""

    def hide(self, parent: int, path: bytes) -> None:
        """Hide what `path`, whose directory is `parent`, is in the layers below."""
        ...

    def hide_content(self, folder: int, path: bytes) -> None:
        """Hide what the layers below have in the directory `path`, open as `folder`."""
        ...

    def made(self, path: bytes) -> None:
        """Take note that this layer has an entry of its own at `path`."""
        ...


class LayerUnpacker(Unpacker):
    """Unpacks one layer. What is removed from the layers below becomes what the driver needs, see `Whiteouts`."""

    def __init__(self, root: int, whiteouts: Whiteouts) -> None:
        super().__init__(root)
        self._whiteouts = whiteouts

    def _take(self, entry: Entry, reader: TarReader, path: bytes) -> None:
        folder, _, name = path.rpartition(b"/")
        if not name:
            self._make_root(entry)
        elif name.startswith(PREFIX):
            self._whiteout(folder, name)
        elif entry.type == tar.CHARACTER and entry.device == (0, 0):
            # overlayfs' own form of a whiteout; Docker keeps it one, so an image that holds one means it
            self._whiteouts.hide(self._open_folder(folder), path)
        else:
            self._whiteouts.made(path)
            self._make(entry, reader, path)

    def _make_root(self, entry: Entry) -> None:
        if entry.type != tar.DIRECTORY:
            raise TarError("the root of a layer must be a directory")
        root = os.fstat(self._root)
        self._late[b""] = entry, (root.st_dev, root.st_ino)

    def _replaced(self, path: bytes, state: os.stat_result) -> None:
        """Removed below and made anew in one layer: what was in it stays removed."""
        if stat.S_ISCHR(state.st_mode) and state.st_rdev == 0:
            self._whiteouts.hide_content(self._open_folder(path), path)

    def _make_node(self, entry: Entry, parent: int, name: bytes) -> None:
        if entry.type == tar.HARD_LINK and clean_name(entry.link).rpartition(b"/")[2].startswith(PREFIX):
            raise TarError("a hard link to a whiteout")
        super()._make_node(entry, parent, name)

    def _whiteout(self, folder: bytes, name: bytes) -> None:
        if name == OPAQUE:
            fd = self._open_folder(folder)
            self._whiteouts.hide_content(fd, folder)
            return
        if is_meta(name):
            return  # AUFS' own files, which old images hold
        hidden = name[len(PREFIX) :]
        if hidden in (b"", b".", b".."):
            raise TarError(f"a whiteout without a name: {os.fsdecode(name)}")
        fd = self._open_folder(folder)
        self._spend(0)
        self._whiteouts.hide(fd, folder + b"/" + hidden if folder else hidden)
