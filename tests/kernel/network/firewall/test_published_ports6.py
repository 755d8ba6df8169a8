"""Published ports, isolation and modes with IPv6: as test_published_ports.py and test_networks_apart.py for IPv4."""

from __future__ import annotations

import pytest

from tests.kernel.isolation import command, inside, isolated
from tests.kernel.network.firewall.world import HOST, HOST6, NEIGHBOUR, NEIGHBOUR6, TCP, UDP, World, publish, seen, shut
from wherry.errors import SystemFailure
from wherry.models.network import CreateNetwork, Ipam, IpamPool
from wherry.network.api import EndpointRequest
from wherry.network.ports import Published

pytestmark = pytest.mark.root


@pytest.fixture
def six(world):
    """Make a host with a neighbour that has IPv6 too, and a network "n" of both families."""

    def make(**options: str) -> World:
        here = world()
        here.route("fd12::/16")
        here.route("10.12.0.0/16")
        network(here, "n", "10.12.0.0/24", "fd12::/64", **options)
        return here

    return make


def network(here: World, name: str, *subnets: str, ipv4: bool = True, internal: bool = False, **options: str) -> None:
    given = {f"com.docker.network.bridge.{key}": value for key, value in options.items()}
    pools = Ipam(config=[IpamPool(subnet=each) for each in subnets])
    here.networks.create(
        CreateNetwork(name=name, ipam=pools, enable_ipv4=ipv4, enable_ipv6=True, internal=internal, options=given)
    )


@pytest.mark.parametrize("kind", [TCP, UDP], ids=["tcp", "udp"])
@isolated
def test_everybody_reaches_a_port_by_both_families(six, kind):
    here = six()
    network(here, "other", "10.13.0.0/24", "fd12:0:0:1::/64")
    box = here.container("n", publish(80, 18080, kind))
    near, far = here.container("n"), here.container("other")
    here.serving(box.netns_fd, 80, kind)
    name = KIND[kind]
    assert here.networks.published("c0") == (
        Published(name, 80, "0.0.0.0", 18080),
        Published(name, 80, "::", 18080),
    )
    assert seen(here.neighbour, HOST6, 18080, kind) == NEIGHBOUR6, "a client outside keeps its address"
    assert seen(here.neighbour, HOST, 18080, kind) == NEIGHBOUR
    assert seen(None, HOST6, 18080, kind) == HOST6
    assert seen(box.netns_fd, HOST6, 18080, kind) == "fd12::1", "the container itself"
    assert seen(near.netns_fd, HOST6, 18080, kind) == "fd12::1", "one in the same network"
    assert seen(near.netns_fd, "fd12::1", 18080, kind) == "fd12::1"
    assert seen(far.netns_fd, HOST6, 18080, kind) == "fd12::1", "one in another network"
    assert shut(here.neighbour, HOST6, 80, kind)
    assert shut(None, "::1", 18080, kind), "refused at once, so that a client goes on to 127.0.0.1"


KIND = {TCP: "tcp", UDP: "udp"}


@isolated
def test_one_port_for_both_families_also_when_it_is_chosen(six):
    here = six()
    box = here.container("n", publish(80, 0), publish(81, 0, address="::"), publish(82, 0, address=HOST6))
    here.serving(box.netns_fd, 80)
    both, both6, only, at = here.networks.published("c0")
    assert (both.host_ip, both6.host_ip) == ("0.0.0.0", "::")
    assert both.host_port == both6.host_port
    assert (only.host_ip, at.host_ip) == ("::", HOST6)
    for address in (HOST, HOST6):
        assert seen(here.neighbour, address, both.host_port)
    assert shut(here.neighbour, HOST, only.host_port)


@isolated
def test_a_port_is_taken_for_each_family_by_itself(six):
    here = six()
    here.container("n", publish(80, 18080, address="::"))
    here.container("n", publish(80, 18080, address="0.0.0.0"))
    with pytest.raises(SystemFailure, match=r"Bind for \[::\]:18080 failed: port is already allocated"):
        here.container("n", publish(80, 18080, address="::"))
    with pytest.raises(SystemFailure, match=r"Bind for \[2001:db8::1\]:18080 failed: port is already allocated"):
        here.container("n", publish(80, 18080, address=HOST6))
    here.serving(None, 18090)
    with pytest.raises(SystemFailure, match=r"failed to bind host port .*18090:.*:80/tcp: address already in use"):
        here.container("n", publish(80, 18090))
    here.networks.close_sandbox("c0")
    assert here.networks.settle()
    assert [each.host_ip for each in here.networks.published("c1")] == ["0.0.0.0"]


@isolated
def test_families_follow_their_own_way_out(six):
    here = six()
    network(here, "v6", "fd12:0:0:2::/64", ipv4=False)
    here.network("v4", "10.14.0.0/24")
    box = here.container("v4", publish(80, 18080))
    here.serving(box.netns_fd, 80)
    assert [each.host_ip for each in here.networks.published("c0")] == ["0.0.0.0"]
    assert shut(here.neighbour, HOST6, 18080)
    here.networks.connect("c0", box.netns_fd, EndpointRequest("v6"))
    sockets = here.networks.publish("c0", "c0", [publish(80, 18081)])
    assert sorted(each.host_ip for each in sockets) == ["0.0.0.0", "::"]
    assert seen(here.neighbour, HOST6, 18081) == NEIGHBOUR6
    assert seen(here.neighbour, HOST, 18081) == NEIGHBOUR
    here.networks.disconnect("c0", box.netns_fd, here.networks.resolve("v6").id)
    assert shut(here.neighbour, HOST6, 18081)
    assert seen(here.neighbour, HOST, 18081) == NEIGHBOUR
    for each in sockets.values():
        each.close()


