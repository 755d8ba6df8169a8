"""`docker cp` both ways: one file of 100 MB, and 10,000 small ones; of a running container.

The command does the other half of the work: it packs what goes in and unpacks what comes out, on one disk with the
engine. So the lines are those of the whole, and below each the engine's part by the API: a tar to or from memory.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench import harness, requests

NAME = "wherry-bench-copies"
LARGE, MANY, FOLDERS = 100 << 20, 10_000, 100
ROUNDS = 5
FORMS = ("large", "many")


def _make(folder: Path) -> None:
    """What is copied: folder/large/f, and folder/many with files of 1 KiB."""
    (folder / "large").mkdir()
    (folder / "large/f").write_bytes(os.urandom(1 << 20) * (LARGE >> 20))
    for number in range(MANY):
        place = folder / "many" / str(number % FOLDERS)
        place.mkdir(parents=True, exist_ok=True)
        (place / str(number)).write_bytes(os.urandom(1024))


def _out(side: harness.Side, form: str, folder: Path) -> Callable[[], float]:
    def measure() -> float:
        target = folder / "out"
        took = harness.timed(side.docker("cp", f"{NAME}:/{form}", str(target)))
        shutil.rmtree(target)
        return took

    return measure


def _in(side: harness.Side, form: str, folder: Path) -> Callable[[], float]:
    def measure() -> float:
        side.run("exec", NAME, "busybox", "rm", "-rf", f"/again/{form}")
        return harness.timed(side.docker("cp", str(folder / form), f"{NAME}:/again/{form}"))

    return measure


def measure(options: harness.argparse.Namespace) -> list[harness.Line]:
    """The lines of this script."""
    rounds = min(options.rounds, ROUNDS)
    lines = []
    with harness.sides(options) as (ours, peer), tempfile.TemporaryDirectory(prefix="wherry-bench-") as text:
        folder = Path(text)
        _make(folder)
        both = [side for side in (ours, peer) if side]
        for side in both:
            side.run("run", "-d", "--name", NAME, harness.IMAGE, "busybox", "sleep", "100000")
            side.run("exec", NAME, "busybox", "mkdir", "/again")
            for form in FORMS:
                side.run("cp", str(folder / form), f"{NAME}:/{form}")
        for form, words in zip(FORMS, (f"of {LARGE >> 20} MB", f"of {MANY} files"), strict=True):
            for way, make in (("out", _out), ("in", _in)):
                found = harness.in_turns([make(side, form, folder) for side in both], rounds, 1)
                lines.append(harness.Line.of(f"cp {way} {words}", found, peer, None))
            lines.append(
                harness.engines(lambda side, form=form: requests.archive(side, NAME, f"/{form}"), ours, peer, rounds)
            )
    return lines


if __name__ == "__main__":
    harness.show(measure(harness.arguments(__doc__ or "")))
