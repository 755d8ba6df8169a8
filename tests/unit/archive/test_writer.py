"""Headers of a tar, read back by three others: the standard library, GNU tar and our own reader."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from wherry.archive import tar
from wherry.archive.tar import Entry, TarReader
from wherry.archive.writer import END, header, padding


def entry(name: bytes, **fields: Any) -> Entry:
    made = Entry()
    made.name = name
    for key, value in fields.items():
        setattr(made, key, value)
    return made


CASES = {
    "plain": entry(b"a", mode=0o644, uid=1, gid=2, mtime=1_000_000_000 * 10**9),
    "setuid": entry(b"a", mode=0o4755),
    "folder": entry(b"dir", type=tar.DIRECTORY, mode=0o1777),
    "name of 100": entry(b"n" * 100),
    "name of 101": entry(b"n" * 101),
    "folder of 100": entry(b"n" * 99, type=tar.DIRECTORY),
    "split at the prefix": entry(b"p/" * 60 + b"name"),
    "prefix too long": entry(b"p" * 160 + b"/name"),
    "folder that splits": entry(b"p/" * 90, type=tar.DIRECTORY),
    "4000": entry(b"x/" * 2000 + b"y"),
    "utf-8": entry("größe".encode()),
    "no utf-8": entry(b"\xff\xfe"),
    "newline": entry(b"a\nb"),
    "long link": entry(b"l", type=tar.SYMLINK, link=b"t" * 300),
    "link with bytes": entry(b"l", type=tar.SYMLINK, link=b"\xff"),
    "hard": entry(b"h", type=tar.HARD_LINK, link=b"a/b"),
    "large ids": entry(b"i", uid=8**7, gid=2**32 - 2),
    "largest ids in the header": entry(b"i", uid=8**7 - 1, gid=8**7 - 1),
    "before 1970": entry(b"t", mtime=-1_500_000_001),
    "fraction": entry(b"t", mtime=1_234_567_890_123_456_789),
    "in 2096": entry(b"t", mtime=4_000_000_000 * 10**9),
    "block device": entry(b"d", type=tar.BLOCK_DEVICE, device=(259, 1_000_000)),
    "character device": entry(b"d", type=tar.CHARACTER, device=(0, 0)),
    "fifo": entry(b"f", type=tar.FIFO),
    "holes": entry(b"dir/sparse", size=1 << 40, sparse=[(1 << 40, 0)]),
    "long name and holes": entry("größe/".encode() * 40 + b"x", size=(1 << 40) + 1, sparse=[((1 << 40) + 1, 0)]),
    "xattr names": entry(b"x", xattrs={b"user.a=b%3D": b"c=d", b"user.100%": b"%25"}),
    "xattrs": entry(b"x", xattrs={b"user.a": b"\0=\n", b"security.capability": bytes(20)}),
}


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_our_reader_gets_back_what_was_written(case: Entry) -> None:
    (read,) = TarReader(io.BytesIO(header(case) + END))
    for field in Entry.__slots__:
        if field not in ("name", "xattrs", "stored"):
            assert getattr(read, field) == getattr(case, field), field
    assert read.name.rstrip(b"/") == case.name.rstrip(b"/")
    assert (read.xattrs or {}) == (case.xattrs or {})


def test_the_standard_library_and_gnu_tar_read_all_of_it(tmp_path: Path) -> None:
    data = b"".join(map(header, CASES.values())) + END
    names = [case.name.rstrip(b"/").decode(errors="surrogateescape") for case in CASES.values()]
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = archive.getmembers()
    assert [member.name for member in members] == names
    by_case = dict(zip(CASES, members, strict=True))
    assert by_case["large ids"].gid == 2**32 - 2
    assert by_case["before 1970"].mtime == pytest.approx(-1.500000001)
    assert by_case["block device"].devminor == 1_000_000
    (tmp_path / "t.tar").write_bytes(data)
    shown = subprocess.run(["tar", "tf", str(tmp_path / "t.tar")], capture_output=True, check=True)
    assert len(shown.stdout.splitlines()) == len(CASES)
    assert not shown.stderr


def test_gnu_tar_makes_files_with_holes(tmp_path: Path) -> None:
    cases = [entry(b"hole", size=1 << 40, sparse=[]), entry(b"piece", size=1 << 40, sparse=[(1 << 30, 3)])]
    (tmp_path / "t.tar").write_bytes(header(cases[0]) + header(cases[1]) + b"abc" + padding(3) + END)
    subprocess.run(["tar", "xf", str(tmp_path / "t.tar")], cwd=tmp_path, check=True)
    assert {(tmp_path / name).stat().st_size for name in ("hole", "piece")} == {1 << 40}
    with (tmp_path / "piece").open("rb") as file:
        file.seek((1 << 30) - 1)
        assert file.read(5) == b"\0abc\0"


def test_more_than_8_gib() -> None:
    case = entry(b"big", size=8**11 + 5)
    assert next(iter(TarReader(io.BytesIO(header(case))))).size == 8**11 + 5
    with tarfile.open(fileobj=io.BytesIO(header(case))) as archive:
        first = archive.next()
    assert first
    assert first.size == 8**11 + 5


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513])
def test_padding(size: int) -> None:
    assert (size + len(padding(size))) % 512 == 0
    assert len(padding(size)) < 512


@pytest.mark.parametrize("length", range(1, 130))
def test_the_length_of_a_record_counts_itself(length: int) -> None:
    (read,) = TarReader(io.BytesIO(header(entry(b"f", xattrs={b"user.k": b"v" * length})) + END))
    assert read.xattrs == {b"user.k": b"v" * length}