@isolated
def test_what_is_not_published_is_closed_to_neighbours_in_both_families(six):
    here = six()
    network(here, "other", "10.13.0.0/24", "fd12:0:0:1::/64")
    network(here, "shut", "10.15.0.0/24", "fd12:0:0:3::/64", internal=True)
    box = here.container("n", publish(80, 18080))
    far, closed, inner = here.container("other"), here.container("shut"), here.container("shut")
    for port in (80, 81):
        here.serving(box.netns_fd, port)
    here.serving(inner.netns_fd, 80)
    here.serving(here.neighbour, 80)
    assert seen(None, "fd12::2", 81), "it serves"
    for address, port in (("fd12::2", 80), ("fd12::2", 81), ("10.12.0.2", 80), ("10.12.0.2", 81)):
        assert shut(here.neighbour, address, port), (address, port)
        assert shut(far.netns_fd, address, port), (address, port)
    assert seen(closed.netns_fd, inner.endpoints[0].ipv6, 80) == closed.endpoints[0].ipv6
    inside(closed.netns_fd, lambda: command("ip", "route", "add", "default", "via", "fd12:0:0:3::1"))
    for address, port in ((NEIGHBOUR6, 80), ("fd12::2", 80), (HOST6, 18080)):
        assert shut(closed.netns_fd, address, port), (address, port)
    assert shut(here.neighbour, inner.endpoints[0].ipv6, 80)
    assert seen(box.netns_fd, NEIGHBOUR6, 80) == HOST6, "masqueraded"


@isolated
def test_without_icc_ipv6_leads_to_no_neighbour(six):
    here = six(enable_icc="false")
    one, two = here.container("n"), here.container("n", publish(80, 18080))
    here.serving(two.netns_fd, 80)
    assert seen(here.neighbour, HOST6, 18080) == NEIGHBOUR6
    assert shut(one.netns_fd, "fd12::3", 80)
    inside(one.netns_fd, lambda: command("ip", "route", "add", "fd12::3/128", "via", "fd12::1"))
    assert shut(one.netns_fd, "fd12::3", 80), "through the host"


@pytest.mark.parametrize("mode", ["routed", "nat-unprotected"])
@isolated
def test_modes_of_the_gateway(six, mode):
    here = six(gateway_mode_ipv4=mode, gateway_mode_ipv6=mode)
    network(here, "other", "10.13.0.0/24", "fd12:0:0:1::/64")
    box, far = here.container("n", publish(80, 18080)), here.container("other")
    for port in (80, 81):
        here.serving(box.netns_fd, port)
    here.serving(here.neighbour, 80)
    routed = mode == "routed"
    for address, who, own, host in (
        ("10.12.0.2", NEIGHBOUR, "10.12.0.2", HOST),
        ("fd12::2", NEIGHBOUR6, "fd12::2", HOST6),
    ):
        assert seen(here.neighbour, address, 80) == who
        assert shut(here.neighbour, address, 81) == routed
        assert shut(here.neighbour, host, 18080) == routed, "without translation"
        assert seen(box.netns_fd, who, 80) == (own if routed else host)
        assert shut(far.netns_fd, address, 81)
        assert bool(seen(far.netns_fd, address, 80)) if routed else shut(far.netns_fd, address, 80)
    here.networks.close_sandbox("c0")
    assert here.networks.settle()
    if routed:
        assert shut(here.neighbour, "fd12::2", 80)


@isolated
def test_trusted_links_reach_published_ports_by_the_containers_address(six):
    here = six(trusted_host_interfaces="wan0")
    lan = here.beyond("lan", "203.0.113.1", "203.0.113.2")
    inside(lan, lambda: command("ip", "route", "add", "10.12.0.0/16", "via", "203.0.113.1"))
    box = here.container("n", publish(80, 18080))
    for port in (80, 81):
        here.serving(box.netns_fd, port)
    assert seen(here.neighbour, "10.12.0.2", 80) == NEIGHBOUR
    assert seen(here.neighbour, "fd12::2", 80) == NEIGHBOUR6
    assert seen(here.neighbour, HOST6, 18080) == NEIGHBOUR6
    assert shut(here.neighbour, "10.12.0.2", 81)
    assert shut(lan, "10.12.0.2", 80)
    here.networks.close_sandbox("c0")
    assert here.networks.settle()
    assert shut(here.neighbour, "fd12::2", 80)


@isolated
def test_both_families_come_back_after_a_flush_and_go_with_the_engine(six):
    here = six()
    box = here.container("n", publish(80, 18080))
    here.serving(box.netns_fd, 80)
    assert seen(here.neighbour, HOST6, 18080) == NEIGHBOUR6
    command("nft", "flush", "ruleset")
    assert shut(here.neighbour, HOST6, 18080)
    here.networks.refresh_firewall()
    assert seen(here.neighbour, HOST6, 18080) == NEIGHBOUR6
    assert shut(here.neighbour, "fd12::2", 80)
    here.networks.close_sandbox("c0")
    assert here.networks.settle()
    assert shut(here.neighbour, HOST6, 18080)
    here.networks.remove("n")
    here.networks.stop(remove=True)
    assert "wherry-wherry0" not in command("nft", "list", "ruleset")


@isolated
def test_an_address_of_the_network_for_ports_of_ipv6(six):
    here = six(host_binding_ipv6=HOST6)
    here.container("n", publish(80, 18080))
    assert [each.host_ip for each in here.networks.published("c0")] == ["0.0.0.0", HOST6]
    here.network("v4", "10.14.0.0/24")
    with pytest.raises(SystemFailure, match="needs a network with IPv6"):
        here.container("v4", publish(80, 18085, address=HOST6))
