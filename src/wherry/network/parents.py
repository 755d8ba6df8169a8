"""The links that macvlan and ipvlan networks stand on: one of the host's, a VLAN of one, or one that leads nowhere.

    -o parent=eth0      the host's link, which is only used
    -o parent=eth0.10   the link of that name, made for VLAN 10 of eth0 when there is none
    no parent           "dm-" or "di-" and the network's short id, a dummy: the containers reach each other alone

What is made here has an alias that says so and is taken away with the last network that has it; one of an engine that
was killed before the network was written down is known by the alias. Texts of errors are dockerd's.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable

from wherry.errors import InvalidArgument, SystemFailure
from wherry.kernel.netlink import link
from wherry.kernel.netlink.link import Link
from wherry.kernel.netlink.socket import NetlinkSocket
from wherry.network.bridgeplan import ALIAS
from wherry.network.records import Network
from wherry.network.sublinks import PARENT, PREFIXES, parent_of

MODULES = {"vlan": "8021q"}
"""Kernel modules that are called otherwise than their kind of link."""


def provide(netlink: NetlinkSocket, network: Network, owner: str) -> bool:
    """Make the parent of a network unless it is there; returns whether it was made.

    Raises InvalidArgument, SystemFailure when the kernel refuses.
    """
    name = parent_of(network)
    if link.find_link(netlink, name) is not None:
        return False
    if not network.options.get(PARENT):
        kind, request = "dummy", link.new_dummy(name)
    else:
        parent, number = _vlan(netlink, name)
        kind, request = "vlan", link.new_vlan(name, parent.index, number)
    try:
        netlink.apply(request)
        netlink.apply(link.set_attributes(name, link.alias(_alias(owner))))
    except OSError as error:
        what = f"failed to create {name} {kind} link"
        raise SystemFailure(f"{what}: {reason(error, kind)}") from error
    return True


def _vlan(netlink: NetlinkSocket, name: str) -> tuple[Link, int]:
    """Return the link and the number of a VLAN by a name such as eth0.10."""
    if "." not in name:
        raise InvalidArgument(f"invalid subinterface vlan name {name}, example formatting is eth0.10")
    parts = name.split(".")
    if len(parts) != 2:
        raise InvalidArgument(
            f"required interface name format is: name.vlan_id, ex. eth0.10 for vlan 10, instead received {name}"
        )
    if not re.fullmatch(r"[0-9]+", parts[1]):
        raise InvalidArgument(f"unable to parse a valid vlan id from: {parts[1]} (ex. eth0.10 for vlan 10)")
    found = link.find_link(netlink, parts[0]) if parts[0] else None
    if found is None:
        raise InvalidArgument(f"-o parent interface was not found on the host: {parts[0]}")
    if not 1 <= int(parts[1]) <= 4094:
        raise InvalidArgument(f"vlan id must be between 1-4094, received: {parts[1]}")
    return found, int(parts[1])


def reason(error: OSError, kind: str) -> str:
    """Return why the kernel made no link of a kind, and what to do when it does not know the kind."""
    text = os.strerror(error.errno or errno.EIO).lower()
    if error.errno != errno.EOPNOTSUPP:
        return text
    module = MODULES.get(kind, kind)
    return f"{text}: this kernel has no {kind} links; load its module (modprobe {module}) or use another kernel"


def find(netlink: NetlinkSocket, network: Network) -> Link:
    """Return a network's parent; raises SystemFailure when it is not there."""
    name = parent_of(network)
    found = link.find_link(netlink, name)
    if found is None:
        raise SystemFailure(f"the requested parent interface {name} was not found on the Docker host")
    return found


def remove(netlink: NetlinkSocket, network: Network, owner: str) -> None:
    """Take away a parent that an engine made. Raises OSError."""
    _take_away(netlink, parent_of(network), owner)


def strays(netlink: NetlinkSocket, owner: str, networks: Iterable[Network]) -> list[str]:
    """Return the parents that an engine made for networks that it does not know: one that was killed in between."""
    known = {parent_of(each) for each in networks if each.driver in PREFIXES}
    return [each.name for each in link.list_links(netlink) if each.alias == _alias(owner) and each.name not in known]


def _take_away(netlink: NetlinkSocket, name: str, owner: str) -> None:
    found = link.find_link(netlink, name)
    if found is not None and found.alias == _alias(owner):
        netlink.apply(link.delete_link(found.index))


def _alias(owner: str) -> str:
    return f"{ALIAS} {owner} parent"
