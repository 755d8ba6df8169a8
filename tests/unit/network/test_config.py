"""What the daemon's settings say about networks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from wherry.cmd.config import Config
from wherry.errors import InvalidArgument
from wherry.network.config import NetworkConfig, host_gateways


def test_configuration_of_the_daemon():
    config = NetworkConfig.of(Config(ip_forward=False, firewall_backend="iptables"))
    assert (config.bridge, config.mtu, config.masquerade, config.ip_forward) == ("wherry0", 1500, True, False)
    assert (config.firewall, config.rules) == ("iptables", (4, 6))
    assert NetworkConfig.of(Config(bridge="none")).bridge == ""


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"ip": "0.0.0.0"}, {"binding": "", "binding6": ""}),
        ({"ip": "127.0.0.1"}, {"binding": "127.0.0.1", "binding6": ""}),
        ({"ip": "::1"}, {"binding": "", "binding6": "::1"}),
        ({"iptables": False}, {"rules": ()}),
        ({"ip6tables": False}, {"rules": (4,)}),
        ({"fixed_cidr_v6": "fd00:1::/64", "ipv6": True}, {"fixed_cidr6": "fd00:1::/64", "ipv6": True}),
        ({"default_gateway_v6": "fd00:1::9"}, {"default_gateway6": "fd00:1::9"}),
        ({"default_network_opts": {"bridge": {"a": "b"}}}, {"network_opts": {"bridge": {"a": "b"}}}),
    ],
)
def test_what_settings_mean(settings, wanted):
    assert NetworkConfig.of(Config(**settings)) == replace(NetworkConfig(), **wanted)


def test_address_pools():
    config = NetworkConfig.of(Config(default_address_pools=(("10.9.0.0/16", 24), ("fd09::/48", 64))))
    assert [(str(each.base), each.size) for each in config.pools] == [("10.9.0.0/16", 24), ("fd09::/48", 64)]


@pytest.mark.parametrize(
    ("pools", "text"),
    [
        ((("10.9.0.1/16", 24),), "has host bits set"),
        ((("x", 24),), "invalid default-address-pools base 'x'"),
        ((("10.9.0.0/16", 15),), "default-address-pools size 15: for base 10.9.0.0/16 it must be from 16 to 30"),
        ((("10.9.0.0/16", 31),), "it must be from 16 to 30"),
        ((("10.0.0.0/8", 24), ("10.9.0.0/16", 24)), "overlaps with another one"),
    ],
)
def test_address_pools_that_cannot_be(pools, text):
    with pytest.raises(InvalidArgument, match=text):
        NetworkConfig.of(Config(default_address_pools=pools))


@pytest.mark.parametrize(
    "bad",
    [{"bridge": name} for name in ("../../x", "a" * 16, "a b", ".", "..", "a/b", "-x", "a\n", "br'0")]
    + [
        {"bip": text}
        for text in ("nonsense", "172.30.0.0/16", "172.30.255.255/16", "172.30.0.1/30", "172.30.0.1", "fd00::1/64")
    ]
    + [{"bip6": text} for text in ("172.30.0.1/16", "fd00::/64", "fd00::1/127", "fd00::1%eth0/64")]
    + [{"fixed_cidr": text} for text in ("x", "10.0.0.1/8", "fd00::/64")]
    + [{"fixed_cidr6": text} for text in ("x", "10.0.0.0/8")]
    + [{"default_gateway": "fd00::1"}, {"default_gateway6": "10.0.0.1"}, {"binding": "x"}, {"binding6": "10.0.0.1"}]
    + [{"mtu": number} for number in (-1, 67, 65536)],
)
def test_configuration_that_cannot_work_is_refused(bad):
    with pytest.raises(InvalidArgument):
        NetworkConfig(**bad)


def test_host_gateways():
    assert host_gateways(()) == ()
    assert host_gateways(("fd00::1", "10.0.0.1")) == ("10.0.0.1", "fd00::1")
    for given in (("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2"), ("x",), ("fe80::1%a b",), ("",)):
        with pytest.raises(InvalidArgument):
            host_gateways(given)
