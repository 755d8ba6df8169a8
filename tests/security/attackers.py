"""Attackers that race the engine from inside of a container: names that change places as fast as the kernel does it.

The attacker is a program of a few hundred bytes, which we assemble, and which does nothing but renameat2(2) with
RENAME_EXCHANGE: a directory and, in turn, each of several links. A shell would spend its time on forks. It writes one
byte per `STRIDE` exchanges that took place, so that a test can say how often the names changed under its rounds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tests.engine import Engine
from tests.waiting import until
from wherry.kernel import const
from wherry.kernel.libc import bind, c_char_p, c_int, c_uint, check
from wherry.runtime.assembler import X86_64, AArch64, Machine, elf

STRIDE = 64
CPUS = "0.25"
"""What an attacker gets of a processor: several tests race at once, and one that spins leaves the others nothing."""
EXCHANGE = 2  # RENAME_EXCHANGE, linux/fs.h
PART = "part"
_renameat2 = bind("renameat2", c_int, c_char_p, c_int, c_char_p, c_uint)

_SOURCE = f"""
    part = v0
    links = v1
    next = v2
    twice = v3
    count = v4

    load   part sp 16             ; argv[1]
    move   links sp
    add    links 24               ; argv[2] and what follows
    set    count 0
again:
    move   next links
link:
    load   t next 0
    eq     t 0 again
    set    twice 2
exchange:
    set    a0 -100                ; AT_FDCWD
    move   a1 part
    set    a2 -100
    load   a3 next 0
    set    a4 {EXCHANGE}
    call   renameat2
    lt     r 0 failed
    add    count 1
failed:
    lt     count {STRIDE} counted
    set    count 0
    set    a0 1
    address a1 mark
    set    a2 1
    call   write
counted:
    call   sched_yield
    add    twice -1
    gt     twice 0 exchange
    add    next 8
    jump   link
mark:
    "."
"""


class _X86_64(X86_64):
    registers: ClassVar = X86_64.registers | {"a4": 8}
    calls: ClassVar = X86_64.calls | {"renameat2": 316, "sched_yield": 24}


class _AArch64(AArch64):
    registers: ClassVar = AArch64.registers | {"a4": 4}
    calls: ClassVar = AArch64.calls | {"renameat2": 276, "sched_yield": 124}


def program() -> bytes:
    """Return the executable of the attacker: PART LINK..."""
    machines: dict[str, type[Machine]] = {"x86_64": _X86_64, "aarch64": _AArch64}
    machine = machines[os.uname().machine]
    return elf(machine, machine().assemble(_SOURCE))


def exchange(first: Path, second: Path) -> None:
    """Let two names change places."""
    here = const.AT_FDCWD
    check(_renameat2(here, os.fsencode(first), here, os.fsencode(second), EXCHANGE), "renameat2", str(second))


@dataclass(frozen=True, slots=True)
class Attacker:
    """A container that exchanges names. name: of the container."""

    name: str
    _counted: Path

    @property
    def turns(self) -> int:
        """How often names have changed places so far."""
        return self._counted.stat().st_size * STRIDE


@contextmanager
def exchanging(
    engine: Engine, scratch: Path, place: str, links: tuple[str, ...], *, words: tuple[str, ...] = (), first: str = "",
) -> Iterator[Attacker]:
    """Run a container that lets the directory `place`, of its own, and links to `links` change places all the time.

    scratch: a folder of the test's. words: more for docker run. first: a command of the shell, once the directory is
    there. The links are beside the directory: link0, link1 ...
    """
    (scratch / "exchange").write_bytes(program())
    (scratch / "exchange").chmod(0o755)
    counted = scratch / "counted"
    counted.touch()
    beside = place.rpartition("/")[0]
    made = [f"ln -s {target} {beside}/link{number}" for number, target in enumerate(links)]
    names = " ".join(f"{beside}/link{number}" for number in range(len(links)))
    steps = [f"mkdir -p {place}", *filter(None, [first]), *made, f"exec /exchange {place} {names} >/counted"]
    mounts = ("-v", f"{scratch / 'exchange'}:/exchange:ro", "-v", f"{counted}:/counted", *words)
    program_words = ("busybox", "sh", "-c", " && ".join(steps))
    engine.docker("run", "-d", "--name", "attacker", "--network", "none", "--cpus", CPUS, *mounts, *program_words)
    attacker = Attacker("attacker", counted)
    try:
        until(lambda: attacker.turns)
        yield attacker
        assert engine.docker("inspect", "-f", "{{.State.Running}}", "attacker") == "true"
    finally:
        engine.docker("rm", "-f", "attacker")


@contextmanager
def canary_of(folder: Path) -> Iterator[Path]:
    """Make a directory of the host that no container has a way to; in the end nothing about it may have changed."""
    canary = folder / "canary"
    canary.mkdir(mode=0o700)
    for name in ("r", "f", "c/f", "etc/f", "sub/f"):  # whatever the tests ask for below the links
        (canary / name).parent.mkdir(exist_ok=True)
        (canary / name).write_text(SECRET)
        (canary / name).chmod(0o600)
    before = _looks(canary)
    yield canary
    assert _looks(canary) == before
    assert (canary / "r").read_text() == SECRET


SECRET = "belongs to the host"


def _looks(canary: Path) -> list[tuple[str, int, int, int, int, int]]:
    found = []
    for each in (canary, *sorted(canary.rglob("*"))):
        state = each.lstat()
        found.append((str(each), state.st_ino, state.st_mode, state.st_uid, state.st_nlink, state.st_mtime_ns))
    return found


def ways_to(canary: Path) -> tuple[str, ...]:
    """Links that lead to a directory of the host for whoever follows them as the host does."""
    up = "../" * 40
    return ("/", str(canary), f"{up}{str(canary).lstrip('/')}", f"/proc/self/root{canary}", f"/proc/1/root{canary}")
