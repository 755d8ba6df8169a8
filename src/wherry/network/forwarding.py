"""Forwarding: turned on for containers to reach the world, and off again by the last engine that needs it.

Whether an engine turned it on is written where it has the right scope and life: in the kernel, as the firewall's guard.
The families have a switch and a guard each.
"""

from __future__ import annotations

from collections.abc import Iterable

from wherry.kernel.netlink.link import IFF_LOOPBACK, list_links
from wherry.kernel.netlink.socket import NetlinkSocket
from wherry.network import sysctls
from wherry.network.firewall.api import Firewall

SWITCHES = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}


def enable(netlink: NetlinkSocket, firewall: Firewall, versions: Iterable[int]) -> None:
    """Turn forwarding of families on where it is off, guarded first so that no packet slips through in between."""
    for version in versions:
        if sysctls.read(SWITCHES[version]) != "0":
            continue
        firewall.guard(outside(netlink), version)
        if version == 6:
            _stay_a_host(netlink)
        sysctls.write(SWITCHES[version], "1")


def _stay_a_host(netlink: NetlinkSocket) -> None:
    """Let the host's links go on to learn addresses and routes from their routers.

    A router does not listen to others, so with forwarding on the kernel drops what it has learned (net/ipv6/addrconf.c,
    addrconf_fixup_forwarding: rt6_purge_dflt_routers) and learns no more, and the host loses its way out; but not where
    accept_ra is 2. With forwarding off, 2 means the same as 1, so it stays.
    """
    for each in list_links(netlink):
        path = f"net/ipv6/conf/{each.name}/accept_ra"
        try:
            learns = sysctls.read(path) == "1"
        except FileNotFoundError:
            continue  # gone meanwhile, or without IPv6, as a link with an MTU below 1280 is
        if learns:
            sysctls.write(path, "2", missing_ok=True)


def outside(netlink: NetlinkSocket) -> list[str]:
    """Return the links of the host that are not those of containers."""
    links = [each for each in list_links(netlink) if not each.flags & IFF_LOOPBACK]
    return [each.name for each in links if each.kind not in ("bridge", "veth")]


def disable(netlink: NetlinkSocket, firewall: Firewall, bridge: str) -> None:
    """Turn forwarding off when an engine turned it on and nobody else uses it: no other engine, no other bridge."""
    if firewall.others() or any(link.kind == "bridge" and link.name != bridge for link in list_links(netlink)):
        return
    for version, switch in SWITCHES.items():
        if firewall.guarded(version):
            sysctls.write(switch, "0")
            firewall.unguard(version)
