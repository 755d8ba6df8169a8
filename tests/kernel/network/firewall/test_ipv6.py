"""Networks with IPv6: the same promises, and the source addresses that both sides see."""

from __future__ import annotations

import pytest

from tests.kernel.isolation import isolated
from tests.kernel.network.firewall.world import HOST6, NEIGHBOUR6, seen, shut
from wherry.network.firewall.api import Forward

pytestmark = pytest.mark.root
TCP = 6


def made(world, **options):
    here = world()
    here.network("a", "10.1.0.0/24", six="fd00:a::/64", **options)
    here.network("b", "10.2.0.0/24", six="fd00:b::/64")
    one, two, far = here.container("a"), here.container("a"), here.container("b")
    for box in (one, far):
        here.serving(box.netns_fd, 80)
    here.serving(one.netns_fd, 81)
    here.serving(here.neighbour, 80)
    return here, one, two, far


@isolated
def test_isolated_masqueraded_and_closed_to_a_routed_neighbour(world):
    here, one, two, far = made(world)
    first = one.endpoints[0].ipv6
    assert seen(two.netns_fd, first, 80) == two.endpoints[0].ipv6
    assert seen(None, first, 80) == "fd00:a::1"
    assert shut(far.netns_fd, first, 80)
    assert shut(one.netns_fd, far.endpoints[0].ipv6, 80)
    assert seen(one.netns_fd, NEIGHBOUR6, 80) == HOST6
    here.route("fd00:a::/64")
    assert shut(here.neighbour, first, 80)


@isolated
def test_a_published_port(world):
    here, one, two, far = made(world)
    first = one.endpoints[0].ipv6
    here.networks._directory.firewall.forward((), [Forward(TCP, "", 18080, first, 80)])
    assert seen(here.neighbour, HOST6, 18080) == NEIGHBOUR6
    assert seen(None, HOST6, 18080) == HOST6
    assert seen(two.netns_fd, HOST6, 18080) == "fd00:a::1"
    assert seen(far.netns_fd, HOST6, 18080), "a container of another network"
    here.route("fd00:a::/64")
    assert shut(here.neighbour, first, 80), "only where it is published"
    here.networks._directory.firewall.forward([Forward(TCP, "", 18080, first, 80)], ())
    assert shut(here.neighbour, HOST6, 18080)


@isolated
def test_an_internal_network(world):
    here, one, two, far = made(world, internal=True)
    first = one.endpoints[0].ipv6
    here.route("fd00:a::/64")
    assert seen(two.netns_fd, first, 80) == two.endpoints[0].ipv6
    assert shut(one.netns_fd, NEIGHBOUR6, 80)
    assert shut(here.neighbour, first, 80)
    assert shut(far.netns_fd, first, 80)


@isolated
def test_a_routed_network(world):
    here, one, _two, far = made(world, gateway_mode_ipv6="routed")
    first = one.endpoints[0].ipv6
    here.networks._directory.firewall.forward((), [Forward(TCP, "", 18080, first, 80)])
    here.route("fd00:a::/64")
    assert seen(here.neighbour, first, 80) == NEIGHBOUR6
    assert shut(here.neighbour, first, 81)
    assert shut(here.neighbour, HOST6, 18080)
    assert seen(one.netns_fd, NEIGHBOUR6, 80) == first, "not masqueraded"
    assert seen(far.netns_fd, first, 80)
