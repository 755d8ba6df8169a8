"""`wherry image bootstrap`: base images without a registry, made by this command and loaded through the API."""

from __future__ import annotations

import os
import sys
import tempfile

from wherry.cli import engine
from wherry.cli.bootstrap.archive import ImageArchive
from wherry.cli.failures import UsageError
from wherry.cli.flags import Command, Flag, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any

BOOTSTRAP = Command(
    "image bootstrap",
    "busybox|debian:SUITE",
    "Make a base image from this machine's busybox or package sources",
    "bootstrap.command:bootstrap",
    (
        Flag("--include", "Further packages of a Debian image, separated by commas", "text"),
        Flag("-o --output", "Write the archive to a file instead of loading it", "text"),
        Flag("-t --tag", 'Name of the image (default "busybox:latest" or "debian:SUITE")', "text"),
    ),
    (1, 1),
)


def bootstrap(host: str, flags: Parsed) -> int:
    """Make an image and load it; the same input gives the same image id."""
    kind, _, suite = flags.words[0].partition(":")
    if kind not in ("busybox", "debian") or (kind == "debian") != bool(suite):
        raise UsageError(f"unknown base {flags.words[0]!r}: it is busybox or debian:SUITE, as in debian:bookworm", 1)
    name = flags["tag"] or (f"debian:{suite}" if suite else "busybox:latest")
    if ":" not in name.rpartition("/")[2]:
        name += ":latest"
    with tempfile.TemporaryFile() as layer:
        created, run = _build(layer, suite, flags["include"])
        archive = ImageArchive(layer, created, run, name=name, created_by=f"wherry image bootstrap {flags.words[0]}")
        if flags["output"]:
            _write(archive, flags["output"])
        else:
            _load(archive, host)
    print(archive.image_id)
    return 0


def _build(layer: IO[bytes], suite: str, packages: str) -> tuple[int, dict[str, Any]]:
    date = _epoch()
    if suite:
        from wherry.cli.bootstrap import debian

        return debian.build(layer, suite, date, packages), debian.RUN
    from wherry.cli.bootstrap import busybox

    if packages:
        raise UsageError("--include is for Debian images", 1)
    return busybox.build(layer, date), busybox.RUN


def _epoch() -> int | None:
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return None
    if not text.isdigit() or len(text) > 11:
        raise UsageError(f"SOURCE_DATE_EPOCH={text[:40]!r} is not a number of seconds", 1)
    return int(text)


def _write(archive: ImageArchive, path: str) -> None:
    with open(path, "wb") as file:
        while piece := archive.read(1 << 20):
            file.write(piece)


def _load(archive: ImageArchive, host: str) -> None:
    from wherry.cli.images import show_progress

    response = engine.client(host, start=True).upload("/images/load", {"quiet": True}, archive)
    show_progress(response, sys.stderr)
