"""eStargz: footer, table of contents, what is wrong with one, and what is another layer's."""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from tests import tars
from tests.estargz import Estargz, Table, estargz, footer
from tests.tars import digest, file, folder, hard, link, node
from wherry.archive import estargz as reading
from wherry.archive.compression import decompressed
from wherry.archive.estargz import FOOTER, TocError, difference, promised, table, table_offset

BIG = bytes(range(256)) * 40
MEMBERS = [
    folder("bin", uid=3, gid=4, mtime=1_700_000_000),
    file("bin/sh", BIG, mode=0o4755, mtime=1_700_000_000.75, xattrs={"user.a": "b"}),
    file("empty"),
    link("sh", "bin/sh"),
    hard("again", "bin/sh"),
    node("null", tarfile.CHRTYPE, 1, 3),
    node("pipe", tarfile.FIFOTYPE),
    file("n" * 300, b"x" * 513),
    file("etc/.wh.gone"),
    folder("./deep/../deep/"),
]
HONEST = estargz(MEMBERS, chunk=1000)


def found(layer: Estargz) -> bytes:
    """The table, found as in a registry's blob."""
    at = table_offset(layer.blob[-FOOTER:], len(layer.blob))
    return table(layer.blob[at:-FOOTER], digest(layer.table))


def test_the_layer_is_an_ordinary_one() -> None:
    source, form = decompressed(io.BytesIO(HONEST.blob))
    assert form == "gzip"
    assert b"".join(iter(lambda: source.read(1 << 20), b"")) == HONEST.tar
    with tarfile.open(fileobj=io.BytesIO(HONEST.tar)) as tar:
        assert [each.name for each in tar][:2] == ["bin", "bin/sh"]


def test_the_table_tells_where_each_chunk_is() -> None:
    assert found(HONEST) == HONEST.table
    files = {each.entry.name: each for each in promised(HONEST.table, HONEST.end)}
    assert list(files)[-1] == b"./deep/../deep/"
    entries = [each for each in json.loads(HONEST.table)["entries"] if each["name"] == "bin/sh"]
    chunks = files[b"bin/sh"].chunks
    assert sum(each.length for each in chunks) == len(BIG)
    for entry, each in zip(entries, chunks, strict=True):
        assert each.offset == entry["offset"]
        data = zlib.decompressobj(31).decompress(HONEST.blob[each.offset :])[: each.length]
        assert data == BIG[each.place : each.place + each.length]
        assert digest(data) == each.digest


def test_an_honest_table_promises_its_tar() -> None:
    assert difference(HONEST.table, HONEST.end, io.BytesIO(HONEST.tar)) == ""


def _set(which: str, /, **fields: Any) -> Callable[[Table], None]:
    def change(content: Table) -> None:
        next(each for each in content["entries"] if each["name"] == which).update(fields)

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_set("bin/sh", mode=0o755), "'bin/sh': another mode"),
        (_set("bin", uid=0), "'bin/': another owner"),
        (_set("bin", modtime="2020-01-01T00:00:00Z"), "'bin/': another time"),
        (_set("sh", linkName="bin/other"), "'sh': another link"),
        (_set("null", devMinor=4), "'null': another device"),
        (_set("pipe", type="dir"), "'pipe': another type"),
        (_set("bin/sh", xattrs=None), "'bin/sh': another set of attributes"),
        (_set("bin/sh", chunkDigest=digest(b"")), "'bin/sh': other data"),
        (_set("empty", name="full"), "'empty': the table has 'full' in its place"),
        (lambda content: content["entries"].pop(), "'./deep/../deep/' is not in the table"),
        (lambda content: content["entries"].append(_plain("more")), "'more' is not in the tar"),
    ],
)
def test_what_another_layer_is_called(change: Callable[[Table], None], told: str) -> None:
    layer = estargz(MEMBERS, chunk=1000, change=change)
    assert told in difference(
        found(layer), layer.end, io.BytesIO(layer.tar)
    )


def _plain(name: str) -> dict[str, Any]:
    return {"name": name, "type": "reg", "mode": 0, "uid": 0, "gid": 0}


