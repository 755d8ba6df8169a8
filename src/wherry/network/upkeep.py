"""Rules that come back: one thread that hears of what takes them away, and has the firewall put them back.

    firewalld, over D-Bus     it has read its rules anew, or has started (firewalld.py)
    the kernel, over netlink  somebody has removed what was ours: `nft flush ruleset`, `systemctl restart nftables`,
                              `iptables -F` (kernel/netlink/nftwatch.py); can be turned off
    the administrator         SIGHUP, by `restore`

The kernel tells of every change, our own included; the firewall says which of them can have hurt it. What is put back
is put back a moment later, together, and at most once a second: two programs that undo each other's work would
otherwise do nothing else.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections.abc import Callable, Collection
from contextlib import ExitStack

from wherry.errors import EngineError
from wherry.kernel.netlink.nftwatch import RulesetWatch
from wherry.kernel.netlink.socket import NetlinkSocket
from wherry.network import forwarding
from wherry.network.firewall.api import Firewall
from wherry.network.firewalld import Firewalld
from wherry.runtime.dbus import Remote

log = logging.getLogger(__name__)

COLLECT = 0.2
PAUSE = 1.0
RETRY = 30.0
ATTEMPTS = 10


class Upkeep:
    """One thread, in the network namespace of the thread that called `start`."""

    def __init__(self, bus: str, *, watch: bool) -> None:
        """bus: the socket of the system's D-Bus. watch: whether changes of the ruleset count."""
        self._address = bus
        self._watching = watch
        self._firewall: Firewall | None = None
        self._lock = threading.Lock()
        self._guarded: tuple[int, ...] = ()
        self._stack = ExitStack()
        self._thread: threading.Thread | None = None
        self._ended = self._remove = False
        self._changed = True
        self._wake = -1
        self._watch: RulesetWatch | None = None
        self._bus: Firewalld | None = None
        self._due = 0.0
        self._attempts = 0
        self._next_attempt = 0.0
        self._last = 0.0

    def start(self, firewall: Firewall) -> None:
        """Look after a firewall."""
        self._firewall = firewall
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stack.callback(os.close, self._wake)
        if self._watching:
            self._watch = self._listening()
        self._thread = threading.Thread(target=self._work, name="wherry-net-upkeep", daemon=True)
        self._thread.start()

    def _listening(self) -> RulesetWatch | None:
        try:
            watch = RulesetWatch()
        except OSError as error:
            log.warning("changes of the firewall go unnoticed", extra={"error": str(error)})
            return None
        self._stack.callback(watch.close)
        return watch

    def bridges_changed(self) -> None:
        """A network has come or gone."""
        self._changed = True
        if self._thread is not None:
            os.eventfd_write(self._wake, 1)

    def stop(self, *, remove: bool) -> None:
        """End the thread: from now on rules may go. With remove, as the bridges are about to."""
        if self._thread is None:
            return
        self._ended, self._remove = True, remove
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        self._thread = None
        self._stack.close()

    def restore(self) -> None:
        """Bring all rules back, the guard of forwarding among them. Raises OSError, EngineError."""
        firewall = self._firewall
        if firewall is None:
            return
        with self._lock:
            firewall.refresh()
            for version in self._guarded:
                if not firewall.guarded(version):
                    with NetlinkSocket() as netlink:
                        firewall.guard(forwarding.outside(netlink), version)

    def _work(self) -> None:
        try:
            while not self._ended:
                self._attend()
            if self._remove:
                self._with_firewalld(lambda bus: self._admit(bus, ()))
        finally:
            if self._bus is not None:
                self._bus.close()

    def _attend(self) -> None:
        """Wait for something to happen, and see to it."""
        now = time.monotonic()
        if self._bus is None and now >= self._next_attempt:
            self._connect()
        if self._changed:
            self._changed = False
            self._take_note()
        waiting = [each for each in (self._wake, self._watch, self._bus) if each is not None]
        times = [self._due] if self._due else []
        times += [self._next_attempt] if self._bus is None else []
        timeout = max(0.0, min(times) - time.monotonic()) if times else None
        ready, _, _ = select.select(waiting, [], [], timeout)
        if self._wake in ready:
            os.eventfd_read(self._wake)
        if (self._watch in ready and self._hurt()) or (self._bus in ready and self._restarted()):
            self._due = self._due or max(time.monotonic() + COLLECT, self._last + PAUSE)
        if self._due and time.monotonic() >= self._due:
            self._put_back()

    def _hurt(self) -> bool:
        assert self._watch is not None
        assert self._firewall is not None
        changes, lost = self._watch.read()
        return any([self._firewall.misses(each) for each in changes]) or (lost and self._firewall.misses(None))

    def _put_back(self) -> None:
        self._due, self._last = 0.0, time.monotonic()
        log.warning("firewall rules may have been taken away; putting them back")
        try:
            self.restore()
        except (OSError, EngineError) as error:
            log.error("firewall not restored", extra={"error": str(error)})
            if self._attempts < ATTEMPTS:  # who took them away may not be done: dockerd's start takes a second
                self._attempts += 1
                self._due = self._last + PAUSE
            return
        self._attempts = 0

    def _take_note(self) -> None:
        assert self._firewall is not None
        try:
            with self._lock:
                self._guarded = tuple(each for each in forwarding.SWITCHES if self._firewall.guarded(each))
        except (OSError, EngineError) as error:
            log.error("firewall cannot be read", extra={"error": str(error)})
        self._with_firewalld(lambda bus: self._admit(bus, self._bridges()))

    def _bridges(self) -> tuple[str, ...]:
        return self._firewall.bridges() if self._firewall is not None else ()

    # firewalld

    def _connect(self) -> None:
        """Connect to the bus, which need not be there, now or ever."""
        self._next_attempt = time.monotonic() + RETRY
        if not os.path.exists(self._address):
            return
        try:
            self._bus = Firewalld(self._address)
        except OSError as error:
            log.warning("not connected to D-Bus", extra={"address": self._address, "error": str(error)})
            return
        self._changed = True

    def _restarted(self) -> bool:
        """Whether firewalld has begun anew; our bridges are in its zone again then."""
        return self._with_firewalld(lambda bus: bus.restarted() and (self._admit(bus, self._bridges()) or True))

    @staticmethod
    def _admit(bus: Firewalld, bridges: Collection[str]) -> None:
        """What firewalld refuses is no reason to lose the connection."""
        try:
            if bus.running():
                bus.admit(bridges)
        except Remote as error:
            log.error("firewalld does not let our bridges be", extra={"error": str(error.strerror)})

    def _with_firewalld(self, work: Callable[[Firewalld], object]) -> bool:
        """Do something over the bus when there is one; a connection that fails is made anew after a while."""
        if self._bus is None:
            return False
        try:
            return bool(work(self._bus))
        except OSError as error:
            log.warning("D-Bus connection lost", extra={"error": str(error)})
            self._bus.close()
            self._bus = None
            self._next_attempt = time.monotonic() + RETRY
            return True  # what it would have said in between is not known
