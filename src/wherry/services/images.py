"""The image use cases: the image store, plus what only the containers know (who uses an image)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from typing import Any, BinaryIO

from wherry.containers.catalog import Catalog
from wherry.events import Bus
from wherry.images.images import Images
from wherry.models.parts import Part
from wherry.models.queries import Filters
from wherry.services.chunks import Chunks
from wherry.services.pace import at_their_pace

Json = Any
Work = Callable[[Callable[[Json], None]], list[str]]


@dataclass(frozen=True, slots=True)
class ImageService:
    """ImagesBackend."""

    images: Images
    catalog: Catalog
    bus: Bus

    async def listing(self, *, all: bool, filters: Filters, shared: bool = False) -> list[Json]:
        """GET /images/json; shared: with what each image shares with others."""
        entries = await asyncio.to_thread(self.images.listing, all=all, filters=filters)
        if shared:
            sizes = await asyncio.to_thread(self.images.shared_sizes)
            entries = [entry | {"SharedSize": sizes.get(entry["Id"], 0)} for entry in entries]
        counts: dict[str, int] = {}
        for container in self.catalog:
            counts[container.record.image_id] = counts.get(container.record.image_id, 0) + 1
        return [entry | {"Containers": counts.get(entry["Id"], 0)} for entry in entries]

    async def inspect(self, ref: str, *, platform: str) -> Json:
        """GET /images/NAME/json."""
        return await asyncio.to_thread(self.images.inspect, ref, platform)

    async def history(self, ref: str, *, platform: str) -> list[Json]:
        """GET /images/NAME/history."""
        return await asyncio.to_thread(self.images.history, ref, platform)

    async def tag(self, ref: str, *, repo: str, tag: str) -> None:
        """POST /images/NAME/tag."""
        image = self.images.resolve(ref)
        name = await asyncio.to_thread(self.images.tag, ref, repo, tag)
        self.bus.publish("image", "tag", image.id, {"name": name})

    def _users(self, image_id: str) -> list[tuple[str, bool]]:
        """Return the containers that stand on an image or have it mounted, and whether that is for good.

        A container that does not run keeps the layers that it stands on; what it mounts it has to find at its start.
        """
        found = []
        for each in self.catalog:
            mounted = any(mount.image_id == image_id for mount in each.record.mounts)
            if mounted or each.record.image_id == image_id:
                found.append((each.id, mounted or each.record.state.active))
        return found

    async def remove(self, ref: str, *, force: bool, noprune: bool, platform: str) -> list[Json]:
        """DELETE /images/NAME."""
        known = await asyncio.to_thread(self.images.known)
        steps: list[Json] = await asyncio.to_thread(
            self.images.remove, ref, force=force, noprune=noprune, users=self._users, platform=platform
        )
        self._publish_removal(steps, known)
        return steps

    def _publish_removal(self, steps: list[Json], known: Mapping[str, str]) -> None:
        """Tell of images, not of their layers. known: what names and ids meant before."""
        for step in steps:
            for word, action in (("Untagged", "untag"), ("Deleted", "delete")):
                if image_id := known.get(step.get(word, "")):
                    self._publish(action, image_id)

    def _publish(self, action: str, image_id: str) -> None:
        self.bus.publish("image", action, image_id, {"name": image_id})

    async def prune(self, filters: Filters) -> Json:
        """POST /images/prune."""
        known = await asyncio.to_thread(self.images.known)
        answer = await asyncio.to_thread(self.images.prune, filters, users=self._users)
        self._publish_removal(answer.get("ImagesDeleted") or [], known)
        self.bus.publish("image", "prune", "", {"reclaimed": str(answer["SpaceReclaimed"])})
        return answer

    def load(self, body: BinaryIO, *, quiet: bool, platform: str) -> AsyncIterator[Json]:
        """POST /images/load."""

        def work(progress: Callable[[Json], None]) -> list[str]:
            return self.images.load(body, progress if not quiet else _only_results(progress), platform)

        return self._progress(work, "load")

    def import_(
        self, body: BinaryIO, *, repo: str, tag: str, message: str, changes: list[str], platform: str
    ) -> AsyncIterator[Json]:
        """POST /images/create?fromSrc=-."""

        def work(progress: Callable[[Json], None]) -> list[str]:
            image_id = self.images.import_(
                body, repo=repo, tag=tag, message=message, changes=changes, platform=platform
            )
            progress({"status": image_id})
            return [image_id]

        return self._progress(work, "import")

    async def save(self, refs: list[str], *, platform: str) -> AsyncIterator[Part]:
        """GET /images/get."""
        held = ExitStack()
        opening = asyncio.get_running_loop().run_in_executor(
            None, held.enter_context, self.images.saved(refs, platform)
        )
        try:
            ids, archive = await asyncio.shield(opening)
        except asyncio.CancelledError:  # the client has gone; the thread has not, and takes hold of the layers yet
            await asyncio.wait([opening])
            await asyncio.to_thread(held.close)
            raise
        for image_id in ids:
            self._publish("save", image_id)
        release = AsyncExitStack()
        release.push_async_callback(asyncio.to_thread, held.close)
        return Chunks(archive, release)

    async def _progress(self, work: Work, action: str) -> AsyncIterator[Json]:
        """Run blocking work in a thread and yield what it reports; its error ends the stream as an exception.

        work: returns the ids of the images that it made.
        """
        loop = asyncio.get_running_loop()
        reports: asyncio.Queue[Json | None] = asyncio.Queue()

        def report(entry: Json) -> None:
            loop.call_soon_threadsafe(reports.put_nowait, entry)

        done = at_their_pace(work, report)
        done.add_done_callback(lambda _: reports.put_nowait(None))
        while (entry := await reports.get()) is not None:
            yield entry
        for image_id in await done:
            self._publish(action, image_id)


def _only_results(progress: Callable[[Json], None]) -> Callable[[Json], None]:
    return lambda entry: progress(entry) if "stream" in entry else None
