"""net.ipv4.ip_forward: turned on for containers to reach the world, and off again by the last engine that needs it.

Whether an engine turned it on is written where it has the right scope and life: in the kernel, as the firewall's guard.
"""

from __future__ import annotations

from wherry.kernel.netlink.link import IFF_LOOPBACK, list_links
from wherry.kernel.netlink.socket import NetlinkSocket
from wherry.network import sysctls
from wherry.network.firewall.api import Firewall

SWITCH = "net/ipv4/ip_forward"


def enable(netlink: NetlinkSocket, firewall: Firewall) -> None:
    """Turn forwarding on when it is off, guarded first so that no packet slips through in between."""
    if sysctls.read(SWITCH) != "0":
        return
    firewall.guard(outside(netlink))
    sysctls.write(SWITCH, "1")


def outside(netlink: NetlinkSocket) -> list[str]:
    """Return the links of the host that are not those of containers."""
    links = [each for each in list_links(netlink) if not each.flags & IFF_LOOPBACK]
    return [each.name for each in links if each.kind not in ("bridge", "veth")]


def disable(netlink: NetlinkSocket, firewall: Firewall, bridge: str) -> None:
    """Turn forwarding off when an engine turned it on and nobody else uses it: no other engine, no other bridge."""
    if not firewall.guarded() or firewall.others():
        return
    if any(link.kind == "bridge" and link.name != bridge for link in list_links(netlink)):
        return
    sysctls.write(SWITCH, "0")
    firewall.unguard()
