"""From log records to the bytes of docker logs: framing, timestamps, details, and waiting for more."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from urllib.parse import quote_plus

from wherry.kernel import inotify
from wherry.logs.jsonfile import LogRecord, Reader

STREAM_NUMBERS = {"stdout": 1, "stderr": 2}


@dataclass(frozen=True, slots=True)
class Form:
    """How records are written out. framed: Engine API frames (no terminal)."""

    framed: bool
    stdout: bool
    stderr: bool
    timestamps: bool = False
    details: bool = False


def _details(attributes: dict[str, str]) -> str:
    return ",".join(f"{quote_plus(key)}={quote_plus(value)}" for key, value in sorted(attributes.items()))


def encode(records: Iterable[LogRecord], form: Form) -> bytes:
    """Return the records as the client gets them."""
    parts = []
    for record in records:
        if not (form.stdout if record.stream == "stdout" else form.stderr):
            continue
        text = record.log
        if form.details:
            text = f"{_details(record.attrs)} {text}"
        if form.timestamps:
            text = f"{record.time} {text}"
        data = text.encode("utf-8", "surrogateescape")
        if form.framed:
            parts.append(struct.pack(">BxxxI", STREAM_NUMBERS.get(record.stream, 1), len(data)))
        parts.append(data)
    return b"".join(parts)


async def read(reader: Reader, form: Form) -> AsyncIterator[bytes]:
    """Yield what is in the log now, and close it."""
    try:
        for batch in reader.read():
            if data := encode(batch, form):
                yield data
            await asyncio.sleep(0)
    finally:
        reader.close()


async def follow(reader: Reader, form: Form, directory: str, ended: Callable[[], bool]) -> AsyncIterator[bytes]:
    """Yield what is there and what comes, until ended() is true and everything has been read."""
    loop = asyncio.get_running_loop()
    changed = asyncio.Event()
    watch = inotify.watch_directory(directory)
    loop.add_reader(watch, changed.set)
    try:
        while True:
            last = ended()
            for batch in reader.read():
                if data := encode(batch, form):
                    yield data
                await asyncio.sleep(0)
            if last:
                return
            try:
                # the end of a container need not touch its log: look again twice a second
                await asyncio.wait_for(changed.wait(), 0.5)
            except TimeoutError:
                pass
            changed.clear()
            inotify.drain(watch)
    finally:
        loop.remove_reader(watch)
        os.close(watch)
        reader.close()
