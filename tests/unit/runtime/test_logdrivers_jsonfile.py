"""The json-file log, byte for byte what dockerd 28.5 writes for the same output."""

import json
import re

import pytest

from tests import disks
from wherry.runtime.logdrivers.blocks import CUT, split
from wherry.runtime.logdrivers.containerlog import ContainerLog
from wherry.runtime.logdrivers.jsonfile import escape, rfc3339
from wherry.runtime.wire import LogTarget

EVERYTHING = bytes(range(256)) + b"\n" + 'é\u2028\u2029x\U0001f600<&>"\\/\n'.encode()
EVERYTHING += b"\xe2\x82A\xf0\x9f\x98\n\xed\xa0\x80\n\r\nabc"

# Recorded from dockerd 28.5.2's json-file for EVERYTHING, times cut off.
DOCKERD = [
    b'{"log":"' + b"".join(b"\\u%04x" % i for i in range(10)) + b'\\n"',
    b'{"log":"\\u000b\\u000c\\r'
    + b"".join(b"\\u%04x" % i for i in range(0x0E, 0x20))
    + b" !\\\"#$%\\u0026'()*+,-./0123456789:;\\u003c=\\u003e?@ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    + b"[\\\\]^_`abcdefghijklmnopqrstuvwxyz{|}~\x7f"
    + b"\\ufffd" * 128
    + b'\\n"',
    '{"log":"é\\u2028\\u2029x😀\\u003c\\u0026\\u003e\\"\\\\/\\n"'.encode(),
    b'{"log":"\\ufffd\\ufffdA\\ufffd\\ufffd\\ufffd\\n"',
    b'{"log":"\\ufffd\\ufffd\\ufffd\\n"',
    b'{"log":"\\r\\n"',
    b'{"log":"abc"',
]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "container-json.log"


def opened(path, **options):
    return ContainerLog(LogTarget(driver="json-file", path=str(path), **options))


def texts(path):
    return [json.loads(line)["log"] for line in path.read_bytes().splitlines()]


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_bytes_are_those_of_dockerd_however_they_arrive(path, size):
    log = opened(path)
    for start in range(0, len(EVERYTHING), size):
        log.write("stdout", EVERYTHING[start : start + size])
    log.close()
    records = path.read_bytes().split(b"\n")
    assert records.pop() == b""
    assert [record.partition(b',"stream":"stdout","time":"')[0] for record in records] == DOCKERD


def test_streams_and_times(path):
    log = opened(path)
    log.write("stderr", b"one\ntw")
    log.write("stdout", b"other\n")
    log.write("stderr", b"o\n")
    log.close()
    lines = path.read_text().splitlines()
    time = r'"time":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z"}'
    assert re.fullmatch(r'\{"log":"one\\n","stream":"stderr",' + time, lines[0])
    assert re.fullmatch(r'\{"log":"other\\n","stream":"stdout",' + time, lines[1])
    assert json.loads(lines[2])["log"] == "two\n"


def test_attributes_are_escaped_and_sorted(path):
    log = opened(path, attrs={"foo": "bar", "A": "1", "B": "<x>"})
    log.write("stdout", b"hi\n")
    log.close()
    assert b'"stream":"stdout","attrs":{"A":"1","B":"\\u003cx\\u003e","foo":"bar"},"time":' in path.read_bytes()


def test_long_lines_are_cut_at_16_kib_even_within_a_character(path):
    log = opened(path)
    line = b"x" * 40000 + "é".encode() * 9000 + b"\n"
    for start in range(0, len(line), 5000):
        log.write("stdout", line[start : start + 5000])
    log.close()
    lengths = [len(record.partition(b'","stream"')[0]) - len('{"log":"') for record in path.read_bytes().splitlines()]
    # dockerd's: two whole parts, one that ends within an é, and the rest which begins with the other half
    assert lengths == [CUT, CUT, CUT, 58001 - 3 * CUT - 1 + len("\\n")]


@pytest.mark.parametrize(
    ("data", "blocks", "rest"),
    [
        (b"", [], b""),
        (b"ab", [], b"ab"),
        (b"ab\ncd", [b"ab\n"], b"cd"),
        (b"x" * CUT, [b"x" * CUT], b""),
        (b"x" * (CUT - 1) + b"\n", [b"x" * (CUT - 1) + b"\n"], b""),
        (b"x" * CUT + b"\n", [b"x" * CUT, b"\n"], b""),
        (b"a\n" + b"x" * CUT + b"y\nz", [b"a\n", b"x" * CUT, b"y\n"], b"z"),
        (b"a\n" * CUT + b"z", [b"a\n" * CUT], b"z"),
    ],
)
def test_split(data, blocks, rest):
    assert split(data) == (blocks, rest)


def test_rotation_keeps_max_file_files_and_every_line(path):
    log = opened(path, max_size=1000, max_file=3)
    for number in range(40):
        log.write("stdout", b"line %d\n" % number)
    log.write("stdout", b"".join(b"more %d\n" % number for number in range(12)))
    log.close()
    names = sorted(each.name for each in path.parent.iterdir())
    assert names == [path.name, path.name + ".1", path.name + ".2"]
    files = [path.with_name(path.name + ".2"), path.with_name(path.name + ".1"), path]
    kept = [text for each in files for text in texts(each)]
    assert kept == ([f"line {n}\n" for n in range(40)] + [f"more {n}\n" for n in range(12)])[-len(kept) :]
    for each in files[:2]:
        assert 1000 <= each.stat().st_size < 1000 + 100


def test_rotation_with_one_file_starts_it_anew(path):
    log = opened(path, max_size=500, max_file=1)
    for number in range(30):
        log.write("stdout", b"line %d\n" % number)
    log.close()
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert path.stat().st_size < 600
    assert texts(path)[-1] == "line 29\n"


def test_a_torn_line_of_a_crash_does_not_swallow_the_next(path):
    path.write_bytes(b'{"log":"half')
    log = opened(path)
    log.write("stdout", b"whole\n")
    log.close()
    assert json.loads(path.read_bytes().splitlines()[1])["log"] == "whole\n"


def test_a_failed_write_tears_no_line(path, monkeypatch):
    log = opened(path)
    log.write("stdout", b"before\n")
    failing = disks.fill(monkeypatch)
    with pytest.raises(OSError, match="No space left") as caught:
        log.write("stdout", b"lost\n")
    assert caught.value.filename == str(path)
    failing.clear()
    log.write("stdout", b"after\n")
    log.close()
    assert texts(path) == ["before\n", "after\n"]


def test_permissions(path):
    opened(path).close()
    assert path.stat().st_mode & 0o777 == 0o640


def test_plain_text_is_not_copied():
    data = b"plain text\n" * 100
    assert escape(data) is data


def test_times_have_no_trailing_zeros():
    assert rfc3339(1_700_000_000_120_000_000) == "2023-11-14T22:13:20.12Z"
    assert rfc3339(1_700_000_000_000_000_000) == "2023-11-14T22:13:20Z"
    assert rfc3339(1_700_000_000_000_000_001) == "2023-11-14T22:13:20.000000001Z"
