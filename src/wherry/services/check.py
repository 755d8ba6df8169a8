"""wherry system check: is everything that the engine keeps accounted for, whole, and needed?

Two looks, a moment apart: what only the first one sees was work under way. Bytes are apparent sizes of files, a file
with several names once, as `du --apparent-size` counts them without its directories.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from wherry.errors import EngineError
from wherry.images.images import Images
from wherry.kernel.fsio import trees
from wherry.models.check import Finding, Problem, problem
from wherry.services.lifecycle import Lifecycle, delete_folder
from wherry.volumes import audit
from wherry.volumes.local import Volumes

PAUSE = 0.5
"""Seconds between the two looks."""
_PARTS = {
    "blobs": "content/blobs", "work": "content/tmp content/spool tmp", "layers": "snapshots",
    "containers": "containers", "volumes": "volumes", "database": "meta.db meta.db-wal meta.db-shm", "lock": "lock",
}  # fmt: skip
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
Json = Any


@dataclass(frozen=True, slots=True)
class CheckService:
    """CheckBackend."""

    lifecycle: Lifecycle
    images: Images
    volumes: Volumes

    async def check(self, *, deep: bool, repair: bool) -> Json:
        """Return {"Findings": [...], "Bytes": {...}}; repair: mend first what can be mended without losing data."""
        found = await self._look(deep=deep)
        if found:
            await asyncio.sleep(PAUSE)
            first = {(each.finding.kind, each.finding.subject) for each in found}
            found = [each for each in await self._look(deep=deep) if _key(each) in first]
        findings = [await self._mend(each) if repair else each.finding for each in found]
        return {
            "Deep": deep,
            "Findings": [msgspec.to_builtins(each) for each in findings],
            "Bytes": await asyncio.to_thread(_bytes, self.lifecycle.settings.data_root),
        }

    async def _look(self, *, deep: bool) -> list[Problem]:
        content = await asyncio.to_thread(self.images.audit, deep=deep)
        return [*content, *self._containers(), *audit.problems(self.volumes), *self._unknown()]

    async def _mend(self, wrong: Problem) -> Finding:
        """Mend one; what cannot be mended after all says why. Records of volumes are the event loop's."""
        finding = wrong.finding
        if wrong.mend is None:
            return finding
        try:
            if finding.kind == "lost volume":
                wrong.mend()
            else:
                await asyncio.to_thread(wrong.mend)
        except (EngineError, OSError) as error:
            return msgspec.structs.replace(finding, remedy=f"could not be mended: {error}", mendable=False)
        return msgspec.structs.replace(finding, mended=True)

    def _containers(self) -> Iterator[Problem]:
        catalog, snapshotter = self.lifecycle.catalog, self.lifecycle.snapshotter
        known = {each.id for each in catalog} | catalog.coming
        active = {info.name for info in snapshotter.walk() if not info.committed}
        for key in sorted(active - known):
            text, remedy = "a writable layer that belongs to no container", "it is deleted"
            yield problem("unaccounted layer", key, text, remedy, mend=partial(snapshotter.remove, key))
        for container in catalog:
            if container.id not in active:
                yield self._without_layer(container.id, container.name)
        settings = self.lifecycle.settings
        for root in (settings.data_root / "containers", settings.run_root / "containers"):
            for entry in sorted(root.iterdir()):
                if entry.name not in known:
                    text, remedy = "a folder that belongs to no container", "it is deleted"
                    mend = partial(delete_folder, entry)
                    yield problem("unaccounted folder", str(entry), text, remedy, mend=mend, size=_size(entry))

    def _without_layer(self, key: str, name: str) -> Problem:
        """Explain a container that cannot start: its data may be where another storage driver keeps them."""
        for path in sorted((self.lifecycle.settings.data_root / "snapshots").glob(f"*/active/{key}")):
            driver = path.parent.parent.name
            text = f"the writable layer of the container {name} is one of the storage driver {driver}: it cannot start"
            return problem("missing layer", key, text, f"start wherryd with --storage-driver {driver}")
        text = f"the writable layer of the container {name} is missing: it cannot start"
        return problem("missing layer", key, text, f"docker rm {name}")

    def _unknown(self) -> Iterator[Problem]:
        root = self.lifecycle.settings.data_root
        known = {place.partition("/")[0] for places in _PARTS.values() for place in places.split()}
        for name in sorted(set(os.listdir(root)) - known):
            yield _foreign(root / name)
        for name in sorted(set(os.listdir(root / "content")) - {"blobs", "tmp", "spool"}):
            yield _foreign(root / "content" / name)


def _key(wrong: Problem) -> tuple[str, str]:
    return wrong.finding.kind, wrong.finding.subject


def _foreign(path: Path) -> Problem:
    text = "it is not the engine's"
    return problem("unknown file", str(path), text, "look at it, and delete it yourself", size=_size(path))


def _size(path: Path) -> int:
    """Return the bytes of a file or of a folder's files; 0 for what has gone."""
    try:
        fd = os.open(path, _OPEN)
    except FileNotFoundError:
        return 0
    except (NotADirectoryError, OSError):
        return path.lstat().st_size
    try:
        return trees.measure(fd)[0]
    finally:
        os.close(fd)


def _bytes(root: Path) -> dict[str, int]:
    """Return where the bytes below the data root are; all of them together are `total`.

    They change while they are measured, so what remains is never taken for less than nothing.
    """
    parts = {part: sum(_size(root / place) for place in places.split()) for part, places in _PARTS.items()}
    parts["other"] = max(0, _size(root) - sum(parts.values()))
    return parts | {"total": sum(parts.values())}
