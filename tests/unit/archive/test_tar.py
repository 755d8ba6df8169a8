"""The tar reader against the archives of others, and against archives that nobody should write."""

from __future__ import annotations

import io
import random
import tarfile
import time

import pytest

from tests import tars
from tests.tars import file, folder, hard, header, link, padded
from wherry.archive.tar import CHARACTER, DIRECTORY, HARD_LINK, REGULAR, SYMLINK, Entry, TarError, TarReader, clean_name


def read(data: bytes) -> list[tuple[Entry, bytes]]:
    reader = TarReader(io.BytesIO(data))
    return [(entry, b"".join(bytes(chunk) for chunk in reader.chunks())) for entry in reader]


def record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    length = len(body) + 1
    while len(b"%d" % length) + len(body) != length:
        length = len(b"%d" % length) + len(body)
    return b"%d" % length + body


def pax(records: bytes) -> bytes:
    return header(b"pax", size=len(records), kind=b"x") + padded(records)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_the_forms_of_the_standard_library(form: int) -> None:
    long = "/".join(["part" * 5] * 7)
    members = [folder("d", mtime=5), file(long, b"x" * 1000, uid=7), link("l", "d"), hard("h", "t/" * 40)]
    entries = read(tars.archive(members, form=form))
    assert [(entry.name.rstrip(b"/"), entry.type) for entry, _ in entries] == [
        (b"d", DIRECTORY), (long.encode(), REGULAR), (b"l", SYMLINK), (b"h", HARD_LINK),
    ]  # fmt: skip
    assert entries[0][0].mtime == 5_000_000_000
    assert entries[1][1] == b"x" * 1000
    assert entries[1][0].uid == 7
    assert (entries[2][0].link, entries[3][0].link) == (b"d", b"t/" * 40)


def test_large_numbers_in_both_encodings() -> None:
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        ((entry, _),) = read(tars.archive([file("f", uid=3_000_000, gid=2_500_000, mtime=-10)], form=form))
        assert (entry.uid, entry.gid, entry.mtime) == (3_000_000, 2_500_000, -10_000_000_000)


@pytest.mark.parametrize("seconds", [-12345, 2**33, 9_999_999_999, 2**62])
def test_times_far_away(seconds: int) -> None:
    ((entry, _),) = read(pax(record(b"mtime", b"%d.5" % seconds)) + header(b"f") + tars.END)
    assert abs(entry.mtime) == abs(seconds) * 10**9 + 5 * 10**8


def test_pax_times_and_attributes() -> None:
    records = record(b"mtime", b"12.3456789019") + record(b"SCHILY.xattr.user.a", b"\0\n=\xff") + record(b"uid", b"9")
    ((entry, data),) = read(pax(records) + header(b"f", size=2) + padded(b"hi") + tars.END)
    assert (entry.mtime, entry.uid, data) == (12_345_678_901, 9, b"hi")
    assert entry.xattrs == {b"user.a": b"\0\n=\xff"}


def test_pax_size_wins_over_the_header() -> None:
    ((entry, data), (following, _)) = read(
        pax(record(b"size", b"3")) + header(b"f", size=0) + padded(b"abc") + header(b"g") + tars.END
    )
    assert (entry.size, data, following.name) == (3, b"abc", b"g")


def test_global_records_are_ignored() -> None:
    records = record(b"path", b"evil")
    data = header(b"g", size=len(records), kind=b"g") + padded(records) + header(b"f") + tars.END
    assert [entry.name for entry, _ in read(data)] == [b"f"]


def test_devices_and_old_directories() -> None:
    node = tars.node("n", tarfile.CHRTYPE, 10, 229)
    ((entry, _),) = read(tars.archive([node]))
    assert (entry.type, entry.device) == (CHARACTER, (10, 229))
    ((entry, _),) = read(header(b"d/", kind=b"\0") + tars.END)
    assert entry.type == DIRECTORY


def test_the_end_may_be_missing() -> None:
    assert read(b"") == []
    assert len(read(header(b"f"))) == 1


def test_data_that_is_not_read_is_skipped() -> None:
    rng = random.Random(1)
    contents = [rng.randbytes(rng.choice([0, 1, 512, 513, 3_000_000])) for _ in range(20)]
    reader = TarReader(io.BytesIO(tars.archive([file(f"f{n}", data) for n, data in enumerate(contents)])))
    for number, entry in enumerate(reader):
        if number % 3 == 0:
            assert b"".join(bytes(chunk) for chunk in reader.chunks()) == contents[number]
        elif number % 3 == 1:
            for _ in reader.chunks():
                break
        assert entry.name == b"f%d" % number


