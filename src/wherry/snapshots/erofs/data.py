"""Where the data of a regular file is: in the tar, or, for a sparse file that does not fit its blocks, in the index.

EROFS has no extents for plain data: a file is cut into chunks of one size, each of which begins at a block. A sparse
file whose pieces begin at multiples of a chunk, as they do when tar(1) finds the holes, is left in the tar. Another one
is laid out anew, in chunks that are large enough for the list of them to stay short.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from wherry.archive.tar import TarError, TarReader
from wherry.snapshots.erofs import format as erofs
from wherry.snapshots.erofs.output import Output

MOST_CHUNKS = 1 << 17
"""Of one sparse file: a megabyte of indexes."""

LARGEST = 16 << 40
"""Bytes that a sparse file may claim; ext4 takes no larger one either."""

_PAGE_BITS = 12


def whole(size: int, offset: int) -> tuple[int, bytes]:
    """Return form and indexes of a file of `size` bytes, not 0, that the tar has in one piece at `offset`."""
    bits = min(max((size - 1).bit_length(), erofs.BLOCK_BITS), erofs.LARGEST_CHUNK)
    count = -(-size >> bits) if size > 1 << bits else 1
    return erofs.chunk_form(bits), erofs.indexes(1, offset >> erofs.BLOCK_BITS, count, bits)


def sparse(size: int, pieces: list[tuple[int, int]], reader: TarReader, output: Output) -> tuple[int, bytes]:
    """Return form and indexes of a sparse file; pieces: (place in the file, length), which the reader is about to give.

    Raises TarError for one that is too large.
    """
    if size > LARGEST:
        raise TarError(f"a sparse file of {size} bytes; at most {LARGEST} are accepted")
    pieces = [piece for piece in pieces if piece[1]]
    bits = _fitting(size, pieces, reader.offset)
    if bits:
        return erofs.chunk_form(bits), _in_the_tar(size, pieces, reader.offset, bits)
    bits = max(_PAGE_BITS, (-(-size // MOST_CHUNKS) - 1).bit_length())
    return erofs.chunk_form(bits), _in_the_index(size, pieces, reader, output, bits)


def _fitting(size: int, pieces: Iterable[tuple[int, int]], offset: int) -> int:
    """Return the bits of the largest chunk at whose multiples all pieces begin and end, 0 when there is none."""
    together = 0
    for place, length in pieces:
        if offset % erofs.BLOCK:
            return 0
        together |= place | (length if place + length != size else 0)
        offset += length
    bits = (together & -together).bit_length() - 1 if together else max((size - 1).bit_length(), erofs.BLOCK_BITS)
    bits = min(bits, erofs.LARGEST_CHUNK)
    return bits if bits >= erofs.BLOCK_BITS and -(-size >> bits) <= MOST_CHUNKS else 0


def _in_the_tar(size: int, pieces: Iterable[tuple[int, int]], offset: int, bits: int) -> bytes:
    parts: list[bytes] = []
    done = 0
    for place, length in pieces:
        parts.append(erofs.HOLE * ((place >> bits) - done))
        count = -(-length >> bits)
        parts.append(erofs.indexes(1, offset >> erofs.BLOCK_BITS, count, bits))
        done = (place >> bits) + count
        offset += length
    parts.append(erofs.HOLE * (-(-size >> bits) - done))
    return b"".join(parts)


def _in_the_index(
    size: int, pieces: Iterable[tuple[int, int]], reader: TarReader, output: Output, bits: int
) -> bytes:
    """Copy the pieces; of each chunk that has some data, only what is data takes space on the disk."""
    parts: list[bytes] = []
    base = 0
    for place, piece in _placed(pieces, reader):
        done = 0
        while done < len(piece):
            chunk, inside = (place + done) >> bits, (place + done) & ((1 << bits) - 1)
            if chunk >= len(parts):
                parts += [erofs.HOLE] * (chunk - len(parts))
                output.align(1 << _PAGE_BITS)
                base = output.skip(1 << bits)
                if output.size > erofs.MOST_BLOCKS * erofs.BLOCK:
                    raise TarError("sparse files that are too large together")
                parts.append(erofs.index(0, base >> erofs.BLOCK_BITS))
            data = piece[done : done + (1 << bits) - inside]
            output.change(base + inside, data)
            done += len(data)
    parts += [erofs.HOLE] * (-(-size >> bits) - len(parts))
    return b"".join(parts)


def _placed(pieces: Iterable[tuple[int, int]], reader: TarReader) -> Iterator[tuple[int, memoryview]]:
    """Yield the data with its place in the file."""
    waiting = iter(pieces)
    place = left = 0
    for chunk in reader.chunks():
        data = chunk
        while data:
            if not left:
                place, left = next(waiting)
            yield place, data[:left]
            done = min(left, len(data))
            place, left, data = place + done, left - done, data[done:]
