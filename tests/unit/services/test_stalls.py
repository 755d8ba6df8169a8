"""Readers that stop reading."""

from __future__ import annotations

import asyncio
from collections.abc import Generator

import pytest

from wherry.errors import SystemFailure
from wherry.services.stalls import Reader


def archive() -> Generator[bytes, None, None]:
    for _ in range(5):
        yield b"piece"


async def watched(step: float) -> tuple[int, bool]:
    """Read, with so many seconds of a clock between pieces; return how many came, and whether it was given up."""
    given_up = asyncio.Event()

    async def give_up() -> None:
        given_up.set()

    now = [100.0]
    reader = Reader(0.05, lambda: now[0])
    task = asyncio.create_task(reader.watch(give_up))
    count = 0
    try:
        for _ in reader.pieces(archive()):
            count += 1
            now[0] += step
            await asyncio.sleep(0.02)  # the clock is looked at several times
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert given_up.is_set() is not task.cancelled()
    return count, given_up.is_set()


def test_who_reads_slowly_gets_all() -> None:
    assert asyncio.run(watched(0.04)) == (5, False)


def test_who_stops_reading_is_given_up() -> None:
    with pytest.raises(SystemFailure, match="nothing was read for"):
        asyncio.run(watched(0.06))
