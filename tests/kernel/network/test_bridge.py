"""The default bridge on the host: links, addresses, rules, sysctls, and what of it remains afterwards."""

from __future__ import annotations

import ipaddress

import pytest

from tests.kernel.isolation import command, ip, isolated
from wherry.errors import Conflict, InvalidArgument, SystemFailure
from wherry.kernel.netlink import nft
from wherry.kernel.netlink.socket import NetlinkSocket
from wherry.network import bridgeplan, sysctls
from wherry.network.api import Endpoint
from wherry.network.config import NetworkConfig
from wherry.network.drivers.bridge import BridgeDriver
from wherry.network.firewall.nftables import Nftables
from wherry.network.records import Attached, Network

pytestmark = pytest.mark.root

FORWARD = "net/ipv4/ip_forward"


def machine() -> tuple[str, str, str, str]:
    """Everything that an engine changes on the host."""
    return (
        command("ip", "-br", "link"),
        command("ip", "-br", "addr"),
        command("nft", "list", "ruleset"),
        sysctls.read(FORWARD),
    )


def links() -> set[str]:
    return {each["ifname"] for each in ip("link")}


@isolated
def test_start_brings_up_and_stop_leaves_nothing(engine):
    before = machine()
    networks = engine()
    (bridge,) = ip("addr", "show", "wherry0")
    assert "UP" in bridge["flags"]
    assert bridge["ifalias"] == "wherry"
    assert [(each["local"], each["prefixlen"], each["broadcast"]) for each in bridge["addr_info"]] == [
        ("172.17.0.1", 16, "172.17.255.255")
    ]
    assert sysctls.read("net/ipv6/conf/wherry0/accept_ra") == "0"
    assert sysctls.read(FORWARD) == "1"
    rules = command("nft", "list", "table", "ip", "wherry-wherry0")
    assert 'ip saddr 172.17.0.0/16 oifname != "wherry0" counter packets 0 bytes 0 masquerade' in rules
    assert 'elements = { "wherry0" }' in rules
    assert "oifname @bridges ct state established,related accept" in rules
    assert '"wherry0" : jump from-wherry0' in rules
    assert "oifname @bridges counter packets 0 bytes 0 drop" in rules
    networks.stop(remove=True)
    assert machine() == before


@isolated
def test_inspect_has_dockerds_shape(engine):
    networks = engine(mtu=1400)
    assert networks.names() == ["bridge", "host", "none"]
    bridge = networks.inspect("bridge")
    assert bridge | {"Id": "", "Created": ""} == {
        "Name": "bridge",
        "Id": "",
        "Created": "",
        "Scope": "local",
        "Driver": "bridge",
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": {
            "Driver": "default",
            "Options": None,
            "Config": [{"Subnet": "172.17.0.0/16", "Gateway": "172.17.0.1"}],
        },
        "Internal": False,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {},
        "Options": {
            "com.docker.network.bridge.default_bridge": "true",
            "com.docker.network.bridge.enable_icc": "true",
            "com.docker.network.bridge.enable_ip_masquerade": "true",
            "com.docker.network.bridge.host_binding_ipv4": "0.0.0.0",
            "com.docker.network.bridge.name": "wherry0",
            "com.docker.network.driver.mtu": "1400",
        },
        "Labels": {},
    }
    assert networks.inspect("none")["Driver"] == "null"
    assert networks.inspect("host")["IPAM"]["Config"] is None
    assert networks.inspect(bridge["Id"][:12])["Id"] == networks.inspect("default")["Id"] == bridge["Id"]
    assert networks.host_gateways() == ("172.17.0.1",)


@isolated
def test_ids_and_subnet_outlive_the_engine(engine):
    command("ip", "link", "add", "other", "type", "bridge")
    command("ip", "addr", "add", "172.17.9.1/24", "dev", "other")
    first = engine()
    before = first.inspect("bridge")
    assert before["IPAM"]["Config"][0]["Subnet"] == "172.18.0.0/16"
    first.stop(remove=True)
    command("ip", "link", "del", "other")
    assert engine().inspect("bridge") == before


@isolated
def test_the_subnet_avoids_addresses_and_routes_of_the_host(engine):
    command("ip", "link", "add", "other", "up", "type", "bridge")
    command("ip", "addr", "add", "172.17.0.9/32", "dev", "other")
    command("ip", "route", "add", "172.18.5.0/24", "dev", "other")
    command("ip", "route", "add", "default", "dev", "other")
    assert engine().inspect("bridge")["IPAM"]["Config"][0]["Subnet"] == "172.19.0.0/16"


@isolated
def test_what_a_crash_left_is_taken_up(engine):
    crashed = engine(root="a")
    before = crashed.inspect("bridge")
    index = ip("link", "show", "wherry0")[0]["ifindex"]
    crashed.stop(remove=False)
    command("nft", "flush", "ruleset")
    again = engine(root="a")
    assert again.inspect("bridge") == before
    assert ip("link", "show", "wherry0")[0]["ifindex"] == index
    assert nft.table_exists("wherry-wherry0")
    again.stop(remove=True)
    assert links() == {"lo"}


