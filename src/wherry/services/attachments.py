"""Clients that attached before the start: kept until there is a supervisor to give them to.

A client that goes away meanwhile must not hold a descriptor for ever. epoll with an empty event mask reports only
EPOLLHUP: both directions closed. A half-close (end of stdin) and unread input do not wake it, epoll_ctl(2).
"""

from __future__ import annotations

import asyncio
import os
import select

from wherry.containers.catalog import Container, PendingAttach


class Attachments:
    """Watches the connections of attachments that wait for a start."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._owners: dict[int, Container] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._epoll.fileno(), self._hung_up)

    def add(self, container: Container, attach: PendingAttach) -> None:
        """Keep an attachment for the container's next start; it owns the descriptor."""
        container.pending.append(attach)
        self._owners[attach.fd] = container
        self._epoll.register(attach.fd, 0)

    def take(self, container: Container) -> list[PendingAttach]:
        """Hand out, and forget, the attachments that wait for this container."""
        taken, container.pending = container.pending, []
        for attach in taken:
            if self._owners.pop(attach.fd, None) is not None:
                self._epoll.unregister(attach.fd)
        return taken

    def drop(self, container: Container) -> None:
        """Close the attachments that wait for this container."""
        for attach in self.take(container):
            os.close(attach.fd)

    def _hung_up(self) -> None:
        for descriptor, _ in self._epoll.poll(0):
            container = self._owners.pop(descriptor, None)
            self._epoll.unregister(descriptor)
            if container is not None:
                container.pending = [each for each in container.pending if each.fd != descriptor]
            os.close(descriptor)

    def close(self) -> None:
        """Close everything that still waits."""
        self._loop.remove_reader(self._epoll.fileno())
        for descriptor in self._owners:
            os.close(descriptor)
        self._owners.clear()
        self._epoll.close()
