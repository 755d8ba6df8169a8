"""Framed output, and the keys that let go of a container."""

from __future__ import annotations

import pytest

from tests.unit.cli.fake import frame
from wherry.cli.streams import Demultiplexer, detach_sequence


@pytest.mark.parametrize("step", [1, 3, 7, 8, 9, 100])
def test_frames_may_be_split_anywhere(step: int) -> None:
    data = frame(1, b"hello ") + frame(2, b"oops") + frame(1, b"") + frame(1, b"world")
    written: dict[int, bytes] = {1: b"", 2: b""}

    def write(stream: int, piece: bytes) -> None:
        written[stream] += piece

    demultiplexer = Demultiplexer(write)
    for start in range(0, len(data), step):
        demultiplexer.feed(data[start : start + step])
    assert written == {1: b"hello world", 2: b"oops"}


@pytest.mark.parametrize(
    ("keys", "sequence"), [("", b"\x10\x11"), ("ctrl-p,ctrl-q", b"\x10\x11"), ("a,b", b"ab"), ("ctrl-[", b"\x1b")]
)
def test_detach_keys(keys: str, sequence: bytes) -> None:
    assert detach_sequence(keys) == sequence


def test_detach_keys_that_are_no_keys_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown character"):
        detach_sequence("ctrl-")
