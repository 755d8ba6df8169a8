"""Who reaches whom: between networks, in them, from beyond the host and out of it."""

from __future__ import annotations

import pytest

from tests.kernel.isolation import command, inside, isolated
from tests.kernel.network.firewall.world import HOST, NEIGHBOUR, ping, publish, seen, shut, silent

pytestmark = pytest.mark.root


@isolated
def test_networks_are_isolated_from_each_other(world):
    here = world()
    for name, subnet in (("a", "10.1.0.0/24"), ("b", "10.2.0.0/24")):
        here.network(name, subnet)
    one, two, other, default = (here.container(name).netns_fd for name in ("a", "a", "b", "bridge"))
    assert ping(one, "10.1.0.3"), "two containers of one network"
    assert ping(two, "10.1.0.1"), "the host"
    assert silent(one, "10.2.0.2"), "another network"
    assert silent(other, "10.1.0.2")
    assert silent(default, "10.1.0.2"), "from the default bridge"
    assert silent(one, "172.17.0.2"), "to the default bridge"


@isolated
def test_an_internal_network_has_no_way_out_and_none_in(world):
    here = world()
    here.network("open", "10.1.0.0/24")
    here.network("closed", "10.2.0.0/24", internal=True)
    outgoing = here.container("open", publish(80, 18080))
    one, two = here.container("closed"), here.container("closed")
    for box in (outgoing, one):
        here.serving(box.netns_fd, 80)
    here.serving(here.neighbour, 80)
    for subnet in ("10.1.0.0/24", "10.2.0.0/24"):
        here.route(subnet)
    assert seen(outgoing.netns_fd, NEIGHBOUR, 80)
    assert one.endpoints[0].gateway4 == ""
    assert seen(two.netns_fd, "10.2.0.2", 80) == "10.2.0.3", "its own network"
    assert seen(None, "10.2.0.2", 80) == "10.2.0.1", "from the host"
    inside(two.netns_fd, lambda: command("ip", "route", "add", "default", "via", "10.2.0.1"))
    assert shut(two.netns_fd, NEIGHBOUR, 80), "a route of its own making does not help"
    assert shut(two.netns_fd, "10.1.0.2", 80), "another network"
    assert shut(two.netns_fd, HOST, 18080), "another network's published port"
    assert shut(outgoing.netns_fd, "10.2.0.2", 80)
    assert shut(here.neighbour, "10.2.0.2", 80), "from outside"


@isolated
def test_a_source_address_of_its_subnet_opens_no_way_into_an_internal_network(world):
    here = world()
    here.network("closed", "10.2.0.0/24", internal=True)
    box = here.container("closed")
    here.route("10.2.0.0/24")
    here.at_neighbour(("ip", "addr", "add", "10.2.0.77/32", "dev", "wan1"))
    for name in ("all", "wan0"):
        command("sysctl", "-qw", f"net.ipv4.conf.{name}.rp_filter=0")
    assert not inside(here.neighbour, lambda: _counted(box.netns_fd, "10.2.0.77"))


def _counted(target: int, source: str) -> int:
    """Send datagrams from an address; returns how many came into a namespace, where nobody listens."""
    before = inside(target, _datagrams)
    command("sh", "-c", f"for n in 1 2 3; do echo x | busybox nc -u -w 1 -s {source} 10.2.0.2 9 || true; done")
    return int(inside(target, _datagrams)) - int(before)


def _datagrams() -> int:
    with open("/proc/thread-self/net/snmp") as file:
        head, values = (line.split() for line in file if line.startswith("Udp:"))
    return int(values[head.index("NoPorts")])


@isolated
def test_containers_without_icc_reach_the_host_but_not_each_other(world):
    here = world()
    here.network("n", "10.1.0.0/24", enable_icc="false")
    one, two = here.container("n"), here.container("n", publish(80, 18080))
    here.serving(two.netns_fd, 80)
    assert seen(here.neighbour, HOST, 18080) == NEIGHBOUR
    assert ping(one.netns_fd, "10.1.0.1")
    assert silent(one.netns_fd, "10.1.0.3"), "on the bridge"
    inside(one.netns_fd, lambda: command("ip", "route", "add", "10.1.0.3/32", "via", "10.1.0.1"))
    assert silent(one.netns_fd, "10.1.0.3"), "through the host"
    assert shut(one.netns_fd, "10.1.0.3", 80)


@isolated
def test_the_world_is_reached_masqueraded(world):
    here = world()
    box = here.container()
    here.serving(here.neighbour, 80)
    assert seen(box.netns_fd, NEIGHBOUR, 80) == HOST


@isolated
def test_without_masquerading_the_world_sees_the_container_and_answers_come_back(world):
    here = world()
    here.network("n", "10.1.0.0/24", enable_ip_masquerade="false")
    box = here.container("n", publish(81, 18081))
    here.serving(here.neighbour, 80)
    here.serving(box.netns_fd, 81)
    assert shut(box.netns_fd, NEIGHBOUR, 80), "the neighbour knows no way back"
    here.route("10.1.0.0/24")
    assert seen(box.netns_fd, NEIGHBOUR, 80) == "10.1.0.2"
    assert seen(here.neighbour, HOST, 18081) == NEIGHBOUR
    assert shut(here.neighbour, "10.1.0.2", 81)


@isolated
def test_a_neighbour_with_a_route_reaches_no_container_unasked(world):
    """Neither a port that is not published nor one that is, but by the container's own address (NW-01)."""
    here = world()
    box = here.container("bridge", publish(80, 18080))
    plain = here.container()
    for server, port in ((box, 80), (box, 81), (plain, 80)):
        here.serving(server.netns_fd, port)
    here.route("172.17.0.0/16")
    assert seen(here.neighbour, HOST, 18080) == NEIGHBOUR
    assert seen(None, "172.17.0.2", 81), "it serves"
    for address, port in (("172.17.0.2", 81), ("172.17.0.2", 80), ("172.17.0.3", 80)):
        assert shut(here.neighbour, address, port), (address, port)
