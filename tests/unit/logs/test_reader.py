"""Reading many records at once gives what reading them one by one does, and a window is found without a search."""

import os
import random

import pytest

from wherry.logs import jsonfile, localfile, reader, stream
from wherry.logs.jsonfile import parse_time
from wherry.logs.reader import Reader, Window
from wherry.runtime.logdrivers.blocks import Cutter
from wherry.runtime.logdrivers.jsonfile import JsonFile, rfc3339
from wherry.runtime.logdrivers.localfile import LocalFile
from wherry.runtime.wire import LogTarget

SECOND = 1_000_000_000
START = 1_800_000_000 * SECOND
FORMS = {"json-file": (JsonFile, jsonfile), "local": (LocalFile, localfile)}
NASTY = (
    *(b"", b"\n", b"\n\n", b"plain", b'"', b"\\", b"\\n", b"\\\n", b"a\\n\n", b"\r\n", b"\t", b"\0", b"\x7f", b"<>&"),
    *("\u2028\u2029é€😀".encode(), b"\xff\xfe", b"\xf0\x9f", b"\x80", b"x" * 16384, b"y" * 20000 + b"\n"),
    *(b'","stream":"stdout","time":"x"}\n', b'\\n","stream":"stdout","time":"x"}\n{"log":"', b'{"log":"'),
)
"""Pieces of output that end up next to each other in any order."""

ATTRIBUTES = ({}, {"a": "b"}, {"a": 'x\n","stream":"y', "stream": "z\n", "time": "\u2028\\"})


@pytest.fixture(params=FORMS)
def driver(request):
    return request.param


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x-json.log"


def opened(driver, path, **options):
    return FORMS[driver][0](LogTarget(driver, str(path), **options))


def got(driver, path, *, timed=True, form=None, **window):
    source = Reader(str(path), FORMS[driver][1], Window(**window), timed=timed)
    form = form or stream.Form(framed=True, stdout=True, stderr=True)
    data = b"".join(stream.read(source, form))
    source.close()
    return data


def write_nasty(log, chance, count):
    """Log pieces as they come from two streams; returns what each stream has written."""
    cutter, written = Cutter(), {"stdout": b"", "stderr": b""}
    at = START
    for _ in range(count):
        kind = chance.choice(("stdout", "stdout", "stdout", "stderr"))
        pieces = b"".join(chance.choices(NASTY, k=chance.randrange(1, 6)))
        written[kind] += pieces
        at += chance.randrange(3)
        if blocks := cutter.cut(kind, pieces):
            log.put(kind, at, blocks)
    for kind in written:
        log.put(kind, at, cutter.end(kind))
    return written


@pytest.mark.parametrize("attributes", ATTRIBUTES)
@pytest.mark.parametrize("seed", range(12))
def test_many_at_once_are_the_same_as_one_by_one(path, seed, attributes, monkeypatch):
    chance = random.Random(seed)
    log = opened("json-file", path, attrs=attributes)
    written = write_nasty(log, chance, 60 if seed % 2 else 3)
    log.close()
    monkeypatch.setattr(reader, "CHUNK", chance.choice((100, 5000, 1 << 18)))
    for details in (False, True):
        form = stream.Form(framed=True, stdout=True, stderr=True, details=details)
        assert got("json-file", path, timed=False, form=form) == got("json-file", path, form=form)
    for kind, output in written.items():
        form = stream.Form(framed=False, stdout=kind == "stdout", stderr=kind == "stderr")
        shown = got("json-file", path, timed=False, form=form)
        assert shown.decode() == as_go_would(output)


def as_go_would(output):
    """Each byte that is no UTF-8 becomes one U+FFFD, in each line by itself, and in each of its parts."""
    cutter = Cutter()
    blocks = cutter.cut("stdout", output) + cutter.end("stdout")
    return "".join(block.decode("utf-8", "wherry-go").replace("\\ufffd", "\ufffd") for block in blocks)


def test_local_gives_every_byte_whatever_its_blocks(path, monkeypatch):
    monkeypatch.setattr(reader, "CHUNK", 100)
    log = opened("local", path)
    written = write_nasty(log, random.Random(1), 200)
    log.close()
    for kind, output in written.items():
        form = stream.Form(framed=False, stdout=kind == "stdout", stderr=kind == "stderr")
        assert got("local", path, form=form) == output


def frames(data):
    found = []
    while data:
        size = 8 + int.from_bytes(data[4:8], "big")
        found.append((data[0], data[8:size]))
        data = data[size:]
    return found


