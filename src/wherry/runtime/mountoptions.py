"""Mount options as in fstab(5) and the OCI runtime spec, sorted by who understands them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from wherry.kernel import const

_ATIME = const.MOUNT_ATTR__ATIME
_FLAGS = {
    "defaults": (0, 0),
    "ro": (const.MOUNT_ATTR_RDONLY, 0),
    "rw": (0, const.MOUNT_ATTR_RDONLY),
    "nosuid": (const.MOUNT_ATTR_NOSUID, 0),
    "suid": (0, const.MOUNT_ATTR_NOSUID),
    "nodev": (const.MOUNT_ATTR_NODEV, 0),
    "dev": (0, const.MOUNT_ATTR_NODEV),
    "noexec": (const.MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, const.MOUNT_ATTR_NOEXEC),
    "nodiratime": (const.MOUNT_ATTR_NODIRATIME, 0),
    "diratime": (0, const.MOUNT_ATTR_NODIRATIME),
    "nosymfollow": (const.MOUNT_ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, const.MOUNT_ATTR_NOSYMFOLLOW),
    # The kinds of atime are values of one field: setting one clears the field (mount_setattr(2))
    "relatime": (const.MOUNT_ATTR_RELATIME, _ATIME),
    "norelatime": (const.MOUNT_ATTR_STRICTATIME, _ATIME),
    "atime": (const.MOUNT_ATTR_RELATIME, _ATIME),
    "noatime": (const.MOUNT_ATTR_NOATIME, _ATIME),
    "strictatime": (const.MOUNT_ATTR_STRICTATIME, _ATIME),
    "nostrictatime": (const.MOUNT_ATTR_RELATIME, _ATIME),
}
_RECURSIVE_FLAGS = {f"r{name}": value for name, value in _FLAGS.items() if name != "defaults"}
_PROPAGATION = {
    "private": const.MS_PRIVATE, "slave": const.MS_SLAVE, "shared": const.MS_SHARED, "unbindable": const.MS_UNBINDABLE,
}  # fmt: skip
SUBPATH = "x-subpath="
"""An option of ours, in the name space that fstab(5) leaves to applications."""

IDMAP = "x-idmap="
"""Another one: ids as this mount shows them, "uids=1000-0-1#1001-1-5;gids=...", each DISK-SEEN-COUNT."""

LAYERS = "x-layers"
"""Another one: what is mounted is made of mounts that are in the mount namespace of the layers only (`selfprotect`)."""

_IGNORED = {"nofail", "auto", "noauto", "user", "nouser", "_netdev", "iversion", "noiversion"}


@dataclass(slots=True)
class Options:
    """attributes, cleared: MOUNT_ATTR_* of the mount; recursive_*: of all mounts below it too. propagation: MS_* or 0.

    data: what the file system itself is told, "key" or "key=value". subpath: the part of a bind's source to mount.
    idmap: see `IDMAP`.
    """

    attributes: int = 0
    cleared: int = 0
    recursive_attributes: int = 0
    recursive_cleared: int = 0
    propagation: int = 0
    propagation_recursive: bool = False
    bind: bool = False
    recursive: bool = False
    copy_up: bool = False
    layers: bool = False
    subpath: str = ""
    idmap: str = ""
    data: tuple[str, ...] = ()


def known() -> list[str]:
    """Return the options that are not left to the file system."""
    propagation = [*_PROPAGATION, *(f"r{word}" for word in _PROPAGATION)]
    return sorted({*_FLAGS, *_RECURSIVE_FLAGS, *propagation, *_IGNORED, "bind", "rbind", "tmpcopyup"})


def parse(words: Iterable[str]) -> Options:
    """Sort the options of one mount; later ones win."""
    options = Options()
    data: list[str] = []
    for word in words:
        if word in _FLAGS:
            options.attributes, options.cleared = _merge(options.attributes, options.cleared, _FLAGS[word])
        elif word in _RECURSIVE_FLAGS:
            options.recursive_attributes, options.recursive_cleared = _merge(
                options.recursive_attributes, options.recursive_cleared, _RECURSIVE_FLAGS[word]
            )
        elif not _special(options, word):
            data.append(word)
    options.data = tuple(data)
    return options


def _merge(set_bits: int, clear_bits: int, flag: tuple[int, int]) -> tuple[int, int]:
    on, off = flag
    # A bit may not be both set and cleared, except those of the atime field, where clearing means choosing
    return (set_bits & ~off) | on, ((clear_bits | off) & ~(on & ~_ATIME))


def _special(options: Options, word: str) -> bool:
    """Take an option that is neither an attribute nor for the file system; False when it is another."""
    if word in ("bind", "rbind"):
        options.bind = True
        options.recursive = word == "rbind"
    elif word in _PROPAGATION:
        options.propagation, options.propagation_recursive = _PROPAGATION[word], False
    elif word[:1] == "r" and word[1:] in _PROPAGATION:
        options.propagation, options.propagation_recursive = _PROPAGATION[word[1:]], True
    elif word == "tmpcopyup":
        options.copy_up = True
    elif word == LAYERS:
        options.layers = True
    elif word.startswith(SUBPATH):
        options.subpath = word.removeprefix(SUBPATH)
    elif word.startswith(IDMAP):
        options.idmap = word.removeprefix(IDMAP)
    else:
        return word in _IGNORED
    return True
