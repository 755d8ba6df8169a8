"""Looking at containers: docker ps, docker inspect, and prune, which looks before it removes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wherry.containers import filters as container_filters
from wherry.containers import present
from wherry.containers.catalog import Catalog, Container
from wherry.containers.record import Record
from wherry.errors import Conflict, NotFound
from wherry.images.images import Images
from wherry.models import prune
from wherry.models.queries import Filters, ListQuery
from wherry.network.controller import Networks
from wherry.oci import apparmor, security
from wherry.oci.host import read_host_facts
from wherry.services import endpoints, ports
from wherry.services.links import Links
from wherry.services.settings import Settings
from wherry.snapshots.api import Snapshotter

if TYPE_CHECKING:
    from wherry.services.lifecycle import Lifecycle

Json = Any


@dataclass(frozen=True, slots=True)
class Looks:
    """Answers questions about containers."""

    settings: Settings
    catalog: Catalog
    images: Images
    snapshotter: Snapshotter
    networks: Networks
    exec_ids: Callable[[str], Sequence[str]]
    links: Links

    async def listing(self, query: ListQuery) -> list[Json]:
        """Return the entries of docker ps, newest first."""
        container_filters.check(query.filters)
        found = sorted(self._selected(query), key=lambda each: each.record.created, reverse=True)
        if query.limit > 0:
            found = found[: query.limit]
        answer = []
        further = self.links.names()
        images: dict[tuple[str, str], str] = {}  # many are of one image, and each look costs three queries
        for container in found:
            record = container.record
            image = record.config.image, record.image_id
            if image not in images:
                images[image] = self._image_name(container)
            networks = endpoints.shown(record, self.networks)
            entry = present.summary(
                record,
                image=images[image],
                networks=networks,
                ports=ports.listed(record, self.networks.published(container.id)),
                health=container.health,
            )
            entry["Names"] = sorted([*entry["Names"], *further.get(container.id, ())])
            if query.size:
                entry |= await self._sizes(container)
            answer.append(entry)
        return answer

    def _selected(self, query: ListQuery) -> list[Container]:
        everything = query.all or query.limit > 0 or query.filters.get("status") or query.filters.get("exited")
        filters = self._by_network_name(query.filters)
        ancestors = self._ancestors(query.filters.get("ancestor", ()))
        newest, oldest = self._limits(query.filters)
        healths = query.filters.get("health", ())
        published = [ports.parse_filter(each) for each in query.filters.get("publish", ())]
        exposed = [ports.parse_filter(each) for each in query.filters.get("expose", ())]
        return [
            container
            for container in self.catalog
            if (everything or container.record.state.active)
            and container_filters.accepts(container.record, filters)
            and (not healths or (container.health.status if container.health else "none") in healths)
            and (not published or self._publishes(container, published))
            and (not exposed or ports.exposes(container.record, exposed))
            and (ancestors is None or container.record.image_id in ancestors)
            and (newest is None or container.record.created < newest)
            and (oldest is None or container.record.created > oldest)
        ]

    def _publishes(self, container: Container, wanted: Sequence[ports.Span]) -> bool:
        found = [(each.host_port, each.protocol) for each in self.networks.published(container.id)]
        return any(ports.within(each, wanted) for each in found)

    def _by_network_name(self, filters: Filters) -> Filters:
        """Return the filters with the names of networks in place of their ids, by which the records know them."""
        if "network" not in filters:
            return filters
        names = {self.networks.resolve(name).id: name for name in self.networks.names()}
        return {**filters, "network": [names.get(value, value) for value in filters["network"]]}

    def _ancestors(self, refs: Any) -> set[str] | None:
        if not refs:
            return None
        ids = set()
        for ref in refs:
            try:
                ids.add(self.images.resolve(ref).id)
            except NotFound:
                continue  # an image that is not there has no containers
        return ids

    def _limits(self, filters: Filters) -> tuple[int | None, int | None]:
        before = [self.catalog.resolve(ref).record.created for ref in filters.get("before", ())]
        since = [self.catalog.resolve(ref).record.created for ref in filters.get("since", ())]
        return (min(before) if before else None, max(since) if since else None)

    def _image_name(self, container: Container) -> str:
        """Return the name it was made from, or the image's id once that name means another image."""
        record = container.record
        try:
            if self.images.resolve(record.config.image).id == record.image_id:
                return record.config.image
        except NotFound:
            pass
        return record.image_id

    async def _sizes(self, container: Container) -> Json:
        try:
            usage = await asyncio.to_thread(self.snapshotter.usage, container.id)
        except NotFound:
            return {"SizeRw": 0, "SizeRootFs": 0}  # removed while we looked
        try:
            below = self.images.resolve(container.record.image_id).size
        except NotFound:
            below = 0
        return {"SizeRw": usage.size, "SizeRootFs": usage.size + below}

    async def inspect(self, container: Container, *, size: bool) -> Json:
        """Return the answer of docker inspect."""
        record = container.record
        sandbox, key = self.networks.sandbox(container.id)
        if record.host_config.network_mode == "host" and record.state.alive:
            key = self.networks.host_file
        answer = present.inspect(
            record,
            root=self.settings.container_root(container.id),
            network=present.network_settings(
                endpoints.shown(record, self.networks),
                ports=ports.shown(record, self.networks.published(container.id), way_out=self._leads_out(record)),
                sandbox=sandbox,
                key=key,
            ),
            graph=self.snapshotter.graph_data(container.id),
            exec_ids=self.exec_ids(container.id),
        )
        if mac := endpoints.chosen_mac(record):
            answer["Config"]["MacAddress"] = mac
        answer["HostConfig"]["Links"] = self.links.shown(record)
        answer["State"] = present.state(record, container.health)
        answer["AppArmorProfile"] = _profile(record)
        if size:
            answer |= await self._sizes(container)
        return answer

    def _leads_out(self, record: Record) -> bool:
        return any(each.gateway4 or each.gateway6 for each in self.networks.endpoints(record.id))

    async def changes(self, container: Container) -> list[Json]:
        """Return what the container changed in its file system."""
        found = await asyncio.to_thread(self.snapshotter.changes, container.id)
        return [{"Path": each.path, "Kind": each.kind} for each in found]

    async def prune(self, filters: Filters, lifecycle: Lifecycle) -> Json:
        """Remove all containers that do not run; return ids and the bytes that came free."""
        chosen = prune.chosen(filters, time.time_ns())
        removed, freed = [], 0
        for container in self.catalog:
            if container.record.state.active or not chosen(
                container.record.created, container.record.config.labels or {}
            ):
                continue
            try:
                usage = await asyncio.to_thread(self.snapshotter.usage, container.id)
                await lifecycle.remove(container, force=False)
            except (Conflict, NotFound):
                continue  # it was started, or removed, meanwhile
            removed.append(container.id)
            freed += usage.size
        lifecycle.bus.publish("container", "prune", "", {"reclaimed": str(freed)})
        return {"ContainersDeleted": removed or None, "SpaceReclaimed": freed}


def _profile(record: Record) -> str:
    """What confines it from its first start on; before, as with dockerd, only what was asked for."""
    profile = apparmor.profile_for(record.host_config, read_host_facts())
    asked = security.parse(record.host_config.security_opt or ()).apparmor
    return profile if record.state.started_at or asked else ""
