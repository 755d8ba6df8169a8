"""Endpoints whose MAC address somebody else chose: neighbours may remember another one for the same IP address.

Our own drivers make MAC addresses of IP addresses and need none of this. A plugin chooses as it likes, and the link
that it made may lead into a bridge that forwards only a moment later: so it is said a few times.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Sequence

from wherry.kernel import announce
from wherry.kernel.netlink.link import mac_bytes
from wherry.network.records import Attached

log = logging.getLogger(__name__)

PAUSES = (0.0, 0.2, 0.8, 1.0)
"""Seconds before each announcement. The namespace cannot go before the last."""


class Announcer:
    """Thread-safe."""

    def __init__(self) -> None:
        """Have nothing to say."""
        self._stopped = threading.Event()
        self._threads: set[threading.Thread] = set()

    def announce(self, attached: Sequence[Attached]) -> None:
        """Tell the neighbours of those that are to be announced, in the background; the thread is in their namespace.

        What cannot be told is logged: the neighbours find out by themselves, later.
        """
        for each in attached:
            endpoint = each.endpoint
            if not each.returns or not endpoint.mac:
                continue
            mac = mac_bytes(endpoint.mac)
            frames = [announce.arp(mac, endpoint.ipv4)] if endpoint.ipv4 else []
            frames += [announce.advertisement(mac, endpoint.ipv6)] if endpoint.ipv6 else []
            try:
                link = announce.opened(endpoint.interface)
            except OSError as error:
                log.warning("cannot announce an address", extra={"link": endpoint.interface, "error": str(error)})
                continue
            thread = threading.Thread(target=self._say, args=(link, frames), name="wherry-announce", daemon=True)
            self._threads = {other for other in self._threads if other.is_alive()} | {thread}
            thread.start()

    def stop(self) -> None:
        """Say no more."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _say(self, link: socket.socket, frames: Sequence[bytes]) -> None:
        with link:
            for pause in PAUSES:
                if self._stopped.wait(pause):
                    return
                try:
                    for each in frames:
                        link.send(each)
                except OSError as error:  # the link has gone
                    log.debug("an address is announced no more", extra={"error": str(error)})
                    return
