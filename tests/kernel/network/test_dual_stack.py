"""IPv6 in networks: what containers get, what they do not get, and what it does to the host."""

from __future__ import annotations

import os
import socket
import struct

import pytest

from tests.kernel.isolation import command, inside, ip, isolated, new_namespace
from tests.waiting import until
from wherry.errors import Conflict, InvalidArgument
from wherry.models.network import CreateNetwork, Ipam, IpamPool
from wherry.network import sysctls
from wherry.network.api import EndpointRequest, SandboxRequest

pytestmark = pytest.mark.root

FORWARDING = "net/ipv6/conf/all/forwarding"


def make(networks, name: str, *subnets: str, ipv4: bool = True, ipv6: bool = True, **more):
    pools = [IpamPool(subnet=each) for each in subnets]
    asked = CreateNetwork(name=name, ipam=Ipam(config=pools), enable_ipv4=ipv4, enable_ipv6=ipv6, **more)
    return networks.create(asked)


def opened(networks, container: str, *asked: EndpointRequest):
    return networks.open_sandbox(SandboxRequest(container, asked))


def reaches(fd: int, address: str) -> bool:
    """Whether a ping is answered."""
    program = f"busybox ping -c 1 -W 2 {address} >/dev/null && echo yes || echo no"
    return bool(inside(fd, lambda: command("sh", "-c", program)) == "yes\n")


def addresses(fd: int, interface: str = "eth0") -> list[str]:
    """Return the addresses of a link but for the one that the kernel makes for itself."""
    (found,) = inside(fd, lambda: ip("addr", "show", interface))
    return [f"{each['local']}/{each['prefixlen']}" for each in found["addr_info"] if each["scope"] == "global"]


def gateways(fd: int) -> dict[int, str]:
    """Return the default gateway of each family."""
    routes = inside(fd, lambda: [*ip("-4", "route", "show", "default"), *ip("-6", "route", "show", "default")])
    return {6 if ":" in each["gateway"] else 4: each["gateway"] for each in routes}


@isolated
def test_containers_of_a_network_with_both_families_reach_each_other_over_both(engine):
    networks = engine()
    network = make(networks, "n", "10.1.0.0/24", "fd12::/64")
    one, two = (opened(networks, name, EndpointRequest("n")) for name in ("c1", "c2"))
    assert addresses(one.netns_fd) == ["10.1.0.2/24", "fd12::2/64"]
    assert addresses(two.netns_fd) == ["10.1.0.3/24", "fd12::3/64"]
    assert gateways(one.netns_fd) == {4: "10.1.0.1", 6: "fd12::1"}
    for address in ("10.1.0.3", "fd12::3", "10.1.0.1", "fd12::1"):
        assert reaches(one.netns_fd, address), address
    bridge = f"br-{network.id[:12]}"
    (found,) = ip("addr", "show", bridge)
    shown = [(each["local"], "tentative" in each) for each in found["addr_info"] if each["scope"] == "global"]
    assert shown == [("10.1.0.1", False), ("fd12::1", False)]
    assert sysctls.read(f"net/ipv6/conf/{bridge}/accept_ra") == "0"
    assert inside(one.netns_fd, lambda: sysctls.read("net/ipv6/conf/eth0/accept_ra")) == "0"
    one.close()
    two.close()


@isolated
def test_an_address_is_usable_at_once(engine):
    """No duplicate address detection, which would take a second: a program may bind when the container starts."""
    networks = engine()
    make(networks, "n", "10.1.0.0/24", "fd12::/64")
    box = opened(networks, "c1", EndpointRequest("n"))

    def bind() -> str:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("fd12::2", 80))
            return str(sock.getsockname()[0])

    assert inside(box.netns_fd, bind) == "fd12::2"
    box.close()


