"""What makes a network, and what is refused: texts and kinds as dockerd gives them."""

from __future__ import annotations

import pytest

from wherry.errors import EngineError, Forbidden, InvalidArgument, NotFound
from wherry.models.network import CreateNetwork, Ipam, IpamPool
from wherry.network.definition import define

WRONG = "invalid network config:\n"


def asked(*pools: IpamPool, **more) -> CreateNetwork:
    return CreateNetwork(**({"name": "n", "ipam": Ipam(config=list(pools))} | more))


def test_the_engine_chooses_what_is_not_asked():
    network = define(CreateNetwork(name="n", labels={"a": "b"}, internal=True))
    assert (network.subnet, network.gateway, network.asked) == ("", "", ())
    assert (network.labels, network.internal, network.driver) == ({"a": "b"}, True, "bridge")


@pytest.mark.parametrize(
    ("pool", "gateway"),
    [
        (IpamPool(subnet="10.1.0.0/24"), "10.1.0.1"),
        (IpamPool(subnet="10.1.0.0/24", gateway="10.1.0.254"), "10.1.0.254"),
        (IpamPool(subnet="10.1.0.0/16", ip_range="10.1.5.0/24"), "10.1.5.0"),
        (IpamPool(subnet="10.1.0.0/24", auxiliary_addresses={"router": "10.1.0.1"}), "10.1.0.2"),
    ],
)
def test_the_gateway_is_the_one_asked_for_or_the_first_free_address(pool, gateway):
    assert define(asked(pool)).gateway == gateway


@pytest.mark.parametrize(
    ("request_", "kind", "message"),
    [
        (CreateNetwork(), InvalidArgument, "invalid name: name is empty"),
        (CreateNetwork(name="bridge"), Forbidden, "operation is not permitted on predefined bridge network "),
        (CreateNetwork(name="default"), Forbidden, "operation is not permitted on predefined default network "),
        (asked(driver="nosuch"), NotFound, 'plugin "nosuch" not found'),
        (asked(driver="host"), Forbidden, 'only one instance of "host" network is allowed'),
        (asked(scope="swarm"), Forbidden, "cannot create a swarm scoped network when swarm is not active"),
        (asked(ingress=True), Forbidden, "Ingress network can only be global scope network"),
        (asked(ipam=Ipam(driver="nosuch")), NotFound, 'plugin "nosuch" not found'),
        (
            asked(options={"com.docker.network.enable_ipv6": "maybe"}),
            InvalidArgument,
            'driver-opt "com.docker.network.enable_ipv6" is not a valid bool',
        ),
        (asked(enable_ipv4=False), InvalidArgument, "IPv4 or IPv6 must be enabled"),
        (
            asked(IpamPool(subnet="10.1.0.0/24"), IpamPool(subnet="10.2.0.0/24")),
            Forbidden,
            "bridge driver doesn't support multiple subnets",
        ),
        (
            asked(IpamPool(subnet="10.1.0.1/24")),
            InvalidArgument,
            f"{WRONG}invalid subnet 10.1.0.1/24: it should be 10.1.0.0/24",
        ),
        (
            asked(IpamPool(subnet="10.1.0.0/33")),
            InvalidArgument,
            f"{WRONG}invalid subnet 10.1.0.0/33: invalid CIDR block notation",
        ),
        (
            asked(IpamPool(gateway="10.1.0.1")),
            InvalidArgument,
            f"{WRONG}invalid subnet : invalid CIDR block notation",
        ),
        (
            asked(IpamPool(subnet="10.1.0.0/24", gateway="10.2.0.1")),
            InvalidArgument,
            f"{WRONG}invalid gateway 10.2.0.1: parent subnet 10.1.0.0/24 doesn't contain this address",
        ),
        (
            asked(IpamPool(subnet="10.1.0.0/24", gateway="x")),
            InvalidArgument,
            f"{WRONG}invalid gateway x: invalid address",
        ),
        (
            asked(IpamPool(subnet="10.1.0.0/24", ip_range="10.2.0.0/25")),
            InvalidArgument,
            f"{WRONG}invalid ip-range 10.2.0.0/25: parent subnet 10.1.0.0/24 doesn't contain ip-range",
        ),
        (
            asked(IpamPool(subnet="10.1.0.0/24", auxiliary_addresses={"a": "10.2.0.1"})),
            InvalidArgument,
            f"{WRONG}invalid auxiliary address a: parent subnet 10.1.0.0/24 doesn't contain this address",
        ),
        (
            asked(IpamPool(subnet="10.1.0.0/24", gateway="x", ip_range="10.1.0.1/25")),
            InvalidArgument,
            f"{WRONG}* invalid ip-range 10.1.0.1/25: it should be 10.1.0.0/25\n* invalid gateway x: invalid address",
        ),
        (
            asked(options={"com.docker.network.bridge.enable_icc": "maybe"}),
            InvalidArgument,
            "failed to parse com.docker.network.bridge.enable_icc value: maybe "
            '(strconv.ParseBool: parsing "maybe": invalid syntax)',
        ),
        (
            asked(options={"com.docker.network.driver.mtu": "abc"}),
            InvalidArgument,
            'failed to parse com.docker.network.driver.mtu value: abc (strconv.Atoi: parsing "abc": invalid syntax)',
        ),
        (asked(options={"com.docker.network.driver.mtu": "-1"}), InvalidArgument, "invalid MTU number: -1"),
        (
            asked(options={"com.docker.network.bridge.host_binding_ipv4": "maybe"}),
            InvalidArgument,
            "failed to parse com.docker.network.bridge.host_binding_ipv4 value: maybe (nil ip)",
        ),
    ],
)
def test_what_dockerd_refuses(request_, kind, message):
    with pytest.raises(EngineError) as caught:
        define(request_)
    assert (type(caught.value), caught.value.message) == (kind, message)


