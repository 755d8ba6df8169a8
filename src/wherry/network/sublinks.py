"""What -o says about networks of the drivers macvlan and ipvlan. PURE. The texts are dockerd's."""

from __future__ import annotations

import re
from collections.abc import Iterable

from wherry.errors import Forbidden, InvalidArgument
from wherry.kernel.netlink.link import IPVLAN_FLAGS, IPVLAN_MODES, MACVLAN_MODES
from wherry.network.records import Network

PARENT = "parent"
MACVLAN_MODE = "macvlan_mode"
IPVLAN_MODE = "ipvlan_mode"
IPVLAN_FLAG = "ipvlan_flag"
PASSTHRU = "passthru"

PREFIXES = {"macvlan": "dm-", "ipvlan": "di-"}
"""The drivers, with the beginning of the names of the links that their networks stand on when no parent is named."""

_SHORT = 12
_NAME = re.compile(r"[^\s/:%]{1,15}")


def parent_of(network: Network) -> str:
    """Return the name of a network's parent."""
    return network.options.get(PARENT, "") or PREFIXES[network.driver] + network.id[:_SHORT]


def mode_of(network: Network) -> str:
    """Return the mode of a network's links."""
    if network.driver == "macvlan":
        return network.options.get(MACVLAN_MODE, "") or "bridge"
    return network.options.get(IPVLAN_MODE, "") or "l2"


def flag_of(network: Network) -> str:
    """Return the flag of an ipvlan network's links."""
    return network.options.get(IPVLAN_FLAG, "") or "bridge"


def has_gateway(network: Network) -> bool:
    """Whether containers send what is for elsewhere to a router: in l3 and l3s the parent's machine is that."""
    return not network.internal and mode_of(network) not in ("l3", "l3s")


def check(network: Network) -> None:
    """Raise InvalidArgument for options that can never work."""
    mode, flag = mode_of(network), flag_of(network)
    if network.driver == "macvlan" and mode not in MACVLAN_MODES:
        raise InvalidArgument(
            f"requested macvlan mode '{mode}' is not valid, 'bridge' mode is the macvlan driver default"
        )
    if network.driver == "ipvlan" and mode not in IPVLAN_MODES:
        raise InvalidArgument(f"requested ipvlan mode '{mode}' is not valid, 'l2' mode is the ipvlan driver default")
    if network.driver == "ipvlan" and flag not in IPVLAN_FLAGS:
        raise InvalidArgument(f"requested ipvlan flag '{flag}' is not valid, 'bridge' is the ipvlan driver default")
    name = parent_of(network)
    if name == "lo":
        raise InvalidArgument(f"loopback interface is not a valid {network.driver} parent link")
    if not _NAME.fullmatch(name) or name in (".", ".."):
        raise InvalidArgument(f"invalid parent {name!r}: not the name of a network interface")


def check_shared(wanted: Network, others: Iterable[Network]) -> None:
    """Raise Forbidden when another network of the same driver has the parent in a way that leaves no room."""
    for other in others:
        if other.driver != wanted.driver or other.id == wanted.id or parent_of(other) != parent_of(wanted):
            continue
        used = f"is already using parent interface {parent_of(wanted)}"
        if wanted.driver == "ipvlan":
            raise Forbidden(f"network di-{other.id[:_SHORT]} {used}")
        if mode_of(wanted) == PASSTHRU:
            raise Forbidden(f"cannot use mode passthru, macvlan network {other.id} {used}")
        if mode_of(other) == PASSTHRU:
            raise Forbidden(f"macvlan network {other.id} {used} in mode passthru")