@isolated
def test_a_network_without_a_family_has_none_of_it(engine):
    """CVE-2024-32473: not even a link-local address, by which neighbours could talk past all rules."""
    networks = engine()
    make(networks, "four", "10.1.0.0/24", ipv6=False)
    six = make(networks, "six", "fd12::/64", ipv4=False)
    assert (six.subnet, six.gateway) == ("", "")
    only4 = opened(networks, "c1", EndpointRequest("four"))
    only6 = opened(networks, "c2", EndpointRequest("six"))
    peer6 = opened(networks, "c3", EndpointRequest("six", ipv6="fd12::a:0:1"))
    (eth0,) = inside(only4.netns_fd, lambda: ip("addr", "show", "eth0"))
    assert [each["local"] for each in eth0["addr_info"]] == ["10.1.0.2"]
    assert (addresses(only6.netns_fd), addresses(peer6.netns_fd)) == (["fd12::2/64"], ["fd12::a:0:1/64"])
    assert gateways(only6.netns_fd) == {6: "fd12::1"}
    assert reaches(only6.netns_fd, "fd12::a:0:1")
    assert not reaches(only4.netns_fd, "fd12::1")
    macs = {box.endpoints[0].mac for box in (only4, only6, peer6)}
    assert len(macs) == 3
    for box in (only4, only6, peer6):
        box.close()


@isolated
def test_what_a_container_may_ask_for_of_ipv6(engine):
    networks = engine()
    pools = [
        IpamPool(subnet="10.1.0.0/24"),
        IpamPool(
            subnet="fd12::/64", ip_range="fd12::5:0/112", gateway="fd12::9", auxiliary_addresses={"r": "fd12::5:0"}
        ),
    ]
    networks.create(CreateNetwork(name="n", enable_ipv6=True, ipam=Ipam(config=pools)))
    one = opened(networks, "c1", EndpointRequest("n"))
    two = opened(networks, "c2", EndpointRequest("n", ipv6="FD12::0007"))
    assert (one.endpoints[0].ipv6, one.endpoints[0].gateway6) == ("fd12::5:1", "fd12::9")
    assert addresses(two.netns_fd) == ["10.1.0.3/24", "fd12::7/64"]
    with pytest.raises(Conflict, match="Address already in use"):
        opened(networks, "c3", EndpointRequest("n", ipv6="fd12::7"))
    for wrong in ("fd13::1", "fd12::", "10.1.0.9", "fd12::1%eth0"):
        with pytest.raises(InvalidArgument, match="no configured subnet or ip-range contain the IP address"):
            opened(networks, "c3", EndpointRequest("n", ipv6=wrong))
    # The refused ones took no IPv4 address with them.
    three = opened(networks, "c3", EndpointRequest("n"))
    assert three.endpoints[0].ipv4 == "10.1.0.4"
    for box in (one, two, three):
        box.close()


@isolated
def test_subnets_that_nobody_names_are_of_a_block_of_the_engine_and_stay(engine):
    networks = engine()
    first, second = make(networks, "a"), make(networks, "b", ipv4=False)
    block = first.subnet6.removesuffix("::/64")
    assert first.subnet6.startswith("fd")
    assert first.gateway6 == f"{block}::1"
    assert second.subnet6 == f"{block}:1::/64"
    shown = networks.inspect("a")
    assert (shown["EnableIPv4"], shown["EnableIPv6"]) == (True, True)
    assert shown["IPAM"]["Config"] == [
        {"Subnet": first.subnet, "Gateway": first.gateway},
        {"Subnet": f"{block}::/64", "Gateway": f"{block}::1"},
    ]
    networks.stop(remove=True)
    again = engine()
    assert [again.resolve(name).subnet6 for name in "ab"] == [first.subnet6, second.subnet6]
    assert make(again, "c").subnet6 == f"{block}:2::/64"
    other = engine(root="other", bridge="wherry1")
    assert not make(other, "d").subnet6.startswith(f"{block}:")


@isolated
def test_addresses_of_both_families_outlive_a_killed_engine_and_are_free_with_the_container(engine):
    networks = engine()
    make(networks, "n", "10.1.0.0/24", "fd12::/64")
    held = opened(networks, "c1", EndpointRequest("n"))
    opened(networks, "c2", EndpointRequest("n")).close()
    # The names of bridges are claimed for as long as an engine lives: let go as the kernel does it for a killed one.
    for entry in networks._directory:
        if entry.network.driver == "bridge":
            entry.driver._claim.close()
    again = engine(start=False)
    again.start()
    again.restore(["c1"])
    assert reaches(held.netns_fd, "fd12::1")
    assert reaches(held.netns_fd, "10.1.0.1")
    fresh = opened(again, "c3", EndpointRequest("n"))
    assert (fresh.endpoints[0].ipv4, fresh.endpoints[0].ipv6) == ("10.1.0.3", "fd12::3")
    again.close_sandbox("c1")
    assert again.settle()
    last = opened(again, "c4", EndpointRequest("n"))
    assert (last.endpoints[0].ipv4, last.endpoints[0].ipv6) == ("10.1.0.2", "fd12::2")
    for box in (held, fresh, last):
        box.close()


