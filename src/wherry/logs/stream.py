"""From log records to the bytes of docker logs: framing, timestamps, details, and waiting for more."""

from __future__ import annotations

import asyncio
import os
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import quote_plus

from wherry.kernel import inotify
from wherry.logs.reader import Reader
from wherry.logs.records import Record
from wherry.models.times import SECOND, rfc3339

STREAM_NUMBERS = {"stdout": 1, "stderr": 2}
_HEAD = struct.Struct(">BxxxI").pack


@dataclass(frozen=True, slots=True)
class Form:
    """How records are written out. framed: Engine API frames (no terminal)."""

    framed: bool
    stdout: bool
    stderr: bool
    timestamps: bool = False
    details: bool = False


def _details(attributes: Mapping[str, str]) -> str:
    return ",".join(f"{quote_plus(key)}={quote_plus(value)}" for key, value in sorted(attributes.items()))


def _stamp(at: int | str) -> bytes:
    """Return a time with all nine decimals, as dockerd prints it."""
    whole, _, fraction = (rfc3339(at) if isinstance(at, int) else at).removesuffix("Z").partition(".")
    return f"{whole}.{fraction:0<9}Z ".encode()


def encode(records: Iterable[Record], form: Form) -> bytes:
    """Return the records as the client gets them."""
    wanted = {name for name, asked in (("stdout", form.stdout), ("stderr", form.stderr)) if asked}
    parts: list[bytes] = []
    plain = form.framed and not (form.details or form.timestamps)
    if plain:  # the usual case, without a second look at anything
        for stream, _, data, _ in records:
            if stream in wanted:
                parts += (_HEAD(STREAM_NUMBERS[stream], len(data)), data)
        return b"".join(parts)
    for stream, at, data, attributes in records:
        if stream not in wanted:
            continue
        if form.details:
            data = f"{_details(attributes)} ".encode() + data
        if form.timestamps:
            data = _stamp(at) + data
        if form.framed:
            parts.append(_HEAD(STREAM_NUMBERS[stream], len(data)))
        parts.append(data)
    return b"".join(parts)


def _encoded(batches: Iterator[list[Record]], form: Form) -> bytes | None:
    """Return the next batch as bytes for the client, None when there is none for now."""
    batch = next(batches, None)
    return None if batch is None else encode(batch, form)


async def _available(reader: Reader, form: Form) -> AsyncIterator[bytes]:
    """Yield what is in the log now. Files are read and decoded in a thread: the event loop does not wait for disks."""
    batches = reader.read()
    loop = asyncio.get_running_loop()
    while True:
        step = loop.run_in_executor(None, _encoded, batches, form)
        try:
            data = await asyncio.shield(step)
        except asyncio.CancelledError:
            await asyncio.wait([step])  # it uses the files that are closed next
            raise
        if data is None:
            return
        if data:
            yield data


async def read(reader: Reader, form: Form) -> AsyncIterator[bytes]:
    """Yield what is in the log now, and close it."""
    try:
        async for data in _available(reader, form):
            yield data
    finally:
        reader.close()


async def follow(reader: Reader, form: Form, ended: Callable[[], bool], until: int = 0) -> AsyncIterator[bytes]:
    """Yield what is there and what comes, until ended() is true and everything has been read, or until a time (ns)."""
    loop = asyncio.get_running_loop()
    changed = asyncio.Event()
    watch = inotify.watch_directory(_folder(reader.path))  # before the first look, so that nothing is missed
    loop.add_reader(watch, changed.set)
    try:
        while True:
            last = ended() or (until and time.time_ns() > until)
            async for data in _available(reader, form):
                yield data
            if last or reader.done:
                return
            try:
                # the end of a container need not touch its log: look again twice a second
                left = (until - time.time_ns()) / SECOND if until else 0.5
                await asyncio.wait_for(changed.wait(), max(0.0, min(0.5, left)))
            except TimeoutError:
                pass
            changed.clear()
            inotify.drain(watch)
    finally:
        loop.remove_reader(watch)
        os.close(watch)
        reader.close()


def _folder(path: str) -> str:
    """Return the log's folder, which the supervisor may only be about to make."""
    folder = os.path.dirname(path)
    with suppress(FileExistsError):
        os.mkdir(folder, 0o710)
    return folder
