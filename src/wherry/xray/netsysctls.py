"""Settings of the kernel that decide about a network's packets: Documentation/networking/ip-sysctl.rst."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from wherry.models.xray_network import Sysctl
from wherry.xray.netsubject import NetworkSubject

FORWARDING, FORWARDING6 = "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"
BRIDGED, BRIDGED6 = "net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables"


def _wanted(subject: NetworkSubject, outside: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield names, and what they mean. A name has slashes, as a link's name can have dots."""
    bridge, four, six = subject.bridge, "net/ipv4/conf", "net/ipv6/conf"
    yield "net/ipv4/ip_forward", "1: the host passes packets on from one link to another"
    if bridge:
        yield f"{four}/{bridge}/forwarding", "1: it passes on what comes from the bridge"
        yield f"{four}/{bridge}/route_localnet", "1: 127.0.0.1 of the host reaches published ports"
        yield f"{four}/{bridge}/rp_filter", "1: what comes from an address that is not behind the bridge is dropped"
    for link in outside[:1]:
        yield f"{four}/{link}/forwarding", "1: it passes on what comes from outside"
        yield f"{four}/{link}/rp_filter", "1: what comes from an address that is not behind the link is dropped"
    yield f"{four}/all/rp_filter", "the larger of this and a link's own counts"
    if bridge:
        yield f"{six}/{bridge}/disable_ipv6", "1: the bridge has no IPv6"
        yield f"{six}/{bridge}/accept_ra", "0: the host takes no routes from containers"
        yield "net/bridge/bridge-nf-call-iptables", "1: also packets between two containers meet the IPv4 rules"
    if any(":" in each for each in subject.subnets):
        yield "net/ipv6/conf/all/forwarding", "1: the host passes IPv6 packets on"
        yield "net/bridge/bridge-nf-call-ip6tables", "1: also packets between two containers meet the IPv6 rules"


def read(subject: NetworkSubject, outside: Sequence[str]) -> tuple[Sysctl, ...]:
    """Return those that are there, of the caller's network namespace; a kernel may lack some."""
    found = []
    for name, meaning in _wanted(subject, outside):
        try:
            with open(f"/proc/sys/{name}", encoding="ascii") as file:
                value = file.read().strip()
        except FileNotFoundError:  # a module that is not loaded, or no IPv6
            continue
        found.append(Sysctl(name=shown(name), value=value, meaning=meaning))
    return tuple(found)


def shown(name: str) -> str:
    """Return a name as sysctl(8) writes it: a dot of a link's name becomes a slash."""
    return name.translate(str.maketrans("/.", "./"))


def value(sysctls: Sequence[Sysctl], name: str) -> str:
    """Return the value of one, "" when it is not there."""
    return next((each.value for each in sysctls if each.name == name), "")