@pytest.mark.parametrize(
    ("more", "gateway"),
    [
        ({"driver": "macvlan"}, "10.1.0.1"),
        ({"driver": "macvlan", "internal": True}, ""),
        ({"driver": "ipvlan"}, "10.1.0.1"),
        ({"driver": "ipvlan", "options": {"ipvlan_mode": "l3"}}, ""),
        ({"driver": "ipvlan", "options": {"ipvlan_mode": "l3s"}}, ""),
    ],
)
def test_no_address_is_kept_for_a_gateway_that_nobody_asks(more, gateway):
    assert define(asked(IpamPool(subnet="10.1.0.0/24"), **more)).gateway == gateway
    named = define(asked(IpamPool(subnet="10.1.0.0/24", gateway="10.1.0.9"), **more))
    assert named.gateway == "10.1.0.9"


@pytest.mark.parametrize(
    ("driver", "options", "message"),
    [
        (
            "macvlan",
            {"macvlan_mode": "l2"},
            "requested macvlan mode 'l2' is not valid, 'bridge' mode is the macvlan driver default",
        ),
        (
            "ipvlan",
            {"ipvlan_mode": "x"},
            "requested ipvlan mode 'x' is not valid, 'l2' mode is the ipvlan driver default",
        ),
        (
            "ipvlan",
            {"ipvlan_flag": "x"},
            "requested ipvlan flag 'x' is not valid, 'bridge' is the ipvlan driver default",
        ),
        ("ipvlan", {"parent": "lo"}, "loopback interface is not a valid ipvlan parent link"),
        ("macvlan", {"parent": "a/b"}, "invalid parent 'a/b': not the name of a network interface"),
        ("macvlan", {"parent": "a" * 16}, f"invalid parent '{'a' * 16}': not the name of a network interface"),
    ],
)
def test_options_that_mean_nothing(driver, options, message):
    with pytest.raises(InvalidArgument) as caught:
        define(asked(IpamPool(subnet="10.1.0.0/24"), driver=driver, options=options))
    assert caught.value.message == message


BRIDGE = "com.docker.network.bridge."


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("gateway_mode_ipv4", "isolated", "gateway mode 'isolated' can only be used for an internal network"),
        (
            "gateway_mode_ipv6",
            "foo",
            f"failed to parse {BRIDGE}gateway_mode_ipv6 value: foo (unknown gateway mode foo)",
        ),
        (
            "inhibit_ipv4",
            "maybe",
            f'failed to parse {BRIDGE}inhibit_ipv4 value: maybe (strconv.ParseBool: parsing "maybe": invalid syntax)',
        ),
        ("host_binding_ipv6", "1.2.3.4", f"failed to parse {BRIDGE}host_binding_ipv6 value: 1.2.3.4 (nil ip)"),
        (
            "trusted_host_interfaces",
            "eth0:a/b",
            f"invalid {BRIDGE}trusted_host_interfaces 'a/b': not the name of a network interface",
        ),
    ],
)
def test_options_of_bridges_that_cannot_be(option, value, message):
    with pytest.raises(InvalidArgument) as caught:
        define(asked(options={BRIDGE + option: value}))
    assert caught.value.message == message


def test_nobody_has_the_gateways_address_where_the_host_is_not_in_the_network():
    isolated = {f"{BRIDGE}gateway_mode_ipv4": "isolated"}
    pools = (IpamPool(subnet="10.1.0.0/24"), IpamPool(subnet="fd12::/64"))
    network = define(asked(*pools, enable_ipv6=True, internal=True, options=isolated))
    assert (network.gateway, network.gateway6) == ("", "fd12::1")
    network = define(asked(IpamPool(subnet="10.1.0.0/24", gateway="10.1.0.9"), internal=True, options=isolated))
    assert network.gateway == "10.1.0.9"


