"""Which drivers and firewall backends there are. The only place that names them; each is loaded when it is used."""

from __future__ import annotations

from wherry.errors import NotFound, NotImplementedHere
from wherry.network.config import NetworkConfig
from wherry.network.driver import Driver
from wherry.network.firewall.api import Firewall


def firewall(config: NetworkConfig) -> Firewall:
    """Return the firewall backend; raises NotImplementedHere for one that does not exist."""
    if config.firewall != "nftables":
        raise NotImplementedHere(f"firewall backend {config.firewall!r} is not available: use nftables")
    from wherry.network.firewall.nftables import Nftables

    return Nftables()


def driver(name: str, config: NetworkConfig) -> Driver:
    """Return a driver by its Docker name; raises NotFound."""
    if name == "bridge":
        from wherry.network.drivers.bridge import BridgeDriver

        return BridgeDriver(config, firewall(config))
    if name == "host":
        from wherry.network.drivers.host import HostDriver

        return HostDriver()
    if name == "null":
        from wherry.network.drivers.null import NullDriver

        return NullDriver()
    raise NotFound(f"could not find plugin {name} in v1 plugin registry: plugin not found")
