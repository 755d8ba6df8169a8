"""Which endpoints each container has now, in memory and in the store.

Memory changes first, under one lock, so that a network which is about to be removed and a container which is about to
come into it see each other; the store follows.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from wherry.errors import Conflict, Forbidden, NotFound
from wherry.network.api import Endpoint
from wherry.network.directory import Directory, Entry
from wherry.network.endpointstore import EndpointStore
from wherry.network.records import Attached, Network

Group = tuple[Attached, ...]
"""The endpoints of one container; never empty once its sandbox is there."""


class Members:
    """Thread-safe."""

    def __init__(self, store: EndpointStore, directory: Directory) -> None:
        """Know nobody until `load`."""
        self._store = store
        self._directory = directory
        self._lock = threading.Lock()
        self._groups: dict[str, Group] = {}

    def load(self, alive: Collection[str]) -> None:
        """Take the endpoints of these containers out of the store and forget all others that are stored."""
        with self._lock:
            self._groups = self._store.load(alive, self._directory, self._groups)

    # Looking

    def groups(self) -> dict[str, Group]:
        """Return the endpoints of all containers, as they are now."""
        with self._lock:
            return dict(self._groups)

    def of(self, container: str) -> Group:
        """Return the endpoints of one container; none when it has no sandbox, or not yet."""
        return self._groups.get(container, ())

    def inside(self, network_id: str) -> dict[str, Endpoint]:
        """Return the endpoints in a network, by container."""
        return {
            container: each.endpoint
            for container, group in self.groups().items()
            for each in group
            if each.endpoint.network_id == network_id
        }

    def sandboxes(self) -> dict[str, str]:
        """Return the container of each sandbox, by the sandbox's id."""
        return {group[0].sandbox_id: container for container, group in self.groups().items() if group}

    # Changing

    def claim(self, container: str) -> None:
        """Begin to make a sandbox; raises Conflict when the container has one."""
        with self._lock:
            if container in self._groups:
                raise Conflict(f"container {container} has a network sandbox already")
            self._groups[container] = ()

    def show(self, container: str, before: Group, attached: Group) -> None:
        """Make endpoints visible. Raises NotFound when a network was removed meanwhile, Conflict when the sandbox was.

        From here on none of the networks can be removed.
        """
        with self._lock:
            for each in attached:
                if each.endpoint.network_id not in self._directory:
                    raise NotFound(f"network {each.endpoint.network_name} not found")
            if self._groups.get(container) is not before:
                raise Conflict(f"container {container} has no network sandbox")
            self._groups[container] = attached

    @contextmanager
    def changing(self, container: str) -> Iterator[Group]:
        """Hold everything as it is for the block, which is given a container's endpoints and may `put` others."""
        with self._lock:
            yield self._groups.get(container, ())

    def put(self, container: str, attached: Group) -> None:
        """Give a container other endpoints; only within `changing`."""
        self._groups[container] = attached

    def write(self, container: str, attached: Group, gone: Sequence[Attached] = ()) -> None:
        """Write endpoints down and forget those that are gone, all at once."""
        self._store.write(container, attached, gone)

    def drop(self, container: str) -> Group:
        """Forget a container and return what it had. Idempotent."""
        with self._lock:
            group = self._groups.pop(container, ())
        if group:
            self._store.delete(container)
        return group

    def forget_network(self, network: Network) -> Entry:
        """Take a network out of the records; raises Forbidden while somebody is in it, NotFound when it is gone."""
        with self._lock:
            active = [
                f'name:"{(each.endpoint.names or (container[:12],))[0]}" id:"{each.endpoint.endpoint_id[:12]}"'
                for container, group in self._groups.items()
                for each in group
                if each.endpoint.network_id == network.id
            ]
            if active:
                raise Forbidden(
                    f"error while removing network: network {network.name} has active endpoints ({', '.join(active)})"
                )
            return self._directory.forget(network)
