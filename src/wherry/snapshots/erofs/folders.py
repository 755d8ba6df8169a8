"""The directories of a layer while it is read: names, kept in little memory however many there are.

A tar goes through a directory's entries mostly one after the other. So the directories used last are objects, and the
others lie in a temporary file, one record each; of those, memory has a place and a length.
"""

from __future__ import annotations

import marshal
from array import array
from collections import OrderedDict
from tempfile import TemporaryFile

from wherry.kernel.fsio.space import Reserve

HELD = 250_000
"""Names, of all directories together, that are kept in memory: some 120 bytes each. One directory is never divided."""

_OWN = 8  # names' worth of memory that a directory without any takes


class Folder:
    """A directory. number: of the directory, in order of appearance; parent: of the one it is in, its own for the root.

    names: name -> node, see `layer`. attributes: st_mode, uid, gid, mtime in ns.
    """

    __slots__ = ("attributes", "names", "number", "opaque", "parent", "xattrs")

    def __init__(self, number: int, parent: int, attributes: tuple[int, int, int, int]) -> None:
        self.number = number
        self.parent = parent
        self.attributes = attributes
        self.names: dict[bytes, int] = {}
        self.xattrs: dict[bytes, bytes] = {}
        self.opaque = False


class Folders:
    """All directories of a layer, by number; 0 is the root. A context manager. Raises OSError from the disk."""

    def __init__(self, place: str, *, held: int = HELD) -> None:
        """place: a directory for the temporary file, which has no name."""
        self._file = TemporaryFile(dir=place)  # noqa: SIM115 closed with this object
        self._end = 0
        self._held = held
        self._names = 0  # in memory, as of the last count
        self._hot: OrderedDict[int, Folder] = OrderedDict()
        self._places = array("Q")
        self._lengths = array("L")
        self._reserve = Reserve(self._file.fileno())

    def __enter__(self) -> Folders:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._places)

    def make(self, parent: int, attributes: tuple[int, int, int, int]) -> Folder:
        """Return a new directory. What was returned before may leave memory: it must be asked for again."""
        folder = Folder(len(self._places), parent, attributes)
        self._places.append(0)
        self._lengths.append(0)
        self._keep(folder)
        return folder

    def get(self, number: int) -> Folder:
        """Return a directory; it may be changed until the next call of `get` or `make`."""
        folder = self._hot.get(number)
        if folder is None:
            folder = self._read(number)
            self._keep(folder)
        else:
            self._hot.move_to_end(number)
            if self._names > self._held:  # they grow while they are here, without another one coming
                self._shrink(number)
        return folder

    def grown(self) -> None:
        """Take note that a name was added to the directory asked for last."""
        self._names += 1

    def _keep(self, folder: Folder) -> None:
        self._hot[folder.number] = folder
        self._names += len(folder.names) + _OWN
        if self._names > self._held:
            self._shrink(folder.number)

    def _shrink(self, spared: int) -> None:
        """Put the directories that were not used for longest away, until half of the room is free."""
        self._names = sum(len(folder.names) + _OWN for folder in self._hot.values())
        while self._names > self._held // 2 and (number := next(iter(self._hot))) != spared:
            folder = self._hot.pop(number)
            self._names -= len(folder.names) + _OWN
            self._write(folder)

    def _write(self, folder: Folder) -> None:
        """Write a record over its last one when it fits: each has as much room as the next power of two."""
        data = marshal.dumps((folder.parent, folder.attributes, folder.names, folder.xattrs, folder.opaque), 2)
        had = self._lengths[folder.number]
        if not had or len(data) > _room(had):
            self._places[folder.number] = self._end
            self._end += _room(len(data))
            self._reserve.spend(_room(len(data)))
        self._lengths[folder.number] = len(data)
        self._file.seek(self._places[folder.number])
        self._file.write(data)

    def _read(self, number: int) -> Folder:
        self._file.seek(self._places[number])
        parent, attributes, names, xattrs, opaque = marshal.loads(self._file.read(self._lengths[number]))
        folder = Folder(number, parent, attributes)
        folder.names, folder.xattrs, folder.opaque = names, xattrs, opaque
        return folder


def _room(length: int) -> int:
    return 1 << (length - 1).bit_length()
