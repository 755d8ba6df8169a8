"""volume export, import and snapshot: backups, which only we have.

An archive is a tar of its own kind: its first member says what it is, its last one lists all that was in the volume.
"""

from __future__ import annotations

import os
import sys

from wherry.cli import engine
from wherry.cli.failures import ApiError, Failure, UsageError
from wherry.cli.flags import Command, Flag, Parsed
from wherry.cli.http import quote
from wherry.cli.tables import size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from typing import IO

    from wherry.cli.http import Response

PREFIX = "/wherry/v1/volumes"
MANIFEST = "wherry-manifest.jsonl"

EXPORT = Command(
    "volume export",
    "VOLUME",
    "Save the content of a volume as a tar archive",
    "backups:export",
    (
        Flag("-o --output", "Write to a file, instead of STDOUT", "text"),
        Flag("--since", "Save only what has changed since this archive was made", "text"),
        Flag("--freeze", "Freeze the containers that have the volume meanwhile"),
        Flag("-q --quiet", "Show no progress"),
    ),
    (1, 1),
)
IMPORT = Command(
    "volume import",
    "VOLUME ARCHIVE|- [ARCHIVE...]",
    "Restore a volume from an archive, and from those that add to it",
    "backups:restore",
    (Flag("-q --quiet", "Show no progress"),),
    (2, -1),
)
SNAPSHOT = Command(
    "volume snapshot",
    "VOLUME [NEW]",
    "Copy a volume as it is now to a new volume",
    "backups:snapshot",
    (),
    (1, 2),
)


class _Progress:
    """Bytes on a terminal's line, redrawn at most ten times a second."""

    def __init__(self, verb: str, *, quiet: bool) -> None:
        self._verb = verb
        self._shown = 0.0
        self._on = not quiet and sys.stderr.isatty()
        self.total = 0

    def add(self, count: int) -> None:
        from time import monotonic

        self.total += count
        if self._on and monotonic() - self._shown > 0.1:
            self._shown = monotonic()
            self._draw("\r")

    def end(self) -> None:
        if self._on:
            self._draw("\n")

    def _draw(self, end: str) -> None:
        print(f"\r{self._verb} {size(self.total, 4)}\033[K", end=end, file=sys.stderr, flush=True)


class _Counted:
    """A file that tells how much of it was read."""

    def __init__(self, source: IO[bytes], progress: _Progress) -> None:
        self._source = source
        self._progress = progress

    def read(self, count: int) -> bytes:
        piece = self._source.read(count)
        self._progress.add(len(piece))
        return piece


def _manifest(path: str) -> IO[bytes]:
    """Return the manifest at the end of an archive."""
    import tarfile

    try:
        archive = tarfile.open(path)  # noqa: SIM115 - what is in it is read until the process ends
        for member in archive:
            if member.name == MANIFEST and (found := archive.extractfile(member)) is not None:
                return found
    except OSError as error:
        raise Failure(f"cannot read {path}: {error.strerror}") from error
    except tarfile.TarError:
        pass
    raise Failure(f"{path} is no archive of a volume, or is cut off: it has no {MANIFEST}")


def _pieces(host: str, name: str, response: Response) -> Iterator[bytes]:
    """The archive as it comes. When it breaks off, the engine cannot tell why any more: that is looked up."""
    try:
        yield from response.chunks()
    except ApiError:
        try:
            engine.client(host).get(f"/volumes/{quote(name)}")
        except ApiError as error:
            raise ApiError(error.http, f"the archive is not complete: {error.message}") from error
        raise


def export(host: str, flags: Parsed) -> int:
    """Write the archive of a volume."""
    from io import BytesIO

    output = flags["output"]
    if not output and sys.stdout.isatty():
        raise UsageError("cowardly refusing to save to a terminal. Use the -o flag or redirect", 1)
    base = _manifest(flags["since"]) if flags["since"] else BytesIO()
    name = flags.words[0]
    response = engine.client(host).upload(f"{PREFIX}/{quote(name)}/export", {"freeze": flags["freeze"] or None}, base)
    pieces = _pieces(host, name, response)
    progress = _Progress("saved", quiet=flags["quiet"])
    if not output:
        for chunk in pieces:
            sys.stdout.buffer.write(chunk)
            progress.add(len(chunk))
        sys.stdout.buffer.flush()
        progress.end()
        return 0
    aside = f"{output}.part"
    try:
        with open(aside, "wb") as file:
            for chunk in pieces:
                file.write(chunk)
                progress.add(len(chunk))
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, output)
    except OSError as error:
        raise Failure(f"cannot write {output}: {error}") from error
    finally:
        if os.path.exists(aside):
            os.unlink(aside)
    progress.end()
    return 0


def restore(host: str, flags: Parsed) -> int:
    """Restore a volume; archives that add to each other in their order."""
    client = engine.client(host, start=True)
    name, *archives = flags.words
    for place in archives:
        progress = _Progress(f"restored {place}", quiet=flags["quiet"])
        with _opened(place) as source:
            client.upload(f"{PREFIX}/{quote(name)}/import", {}, _Counted(source, progress)).json()
        progress.end()
    print(name)
    return 0


def _opened(place: str) -> AbstractContextManager[IO[bytes]]:
    from contextlib import nullcontext

    if place == "-":
        return nullcontext(sys.stdin.buffer)
    try:
        return open(place, "rb")
    except OSError as error:
        raise Failure(f"cannot read {place}: {error.strerror}") from error


def snapshot(host: str, flags: Parsed) -> int:
    """Copy a volume."""
    from time import strftime

    name = flags.words[0]
    new = flags.words[1] if len(flags.words) > 1 else f"{name}-{strftime('%Y%m%d-%H%M%S')}"
    print(engine.client(host).post(f"{PREFIX}/{quote(name)}/snapshot", {"name": new})["Name"])
    return 0
