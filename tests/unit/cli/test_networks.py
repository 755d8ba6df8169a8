"""The flags that are about networks, as what the API gets; and networks as lists."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.cli.fake import FakeEngine, refuse, reply
from wherry.cli import attaching, values
from wherry.cli.creation import CREATE_FLAGS, create_body
from wherry.cli.failures import Failure
from wherry.cli.flags import parse
from wherry.cli.networks import CREATE
from wherry.cli.subnets import pools


def body(*words: str) -> dict[str, Any]:
    return create_body(parse(CREATE_FLAGS, [*words, "img"], interspersed=False))


def endpoints(*words: str) -> Any:
    return body(*words).get("NetworkingConfig", {}).get("EndpointsConfig")


def test_flags_of_run_are_said_of_the_first_network() -> None:
    words = "--network aa --network bb --ip 10.0.0.9 --ip6 fd00::9 --mac-address 02:00:00:00:00:09 --network-alias x"
    words += " --network-alias y --link db:store --link-local-ip 169.254.1.1"
    asked = body(*words.split())
    assert asked["HostConfig"]["NetworkMode"] == "aa"
    assert asked["HostConfig"]["Links"] == ["db:store"]
    assert asked["NetworkingConfig"]["EndpointsConfig"] == {
        "aa": {
            "IPAMConfig": {"IPv4Address": "10.0.0.9", "IPv6Address": "fd00::9", "LinkLocalIPs": ["169.254.1.1"]},
            "MacAddress": "02:00:00:00:00:09",
            "Aliases": ["x", "y"],
            "Links": ["db:store"],
        },
        "bb": {},
    }


def test_the_long_form_of_network() -> None:
    long = "name=aa,alias=x,alias=y,ip=10.0.0.9,gw-priority=-3,driver-opt=com.docker.network.endpoint.ifname=up0"
    assert endpoints("--network", long, "--network", "name=bb,ip6=fd00::9") == {
        "aa": {
            "Aliases": ["x", "y"],
            "IPAMConfig": {"IPv4Address": "10.0.0.9"},
            "GwPriority": -3,
            "DriverOpts": {"com.docker.network.endpoint.ifname": "up0"},
        },
        "bb": {"IPAMConfig": {"IPv6Address": "fd00::9"}},
    }


def test_a_link_on_the_default_bridge_is_the_containers() -> None:
    asked = body("--link", "db")
    assert asked["HostConfig"]["Links"] == ["db"]
    assert "NetworkingConfig" not in asked
    assert endpoints("--network", "aa") is None


REFUSED = [
    ("--network name=aa,alias=x --network-alias y", "cannot specify both --network-alias and per-network alias"),
    ("--network name=aa,ip=10.0.0.1 --ip 10.0.0.2", "cannot specify both --ip and per-network IPv4 address"),
    ("--network aa --network aa", 'network "aa" is specified multiple times'),
    ("--network aa --network bridge", "cannot attach both user-defined and non-user-defined network-modes"),
    ("--network name=aa,foo=b", 'invalid argument "name=aa,foo=b" for "--network" flag: invalid field key foo'),
    ("--network alias=b", 'invalid argument "alias=b" for "--network" flag: network name/id is not specified'),
    ("--network name=a,gw-priority=x", "invalid gw-priority (x): invalid syntax"),
    ("--network name=a,driver-opt=x", "invalid key value pair format in driver options"),
    ("--link a:b:c", 'invalid argument "a:b:c" for "--link" flag: bad format for links: a:b:c'),
    ("--mac-address zz", "zz is not a valid mac address"),
    ("--dns 1.2.3", 'invalid argument "1.2.3" for "--dns" flag: IP address is not correctly formatted: 1.2.3'),
    ("--add-host a", 'invalid argument "a" for "--add-host" flag: bad format for add-host: "a"'),
    ("--add-host a:1.2", 'invalid argument "a:1.2" for "--add-host" flag: invalid IP address in add-host: "1.2"'),
]


@pytest.mark.parametrize(("words", "reason"), REFUSED)
def test_what_docker_refuses(words: str, reason: str) -> None:
    with pytest.raises(Failure) as refusal:
        body(*words.split())
    assert reason in str(refusal.value)
    assert refusal.value.status == 125


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a:1.2.3.4", "a:1.2.3.4"), ("a=1.2.3.4", "a:1.2.3.4"), ("a:::1", "a:::1"), ("a=[fd00::1]", "a:fd00::1")],
)
def test_extra_hosts(text: str, expected: str) -> None:
    assert values.extra_host(text) == expected
    assert values.extra_host("gw:host-gateway") == "gw:host-gateway"


def ipam(*words: str) -> list[dict[str, Any]]:
    return pools(parse(CREATE.flags, [*words, "nn"]))


def test_ranges_gateways_and_auxiliary_addresses_go_to_their_subnet() -> None:
    words = "--subnet 10.1.0.0/16 --subnet fd00:1::/64 --gateway fd00:1::1 --ip-range 10.1.5.0/24 --gateway 10.1.0.9"
    assert ipam(*words.split(), "--aux-address", "a=10.1.5.1", "--aux-address", "b=fd00:1::5") == [
        {"Subnet": "10.1.0.0/16", "IPRange": "10.1.5.0/24", "Gateway": "10.1.0.9",
         "AuxiliaryAddresses": {"a": "10.1.5.1"}},
        {"Subnet": "fd00:1::/64", "Gateway": "fd00:1::1", "AuxiliaryAddresses": {"b": "fd00:1::5"}},
    ]  # fmt: skip
    assert ipam() == []
    assert ipam("--subnet", "10.1.0.0/24,10.2.0.0/24") == [{"Subnet": "10.1.0.0/24"}, {"Subnet": "10.2.0.0/24"}]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("--gateway 10.0.0.1", "every ip-range or gateway must have a corresponding subnet"),
        ("--subnet 10.0.0.0/8 --subnet 10.1.0.0/16", "multiple overlapping subnet configuration is not supported"),
        ("--subnet 10.0.0.0/8 --gateway 11.0.0.1", "no matching subnet for gateway 11.0.0.1"),
        ("--subnet 10.0.0.0/8 --ip-range 11.0.0.0/9", "no matching subnet for range 11.0.0.0/9"),
        ("--subnet 10.0.0.0/8 --aux-address a=11.0.0.1", "no matching subnet for aux-address 11.0.0.1"),
        (
            "--subnet 10.0.0.0/8 --subnet 11.0.0.0/8 --gateway 10.0.0.1 --gateway 10.0.0.2",
            "cannot configure multiple gateways (10.0.0.2, 10.0.0.1) on the same subnet (10.0.0.0/8)",
        ),
    ],
)
def test_addresses_of_no_subnet_are_refused(words: str, reason: str) -> None:
    with pytest.raises(Failure) as refusal:
        ipam(*words.split())
    assert str(refusal.value) == reason


def test_every_flag_of_create_arrives(engine: FakeEngine) -> None:
    engine.answers["POST /networks/create"] = reply({"Id": "i" * 64, "Warning": ""}, 201)
    words = "-d macvlan --scope local --ipv4=false --ipv6 --internal --attachable --config-from cc -o a=b --label c"
    words += " --ipam-driver ii --ipam-opt d=e --subnet fd00::/64"
    ran = engine.wherry("network", "create", *words.split(), "nn")
    assert (ran.returncode, ran.stdout.decode().strip(), ran.stderr) == (0, "i" * 64, b"")
    assert engine.body("POST /networks/create") == {
        "Name": "nn",
        "Driver": "macvlan",
        "Scope": "local",
        "EnableIPv4": False,
        "EnableIPv6": True,
        "Internal": True,
        "Attachable": True,
        "Ingress": False,
        "ConfigOnly": False,
        "ConfigFrom": {"Network": "cc"},
        "Options": {"a": "b"},
        "Labels": {"c": ""},
        "IPAM": {"Driver": "ii", "Options": {"d": "e"}, "Config": [{"Subnet": "fd00::/64"}]},
    }


def test_connect_says_only_what_it_was_told(engine: FakeEngine) -> None:
    engine.answers["POST /networks/nn/connect"] = reply(None)
    assert engine.wherry("network", "connect", "nn", "web").returncode == 0
    assert engine.body("POST /networks/nn/connect") == {"Container": "web", "EndpointConfig": {}}
    refused = engine.wherry("network", "connect", "--driver-opt", "x", "nn", "web")
    assert (refused.returncode, refused.stderr) == (1, b"invalid key/value pair format in driver options\n")


def test_removing_what_is_not_there_is_no_error_with_force(engine: FakeEngine) -> None:
    engine.answers["DELETE /networks/nn"] = refuse(404, "network nn not found")
    assert engine.wherry("network", "rm", "nn").returncode == 1
    ran = engine.wherry("network", "remove", "-f", "nn")
    assert (ran.returncode, ran.stderr) == (0, b"")


def test_prune_asks_first(engine: FakeEngine) -> None:
    engine.answers["POST /networks/prune"] = reply({"NetworksDeleted": ["aa", "bb"]})
    ran = engine.wherry("network", "prune", data=b"n\n")
    assert ran.returncode == 0
    assert not engine.seen
    ran = engine.wherry("network", "prune", "-f")
    assert ran.stdout == b"Deleted Networks:\naa\nbb\n\n"


def test_driver_options_are_pairs() -> None:
    assert attaching.options(["A=b=c"]) == {"a": "b=c"}
