"""IPv6, and the settings of networks, through the unmodified docker CLI."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.engine import Engine
from tests.kernel.isolation import ip

pytestmark = [pytest.mark.root, pytest.mark.engine]

BOTH = ("--ipv6", "--subnet", "10.221.0.0/24", "--subnet", "fd21::/64")


@pytest.fixture
def networks(engine: Engine) -> Iterator[Engine]:
    yield engine
    engine.remove_all()
    assert engine.run("network", "prune", "-f").returncode == 0


def start(engine: Engine, name: str, *flags: str) -> None:
    engine.docker("run", "-d", "--name", name, *flags, "busybox", "sleep", "1000")


def endpoint(engine: Engine, name: str, network: str) -> dict[str, Any]:
    found = engine.docker("inspect", "-f", "{{json .NetworkSettings.Networks}}", name)
    return dict(json.loads(found)[network])


def network(engine: Engine, name: str) -> dict[str, Any]:
    (found,) = json.loads(engine.docker("network", "inspect", name))
    return dict(found)


def test_two_families_from_create_to_inspect(networks: Engine):
    networks.docker("network", "create", *BOTH, "--gateway", "fd21::9", "--aux-address", "r=fd21::2", "n")
    for name in ("one", "two"):
        start(networks, name, "--network", "n")
    seen = endpoint(networks, "one", "n")
    assert {key: seen[key] for key in ("IPAddress", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPv6Gateway")} == {
        "IPAddress": "10.221.0.2",
        "GlobalIPv6Address": "fd21::1",
        "GlobalIPv6PrefixLen": 64,
        "IPv6Gateway": "fd21::9",
    }
    other = endpoint(networks, "two", "n")["GlobalIPv6Address"]
    for address in (other, "fd21::9", "10.221.0.3"):
        networks.docker("exec", "one", "ping", "-c", "1", "-W", "2", address)
    assert f"{seen['GlobalIPv6Address']}\t" in networks.docker("exec", "one", "cat", "/etc/hosts")
    found = network(networks, "n")
    assert (found["EnableIPv4"], found["EnableIPv6"]) == (True, True)
    assert found["IPAM"]["Config"] == [
        {"Subnet": "10.221.0.0/24"},
        {"Subnet": "fd21::/64", "Gateway": "fd21::9", "AuxiliaryAddresses": {"r": "fd21::2"}},
    ]
    assert {each["IPv6Address"] for each in found["Containers"].values()} == {"fd21::1/64", f"{other}/64"}


def test_a_network_of_ipv6_alone(networks: Engine):
    networks.docker("network", "create", "--ipv6", "--ipv4=false", "n")
    found = network(networks, "n")
    assert (found["EnableIPv4"], found["EnableIPv6"]) == (False, True)
    (pool,) = found["IPAM"]["Config"]
    assert pool["Subnet"].startswith("fd")
    for name in ("one", "two"):
        start(networks, name, "--network", "n")
    seen = endpoint(networks, "two", "n")
    assert (seen["IPAddress"], seen["Gateway"], seen["IPv6Gateway"]) == ("", "", pool["Gateway"])
    networks.docker("exec", "one", "ping", "-c", "1", "-W", "2", seen["GlobalIPv6Address"])
    assert "inet " not in networks.docker("exec", "one", "ip", "addr", "show", "eth0")


def test_an_address_that_was_asked_for_stays_over_restarts_of_container_and_engine(networks: Engine):
    networks.docker("network", "create", *BOTH, "n")
    start(networks, "one", "--network", "n", "--ip6", "fd21::77")
    start(networks, "two", "--network", "n")
    before = endpoint(networks, "one", "n"), endpoint(networks, "two", "n")
    assert before[0]["GlobalIPv6Address"] == "fd21::77"
    assert before[0]["IPAMConfig"]["IPv6Address"] == "fd21::77"
    networks.crash()
    networks.start()
    assert (endpoint(networks, "one", "n"), endpoint(networks, "two", "n")) == before
    networks.docker("exec", "two", "ping", "-c", "1", "-W", "2", "fd21::77")
    networks.docker("restart", "-t", "0", "one")
    after = endpoint(networks, "one", "n")
    assert (after["GlobalIPv6Address"], after["IPAddress"]) == ("fd21::77", before[0]["IPAddress"])
    refused = networks.run("run", "--rm", "--network", "n", "--ip6", "fd21::77", "busybox", "true")
    assert "Address already in use" in refused.stderr


def test_a_running_container_gets_ipv6_with_a_network_and_loses_it(networks: Engine):
    networks.docker("network", "create", *BOTH, "n")
    start(networks, "one")
    assert "inet6" not in networks.docker("exec", "one", "ip", "addr", "show", "eth0")
    networks.docker("network", "connect", "--ip6", "fd21::5", "n", "one")
    assert "default via fd21::1" in networks.docker("exec", "one", "ip", "-6", "route")
    networks.docker("exec", "one", "ping", "-c", "1", "-W", "2", "fd21::1")
    networks.docker("network", "disconnect", "n", "one")
    assert "default" not in networks.docker("exec", "one", "ip", "-6", "route")


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--ipv4=false",), "IPv4 or IPv6 must be enabled"),
        (
            ("--ipv6", "--subnet", "fd21:1::/64", "--subnet", "fd21:2::/64"),
            "bridge driver doesn't support multiple subnets",
        ),
        (
            ("--ipv6", "--subnet", "fd21::1/64"),
            "invalid network config:\ninvalid subnet fd21::1/64: it should be fd21::/64",
        ),
        (
            ("--ipv6", "--subnet", "fd20::8000:0:0:0/65"),
            "invalid pool request: Pool overlaps with other one on this address space",
        ),
        (
            ("-o", "com.docker.network.bridge.gateway_mode_ipv6=isolated"),
            "gateway mode 'isolated' can only be used for an internal network",
        ),
        (("--config-from", "nosuch"), 'configuration network "nosuch" does not exist'),
        (("--ingress",), "Ingress network can only be global scope network"),
        (("--scope", "swarm"), "cannot create a swarm scoped network when swarm is not active"),
    ],
)
def test_dockerds_refusals(networks: Engine, flags, text):
    networks.docker("network", "create", "--ipv6", "--subnet", "fd20::/64", "taken")
    refused = networks.run("network", "create", *flags, "n")
    assert refused.returncode == 1
    assert refused.stderr.strip() == f"Error response from daemon: {text}"


def test_a_network_takes_its_configuration_from_another(networks: Engine):
    held = ("--config-only", "--ipv6", "--subnet", "fd21::/64", "-o", "com.docker.network.driver.mtu=1400")
    networks.docker("network", "create", *held, "--label", "a=b", "held")
    found = network(networks, "held")
    assert (found["Driver"], found["ConfigOnly"], found["Options"]) == (
        "null",
        True,
        {"com.docker.network.driver.mtu": "1400"},
    )
    refused = networks.run("run", "--rm", "--network", "held", "busybox", "true")
    assert "cannot create endpoint on configuration-only network" in refused.stderr
    networks.docker("network", "create", "--config-from", "held", "--attachable", "n")
    found = network(networks, "n")
    assert (found["ConfigFrom"], found["EnableIPv6"], found["Labels"]) == ({"Network": "held"}, True, {"a": "b"})
    assert found["Attachable"] is True
    start(networks, "one", "--network", "n")
    assert endpoint(networks, "one", "n")["GlobalIPv6Address"] == "fd21::2"
    assert "mtu 1400" in networks.docker("exec", "one", "ip", "link", "show", "eth0")
    refused = networks.run("network", "rm", "held")
    assert 'error while removing network: configuration network "held" is in use' in refused.stderr
    networks.docker("rm", "-f", "one")
    assert networks.docker("network", "rm", "n", "held").split() == ["n", "held"]


def test_what_daemon_json_says_about_networks(own_engine: Engine):
    settings = {
        "ipv6": True,
        "fixed-cidr-v6": "fd22::/64",
        "icc": False,
        "default-address-pools": [{"base": "10.222.0.0/16", "size": 28}],
        "default-network-opts": {"bridge": {"com.docker.network.driver.mtu": "1380"}},
    }
    (own_engine.root / "daemon.json").write_text(json.dumps(settings))
    own_engine.start()
    own_engine.import_busybox()
    start(own_engine, "one")
    seen = endpoint(own_engine, "one", "bridge")
    assert (seen["GlobalIPv6Address"], seen["IPAddress"]) == ("fd22::2", "10.222.0.2")
    start(own_engine, "two")
    other = endpoint(own_engine, "two", "bridge")
    own_engine.docker("exec", "one", "ping", "-c", "1", "-W", "2", "fd22::1")
    for address in (other["GlobalIPv6Address"], other["IPAddress"]):
        assert own_engine.run("exec", "one", "ping", "-c", "1", "-W", "1", address).returncode == 1
    id_ = own_engine.docker("network", "create", "n")
    assert network(own_engine, "n")["IPAM"]["Config"] == [{"Subnet": "10.222.0.16/28", "Gateway": "10.222.0.17"}]
    (bridge,) = ip("link", "show", f"br-{id_[:12]}")
    assert bridge["mtu"] == 1380
    own_engine.docker("network", "rm", "n")
