"""Mounts that show other owners than the disk has (idmap): what clients ask for, and what it comes to.

    -v SRC:DST:idmap                       whose SRC is, is seen as the container's user, and the reverse
    -v SRC:DST:idmap=uids=1000-0-1;gids=1000-0-1     a mapping, DISK-SEEN-COUNT, as podman has it
    --mount type=bind,...,bind-idmap[=...] and type=volume,...,volume-idmap[=...], as BindOptions and VolumeOptions
                                           {"IDMap": "owner" or the mapping}
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import structs

from wherry.containers.record import MountRecord
from wherry.errors import InvalidArgument
from wherry.runtime import idmaps
from wherry.runtime.idmaps import Ids
from wherry.runtime.mountoptions import IDMAP
from wherry.volumes.backing import NETWORKED, Backing

WORD = "idmap"
OWNER = "owner"


def asked(word: str) -> bool:
    """Whether a word of the mode of -v is about owners."""
    return word == WORD or word.startswith(f"{WORD}=")


def of_words(words: Sequence[str]) -> str:
    """Return what the words of a mode say, "" when nothing. Raises InvalidArgument."""
    found = next((word for word in words if asked(word)), "")
    return _checked(found.partition("=")[2] or OWNER) if found else ""


def of_options(text: str) -> str:
    """Return what BindOptions or VolumeOptions say as IDMap, "" when nothing. Raises InvalidArgument."""
    return _checked(text) if text else ""


def _checked(text: str) -> str:
    if text != OWNER:
        try:
            idmaps.parse(text)
        except ValueError as error:
            raise InvalidArgument(str(error)) from error
    return text


def settled(record: MountRecord, user: str) -> MountRecord:
    """Return a mount that knows as whom the source's owner is seen. user: of the container. Raises InvalidArgument."""
    if record.idmap != OWNER:
        return record
    uid, _, gid = (user or "0:0").partition(":")
    if (uid, gid) in (("root", ""), ("root", "root"), ("0", "")):
        uid, gid = "0", "0"
    if not all(each.isascii() and each.isdigit() for each in (uid, gid)):
        raise InvalidArgument(
            f"idmap of {record.destination}: the container's user is {user!r}, whose numbers only its own files say; "
            "give --user UID:GID, or a mapping, as idmap=uids=1000-33-1;gids=1000-33-1"
        )
    return structs.replace(record, idmap=f"{OWNER}={int(uid)}:{int(gid)}")


def of_engine(ids: Ids | None) -> tuple[str, ...]:
    """Return the option of a mount of the engine's own files, which have on the disk the ids that the container sees.

    ids: of the container's user namespace, None for the host's: then nothing is to be mapped.
    """
    return () if ids is None else (f"{IDMAP}{ids.words}",)


def shown(record: MountRecord, ids: Ids | None, behind: Backing | None) -> tuple[str, ...]:
    """Return the option of a mount that shows other owners, if it does. behind: of a volume.

    In a container with a user namespace, volumes that the engine keeps have the ids that the container sees; folders
    of the host, and what plugins and servers have, keep the host's. Raises InvalidArgument.
    """
    if record.idmap:
        try:
            return (f"{IDMAP}{record.idmap if ids is None else ids.seen_inside(record.idmap)}",)
        except ValueError as error:
            raise InvalidArgument(f"idmap of {record.destination}: {error}") from error
    if behind is None or behind.bind or behind.driver or behind.fstype in NETWORKED:
        return ()
    return of_engine(ids)
