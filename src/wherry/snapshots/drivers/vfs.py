"""vfs: every snapshot is a full copy of its parent plus what it changes. Slow and large, but works anywhere."""

from __future__ import annotations

import os
from pathlib import Path

from wherry.kernel.fsio.copy import copy_tree
from wherry.packing.layers import Whiteouts
from wherry.runtime.mounts import Mount
from wherry.snapshots.directories import DirectoryDriver
from wherry.snapshots.whiteouts import PlainWhiteouts

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW


class Vfs(DirectoryDriver):
    """The driver that needs nothing of the kernel."""

    name = "vfs"

    def _whiteouts(self, parent: str) -> Whiteouts:
        return PlainWhiteouts()

    def _fill(self, target: Path, parent: str) -> None:
        if not parent:
            return
        source_fd = os.open(self._layout.layer(parent) / "fs", _OPEN)
        try:
            target_fd = os.open(target, _OPEN)
            try:
                copy_tree(source_fd, target_fd)
            finally:
                os.close(target_fd)
        finally:
            os.close(source_fd)

    def mounts(self, key: str) -> tuple[Mount, ...]:
        """Return a bind mount of the copy."""
        folder, _ = self._layout.find(key)
        return (Mount("bind", str(folder / "fs"), "", ("rbind",)),)

    def view(self, chain_id: str) -> Mount:
        """Return a bind mount of the layer, which is a whole tree."""
        source = self._layout.layer(chain_id) / "fs" if chain_id else self._empty()
        return Mount("bind", str(source), "", ("bind", "ro"))

    def _empty(self) -> Path:
        folder = self._layout.root / "empty"
        folder.mkdir(mode=0o755, exist_ok=True)
        return folder

    def graph_data(self, key: str) -> dict[str, str]:
        """Return nothing: as with Docker, vfs has no GraphDriver.Data."""
        return {}

    def status(self) -> list[tuple[str, str]]:
        """Return nothing: there is nothing to say."""
        return []
