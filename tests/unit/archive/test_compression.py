"""Decompression by magic, in bounded pieces, and its errors."""

from __future__ import annotations

import bz2
import gzip
import importlib.util
import io
import lzma
import random
import sys
import zlib
from collections.abc import Callable

import pytest

from wherry.archive.compression import CompressionError, Unsupported, decompressed

DATA = random.Random(5).randbytes(100_000) + b"a" * 3_000_000


def zstd_is_there() -> bool:
    return bool(importlib.util.find_spec("zstandard")) or sys.version_info >= (3, 14)


def zstd_compress(data: bytes) -> bytes:
    if sys.version_info >= (3, 14):
        from compression import zstd  # type: ignore[import-not-found,unused-ignore]

        return zstd.compress(data)
    import zstandard  # type: ignore[import-not-found,unused-ignore]

    compressed: bytes = zstandard.ZstdCompressor().compress(data)
    return compressed


FORMS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes, "gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress,
}  # fmt: skip


def read_all(data: bytes) -> tuple[bytes, str]:
    source, name = decompressed(io.BytesIO(data))
    pieces = []
    while piece := source.read(70_000):
        assert len(piece) <= 70_000
        pieces.append(piece)
    assert source.read(10) == b""
    return b"".join(pieces), name


@pytest.mark.parametrize("name", FORMS)
def test_each_form_is_found_by_its_first_bytes(name: str) -> None:
    assert read_all(FORMS[name](DATA)) == (DATA, name)


@pytest.mark.parametrize("name", ["gzip", "bzip2", "xz"])
def test_members_are_joined_and_padding_is_ignored(name: str) -> None:
    compress = FORMS[name]
    assert read_all(compress(b"one") + compress(b"two") + bytes(1000))[0] == b"onetwo"


@pytest.mark.parametrize("name", ["gzip", "bzip2", "xz"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "trailed"])
def test_damage_is_an_error(name: str, damage: str) -> None:
    whole = bytearray(FORMS[name](DATA))
    if damage == "cut":
        whole = whole[: len(whole) // 2]
    elif damage == "flipped":
        whole[len(whole) // 2] ^= 0xFF
    else:
        whole += b"not a member"
    with pytest.raises(CompressionError):
        read_all(bytes(whole))


def test_input_of_a_byte_at_a_time() -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(1)

    source, name = decompressed(Slow(gzip.compress(b"hello")))
    pieces = b""
    while piece := source.read(100):
        pieces += piece
    assert (pieces, name) == (b"hello", "gzip")


def test_a_bomb_is_read_in_pieces() -> None:
    """A gigabyte of zeros in a megabyte: never more than a piece of it is in memory."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    bomb = b"".join([compressor.compress(bytes(1 << 20)) for _ in range(200)] + [compressor.flush()])
    source, _ = decompressed(io.BytesIO(bomb))
    total = 0
    while piece := source.read(1 << 16):
        assert len(piece) <= 1 << 16
        total += len(piece)
    assert total == 200 << 20


def test_xz_that_asks_for_too_much_memory_is_refused() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 256 << 20}]
    data = lzma.compress(b"x" * 1000, format=lzma.FORMAT_XZ, filters=filters)
    with pytest.raises(CompressionError, match=r"[Mm]emory"):
        read_all(data)


def test_zstd_or_a_text_that_says_what_to_do() -> None:
    if not zstd_is_there():
        with pytest.raises(Unsupported, match="install it"):
            read_all(b"\x28\xb5\x2f\xfd" + bytes(100))
        return
    whole = zstd_compress(DATA)
    assert read_all(whole) == (DATA, "zstd")
    assert read_all(whole + whole)[0] == DATA + DATA
    assert read_all(whole + b"\x50\x2a\x4d\x18\x03\0\0\0abc" + whole)[0] == DATA + DATA
    for cut in (7, 5000, len(whole) - 1):
        with pytest.raises(CompressionError, match="cut off"):
            read_all(whole[:cut])
    with pytest.raises(CompressionError):
        read_all(whole + b"no frame at all")
