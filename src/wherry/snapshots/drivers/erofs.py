"""erofs: a layer is the tar that it came as, with a small EROFS file system beside it that says where its files are.

    DRIVER/layers/HEX/   beside what `layout` has:
      index              an EROFS file system without data (`erofs.layer`)
      tar                a link to the uncompressed tar, content/blobs/sha256/..., on which the index stands
      fs/                where it is mounted (`erofs.mounting`); empty elsewhere, with the mode and owner of the root

Nothing is unpacked: a layer costs its tar and some 150 bytes for a file, and is removed by removing two files. A
container's own layer is an upper directory of overlayfs, as in overlay2, above the mounted layers.

The layers are file systems of their own. So st_dev of a file that is no directory says which layer it is from, and
changes when it is copied up; xino=on would hide that, at the price of inode numbers above 2^57 (docs/kernel/erofs.md).
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from wherry.archive import writer
from wherry.archive.tar import Entry
from wherry.errors import EngineError, SystemFailure
from wherry.runtime.mountoptions import LAYERS
from wherry.runtime.mounts import Mount
from wherry.runtime.roots import make_root
from wherry.snapshots.api import Usage
from wherry.snapshots.drivers import overlay2
from wherry.snapshots.drivers.overlay2 import Overlay2
from wherry.snapshots.erofs.layer import Below, Layer
from wherry.snapshots.erofs.mounting import LayerMounts
from wherry.snapshots.layout import lower

_PROBE = "0" * 64


class Erofs(Overlay2):
    """The driver for kernels with EROFS and overlayfs' "lowerdir+" (6.8)."""

    name = "erofs"
    unpacks = False

    def __init__(self, root: Path, *, by_files: bool | None = None) -> None:
        """Use, or make, the driver's folder; by_files forces the form of the mounts, for tests."""
        super().__init__(root, one_by_one=True)
        self._layers = LayerMounts(self._parts, by_files=by_files)
        self.mount_namespace = self._layers.namespace

    def close(self) -> None:
        """Unmount what no container is made of."""
        self._layers.close()

    def _parts(self, chain: str) -> tuple[Path, Path, Path]:
        folder = self._layout.layer(chain)
        return folder / "fs", folder / "index", folder / os.readlink(folder / "tar")

    def _make_content(self, folder: Path, parent: str, layer: BinaryIO, blob: Path) -> Usage:
        state = (folder / "fs").stat()  # what `layout` took over from the layer below
        below = Below((stat.S_IMODE(state.st_mode), state.st_uid, state.st_gid), lambda: self._root_names(parent))
        fd = os.open(folder / "index", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            made = Layer(fd, str(folder), below)
            made.run(layer, uuid=_uuid(parent, blob.name), tag=blob.name.encode())
        finally:
            os.close(fd)
        mode, uid, gid, _ = made.root
        os.chown(folder / "fs", uid, gid)
        (folder / "fs").chmod(stat.S_IMODE(mode))
        (folder / "tar").symlink_to(os.path.relpath(blob, self._layout.layers / folder.name))
        return Usage(made.size, made.inodes)

    def _root_names(self, parent: str) -> set[bytes]:
        with self.seen(self._layout.chain(parent)) as roots:
            return {os.fsencode(name) for root in roots for name in os.listdir(root)}

    @contextmanager
    def seen(self, chains: Iterable[str]) -> Iterator[list[Path]]:
        """Give the directories in which layers are seen, for as long as the block takes; they are mounted for it."""
        with self._layers.seen(chains) as roots:
            yield roots

    def mounts(self, key: str) -> tuple[Mount, ...]:
        """Mount the layers of an active snapshot where they are not; return its overlay, to be made beside them."""
        folder, _ = self._layout.find(key)
        chain = lower(folder)
        self._need(key, chain)
        (mount,) = super().mounts(key)
        return (_of_layers(mount),) if chain else (mount,)

    def view(self, chain_id: str) -> Mount:
        """Mount the layers where they are not; return an overlay of them for reading only."""
        self._need(chain_id, self._layout.chain(chain_id))
        mount = super().view(chain_id)
        return _of_layers(mount) if chain_id else mount

    def _need(self, name: str, chain: tuple[str, ...]) -> None:
        try:
            self._layers.need(chain)
        except OSError as error:
            why = f"cannot mount the layers of {name}: {error}"
            raise SystemFailure(f"{why}; wherry system check says what is damaged") from error

    def remove(self, name: str) -> None:
        """Remove a snapshot; a layer is unmounted."""
        super().remove(name)
        try:
            self._layers.forget(name)
        except OSError as error:
            raise SystemFailure(f"cannot unmount the layer {name}: {error}") from error

    def status(self) -> list[tuple[str, str]]:
        """Return the lines of docker info."""
        form = {None: "not mounted yet", True: "files", False: "loop devices"}[self._layers.by_files]
        return [
            ("Backing Filesystem", overlay2.backing_filesystem(self._root)),
            ("Supports d_type", "true"),
            ("Layers mounted from", form),
        ]


def _of_layers(mount: Mount) -> Mount:
    return Mount(mount.type, mount.source, "", (*mount.options, "xino=off", LAYERS))


def _uuid(parent: str, tar: str) -> bytes:
    return hashlib.sha256(f"{parent} {tar}".encode()).digest()[:16]


def problem(root: Path) -> str:
    """Return why the driver cannot be used below the folder `root`, "" when it can: a layer is made and read there."""
    if not overlay2.takes_layers_one_by_one():
        return 'overlayfs of this kernel does not know "lowerdir+" (Linux 6.8)'
    try:
        driver = Erofs(root)
    except (OSError, EngineError) as error:
        return str(error)
    try:
        driver.sweep()
        return _try(driver, root)
    except (OSError, EngineError) as error:
        return str(error)
    finally:
        driver.close()


def _try(driver: Erofs, root: Path) -> str:
    content = os.urandom(700)
    tar = root / "probe.tar"
    tar.write_bytes(_archive(content))
    try:
        with tar.open("rb") as file:
            driver.ingest(_PROBE, "", file, tar)
        try:
            (mount,) = driver.prepare("probe", _PROBE)
            found = _read(driver, mount)
        finally:
            driver.remove("probe")
            driver.remove(_PROBE)
    finally:
        tar.unlink()
    return "" if found == content else "a file of a layer has other bytes than its tar"


def _archive(content: bytes) -> bytes:
    entry = Entry()
    entry.name, entry.mode, entry.size = b"probe", 0o600, len(content)
    return writer.header(entry) + content + writer.padding(len(content)) + writer.END


def _read(driver: Erofs, mount: Mount) -> bytes:
    root = make_root(mount, driver.mount_namespace)
    try:
        fd = os.open("probe", os.O_RDONLY | os.O_CLOEXEC, dir_fd=root)
        with open(fd, "rb") as file:
            return file.read()
    finally:
        os.close(root)