@isolated
def test_each_family_goes_out_where_it_can(engine):
    networks = engine()
    make(networks, "a", "10.1.0.0/24", ipv6=False)
    make(networks, "both", "10.2.0.0/24", "fd12::/64")
    make(networks, "six", "fd13::/64", ipv4=False)
    make(networks, "shut", "10.4.0.0/24", "fd14::/64", internal=True)
    box = opened(networks, "c1", EndpointRequest("a"), EndpointRequest("shut"))
    fd = box.netns_fd
    assert gateways(fd) == {4: "10.1.0.1"}
    networks.connect("c1", fd, EndpointRequest("six"))
    assert gateways(fd) == {4: "10.1.0.1", 6: "fd13::1"}
    networks.connect("c1", fd, EndpointRequest("both"))
    assert gateways(fd) == {4: "10.2.0.1", 6: "fd12::1"}
    networks.disconnect("c1", fd, networks.resolve("six").id)
    assert gateways(fd) == {4: "10.2.0.1", 6: "fd12::1"}
    networks.disconnect("c1", fd, networks.resolve("both").id)
    assert gateways(fd) == {4: "10.1.0.1"}
    box.close()
    chosen = opened(networks, "c2", EndpointRequest("a", gw_priority=1), EndpointRequest("both"))
    assert gateways(chosen.netns_fd) == {4: "10.1.0.1", 6: "fd12::1"}
    chosen.close()


def advertise(interface: str) -> None:
    """Send a router advertisement, as a router that is the way out for half an hour does (RFC 4861, 4.2)."""
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as sock:
        index = socket.if_nametoindex(interface)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        sock.sendto(struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0), ("ff02::1", 0, 0, index))


def routes_multicast(interface: str) -> bool:
    """Whether a link is ready for IPv6; the kernel brings that about some time after it is up."""
    routes = ip("-6", "route", "show", "table", "local", "dev", interface)
    return any(each["dst"] == "ff00::/8" for each in routes)


@isolated
def test_forwarding_is_on_for_networks_with_ipv6_and_the_host_keeps_its_way_out(engine):
    """Turning it on makes the kernel forget the routers that it has learned of: unless accept_ra is 2 by then."""
    outside = new_namespace()
    for each in (lambda work: work(), lambda work: inside(outside, work)):
        each(lambda: sysctls.write("net/ipv6/conf/default/accept_dad", "0"))
    place = f"/proc/{os.getpid()}/fd/{outside}"
    command("ip", "link", "add", "wan", "type", "veth", "peer", "name", "router", "netns", place)
    inside(outside, lambda: command("ip", "link", "set", "router", "up"))
    command("ip", "link", "set", "wan", "up")
    until(lambda: routes_multicast("wan"))
    until(lambda: inside(outside, lambda: routes_multicast("router")))

    def way_out() -> bool:
        inside(outside, lambda: advertise("router"))
        return bool(ip("-6", "route", "show", "default"))

    until(way_out)
    networks = engine()
    assert sysctls.read(FORWARDING) == "0"
    before = sorted(command("nft", "list", "ruleset").splitlines())
    make(networks, "n", "10.1.0.0/24", "fd12::/64")
    assert sysctls.read(FORWARDING) == "1"
    assert ip("-6", "route", "show", "default")
    assert "table ip6 wherry_forwarding" in command("nft", "list", "ruleset")
    command("ip", "-6", "route", "flush", "default")
    until(way_out)
    networks.remove("n")
    assert sorted(command("nft", "list", "ruleset").splitlines()) != before  # the default bridge still needs IPv4
    networks.stop(remove=True)
    assert sysctls.read(FORWARDING) == "0"
    assert "wherry" not in command("nft", "list", "ruleset")
    os.close(outside)
