"""The gateway modes of a bridge network, seen from a neighbour that has a route to it."""

from __future__ import annotations

import pytest

from tests.kernel.isolation import isolated
from tests.kernel.network.firewall.world import HOST, NEIGHBOUR, publish, seen, shut

pytestmark = pytest.mark.root
not_with_nftables = pytest.mark.parametrize("backend", ["iptables"])
"""For what the other backend does not do yet."""


def opened(world, **options: str):
    """A network n with a container that publishes port 80 and serves 81 as well, another network with one."""
    here = world()
    here.network("n", "10.1.0.0/24", **options)
    here.network("other", "10.2.0.0/24")
    box, far = here.container("n", publish(80, 18080)), here.container("other")
    for port in (80, 81):
        here.serving(box.netns_fd, port)
    here.serving(here.neighbour, 80)
    here.route("10.1.0.0/24")
    assert seen(None, "10.1.0.2", 81), "the host reaches every port"
    return here, box, far


@not_with_nftables
@isolated
def test_nat_unprotected_opens_all_ports_to_who_has_a_route(world):
    here, box, far = opened(world, gateway_mode_ipv4="nat-unprotected")
    assert seen(here.neighbour, "10.1.0.2", 81) == NEIGHBOUR
    assert seen(here.neighbour, "10.1.0.2", 80) == NEIGHBOUR
    assert seen(here.neighbour, HOST, 18080) == NEIGHBOUR
    assert seen(box.netns_fd, NEIGHBOUR, 80) == HOST
    assert seen(far.netns_fd, HOST, 18080), "published for everybody"
    assert shut(far.netns_fd, "10.1.0.2", 81), "networks stay apart"


@not_with_nftables
@isolated
def test_routed_has_the_published_ports_at_the_containers_own_address_and_no_translation(world):
    here, box, far = opened(world, gateway_mode_ipv4="routed")
    assert seen(here.neighbour, "10.1.0.2", 80) == NEIGHBOUR
    assert shut(here.neighbour, "10.1.0.2", 81)
    assert shut(here.neighbour, HOST, 18080)
    assert seen(box.netns_fd, NEIGHBOUR, 80) == "10.1.0.2", "not masqueraded"
    assert seen(far.netns_fd, "10.1.0.2", 80), "what is published is for other networks too"
    assert shut(far.netns_fd, "10.1.0.2", 81)


@not_with_nftables
@isolated
def test_a_trusted_link_reaches_published_ports_without_translation(world):
    here, _box, _far = opened(world, trusted_host_interfaces="wan0")
    assert seen(here.neighbour, "10.1.0.2", 80) == NEIGHBOUR
    assert shut(here.neighbour, "10.1.0.2", 81)
    assert seen(here.neighbour, HOST, 18080) == NEIGHBOUR


@isolated
def test_isolated_has_no_address_of_the_host_and_no_way_out(world):
    here = world()
    here.network("n", "10.1.0.0/24", internal=True, gateway_mode_ipv4="isolated")
    one, two = here.container("n"), here.container("n")
    here.serving(one.netns_fd, 80)
    here.route("10.1.0.0/24")
    address = one.endpoints[0].ipv4
    assert seen(two.netns_fd, address, 80) == two.endpoints[0].ipv4
    assert shut(here.neighbour, address, 80)
    assert shut(None, address, 80)