def _bin(**fields: Any) -> Callable[[Table], None]:
    return _set("bin/sh", **fields)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_set("bin", name="../../etc"), "leads out of"),
        (_set("bin", name="a\0b"), "NUL"),
        (_set("bin", name="\ud800"), "what it should be|no text"),
        (_set("bin", name="n" * 5000), "5000 bytes"),
        (_set("bin", type="socket"), "type 'socket'"),
        (_set("bin", uid=-1), "what it should be"),
        (_set("bin", size=1 << 63), "what it should be"),
        (_bin(offset=1 << 40), "where the blob has none"),
        (_set("n" * 300, offset=1), "lies in that of another file"),
        (_bin(size=1 << 50), "can become"),
        (_bin(size=1), "not the file"),
        (_bin(chunkDigest="md5:00"), "without a digest"),
        (_bin(chunkDigest=""), "without a digest"),
        (_bin(chunkOffset=5), "not the file"),
        (_set("n" * 300, size=1 << 60), "can become"),
        (lambda content: content.update(version=2), "version 2"),
        (lambda content: content.update(entries={}), "what it should be"),
        (lambda content: content["entries"].insert(0, _plain("x") | {"type": "chunk"}), "type 'chunk'"),
        (lambda content: content["entries"].insert(1, _plain("bin") | {"type": "chunk"}), "without data"),
    ],
)
def test_a_table_that_cannot_be(change: Callable[[Table], None], told: str) -> None:
    layer = estargz(MEMBERS, chunk=1000, change=change)
    with pytest.raises(TocError, match=told):
        list(promised(found(layer), layer.end))


def test_a_table_of_too_many_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "ENTRIES_LIMIT", 5)
    with pytest.raises(TocError, match="at most 5"):
        list(promised(HONEST.table, HONEST.end))


def test_a_table_with_another_digest() -> None:
    with pytest.raises(TocError, match="the manifest says"):
        table(HONEST.blob[HONEST.end : -FOOTER], digest(b"other"))


@pytest.mark.parametrize(
    "plain", [b"", b"junk", tars.archive([file("x")]), tars.archive([folder("stargz.index.json")])]
)
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_no_table_where_the_footer_points_to(plain: bytes, compress: Callable[[bytes], bytes]) -> None:
    with pytest.raises(TocError):
        table(compress(plain), digest(b""))


def test_a_table_that_grows_without_end() -> None:
    info = tarfile.TarInfo("stargz.index.json")
    info.size = 1 << 33
    with pytest.raises(TocError, match="at most"):
        table(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20)), digest(b""))


@pytest.mark.parametrize("offset", [1000 - FOOTER, 1 << 40])
def test_a_footer_that_points_out_of_the_blob(offset: int) -> None:
    with pytest.raises(TocError, match="points to"):
        table_offset(footer(offset), 1000)


def test_a_footer_that_points_to_a_huge_table() -> None:
    with pytest.raises(TocError, match="at most"):
        table_offset(footer(0), 1 << 30)


@pytest.mark.parametrize("data", [bytes(FOOTER), footer(1)[:-1], footer(1).replace(b"STARGZ", b"STARGX"), b""])
def test_no_footer(data: bytes) -> None:
    with pytest.raises(TocError, match="no eStargz footer"):
        table_offset(data, 1000)


VALUES = [
    *(0, -1, 1, 1 << 62, 1 << 63, 1 << 70, 1.5, True, None, [], {}, {"a": "b"}, {"a": "YQ=="}, {"\0": "YQ=="}),
    *("", "a", "../x", "\0", "\ud800", "x" * 5000, "chunk", "reg", "dir", "hardlink"),
    *("2020-01-01T00:00:00Z", "9999-12-31T23:59:59+14:00", "0001-01-01T00:00:00Z", "2020-01-01", "20200101T000000Z"),
]
KEYS = "name type size modtime linkName mode uid devMajor xattrs offset innerOffset chunkOffset chunkSize chunkDigest"


@pytest.mark.parametrize("seed", range(4))
def test_a_table_changed_at_random_is_compared_or_refused(seed: int) -> None:
    rng = random.Random(seed)
    refused = 0
    for _ in range(500):
        content = json.loads(HONEST.table)
        for _ in range(rng.choice([1, 1, 2, 3])):
            rng.choice(content["entries"])[rng.choice(KEYS.split())] = rng.choice(VALUES)
        try:
            difference(json.dumps(content).encode(), HONEST.end, io.BytesIO(HONEST.tar))
        except TocError:
            refused += 1
    assert 100 < refused < 500
