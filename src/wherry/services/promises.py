"""What layers promise to be before they are there: the tables of contents of eStargz layers, first of all in a pull.

    all layers:  last bytes of the blob -> footer -> table, by its digest in the manifest -> kept in the pull's folder
    each layer:  tar, by its digests -> compared with its table -> made by the driver, from the tar in any case

A table that cannot be had or is wrong is logged and ends no pull: the layer is then one as all others. One table at a
time is in memory as objects; the others are files. docs/lazy-start.md says what it is for.
"""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from wherry.archive.estargz import FOOTER, TOC_DIGEST, TocError, difference, promised, table, table_offset
from wherry.archive.tar import TarError
from wherry.errors import EngineError
from wherry.images.spool import Member, Spool
from wherry.models.manifest import Descriptor
from wherry.registry.api import Report
from wherry.registry.cancellation import Cancellation
from wherry.registry.progress import short, status
from wherry.registry.remote import Remote, Whole

log = logging.getLogger(__name__)

_TAIL = 64 << 10
"""Bytes of a blob's end that are fetched at once: footer, and the table of some hundred files."""
_IN_MEMORY = threading.Lock()
_LIKE_GZIP = ("tar+gzip", "tar.gzip")


@dataclass(frozen=True, slots=True)
class _Promise:
    table: Member
    end: int


class _Wanted:
    """A file to read from as long as somebody wants what comes of it."""

    def __init__(self, file: BinaryIO, cancellation: Cancellation) -> None:
        self._file = file
        self._cancellation = cancellation

    def read(self, size: int, /) -> bytes:
        """Return some bytes. Raises Cancelled."""
        self._cancellation.check()
        return self._file.read(size)


class Promises:
    """The tables of one pull."""

    def __init__(self, remote: Remote, spool: Spool, report: Report, cancellation: Cancellation) -> None:
        self._remote = remote
        self._cancellation = cancellation
        self._spool = spool
        self._report = report
        self._found: dict[str, _Promise] = {}

    def fetch(self, layers: list[Descriptor], threads: int) -> None:
        """Have the tables of those layers that have one. Raises Cancelled."""
        wanted = {each.digest: each for each in layers if _digest(each) and each.media_type.endswith(_LIKE_GZIP)}
        with ThreadPoolExecutor(threads, "wherry-toc") as pool:
            list(pool.map(self._one, wanted.values()))

    def _one(self, layer: Descriptor) -> None:
        try:
            self._keep(layer, *_read(self._remote, layer))
        except Whole as error:
            log.info("layer %s comes as a whole: %s", layer.digest, error)
        except (TocError, EngineError) as error:
            log.warning("the table of contents of layer %s is not used: %s", layer.digest, error)

    def _keep(self, layer: Descriptor, data: bytes, end: int) -> None:
        with self._alone():
            files = size = 0
            for file in promised(data, end):
                files += 1
                size += file.entry.size
            self._found[layer.digest] = _Promise(self._spool.take_plain(io.BytesIO(data)), end)
        self._report(status(f"Index verified: {files} files, {size} bytes", short(layer.digest)))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Be the one whose table is in memory."""
        while not _IN_MEMORY.acquire(timeout=0.2):
            self._cancellation.check()
        try:
            yield
        finally:
            _IN_MEMORY.release()

    def compare(self, layer: Descriptor, member: Member) -> None:
        """Tell in the log when a layer's tar is not what its table says. The tar is right: its digests are.

        Raises Cancelled.
        """
        promise = self._found.pop(layer.digest, None)
        if promise is None:
            return
        try:
            with self._alone(), member.path.open("rb") as file:
                data = promise.table.path.read_bytes()
                lie = difference(data, promise.end, _Wanted(file, self._cancellation))
        except (TocError, TarError) as error:
            lie = str(error)
        if lie:
            log.warning("layer %s is not what its table of contents promised: %s; its tar counts", layer.digest, lie)


def _digest(layer: Descriptor) -> str:
    return (layer.annotations or {}).get(TOC_DIGEST, "")


def _read(remote: Remote, layer: Descriptor) -> tuple[bytes, int]:
    """Return the table's JSON, verified, and where its member begins. Raises TocError, Whole, EngineErrors."""
    if layer.size <= FOOTER:
        raise TocError(f"a blob of {layer.size} bytes")
    begin = max(layer.size - _TAIL, 0)
    tail = remote.part(layer, begin, layer.size)
    offset = table_offset(tail[-FOOTER:], layer.size)
    stop = layer.size - FOOTER
    if offset >= begin:
        member = tail[offset - begin : stop - begin]
    else:
        member = remote.part(layer, offset, begin) + tail[:-FOOTER]
    return table(member, _digest(layer)), offset
