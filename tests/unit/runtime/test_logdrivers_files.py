"""The files of log drivers: rotation, compression, age, the format of local, and what a crash leaves."""

import fcntl
import gzip
import os
import random

import pytest

from tests import disks
from wherry.logs import jsonfile, localfile
from wherry.logs.reader import Reader, Window
from wherry.runtime.logdrivers import rotation
from wherry.runtime.logdrivers.jsonfile import JsonFile
from wherry.runtime.logdrivers.localfile import AROUND, LocalFile
from wherry.runtime.wire import LogTarget

SECOND = 1_000_000_000
FORMS = {"json-file": (JsonFile, jsonfile), "local": (LocalFile, localfile)}


@pytest.fixture(params=FORMS)
def driver(request):
    return request.param


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x-json.log"


def opened(driver, path, **options):
    return FORMS[driver][0](LogTarget(driver, str(path), **options))


def contents(driver, path, **window):
    reader = Reader(str(path), FORMS[driver][1], Window(**window))
    found = b"".join(record[2] for batch in reader.read() for record in batch)
    reader.close()
    return found


def names(path):
    return sorted(each.name.removeprefix(path.name) for each in path.parent.iterdir())


def lines(first, last):
    return b"".join(b"line %d\n" % number for number in range(first, last))


def test_compressed_files_are_whole_named_and_read_in_order(driver, path):
    log = opened(driver, path, max_size=3000, max_file=4, compress=True)
    for number in range(0, 900, 4):
        log.put("stdout", number, [lines(number, number + 4)])
    log.close()
    kept = names(path)
    assert kept[:2] == ["", ".1.gz"]
    assert len(kept) <= 4
    assert gzip.decompress((path.parent / f"{path.name}.1.gz").read_bytes())
    found = contents(driver, path)
    assert lines(0, 900).endswith(found)
    for count in (1, 2, 11, 50):
        assert contents(driver, path, tail=count) == b"".join(found.splitlines(keepends=True)[-count:])


def test_a_compressed_file_tells_what_it_was_made_from(path):
    path.write_bytes(b"x" * 1000)
    inode = path.stat().st_ino
    rotation.compress(str(path))
    made = path.with_name(f"{path.name}.gz").read_bytes()
    assert rotation.origin(made[:64]) == inode
    assert gzip.decompress(made) == b"x" * 1000
    assert rotation.origin(gzip.compress(b"of another")) == 0


def test_a_file_is_begun_anew_when_its_first_record_is_old(driver, path):
    start = 1_800_000_000 * SECOND
    log = opened(driver, path, max_file=3, max_age=10 * SECOND)
    for at in (0, 5, 9, 10, 19, 20):
        log.put("stdout", start + at * SECOND, [b"at %d\n" % at])
    log.close()
    assert names(path) == ["", ".1", ".2"]
    assert contents(driver, path.with_name(path.name + ".1")) == b"at 10\nat 19\n"
    again = opened(driver, path, max_file=3, max_age=10 * SECOND)  # the age is that of the file, not of the process
    again.put("stdout", start + 31 * SECOND, [b"at 31\n"])
    again.close()
    assert contents(driver, path) == b"at 10\nat 19\nat 20\nat 31\n"


def test_a_reader_that_is_behind_loses_nothing(driver, path):
    """The files that it has yet to read are kept, though there are more than max-file."""
    log = opened(driver, path, max_size=500, max_file=2)
    log.put("stdout", 1, [b"begin\n"])
    reader = Reader(str(path), FORMS[driver][1], Window())
    found = [record[2] for batch in reader.read() for record in batch]
    for number in range(100):
        log.put("stdout", 1, [lines(number, number + 1)])
    assert len(names(path)) > 4
    found += [record[2] for batch in reader.read() for record in batch]
    reader.close()
    assert b"".join(found) == b"begin\n" + lines(0, 100)
    for number in range(100, 120):
        log.put("stdout", 1, [lines(number, number + 1)])
    assert len(names(path)) == 2  # nobody reads any more
    log.close()


def test_a_reader_that_never_reads_does_not_fill_the_disk(path, monkeypatch):
    monkeypatch.setattr(rotation, "_MOST_SPARED", 5)
    log = opened("local", path, max_size=500, max_file=2)
    log.put("stdout", 1, [b"begin\n"])
    counts = []
    with path.open() as stuck:
        fcntl.flock(stuck, fcntl.LOCK_SH)
        for number in range(200):
            log.put("stdout", 1, [lines(number, number + 1)])
            counts.append(len(names(path)))
    log.close()
    assert max(counts) == 7
    assert counts[-1] == 2


def test_local_keeps_every_byte_and_adds_17(path):
    data = bytes(range(256)) * 20 + b"\n"
    log = opened("local", path)
    log.put("stdout", 5, [data])
    log.put("stderr", 6, [b"x" * 16384])
    log.put("stderr", 7, [b"y\r\n"])
    log.close()
    assert path.stat().st_size == len(data) + 16384 + 3 + 3 * AROUND
    records, used = localfile.decode(path.read_bytes(), timed=True)
    assert used == path.stat().st_size
    assert b"".join(record[2] for record in records if record[0] == "stdout") == data
    assert [record[:2] for record in records[-2:]] == [("stderr", 6), ("stderr", 7)]
    assert records[-2][2] + records[-1][2] == b"x" * 16384 + b"y\r\n"


@pytest.mark.parametrize("cut", [1, 3, 4, 5, 12, 13, 16, 17, 18])
def test_local_cuts_off_what_a_crash_tore(path, cut):
    log = opened("local", path)
    log.put("stdout", 1, [b"one\n"])
    log.put("stdout", 2, [b"two\n"])
    log.close()
    os.truncate(path, path.stat().st_size - cut)
    assert contents("local", path, tail=5) == b"one\n"
    log = opened("local", path)
    log.put("stdout", 3, [b"three\n"])
    log.close()
    assert contents("local", path) == b"one\nthree\n"
    assert contents("local", path, tail=1) == b"three\n"


def test_local_frames_are_small_where_files_are(path):
    log = opened("local", path, max_size=5000, max_file=9)
    log.put("stdout", 1, [lines(0, 2000)])
    log.close()
    sizes = [each.stat().st_size for each in path.parent.iterdir()]
    assert len(sizes) > 3
    assert max(sizes) < 5000 + 1024 + AROUND
    assert contents("local", path) == lines(0, 2000)


def test_local_tails_are_those_of_all_lines(path):
    chance = random.Random(1)
    log = opened("local", path, max_size=20_000, max_file=50)
    written = []
    for _ in range(300):
        count = chance.randrange(1, 40)
        block = [b"%d\n" % chance.randrange(10**6) for _ in range(count)]
        written += block
        log.put("stdout", 1, [b"".join(block)])
    log.close()
    for count in (1, 2, 39, 40, 41, 999, len(written), len(written) + 7):
        assert contents("local", path, tail=count) == b"".join(written[-count:])


def test_a_full_disk_costs_the_record_and_not_the_file(driver, path, monkeypatch):
    log = opened(driver, path)
    log.put("stdout", 1, [b"before\n"])
    failing = disks.fill(monkeypatch)
    with pytest.raises(OSError, match="No space left"):
        log.put("stdout", 2, [b"lost\n"])
    failing.clear()
    log.put("stdout", 3, [b"after\n"])
    log.close()
    assert contents(driver, path) == b"before\nafter\n"