@pytest.mark.parametrize("timed", [True, False])
def test_a_line_is_a_frame_with_its_own_stamp(driver, path, timed):
    log = opened(driver, path)
    log.put("stdout", START, [b"one\ntwo\n\n"])
    log.put("stderr", START + 1, [b"x" * 16384])
    log.put("stderr", START + 2, [b"end"])
    log.close()
    texts = [(1, b"one\n"), (1, b"two\n"), (1, b"\n"), (2, b"x" * 16384), (2, b"end")]
    assert frames(got(driver, path, timed=timed)) == texts
    form = stream.Form(framed=True, stdout=True, stderr=True, timestamps=True)
    zeros = "2027-01-15T08:00:00.00000000"
    stamps = [f"{zeros}{nanosecond}Z ".encode() for nanosecond in (0, 0, 0, 1, 2)]
    stamped = [(number, stamp + text) for stamp, (number, text) in zip(stamps, texts, strict=True)]
    assert frames(got(driver, path, form=form)) == stamped
    bare = stream.Form(framed=False, stdout=True, stderr=False, timestamps=True)
    assert got(driver, path, form=bare) == b"".join(stamps[0] + text for text in (b"one\n", b"two\n", b"\n"))


def test_a_tail_begins_within_lines_of_one_time(path):
    log = opened("local", path)
    log.put("stdout", 1, [b"1\n2\n3\n"])
    log.put("stdout", 2, [b"x" * 16384])
    log.put("stdout", 3, [b"y\n5\n"])
    log.close()
    whole = frames(got("local", path))
    for count in range(1, 7):
        assert frames(got("local", path, tail=count)) == whole[-count:]


class Counter:
    """Counts the bytes that are read from files."""

    def __init__(self, monkeypatch):
        self.count = 0
        self._pread = os.pread
        monkeypatch.setattr(os, "pread", self)

    def __call__(self, descriptor, size, offset):
        data = self._pread(descriptor, size, offset)
        self.count += len(data)
        return data


def second_by_second(driver, path, seconds, lines, **options):
    """Log so many lines in each of so many seconds."""
    log = opened(driver, path, **options)
    for number in range(seconds):
        log.put("stdout", START + number * SECOND, [b"%d %b\n" % (number, b"x" * 60) * lines])
    log.close()


def test_a_window_of_a_large_file_costs_what_it_holds(driver, path, monkeypatch):
    second_by_second(driver, path, 4000, 150)
    assert path.stat().st_size > 30_000_000
    counter = Counter(monkeypatch)
    for second in (0, 1, 1999, 3998):
        counter.count = 0
        window = {"since": START + second * SECOND, "until": START + (second + 1) * SECOND}
        found = frames(got(driver, path, **window))
        assert [text.split()[0] for _, text in found] == [
            b"%d" % number for number in (second, second + 1) for _ in range(150)
        ]
        assert counter.count < 2_000_000
    counter.count = 0
    assert got(driver, path, since=START + 5000 * SECOND) == b""
    assert len(frames(got(driver, path, since=START + 3999 * SECOND))) == 150
    assert len(frames(got(driver, path, until=START))) == 150
    assert counter.count < 3_000_000


@pytest.mark.parametrize("compress", [False, True])
def test_every_window_of_rotated_files(driver, path, compress):
    second_by_second(driver, path, 60, 7, max_size=5000, max_file=99, compress=compress)
    every = [int(text.split()[0]) for _, text in frames(got(driver, path))]
    assert every == [number for number in range(60) for _ in range(7)]
    for since in range(0, 61, 3):
        for until in (0, since, since + 1, 59):
            window = {"since": START + since * SECOND, "until": until and START + until * SECOND}
            found = [int(text.split()[0]) for _, text in frames(got(driver, path, **window))]
            assert found == [number for number in every if since <= number and (not until or number <= until)]


def test_older_files_are_not_opened_up(path, monkeypatch):
    """Of some fifty compressed files one is read."""
    second_by_second("json-file", path, 100, 700, max_size=500_000, max_file=99, compress=True)
    assert len(list(path.parent.iterdir())) > 15
    expanded = []
    monkeypatch.setattr(
        reader.files, "expand", lambda file, real=reader.files.expand: expanded.append(file.compressed) or real(file)
    )
    found = frames(got("json-file", path, since=START + 50 * SECOND, until=START + 50 * SECOND))
    assert len(found) == 700
    assert sum(expanded) <= 2


def test_a_file_without_an_end_takes_no_memory(path, monkeypatch):
    """A hole of 100 GB, as a file system may leave it behind after a crash, between two records."""
    record = b'{"log":"%b\\n","stream":"stdout","time":"%b"}\n'
    first = record % (b"first", rfc3339(START).encode())
    last = record % (b"last", rfc3339(START + 9 * SECOND).encode())
    with path.open("wb") as file:
        file.write(first)
        file.seek(100 << 30)
        file.write(b"\n" + last)
    counter = Counter(monkeypatch)
    assert frames(got("json-file", path, tail=1)) == [(1, b"last\n")]
    assert counter.count < 1_000_000
    source = Reader(str(path), jsonfile, Window())
    batches = source.read()
    assert [record[2] for record in next(batches)] == [b"first\n"]
    assert next(batches) == []
    source.close()
    assert counter.count < 100_000_000


def test_times_of_records():
    assert parse_time("2027-01-15T08:00:00Z") == START
    assert parse_time("2027-01-15T08:00:00.5Z") == START + SECOND // 2
    assert parse_time("2027-01-15T08:00:59.000000001Z") == START + 59 * SECOND + 1
