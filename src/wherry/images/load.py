"""docker load and docker import: an archive becomes images, all of them or none."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import RawIOBase
from typing import Any, Protocol, cast

from wherry.archive.tar import Source
from wherry.errors import InvalidArgument
from wherry.images.api import Report
from wherry.images.manifest import Candidate
from wherry.images.spool import Member, Spool

_INTERVAL = 0.1


class Counted(RawIOBase):
    """A source that reports how far it has been read, at most ten times a second and once at its end."""

    def __init__(self, source: Source, total: int, report: Report, name: str) -> None:
        super().__init__()
        self._source = source
        self._total = total
        self._done = 0
        self._report = report
        self._name = name
        self._next = 0.0

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes."""
        data = self._source.read(size)
        self._done += len(data)
        now = time.monotonic()
        if data and (now >= self._next or self._done == self._total):
            self._next = now + _INTERVAL
            detail = {"current": self._done, "total": self._total}
            self._report({"status": "Loading layer", "progressDetail": detail, "id": self._name})
        return data


def plain(spool: Spool, member: Member, diff_id: str) -> Member:
    """Return the uncompressed tar of a layer, as a file of the spool. Raises InvalidArgument when it is another."""
    if member.digest == diff_id:
        return member
    with open(member.path, "rb", buffering=0) as file:
        unpacked = spool.take_whole(file)
    if unpacked.digest != diff_id:
        raise InvalidArgument(f"a layer is not what its digest says: expected {diff_id}, got other bytes")
    return unpacked


class Incoming(Protocol):
    """The layers of an image that comes, lowest first."""

    def fetch(self, index: int) -> Member:
        """Return the uncompressed tar of a layer, of its diff id's bytes, in a file that may be taken away."""
        ...

    def report(self, index: int) -> Report:
        """Return who is told how far a layer has been read."""
        ...

    def done(self, index: int) -> None:
        """Take note that a layer is there."""
        ...


class ArchiveLayers:
    """The layers of an image in an archive that has been taken apart."""

    def __init__(self, image: Candidate, spool: Spool, report: Report) -> None:
        self._image = image
        self._spool = spool
        self._report = report

    def fetch(self, index: int) -> Member:
        """Return a layer, decompressed."""
        return plain(self._spool, self._image.layers[index], self._image.config.rootfs.diff_ids[index])

    def report(self, index: int) -> Report:
        """Return who watches the load."""
        return self._report

    def done(self, index: int) -> None:
        """Say nothing: docker load does not."""


@contextmanager
def opened(member: Member, diff_id: str, report: Report) -> Iterator[Source]:
    """Give the uncompressed tar of a layer, whose digest was computed when the file was written."""
    with open(member.path, "rb", buffering=0) as file:
        yield cast(Source, Counted(file, member.size, report, diff_id[7:19]))


def import_config(run: dict[str, Any], diff_id: str, *, created: str, comment: str, system: dict[str, str]) -> dict[
    str, Any
]:
    """Return the image config of an import: one layer and what the changes say."""
    return {
        **system,
        "created": created,
        "comment": comment,
        "config": run,
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": created, "comment": comment}],
    }
