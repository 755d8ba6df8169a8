"""Networks that hold a configuration for others: what goes together, in dockerd's words."""

from __future__ import annotations

import pytest

from wherry.errors import EngineError, Forbidden, NotFound
from wherry.models.network import ConfigReference, CreateNetwork, Ipam, IpamPool
from wherry.network import configurations
from wherry.network.definition import define

OPERATOR = (
    "configuration network can only contain network specific fields. Network operator fields like "
    "[ ingress | internal | attachable | scope ] are not supported."
)
USER = "user specified configurations are not supported if the network depends on a configuration network"
FROM = {"config_from": ConfigReference(network="c")}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"config_only": True, "internal": True}, OPERATOR),
        ({"config_only": True, "attachable": True}, OPERATOR),
        ({"config_only": True, "scope": "local"}, OPERATOR),
        ({"config_only": True, **FROM}, "a configuration network cannot depend on another configuration network"),
        ({"ipam": Ipam(config=[IpamPool(subnet="10.1.0.0/24")]), **FROM}, USER),
        ({"enable_ipv6": True, **FROM}, USER),
        ({"labels": {"a": "b"}, **FROM}, USER),
        (
            {"options": {"a": "b"}, **FROM},
            "network driver options are not supported if the network depends on a configuration network",
        ),
    ],
)
def test_what_does_not_go_together(more, message):
    with pytest.raises(EngineError) as caught:
        configurations.check(CreateNetwork(name="n", **more))
    assert (type(caught.value), caught.value.message) == (Forbidden, message)


def test_a_network_has_the_configuration_of_the_other():
    ipam = Ipam(options={"x": "y"}, config=[IpamPool(subnet="10.66.0.0/24", gateway="10.66.0.9")])
    held = CreateNetwork(
        name="c", config_only=True, enable_ipv6=True, ipam=ipam, options={"mtu": "1400"}, labels={"a": "b"}
    )
    source = define(held)
    assert (source.driver, source.subnet, source.config_only) == ("null", "", True)
    wanted = CreateNetwork(name="n", internal=True, **FROM)
    network = define(configurations.applied(wanted, source))
    assert (network.name, network.driver, network.internal, network.ipv6) == ("n", "bridge", True, True)
    assert (network.subnet, network.gateway) == ("10.66.0.0/24", "10.66.0.9")
    assert (network.options, network.labels, network.ipam_options) == ({"mtu": "1400"}, {"a": "b"}, {"x": "y"})


def test_only_a_network_that_is_made_for_it_lends_its_configuration():
    for source in (None, define(CreateNetwork(name="c"))):
        with pytest.raises(NotFound, match='configuration network "c" does not exist'):
            configurations.applied(CreateNetwork(name="n", **FROM), source)