BROKEN = {
    "checksum": header(b"f").replace(b"0000644", b"0000645"),
    "garbage": b"root:x:0:0:root:/root:/bin/bash\n" * 40,
    "letters in a number": header(b"f", mode=b"00zz644\0"),
    "cut in a header": header(b"f")[:300],
    "cut in data": header(b"f", size=1000) + b"x" * 500,
    "cut in skipped data": header(b"f", size=1 << 30) + b"x" * 500,
    "one block of zeros, then more": bytes(512) + header(b"f"),
    "pax without equals": pax(b"6 abc\n") + header(b"f"),
    "pax length too small": pax(b"3 a=b\n") + header(b"f"),
    "pax length too large": pax(b"9999 a=b\n") + header(b"f"),
    "pax length of a million digits": pax(b"9" * 1_000_000) + header(b"f"),
    "pax number of many digits": pax(record(b"size", b"9" * 5000)) + header(b"f"),
    "pax negative size": pax(record(b"size", b"-1")) + header(b"f"),
    "pax time that is none": pax(record(b"mtime", b"1e9")) + header(b"f"),
    "pax time out of range": pax(record(b"mtime", b"9" * 19)) + header(b"f"),
    "pax of two MiB": header(b"p", size=2 << 20, kind=b"x") + bytes(2 << 20) + header(b"f"),
    "long name of two MiB": header(b"p", size=2 << 20, kind=b"L") + b"a" * (2 << 20) + header(b"f"),
    "NUL in a pax name": pax(record(b"path", b"a\0b")) + header(b"f"),
    "negative base-256 size": header(b"f")[:124] + b"\xff" * 12 + header(b"f")[136:],
    "sparse map out of order": pax(record(b"GNU.sparse.map", b"512,1,0,1") + record(b"GNU.sparse.size", b"600"))
    + header(b"f", size=2) + padded(b"ab"),
    "sparse map beyond the file": pax(record(b"GNU.sparse.map", b"0,2") + record(b"GNU.sparse.size", b"1"))
    + header(b"f", size=2) + padded(b"ab"),
    "sparse map larger than the data": pax(record(b"GNU.sparse.map", b"0,9") + record(b"GNU.sparse.size", b"9"))
    + header(b"f", size=2) + padded(b"ab"),
    "sparse map of odd length": pax(record(b"GNU.sparse.map", b"0,1,2") + record(b"GNU.sparse.size", b"9"))
    + header(b"f", size=1) + padded(b"a"),
    "sparse 1.0 without its map": pax(
        record(b"GNU.sparse.major", b"1") + record(b"GNU.sparse.minor", b"0") + record(b"GNU.sparse.realsize", b"9")
    ) + header(b"f", size=512) + padded(b"999999\n"),
    "sparse 1.0 with endless digits": pax(
        record(b"GNU.sparse.major", b"1") + record(b"GNU.sparse.minor", b"0") + record(b"GNU.sparse.realsize", b"9")
    ) + header(b"f", size=4 << 20) + b"1" * (4 << 20),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_archive_is_refused(name: str) -> None:
    start = time.process_time()
    with pytest.raises(TarError):
        read(BROKEN[name])
    assert time.process_time() - start < 2


def test_random_damage_ends_in_an_error_or_in_entries() -> None:
    rng = random.Random(3)
    whole = tars.archive([file(f"f{n}", b"x" * n * 100, xattrs={"user.a": "b"}) for n in range(8)])
    for _ in range(2000):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            read(bytes(data[: rng.randrange(len(data))] if rng.random() < 0.3 else data))
        except TarError:
            continue


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        (b"a/b", b"a/b"), (b"./a//b/", b"a/b"), (b"/etc/x", b"etc/x"), (b"a/../b", b"b"), (b"./", b""), (b"", b""),
        (b"a/.b/..c", b"a/.b/..c"), (b"a\\..\\b", b"a\\..\\b"),
    ],
)  # fmt: skip
def test_names_are_cleaned(name: bytes, wanted: bytes) -> None:
    assert clean_name(name) == wanted


@pytest.mark.parametrize("name", [b"..", b"../x", b"./../x", b"a/../../x", b"/../x", b"a/b/../../../x"])
def test_a_name_that_leads_out_is_refused(name: bytes) -> None:
    with pytest.raises(TarError, match="leads out"):
        clean_name(name)
