"""From log records to the bytes of docker logs: framing, timestamps, details, and waiting for more."""

from __future__ import annotations

import asyncio
import os
import struct
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import quote_plus

from wherry.kernel import inotify
from wherry.logs.reader import Reader
from wherry.logs.records import Record
from wherry.models.queries import Chunked
from wherry.models.times import SECOND, rfc3339

STREAM_NUMBERS = {"stdout": 1, "stderr": 2}
_HEAD = struct.Struct(">BxxxI").pack


class _Heads(dict[int, bytes]):
    """The heads of one stream's frames by the size of what they hold; those for short lines are kept."""

    def __init__(self, stream: str) -> None:
        self._number = STREAM_NUMBERS[stream]

    def __missing__(self, size: int) -> bytes:
        head = _HEAD(self._number, size)
        if size < _SHORT:
            self[size] = head
        return head


_SHORT = 1024
_HEADS = {stream: _Heads(stream) for stream in STREAM_NUMBERS}


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
    if isinstance(at, str) and len(at) == 30:  # it has them
        return at.encode() + b" "
    whole, _, fraction = (rfc3339(at) if isinstance(at, int) else at).removesuffix("Z").partition(".")
    return f"{whole}.{fraction:0<9}Z ".encode()


def encode(records: Iterable[Record], form: Form) -> bytes:
    """Return the records as the client gets them: a frame for each line, as clients take one for the other."""
    wanted = {name for name, asked in (("stdout", form.stdout), ("stderr", form.stderr)) if asked}
    parts: list[bytes] = []
    for stream, at, output, attributes in records:
        if stream not in wanted:
            continue
        prefix = _stamp(at) if form.timestamps else b""
        if form.details:
            prefix += f"{_details(attributes)} ".encode()
        if form.framed:
            parts.append(_frames(output, prefix, _HEADS[stream]))
        else:
            parts.append(_prefixed(output, prefix) if prefix else output)
    return b"".join(parts)


def _frames(output: bytes, prefix: bytes, heads: _Heads) -> bytes:
    size = len(prefix)
    if output.find(b"\n", 0, -1) < 0:  # one line, or a part of one
        return heads[size + len(output)] + prefix + output
    lines = output.split(b"\n")
    last = lines.pop()
    size += 1
    if prefix:
        framed = [heads[len(line) + size] + prefix + line for line in lines]
    else:
        framed = [heads[len(line) + size] + line for line in lines]
    framed.append(heads[len(prefix) + len(last)] + prefix + last if last else b"")
    return b"\n".join(framed)


def _prefixed(output: bytes, prefix: bytes) -> bytes:
    ended = output.endswith(b"\n")
    lines = output[:-1] if ended else output
    return prefix + lines.replace(b"\n", b"\n" + prefix) + b"\n" * ended


def read(reader: Reader, form: Form) -> Generator[bytes, None, None]:
    """Yield what is in the log now, and has not been yielded before."""
    for batch in reader.read():
        if data := encode(batch, form):
            yield data


Ahead = Callable[[Generator[bytes, None, None]], Chunked]
"""What has the next piece made, in a thread, while the last one is being sent."""


async def follow(
    reader: Reader,
    form: Form,
    *,
    ended: Callable[[], bool],
    ahead: Ahead,
    until: int = 0,
) -> AsyncGenerator[bytes, None]:
    """Yield what is there and what comes, until ended() is true and everything has been read, or until a time (ns)."""
    loop = asyncio.get_running_loop()
    changed = asyncio.Event()
    watch = inotify.watch_directory(_folder(reader.path))  # before the first look, so that nothing is missed
    loop.add_reader(watch, changed.set)
    chunks: Chunked | None = None
    try:
        while True:
            last = ended() or (until and time.time_ns() > until)
            chunks = ahead(read(reader, form))
            async for data in chunks:
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
        # a task: a client that goes away may cancel its request more than once, and the files are still being read
        await asyncio.shield(loop.create_task(_end(chunks, reader), name="end of a log"))


async def _end(chunks: Chunked | None, reader: Reader) -> None:
    if chunks is not None:
        await chunks.aclose()
    reader.close()


def _folder(path: str) -> str:
    """Return the log's folder, which the supervisor may only be about to make."""
    folder = os.path.dirname(path)
    with suppress(FileExistsError):
        os.mkdir(folder, 0o710)
    return folder
