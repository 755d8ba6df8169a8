"""What the options of a bridge network do in the kernel."""

from __future__ import annotations

import pytest

from tests.kernel.isolation import inside, ip, isolated
from tests.kernel.network.test_dual_stack import addresses, gateways, make, opened, reaches
from wherry.errors import InvalidArgument
from wherry.network import sysctls
from wherry.network.api import EndpointRequest

pytestmark = pytest.mark.root

BRIDGE = "com.docker.network.bridge."


def on_bridge(network) -> list[str]:
    (found,) = ip("addr", "show", network.options.get(f"{BRIDGE}name", f"br-{network.id[:12]}"))
    return [each["local"] for each in found["addr_info"]]


@isolated
def test_the_host_has_no_address_in_an_isolated_network(engine):
    networks = engine()
    modes = {f"{BRIDGE}gateway_mode_ipv4": "isolated", f"{BRIDGE}gateway_mode_ipv6": "isolated"}
    with pytest.raises(InvalidArgument, match="can only be used for an internal network"):
        make(networks, "n", options=modes)
    network = make(networks, "n", options=modes, internal=True)
    assert on_bridge(network) == []
    assert all("Gateway" not in each for each in networks.inspect("n")["IPAM"]["Config"])
    one, two = (opened(networks, name, EndpointRequest("n")) for name in ("c1", "c2"))
    first = network.subnet.replace(".0.0/16", ".0.1")
    assert one.endpoints[0].ipv4 == first
    assert gateways(one.netns_fd) == {}
    for address in (two.endpoints[0].ipv4, two.endpoints[0].ipv6):
        assert reaches(one.netns_fd, address)
    networks.stop(remove=False)
    again = engine(start=False)
    again.start()
    again.restore(["c1", "c2"])
    assert again.resolve("n") == network
    assert on_bridge(network) == []
    assert reaches(one.netns_fd, two.endpoints[0].ipv4)
    one.close()
    two.close()


@isolated
def test_somebody_else_may_have_the_gateways_ipv4_address(engine):
    networks = engine()
    network = make(networks, "n", "10.1.0.0/24", "fd12::/64", options={f"{BRIDGE}inhibit_ipv4": "true"})
    shown = on_bridge(network)
    assert "fd12::1" in shown
    assert "10.1.0.1" not in shown
    router = opened(networks, "c1", EndpointRequest("n"))
    box = opened(networks, "c2", EndpointRequest("n"))
    assert (box.endpoints[0].ipv4, gateways(box.netns_fd)[4]) == ("10.1.0.3", "10.1.0.1")
    inside(router.netns_fd, lambda: ip("addr", "add", "10.1.0.1/24", "dev", "eth0"))
    assert reaches(box.netns_fd, "10.1.0.1")
    router.close()
    box.close()


@isolated
def test_one_family_may_be_isolated_and_the_other_not(engine):
    networks = engine()
    modes = {f"{BRIDGE}gateway_mode_ipv6": "isolated"}
    network = make(networks, "n", "10.1.0.0/24", "fd12::/64", options=modes, internal=True)
    name = f"br-{network.id[:12]}"
    assert on_bridge(network) == ["10.1.0.1"]
    assert sysctls.read(f"net/ipv6/conf/{name}/disable_ipv6") == "1"
    box = opened(networks, "c1", EndpointRequest("n"))
    assert addresses(box.netns_fd)[1].startswith("fd12::")
    assert reaches(box.netns_fd, "10.1.0.1")
    assert not reaches(box.netns_fd, "fd12::1")
    box.close()
