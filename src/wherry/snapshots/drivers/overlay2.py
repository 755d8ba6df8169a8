"""overlay2: a layer is a directory with what it changes; overlayfs shows a container its chain as one tree.

The mount is given as data, in one of two forms:
- ("lowerdir+=DIR", ...), topmost first, for fsconfig(2) on kernels that take layers one by one (6.8);
- ("lowerdir=l/X:l/Y:...",) for mount(2), whose options must fit in one page: names relative to the mount's
  source, which is the driver's folder and must be the working directory during the call.

Options: index=off, or a second mount of an upper directory whose first one is still going down fails (ESTALE, EBUSY);
metacopy=off and redirect_dir=nofollow, or attributes written by an image or a container could make overlayfs show
files of other layers (Documentation/filesystems/overlayfs.rst, "Metadata only copy up").
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from wherry.errors import EngineError
from wherry.kernel import mountapi
from wherry.packing.layers import Whiteouts
from wherry.runtime.mounts import Mount
from wherry.runtime.ops_mounts import make_filesystem
from wherry.snapshots.directories import DirectoryDriver
from wherry.snapshots.layout import lower
from wherry.snapshots.whiteouts import OverlayWhiteouts

_OPTIONS = ("index=off", "metacopy=off", "redirect_dir=nofollow")
_LINK = 24
"""Hex digits of a chain ID in a short link: 125 layers stay below a page."""


class Overlay2(DirectoryDriver):
    """The driver for any file system that overlayfs can use as its upper layer."""

    name = "overlay2"
    instant = True
    upper = True

    def __init__(self, root: Path, *, one_by_one: bool | None = None) -> None:
        """Use, or make, the driver's folder; one_by_one forces the form of the mounts, for tests."""
        super().__init__(root)
        self._root = root
        self._empty = root / "empty"
        self._empty.mkdir(mode=0o755, exist_ok=True)
        self._one_by_one = takes_layers_one_by_one() if one_by_one is None else one_by_one
        if not self._one_by_one:
            (root / "l").mkdir(mode=0o700, exist_ok=True)

    def _whiteouts(self, parent: str) -> Whiteouts:
        return OverlayWhiteouts(lambda: [self._layout.layers / each / "fs" for each in self._layout.chain(parent)])

    def _add_own(self, folder: Path) -> None:
        (folder / "work").mkdir(mode=0o700)

    def mounts(self, key: str) -> tuple[Mount, ...]:
        """Return the one overlay mount; without layers an empty directory is the lowest."""
        folder, _ = self._layout.find(key)
        chain = lower(folder)
        if not self._one_by_one:
            return (self._by_links(folder, chain),)
        below = [f"lowerdir+={self._layout.layers / each / 'fs'}" for each in chain] or [f"lowerdir+={self._empty}"]
        own = (f"upperdir={folder / 'fs'}", f"workdir={folder / 'work'}")
        return (Mount("overlay", "overlay", "", (*below, *own, *_OPTIONS)),)

    def view(self, chain_id: str) -> Mount:
        """Return an overlay without an upper directory; an empty one is the lowest, for overlayfs wants two."""
        chain = self._layout.chain(chain_id)
        if not chain:
            return Mount("bind", str(self._empty), "", ("bind", "ro"))
        if not self._one_by_one:
            below = ":".join([*self._links(chain), "empty"])
            return Mount("overlay", str(self._root), "", (f"lowerdir={below}", "ro", *_OPTIONS))
        folders = [*(self._layout.layers / each / "fs" for each in chain), self._empty]
        return Mount("overlay", "overlay", "", (*(f"lowerdir+={each}" for each in folders), "ro", *_OPTIONS))

    def _links(self, chain: tuple[str, ...]) -> list[str]:
        """Return the short names of layers, made where they are missing."""
        for each in chain:
            try:
                os.symlink(f"../layers/{each}/fs", self._root / "l" / each[:_LINK])
            except FileExistsError:
                pass
        return [f"l/{each[:_LINK]}" for each in chain]

    def _by_links(self, folder: Path, chain: tuple[str, ...]) -> Mount:
        below = ":".join(self._links(chain)) or "empty"
        own = folder.relative_to(self._root)
        options = (f"lowerdir={below}", f"upperdir={own}/fs", f"workdir={own}/work", *_OPTIONS)
        return Mount("overlay", str(self._root), "", options)

    def remove(self, name: str) -> None:
        """Remove a snapshot and its short link."""
        super().remove(name)
        if not self._one_by_one:
            (self._root / "l" / name[:_LINK]).unlink(missing_ok=True)

    def graph_data(self, key: str) -> dict[str, str]:
        """Return LowerDir (topmost first), UpperDir, WorkDir, and MergedDir, which exists in the container only."""
        folder, _ = self._layout.find(key)
        below = ":".join(str(self._layout.layers / each / "fs") for each in lower(folder))
        data = {"LowerDir": below} if below else {}
        return data | {
            "MergedDir": str(folder / "merged"),
            "UpperDir": str(folder / "fs"),
            "WorkDir": str(folder / "work"),
        }

    def status(self) -> list[tuple[str, str]]:
        """Return the lines of docker info."""
        return [
            ("Backing Filesystem", backing_filesystem(self._root)),
            ("Supports d_type", "true"),
            ("Using metacopy", "false"),
            ("Native Overlay Diff", "true"),
            ("userxattr", "false"),
            ("Layers one by one", str(self._one_by_one).lower()),
        ]


def takes_layers_one_by_one() -> bool:
    """Return whether fsconfig(2) knows "lowerdir+" (6.8): asked of the kernel, for versions are patched.

    Before 6.5 overlayfs lets everything pass until it is mounted.
    """
    return _takes("lowerdir+", "/") and not _takes("no-such-option", "/")


def _takes(key: str, value: str) -> bool:
    try:
        context = mountapi.fsopen("overlay")
    except OSError:
        return False
    try:
        mountapi.fsconfig_string(context, key, value)
    except OSError:
        return False
    finally:
        os.close(context)
    return True


def problem(root: Path) -> str:
    """Return why overlayfs cannot be used below the folder `root`, "" when it can: a detached mount is made there."""
    key = "probe"
    try:
        driver = Overlay2(root)
        driver.sweep()
        mount = driver.prepare(key, "")[0]
        try:
            os.setxattr(root / "active" / key / "fs", "trusted.overlay.opaque", b"y")
            os.mknod(root / "active" / key / "fs" / "whiteout", stat.S_IFCHR | 0o600, os.makedev(0, 0))
            _mount_detached(mount)
        finally:
            driver.remove(key)
    except (OSError, EngineError) as error:
        return str(error)
    return ""


def _mount_detached(mount: Mount) -> None:
    if mount.source == "overlay":
        os.close(make_filesystem(mount.type, mount.source, mount.options, 0))


def backing_filesystem(path: Path) -> str:
    """Return the type of the file system that holds `path`, in the words of docker info."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mountinfo:
        for line in mountinfo:
            fields = line.split()
            if fields[2] == wanted:
                name = fields[fields.index("-") + 1]
                return "extfs" if name.startswith("ext") else name
    return "unknown"
