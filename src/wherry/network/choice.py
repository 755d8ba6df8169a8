"""Which drivers and firewall backends there are. The only place that names them; each is loaded when it is used."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from wherry.errors import NotImplementedHere
from wherry.network.announced import Told
from wherry.network.bridgeplan import BridgePlan
from wherry.network.config import NetworkConfig
from wherry.network.driver import Driver
from wherry.network.firewall.api import BridgeRules, Firewall, Forward
from wherry.network.ipam.subnets import AddressSpace
from wherry.network.records import Network
from wherry.network.sublinks import mode_of


def firewall(
    config: NetworkConfig, owner: str, known: Iterable[BridgeRules], forwards: Iterable[Forward] = ()
) -> Firewall:
    """Return the firewall backend of an engine; raises NotImplementedHere for one that does not exist.

    known: the rules of the bridges that will be installed one after the other; the first transaction has all of them.
    forwards: the ports of containers that may still run, so that none is closed while an engine takes over.
    Rules that the engine before kept with the other backend are taken away.
    """
    if config.firewall not in ("nftables", "iptables"):
        raise NotImplementedHere(f"firewall backend {config.firewall!r} is not available: use nftables or iptables")
    from wherry.network.firewall import hostinput, remains
    from wherry.network.firewall.partial import FAMILIES, Partial, cut

    if not config.rules:
        chosen = Partial(_backend(config.firewall, owner, (), ()), ())
        hostinput.remove(owner)
        remains.of_nftables(owner, chosen)
        remains.of_iptables(owner, chosen)
        return chosen
    kept = cut(known, config.rules)
    led = [each for each in forwards if each.family in config.rules]
    backend = _backend(config.firewall, owner, kept, led)
    hostinput.remove(owner)
    if config.respect_host:
        backend = hostinput.HostInput(backend, owner, kept, led)
    (remains.of_nftables if config.firewall == "iptables" else remains.of_iptables)(owner, backend)
    return backend if len(config.rules) == len(FAMILIES) else Partial(backend, config.rules)


def _backend(name: str, owner: str, known: Iterable[BridgeRules], forwards: Iterable[Forward]) -> Firewall:
    if name == "iptables":
        from wherry.network.firewall.iptables import Iptables

        return Iptables(owner, known, forwards)
    from wherry.network.firewall.nftables import Nftables

    return Nftables(owner, known, forwards)


def rules_table(config: NetworkConfig, owner: str) -> str:
    """Return the name of a table in which every bridge of an engine has rules."""
    return "filter" if config.firewall == "iptables" else owner


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What drivers may have to know. owner: of links that this engine makes. networks: returns all that there are.

    space: of which subnets are chosen that nobody names. told: what plugins know.
    """

    owner: str
    firewall: Firewall
    space: AddressSpace
    networks: Callable[[], Iterable[Network]]
    told: Told


BUILT_IN = ("bridge", "host", "ipvlan", "macvlan", "null")


def asks(network: Network) -> bool:
    """Whether making a network, or a container in it, means asking a plugin, which may take time."""
    return network.driver not in BUILT_IN or network.ipam_driver != "default"


def driver(network: Network, plan: Callable[[], BridgePlan], around: Surroundings) -> Driver:
    """Return the driver of a network. plan: returns that of a bridge."""
    name = network.driver
    if name == "bridge":
        from wherry.network.drivers.bridge import BridgeDriver

        return BridgeDriver(plan(), around.firewall)
    if name == "host":
        from wherry.network.drivers.host import HostDriver

        return HostDriver()
    if name == "null":
        from wherry.network.drivers.null import NullDriver

        return NullDriver()
    if name == "macvlan":
        from wherry.network.drivers.macvlan import MacvlanDriver

        return MacvlanDriver(around.owner, around.space, around.networks, mode_of(network))
    if name == "ipvlan":
        from wherry.network.drivers.ipvlan import IpvlanDriver

        return IpvlanDriver(around.owner, around.space, around.networks)
    from wherry.network.drivers.remote import RemoteDriver

    return RemoteDriver(name, around.told)