def test_one_subnet_of_each_family_in_any_order_and_in_canonical_form():
    pools = (
        IpamPool(subnet="FD12:0::/64", ip_range="fd12::a:0/112", auxiliary_addresses={"r": "fd12::000A:0"}),
        IpamPool(subnet="10.1.0.0/24"),
    )
    network = define(asked(*pools, enable_ipv6=True))
    assert (network.ipv4, network.subnet, network.gateway) == (True, "10.1.0.0/24", "10.1.0.1")
    assert (network.ipv6, network.subnet6, network.gateway6) == (True, "fd12::/64", "fd12::a:1")
    assert (network.ip_range6, network.auxiliary6) == ("fd12::a:0/112", {"r": "fd12::a:0"})
    assert [each.subnet for each in network.asked] == ["fd12::/64", "10.1.0.0/24"]


def test_a_subnet_of_a_family_that_the_network_does_not_have_is_only_shown():
    network = define(asked(IpamPool(subnet="fd12::1/64"), IpamPool(subnet="10.1.0.0/24")))
    assert (network.ipv6, network.subnet6, network.subnet) == (False, "", "10.1.0.0/24")
    assert network.asked[0].subnet == "fd12::1/64"
    network = define(asked(IpamPool(subnet="10.1.0.0/24"), enable_ipv4=False, enable_ipv6=True))
    assert (network.ipv4, network.subnet, network.gateway, network.ipv6) == (False, "", "", True)


@pytest.mark.parametrize(
    ("own", "option", "families"),
    [
        ({}, {}, (True, False)),
        ({}, {"com.docker.network.enable_ipv6": "true"}, (True, True)),
        ({"enable_ipv6": False}, {"com.docker.network.enable_ipv6": "true"}, (True, False)),
        ({"enable_ipv6": True}, {"com.docker.network.enable_ipv4": "0"}, (False, True)),
    ],
)
def test_the_families_are_those_of_the_request_and_then_of_the_options(own, option, families):
    network = define(asked(options=option, **own))
    assert (network.ipv4, network.ipv6) == families


@pytest.mark.parametrize(
    ("pools", "kind", "message"),
    [
        (
            [IpamPool(subnet="fd12:5::1/64")],
            InvalidArgument,
            f"{WRONG}invalid subnet fd12:5::1/64: it should be fd12:5::/64",
        ),
        (
            [
                IpamPool(
                    subnet="fd13:1::/64",
                    gateway="10.0.0.1",
                    ip_range="10.0.0.0/24",
                    auxiliary_addresses={"a": "fd14::1"},
                )
            ],
            InvalidArgument,
            f"{WRONG}* invalid ip-range 10.0.0.0/24: parent subnet is an IPv6 block\n"
            "* invalid gateway 10.0.0.1: parent subnet is an IPv6 block\n"
            "* invalid auxiliary address a: parent subnet fd13:1::/64 doesn't contain this address",
        ),
        (
            [IpamPool(subnet="10.9.0.0/24", gateway="fd12::1"), IpamPool(subnet="fd13::/64", ip_range="fd14::/80")],
            InvalidArgument,
            f"{WRONG}* invalid gateway fd12::1: parent subnet is an IPv4 block\n"
            "* invalid ip-range fd14::/80: parent subnet fd13::/64 doesn't contain ip-range",
        ),
        (
            [IpamPool(subnet="fd12:1::/64"), IpamPool(subnet="fd12:2::/64")],
            Forbidden,
            "bridge driver doesn't support multiple subnets",
        ),
        (
            [IpamPool(subnet="fd12::/64", gateway="fd12::")],
            InvalidArgument,
            f"{WRONG}invalid gateway fd12::: the first address of subnet fd12::/64 is that of all its routers",
        ),
        (
            [IpamPool(subnet="fd12::/64", gateway="fd12::1%eth0")],
            InvalidArgument,
            f"{WRONG}invalid gateway fd12::1%eth0: invalid address",
        ),
    ],
)
def test_what_is_wrong_with_ipv6(pools, kind, message):
    with pytest.raises(EngineError) as caught:
        define(asked(*pools, enable_ipv6=True))
    assert (type(caught.value), caught.value.message) == (kind, message)


@pytest.mark.parametrize("name", ["../x", "a/b", "a" * 16, "a b", "-x"])
def test_a_bridge_cannot_have_any_name(name):
    with pytest.raises(InvalidArgument, match="invalid bridge name"):
        define(asked(options={"com.docker.network.bridge.name": name}))
