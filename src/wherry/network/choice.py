"""Which drivers and firewall backends there are. The only place that names them; each is loaded when it is used."""

from __future__ import annotations

from collections.abc import Iterable

from wherry.errors import NotFound, NotImplementedHere
from wherry.network.bridgeplan import BridgePlan
from wherry.network.config import NetworkConfig
from wherry.network.driver import Driver
from wherry.network.firewall.api import BridgeRules, Firewall, Forward


def firewall(
    config: NetworkConfig, owner: str, known: Iterable[BridgeRules], forwards: Iterable[Forward] = ()
) -> Firewall:
    """Return the firewall backend of an engine; raises NotImplementedHere for one that does not exist.

    known: the rules of the bridges that will be installed one after the other; the first transaction has all of them.
    forwards: the ports of containers that may still run, so that none is closed while an engine takes over.
    """
    if config.firewall != "nftables":
        raise NotImplementedHere(f"firewall backend {config.firewall!r} is not available: use nftables")
    from wherry.network.firewall.nftables import Nftables

    return Nftables(owner, known, forwards)


def driver(name: str, plan: BridgePlan, firewall: Firewall) -> Driver:
    """Return a driver by its Docker name; raises NotFound. The plan is for bridges."""
    if name == "bridge":
        from wherry.network.drivers.bridge import BridgeDriver

        return BridgeDriver(plan, firewall)
    if name == "host":
        from wherry.network.drivers.host import HostDriver

        return HostDriver()
    if name == "null":
        from wherry.network.drivers.null import NullDriver

        return NullDriver()
    raise NotFound(f"could not find plugin {name} in v1 plugin registry: plugin not found")
