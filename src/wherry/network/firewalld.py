"""firewalld, where it runs: it is asked to let our bridges be, and it says when it has read its rules anew.

    zone docker                  target ACCEPT; our bridges are in it, so that it drops nothing that containers send
    policy docker-forwarding     from any zone to docker: ACCEPT, so that what is forwarded there is for our rules alone

An accept of ours cannot undo a drop of firewalld's, whose table is another one. Zone, policy and their names are those
of dockerd, which may use the same. They are made in firewalld's permanent configuration when they are not there, and
stay. firewalld.dbus(5).
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

from wherry.runtime.dbus import MEMBER, Connection, Remote, Variant

log = logging.getLogger(__name__)

NAME = "org.fedoraproject.FirewallD1"
PATH = "/org/fedoraproject/FirewallD1"
CONFIG = f"{PATH}/config"
ZONE = "docker"
POLICY = "docker-forwarding"
SECONDS = 20.0
"""firewalld reads its rules anew in some seconds, and answers nobody meanwhile."""
_BUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus")
_MATCHES = (
    f"type='signal',sender='{NAME}',path='{PATH}',interface='{NAME}',member='Reloaded'",
    f"type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus',member='NameOwnerChanged',arg0='{NAME}'",
)
_TEXTS = {"short": ZONE, "description": "zone for docker bridge network interfaces", "target": "ACCEPT"}


class Firewalld:
    """A connection to the system bus. Not for several threads at once. Methods raise OSError when it is gone."""

    def __init__(self, address: str) -> None:
        """Connect to the bus, whether firewalld runs or not, and listen."""
        self._bus = Connection(address, seconds=SECONDS)
        self._admitted: set[str] = set()
        try:
            for rule in _MATCHES:
                self._bus.call(*_BUS, "org.freedesktop.DBus.AddMatch", "s", (rule,))
        except OSError:
            self._bus.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        self._bus.close()

    def fileno(self) -> int:
        """The connection, for waiting."""
        return self._bus.fileno()

    def restarted(self) -> bool:
        """Take what has come; returns whether firewalld has read its rules anew, or has started."""
        found = False
        for signal in self._bus.signals():
            member = signal.fields.get(MEMBER)
            if member == "NameOwnerChanged" and len(signal.body) == 3:
                found = found or (signal.body[0] == NAME and bool(signal.body[2]))
            else:
                found = found or member == "Reloaded"
        return found

    def running(self) -> bool:
        """Whether firewalld is on the bus."""
        return bool(self._bus.call(*_BUS, "org.freedesktop.DBus.NameHasOwner", "s", (NAME,))[0])

    def admit(self, bridges: Collection[str]) -> None:
        """Have exactly these of our bridges in the zone, which is made first when it is not there."""
        self._prepare()
        have = self._call(PATH, "zone.getInterfaces", "s", (ZONE,))[0]
        for name in sorted(set(bridges) - set(have)):
            self._try("zone.addInterface", name)
        for name in sorted((self._admitted - set(bridges)) & set(have)):
            self._try("zone.removeInterface", name)
        self._admitted = set(bridges)

    def _call(self, path: str, method: str, signature: str = "", values: tuple[Any, ...] = ()) -> tuple[Any, ...]:
        return self._bus.call(NAME, path, f"{NAME}.{method}", signature, values)

    def _try(self, method: str, bridge: str) -> None:
        """A bridge that an administrator has put into another zone stays there."""
        try:
            self._call(PATH, method, "ss", (ZONE, bridge))
        except Remote as error:
            log.warning("not done by firewalld", extra={"call": method, "bridge": bridge, "error": error.strerror})

    def _prepare(self) -> None:
        fresh = self._made("zone.getZones", "config.addZone2", ZONE, {})
        directions = {"ingress_zones": Variant("as", ["ANY"]), "egress_zones": Variant("as", [ZONE])}
        if self._made("policy.getPolicies", "config.addPolicy", POLICY, directions) or fresh:
            self._call(PATH, "reload")

    def _made(self, listing: str, adding: str, name: str, more: dict[str, Variant]) -> bool:
        """Make a zone or a policy that firewalld does not use yet; returns whether it has to read its rules anew."""
        if name in self._call(PATH, listing)[0]:
            return False
        texts = {**_TEXTS, "short": name}
        settings = {key: Variant("s", text) for key, text in texts.items()} | more
        try:
            self._call(CONFIG, adding, "sa{sv}", (name, list(settings.items())))
        except Remote as error:
            if "NAME_CONFLICT" not in str(error.strerror):  # it is there, and not read yet
                raise
        return True
