"""Backups of volumes: saved as archives, restored from them, and copies of the moment.

Containers that have a volume can be frozen for the time of it: then it is as if the power had failed at that moment,
which programs that care for their data survive. A mark in the run directory says who was frozen by us, so that an
engine that is killed meanwhile leaves nobody frozen: the next one thaws them. Nor does a client that stops reading: it
gets no archive then, and they go on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from collections.abc import AsyncIterator, Generator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from wherry.archive.compression import CompressionError
from wherry.archive.tar import TarError
from wherry.containers.catalog import Container
from wherry.errors import Conflict, EngineError, InvalidArgument, NotFound, SystemFailure
from wherry.failpoints import reach
from wherry.kernel.fsio.copy import copy_tree
from wherry.rootfs import filesystems
from wherry.services.chunks import Chunks
from wherry.services.lifecycle import Lifecycle
from wherry.services.pace import at_their_pace
from wherry.services.stalls import Reader
from wherry.supervision.background import spawn
from wherry.volumes import backing, names
from wherry.volumes.backup import archive, restored
from wherry.volumes.backup.archive import Head
from wherry.volumes.backup.ledger import Spool
from wherry.volumes.backup.restored import Restored
from wherry.volumes.records import Volume

log = logging.getLogger(__name__)
Json = dict[str, Any]
MARK = "frozen"
PATIENCE = 10.0
"""Seconds that a client may read nothing while containers are frozen for it."""

_ANY_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FOLDER = _ANY_FOLDER | os.O_NOFOLLOW


@dataclass(frozen=True, slots=True)
class Backups:
    """BackupsBackend."""

    lifecycle: Lifecycle

    async def save(self, name: str, base: BinaryIO, *, freeze: bool) -> Chunks[bytes]:
        """Return the archive of a volume. base: the manifest of the backup that it adds to, nothing for a whole one."""
        volume = self.lifecycle.provision.volumes.get(name)
        try:
            return await self._save(volume, base, freeze=freeze)
        except EngineError as error:
            self._check_is_there(volume, error)
            raise

    async def _save(self, volume: Volume, base: BinaryIO, *, freeze: bool) -> Chunks[bytes]:
        name, held = volume.name, AsyncExitStack()
        try:
            against = await _work(_received, base, self._scratch)
            held.callback(against.close)
            root = await held.enter_async_context(self._opened(volume))
            freezing = AsyncExitStack()
            held.push_async_callback(freezing.aclose)
            frozen = await freezing.enter_async_context(self._frozen(name, freeze=freeze))
            own = os.dup(root)
        except BaseException:
            await held.aclose()
            raise
        head = Head(name, time.time_ns(), base=against.id, labels=volume.labels, frozen=tuple(frozen))
        made = self._checked(archive.taken(own, head, against, self._scratch), volume)
        if frozen:
            reader = Reader(PATIENCE)
            made = reader.pieces(made)
            held.callback(spawn(reader.watch(freezing.aclose), f"reader of volume {name}").cancel)
        chunks = Chunks(made, held)
        try:
            await chunks.begin()
        except BaseException:
            await chunks.aclose()
            raise
        return chunks

    def _checked(self, made: Generator[bytes, None, None], volume: Volume) -> Generator[bytes, None, None]:
        """Pass an archive on, but its last piece only when the volume is still there."""
        last = b""
        try:
            with closing(made):
                for piece in made:
                    if last:
                        yield last
                    last = piece
        except OSError as error:
            raise SystemFailure(f"cannot save volume {volume.name}: {error}") from error
        self._check_is_there(volume)
        yield last

    def _check_is_there(self, volume: Volume, cause: EngineError | None = None) -> None:
        """Raise Conflict when a volume is another one by now, or none."""
        volumes = self.lifecycle.provision.volumes
        if volume.name not in volumes or volumes.get(volume.name) != volume:
            raise Conflict(f"volume {volume.name} was removed, or renamed, while it was saved") from cause

    async def restore(self, name: str, body: BinaryIO) -> Json:
        """Restore a backup: a whole one in a new volume, one with a base in the volume that has just that."""
        provision = self.lifecycle.provision
        names.check(name)
        async with provision.holding([name]):
            if name in provision.volumes:
                return await self._add(provision.volumes.get(name), body)
            return await self._make(name, body)

    async def _make(self, name: str, body: BinaryIO) -> Json:
        provision, volumes = self.lifecycle.provision, self.lifecycle.provision.volumes
        await asyncio.to_thread(volumes.make, name)
        try:
            head, number = await _work(self._restore, name, body, Restored())
            fresh = Volume(name=name, created=time.time_ns(), labels=head.labels)
            with volumes.recording([fresh]):
                pass
        except BaseException:
            await asyncio.shield(asyncio.to_thread(volumes.discard, name))
            raise
        provision.made([fresh])
        return {"Name": name, "Id": number, "Taken": head.taken}

    async def _add(self, volume: Volume, body: BinaryIO) -> Json:
        """Put a backup on top of the one that a volume has."""
        name = volume.name
        if running := [each.name for each in self._running(name)]:
            raise Conflict(f"volume {name} is in use by {', '.join(running)}: stop it first")
        state = await _work(restored.read, self._folder(name))
        if not state.id:
            raise Conflict(f"a volume named {name} is there already, and was not restored from a backup")
        head, number = await _work(self._restore, name, body, state)
        return {"Name": name, "Id": number, "Taken": head.taken}

    def _restore(self, name: str, body: BinaryIO, before: Restored) -> tuple[Head, str]:
        folder = self._folder(name)
        root = os.open(self.lifecycle.provision.volumes.mountpoint(name), _FOLDER)
        base = restored.lines(folder, self._scratch)
        try:
            if before.id and before.complete:
                _check_untouched(name, root, base, self._scratch)
                restored.write(folder, Restored(before.id, complete=False))
            head, number, here = archive.restore(root, body, base, before.id, self._scratch)
            reach("restore.unpacked")
            try:
                restored.write(folder, Restored(number), here)
            finally:
                here.close()
            return head, number
        finally:
            base.close()
            os.close(root)

    async def snapshot(self, name: str, new: str) -> Json:
        """Copy a volume as it is at this moment, its containers frozen; shares the data where the disk can."""
        provision = self.lifecycle.provision
        names.check(new)
        async with provision.holding([name, new]):
            volume = provision.volumes.get(name)
            if new in provision.volumes:
                raise Conflict(f"a volume named {new} is there already")
            await asyncio.to_thread(provision.volumes.make, new)
            try:
                async with self._opened(volume) as source, self._frozen(name, freeze=True):
                    await _work(self._copy, os.dup(source), new)
                fresh = Volume(name=new, created=time.time_ns(), labels=volume.labels)
                with provision.volumes.recording([fresh]):
                    pass
            except BaseException:
                await asyncio.shield(asyncio.to_thread(provision.volumes.discard, new))
                raise
            provision.made([fresh])
        return {"Name": new}

    def _copy(self, source: int, new: str) -> None:
        """source: a descriptor of what is copied, which is closed."""
        try:
            target = os.open(self.lifecycle.provision.volumes.mountpoint(new), _FOLDER)
            try:
                copy_tree(source, target)
            finally:
                os.close(target)
        finally:
            os.close(source)

    # Places

    @property
    def _scratch(self) -> Path:
        return self.lifecycle.provision.volumes.folder("")

    def _folder(self, name: str) -> Path:
        return self.lifecycle.provision.volumes.folder(name)

    @asynccontextmanager
    async def _opened(self, volume: Volume) -> AsyncIterator[int]:
        """Give a descriptor of the content of a volume; its plugin has it mounted for us meanwhile."""
        remote, who = self.lifecycle.provision.remote, f"backup-{secrets.token_hex(8)}"
        place = "" if volume.local else await at_their_pace(remote.mount, volume.driver, volume.name, who)
        try:
            root = await _work(self._open, volume, place)
            try:
                yield root
            finally:
                os.close(root)
        finally:
            if place:
                await asyncio.shield(at_their_pace(remote.unmount, volume.driver, volume.name, who))

    def _open(self, volume: Volume, place: str) -> int:
        """place: where its plugin has mounted it."""
        behind = backing.of(volume.options, volume.driver)
        own = str(self.lifecycle.provision.volumes.mountpoint(volume.name))
        try:
            if behind.mounted:
                return self._open_inside(volume, own)
            return os.open(place or (behind.device if behind.bind else own), _ANY_FOLDER)
        except OSError as error:
            raise SystemFailure(f"cannot open volume {volume.name}: {error}") from error

    def _open_inside(self, volume: Volume, place: str) -> int:
        """Open a volume that is a file system of its own where a container that runs has it."""
        holder = self.lifecycle.provision.holder(volume.name)
        if not holder:
            raise InvalidArgument(
                f"volume {volume.name} is a file system that is there only while a container has it: "
                "start one, or back it up where it comes from"
            )
        try:
            return filesystems.opened(holder, place)
        except (FileNotFoundError, ProcessLookupError) as error:
            raise Conflict(f"a container with volume {volume.name} ended just now; try again") from error

    # Freezing

    def _running(self, name: str) -> list[Container]:
        catalog = self.lifecycle.catalog
        found = [catalog.resolve(each) for each in self.lifecycle.provision.users(name)]
        return [each for each in found if each.record.state.alive]

    @asynccontextmanager
    async def _frozen(self, name: str, *, freeze: bool) -> AsyncIterator[list[str]]:
        """Freeze the containers that have a volume, but those that are frozen already."""
        chosen = [each for each in self._running(name) if freeze and each.record.state.status == "running"]
        done: list[Container] = []
        try:
            for each in chosen:
                done.append(each)  # also one that cannot be frozen loses its mark
                self._mark(each).touch()
                self.lifecycle.pause(each)
            reach("backup.frozen")
            yield [each.name for each in done]
        finally:
            for each in done:
                self._thaw(each)

    def _mark(self, container: Container) -> Path:
        return self.lifecycle.settings.run_dir(container.id) / MARK

    def _thaw(self, container: Container) -> None:
        try:
            if container.record.state.status == "paused":
                self.lifecycle.unpause(container)
            self._mark(container).unlink(missing_ok=True)
        except (EngineError, OSError) as error:
            log.error("cannot thaw after a backup", extra={"container": container.id, "error": str(error)})

    def thaw_left(self) -> None:
        """Thaw what an engine has frozen for a backup that was killed then."""
        for container in self.lifecycle.catalog:
            if container.record.state.alive and self._mark(container).exists():
                self._thaw(container)


def _received(body: BinaryIO, scratch: Path) -> Spool:
    spool = Spool(scratch)
    try:
        while piece := body.read(1 << 20):
            spool.write(piece)
    except BaseException:
        spool.close()
        raise
    return spool


def _check_untouched(name: str, root: int, base: Spool, scratch: Path) -> None:
    """Raise Conflict when somebody has written to a volume since it was restored."""
    now = archive.look(root, base, scratch)
    try:
        if found := archive.differences(base, now):
            raise Conflict(
                f"volume {name} has been written to since it was restored ({found}): "
                "restore the whole backup and all that add to it in a new volume"
            )
    finally:
        now.close()


async def _work(job: Any, *arguments: object) -> Any:
    """Run blocking work; what the archive or the kernel says becomes the engine's error."""
    try:
        return await at_their_pace(job, *arguments)
    except (TarError, CompressionError) as error:
        raise InvalidArgument(f"this is no backup of a volume: {error}") from error
    except FileNotFoundError as error:
        raise NotFound(f"it was removed meanwhile: {error}") from error
    except OSError as error:
        raise SystemFailure(f"cannot finish: {error}") from error
