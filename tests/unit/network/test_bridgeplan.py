"""What the firewall is told of a bridge, for each of its options."""

from __future__ import annotations

import pytest

from wherry.network import bridgeplan
from wherry.network.config import NetworkConfig
from wherry.network.firewall.api import BridgeRules
from wherry.network.ipam.subnets import AddressSpace
from wherry.network.records import Network

BRIDGE = "com.docker.network.bridge."


def rules(options: dict[str, str], **more) -> BridgeRules:
    settings = {key: more.pop(key) for key in ("masquerade",) if key in more}
    network = Network(
        id="1" * 64,
        name="n",
        driver="bridge",
        created=0,
        options={f"{BRIDGE}name": "br0"} | {BRIDGE + name: value for name, value in options.items()},
        **{"subnet": "10.1.0.0/24", "gateway": "10.1.0.1", "ipv6": True, "subnet6": "fd12::/64", "gateway6": "fd12::1"}
        | more,
    )
    return bridgeplan.of_network(network, NetworkConfig(**settings), "owner", AddressSpace()).rules(network)


BOTH = {"subnet": "10.1.0.0/24", "subnet6": "fd12::/64"}


@pytest.mark.parametrize(
    ("options", "more", "wanted"),
    [
        ({}, {}, BridgeRules("br0", **BOTH)),
        ({"enable_icc": "false"}, {}, BridgeRules("br0", icc=False, **BOTH)),
        ({"enable_ip_masquerade": "0"}, {}, BridgeRules("br0", masquerade=False, masquerade6=False, **BOTH)),
        ({}, {"masquerade": False}, BridgeRules("br0", masquerade=False, masquerade6=False, **BOTH)),
        ({}, {"ipv4": False, "subnet": "", "gateway": ""}, BridgeRules("br0", "", subnet6="fd12::/64")),
        ({}, {"ipv6": False}, BridgeRules("br0", "10.1.0.0/24")),
        ({}, {"internal": True}, BridgeRules("br0", internal=True, masquerade=False, masquerade6=False, **BOTH)),
        (
            {"gateway_mode_ipv6": "routed", "gateway_mode_ipv4": "nat-unprotected"},
            {},
            BridgeRules("br0", gateway_mode="nat-unprotected", gateway_mode6="routed", masquerade6=False, **BOTH),
        ),
        ({"trusted_host_interfaces": "eth0:eth1"}, {}, BridgeRules("br0", trusted=("eth0", "eth1"), **BOTH)),
    ],
)
def test_what_the_firewall_is_told(options, more, wanted):
    assert rules(options, **more) == wanted