@isolated
def test_another_bip_replaces_the_address(engine):
    engine().stop(remove=False)
    networks = engine(bip="172.30.0.1/24")
    assert [each["local"] for each in ip("addr", "show", "wherry0")[0]["addr_info"]] == ["172.30.0.1"]
    assert networks.inspect("bridge")["IPAM"]["Config"] == [{"Subnet": "172.30.0.0/24", "Gateway": "172.30.0.1"}]
    assert "ip saddr 172.30.0.0/24" in command("nft", "list", "ruleset")


@isolated
def test_a_bridge_of_the_user_is_used_and_left(engine):
    command("ip", "link", "add", "br0", "type", "bridge")
    command("ip", "addr", "add", "10.77.0.1/24", "dev", "br0")
    networks = engine(bridge="br0")
    assert networks.inspect("bridge")["IPAM"]["Config"] == [{"Subnet": "10.77.0.0/24", "Gateway": "10.77.0.1"}]
    networks.stop(remove=True)
    assert [each["local"] for each in ip("addr", "show", "br0")[0]["addr_info"] if each["family"] == "inet"] == [
        "10.77.0.1"
    ]
    assert command("nft", "list", "ruleset") == ""


@isolated
def test_what_is_no_bridge_is_refused_and_nothing_is_left(engine):
    command("ip", "link", "add", "name0", "type", "veth", "peer", "name", "name1")
    before = machine()
    with pytest.raises(InvalidArgument, match="name0 exists and is no bridge"):
        engine(bridge="name0")
    command("ip", "link", "add", "br0", "type", "bridge")
    with pytest.raises(InvalidArgument, match="br0 has no IPv4 address"):
        engine(bridge="br0", root="b")
    command("ip", "link", "del", "br0")
    assert machine() == before


@isolated
def test_two_engines_side_by_side(engine):
    one = engine(root="a", bridge="wherry0")
    two = engine(root="b", bridge="wherry1")
    subnets = [ipaddress.ip_network(each.inspect("bridge")["IPAM"]["Config"][0]["Subnet"]) for each in (one, two)]
    assert not subnets[0].overlaps(subnets[1])
    with pytest.raises(Conflict, match="bridge wherry0 is in use by another engine"):
        engine(root="c", bridge="wherry0")
    one.stop(remove=True)
    assert links() == {"lo", "wherry1"}
    assert sysctls.read(FORWARD) == "1"
    assert nft.table_exists("wherry-wherry1")
    two.stop(remove=True)
    assert links() == {"lo"}
    assert sysctls.read(FORWARD) == "0"
    assert command("nft", "list", "ruleset") == ""


@isolated
def test_forwarding_that_was_on_stays_on(engine):
    sysctls.write(FORWARD, "1")
    networks = engine()
    assert not nft.table_exists("wherry_forwarding")
    networks.stop(remove=True)
    assert sysctls.read(FORWARD) == "1"


@isolated
def test_forwarding_stays_on_while_somebody_else_has_a_bridge(engine):
    networks = engine()
    command("ip", "link", "add", "docker0", "type", "bridge")
    networks.stop(remove=True)
    assert sysctls.read(FORWARD) == "1"
    assert nft.table_exists("wherry_forwarding")


@isolated
def test_forwarding_and_masquerading_can_be_refused(engine):
    engine(ip_forward=False, masquerade=False)
    assert sysctls.read(FORWARD) == "0"
    rules = command("nft", "list", "ruleset")
    assert 'ip saddr 172.17.0.0/16 oifname "wherry0" ct status dnat' in rules  # published ports work all the same
    assert 'oifname != "wherry0"' not in rules


@isolated
def test_without_a_default_bridge(engine):
    before = machine()
    networks = engine(bridge="")
    assert networks.names() == ["host", "none"]
    assert networks.host_gateways() == ()
    assert machine() == before


@pytest.mark.parametrize("step", [(Nftables, "install"), (Nftables, "guard"), (BridgeDriver, "_set_up")])
@isolated
def test_each_step_of_start_is_undone_when_the_next_fails(engine, monkeypatch, step):
    owner, name = step
    before = machine()

    def fail(*_args, **_kwargs):
        raise OSError(5, "Input/output error", "somewhere")

    monkeypatch.setattr(owner, name, fail)
    with pytest.raises(SystemFailure, match=r"cannot bring up network bridge: Input/output error \[somewhere\]"):
        engine()
    assert machine() == before
    monkeypatch.undo()
    engine()  # the claim on the name has been given back


@isolated
def test_any_number_of_links_is_taken_away_and_those_that_are_gone_do_not_matter(engine):
    engine()
    driver = BridgeDriver(bridgeplan.of_default(NetworkConfig(bridge="wherry0")), Nftables("wherry-wherry0"))
    with NetlinkSocket() as netlink:
        command("ip", "link", "add", "last", "type", "bridge")
        names = [*(f"veth{number:07x}" for number in range(4000)), "last"]
        here = Network(id="n", name="bridge", driver="bridge", created=0)
        ended = [Attached(Endpoint("n", "bridge", "e", "eth0", ""), "s", name) for name in names]
        driver.detach(netlink, here, ended)
        assert links() == {"lo", "wherry0"}
