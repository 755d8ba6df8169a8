"""Decompression of streams by their first bytes: gzip, bzip2, xz, zstd, or none.

Output is made in bounded pieces whatever the input claims, in this process: no program is started for it, which
rules out both the container's and the host's PATH (CVE-2019-14271 and its kind). xz and zstd declare how much memory
they need; more than 128 MiB is refused.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Any, Protocol, cast

from wherry.archive.tar import Source
from wherry.archive.zstdframes import Frames

try:
    from isal import isal_zlib as _inflate
except ImportError:
    import zlib as _inflate  # type: ignore[no-redef]

PIECE = 1 << 20
MEMORY_LIMIT = 128 << 20
_DAMAGE: tuple[type[Exception], ...] = (
    OSError, EOFError, zlib.error, cast("type[Exception]", _inflate.error), lzma.LZMAError,
)  # fmt: skip
_MAGIC = (
    (b"\x1f\x8b\x08", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)


class CompressionError(ValueError):
    """The compressed data is damaged, cut off, or asks for too much memory."""


class Unsupported(CompressionError):
    """The format is known but this Python cannot decompress it."""


class _Decoder(Protocol):
    """What bz2, lzma and the zlib adapter have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def needs_input(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Gzip:
    """zlib's decompressor in the shape of bz2's: the input that did not fit is kept inside.

    ISA-L's takes half of the time; it is used when it is installed.
    """

    def __init__(self) -> None:
        self._inner = _inflate.decompressobj(16 + zlib.MAX_WBITS)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


def _xz() -> _Decoder:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MEMORY_LIMIT)


_DECODERS: dict[str, Callable[[], _Decoder]] = {"gzip": _Gzip, "bzip2": bz2.BZ2Decompressor, "xz": _xz}


class _Members:
    """A stream of one or more compressed members, read as their concatenation."""

    def __init__(self, source: Source, start: bytes, make: Callable[[], _Decoder]) -> None:
        self._source = source
        self._make = make
        self._decoder: _Decoder | None = make()
        self._input = start

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, b"" at the end."""
        try:
            return self._read(size)
        except _DAMAGE as error:
            raise CompressionError(f"damaged compressed data: {error}") from error

    def _read(self, size: int) -> bytes:
        while self._decoder is not None:
            if not self._input and self._decoder.needs_input:
                self._input = self._source.read(PIECE)
                if not self._input:
                    raise CompressionError("the compressed data is cut off")
            data, self._input = self._input, b""
            output = self._decoder.decompress(data, size)
            if self._decoder.eof:
                self._next_member(self._decoder.unused_data)
            if output:
                return output
        return b""

    def _next_member(self, rest: bytes) -> None:
        """Go on with the following member; zeros after the last one are padding (gzip(1), xz(1))."""
        while True:
            rest = (rest or self._source.read(PIECE)).lstrip(b"\0")
            if rest:
                self._decoder, self._input = self._make(), rest
                return
            more = self._source.read(PIECE)
            if not more:
                self._decoder = None
                return
            rest = more


class _Zstd:
    """The reader of whichever zstd module there is."""

    def __init__(self, reader: Any, failure: type[Exception]) -> None:
        self._reader = reader
        self._failure = failure

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, b"" at the end."""
        try:
            data: bytes = self._reader.read(size)
        except (self._failure, EOFError) as error:
            raise CompressionError(f"damaged compressed data: {error}") from error
        return data


class Prefixed:
    """A source with some bytes put back before it."""

    def __init__(self, start: bytes, source: Source) -> None:
        self._start = start
        self._source = source

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes."""
        if self._start:
            piece, self._start = self._start[:size], self._start[size:]
            return piece
        return self._source.read(size)


class _Watched:
    """A zstd source that raises CompressionError when it ends within a frame."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._frames = Frames()

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes."""
        data = self._source.read(size)
        self._frames.feed(data)
        if not data and self._frames.is_valid and not self._frames.at_end:
            raise CompressionError("the compressed data is cut off")
        return data


def _zstd(source: Source) -> Source:
    """Python 3.14's own module, or zstandard when it is installed."""
    try:
        from compression import zstd  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        pass
    else:
        options = {zstd.DecompressionParameter.window_log_max: MEMORY_LIMIT.bit_length() - 1}
        return _Zstd(zstd.ZstdFile(source, options=options), zstd.ZstdError)
    try:
        import zstandard  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise Unsupported(
            "zstd compression needs Python 3.14 or the zstandard package: install it, or decompress the input before"
        ) from None
    decompressor = zstandard.ZstdDecompressor(max_window_size=MEMORY_LIMIT)
    # Its stubs ask for a whole IO; the reader only calls read().
    reader = decompressor.stream_reader(_Watched(source), read_across_frames=True)  # type: ignore[arg-type,unused-ignore]
    return _Zstd(reader, zstandard.ZstdError)


def peek(source: Source, size: int) -> tuple[bytes, Source]:
    """Return the first `size` bytes (fewer at the end of the input) and a source that still has them."""
    start = b""
    while len(start) < size and (piece := source.read(size - len(start))):
        start += piece
    return start, Prefixed(start, source)


def decompressed(source: Source) -> tuple[Source, str]:
    """Return a source of the plain bytes and the name of the compression, "" for none."""
    start, whole = peek(source, 6)
    for magic, name in _MAGIC:
        if start.startswith(magic):
            if name == "zstd":
                return _zstd(whole), name
            return _Members(whole, b"", _DECODERS[name]), name
    return whole, ""
