"""Volumes get another name: their records, their folders, and the records of the containers that have them.

All records change in one transaction, and that of the volume then says which name its folder may still have: the folder
is next, and an engine that dies in between renames it at its start.
"""

from __future__ import annotations

from contextlib import AsyncExitStack

from msgspec import structs

from wherry.containers.catalog import Container
from wherry.containers.record import Record
from wherry.errors import Conflict, InvalidArgument, SystemFailure
from wherry.failpoints import reach
from wherry.services.provision import Provision, volume_names
from wherry.volumes import names
from wherry.volumes.records import ANONYMOUS


async def rename(provision: Provision, old: str, new: str) -> None:
    """Rename a volume. Raises NotFound, InvalidArgument, Conflict (taken, or in use by a container that runs)."""
    names.check(new)
    volumes = provision.volumes
    volumes.get(old)
    users = _users(provision, old)
    async with AsyncExitStack() as held:
        for each in users:  # before the volumes' locks, as everywhere; in one order
            await held.enter_async_context(each.lock)
        await held.enter_async_context(provision.holding([old, new]))
        volume = volumes.get(old)
        _check(provision, old, new, users)
        labels = {key: value for key, value in (volume.labels or {}).items() if key != ANONYMOUS}
        fresh = structs.replace(volume, name=new, labels=labels or None, moved_from=old)
        before = [each.record for each in users]
        with volumes.renaming(old, fresh):
            for each in users:
                provision.catalog.save(each, _renamed(provision, each.record, old, new))
        reach("volume.renamed")
        try:
            # Here and not in a thread: rename(2) of a folder of ours does not wait, and rows are this thread's
            volumes.move(fresh)
        except SystemFailure:
            back = structs.replace(volume, moved_from=new)
            with volumes.renaming(new, back):
                for each, record in zip(users, before, strict=True):
                    provision.catalog.save(each, record)
            volumes.move(back)
            raise
    provision.publish(new, "rename", oldName=old)


def _users(provision: Provision, name: str) -> list[Container]:
    found = [each for each in provision.catalog if name in volume_names(each.record)]
    return sorted(found, key=lambda each: each.id)


def _check(provision: Provision, old: str, new: str, users: list[Container]) -> None:
    if old == new:
        raise InvalidArgument("Renaming a volume with the same name as its current name")
    if not provision.volumes.get(old).local:
        raise Conflict(f"rename {old}: it is kept by a plugin, and only volumes of the driver local can be renamed")
    if new in provision.volumes or provision.volumes.folder(new).exists():
        raise Conflict(f"rename {old}: a volume of the name {new} exists")
    if _users(provision, old) != users:
        raise Conflict(f"rename {old}: a container took or left it just now; try again")
    running = [each.id for each in users if each.record.state.alive]
    if running:
        raise Conflict(f"rename {old}: volume is in use by containers that run - [{', '.join(running)}]")


def _renamed(provision: Provision, record: Record, old: str, new: str) -> Record:
    """Return the record of a container as if the volume had always had its new name."""
    mounts = []
    for each in record.mounts:
        if each.type == "volume" and each.name == old:
            each = structs.replace(each, name=new, source=str(provision.volumes.mountpoint(new)), anonymous=False)
        mounts.append(each)
    host = record.host_config
    binds = [new + each[len(old) :] if each.startswith(f"{old}:") else each for each in host.binds or ()]
    asked = [
        structs.replace(each, source=new) if (each.type, each.source) == ("volume", old) else each
        for each in host.mounts or ()
    ]
    host = structs.replace(host, binds=binds or None, mounts=asked or None)
    return structs.replace(record, mounts=tuple(mounts), host_config=host)
