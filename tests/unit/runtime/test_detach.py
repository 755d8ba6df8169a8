"""Detach keys: their names, and finding them in input."""

import pytest

from wherry.runtime.detach import DEFAULT, DetachKeys, parse_keys


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", DEFAULT),
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("ctrl-a,a,ctrl-b,ctrl-@", b"\x01a\x02\x00"),
        ("ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_", b"\x1b\x1c\x1d\x1e\x1f"),
        ("Z", b"Z"),
    ],
)
def test_names(text, keys):
    assert parse_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-A", "ctrl-", "ab", "a,,b", "ctrl-ä", "ä"])
def test_other_names_are_refused(text):
    with pytest.raises(ValueError, match="Unknown character: '"):
        parse_keys(text)


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize(
    ("keys", "data", "passed", "detached"),
    [
        (b"\x10\x11", b"ls\x10\x11rest", b"ls", True),
        (b"\x10\x11", b"\x10\x10\x11", b"\x10", True),
        (b"\x10\x11", b"a\x10b\x11c", b"a\x10b\x11c", False),
        (b"aab", b"aaab", b"a", True),
        (b"x", b"12x34", b"12", True),
        (b"\x10\x11", b"plain", b"plain", False),
    ],
)
def test_sequence_is_found_in_pieces_of_any_size(keys, data, passed, detached, size):
    watcher = DetachKeys(keys)
    out = b""
    for start in range(0, len(data), size):
        part, done = watcher.feed(data[start : start + size])
        out += part
        if done:
            break
    assert (out, done) == (passed, detached)


def test_begun_sequence_is_held_back():
    watcher = DetachKeys(b"\x10\x11")
    assert watcher.feed(b"a\x10") == (b"a", False)
    assert watcher.feed(b"b") == (b"\x10b", False)
