"""What the daemon's settings do to the default bridge, and to networks that name no subnet."""

from __future__ import annotations

import ipaddress
import socket

import pytest

from tests.kernel.isolation import command, inside, ip, isolated
from tests.kernel.network.test_dual_stack import addresses, gateways, make, opened, reaches
from wherry.errors import Forbidden, InvalidArgument, SystemFailure
from wherry.kernel.netlink.nft import Ruleset
from wherry.models.network import ConfigReference, CreateNetwork, Ipam, IpamPool
from wherry.network.api import EndpointRequest, SandboxRequest
from wherry.network.firewall.api import Passage
from wherry.network.ipam.subnets import Pool
from wherry.network.ports import PortRequest

pytestmark = pytest.mark.root

commit = Ruleset.commit
BRIDGE = EndpointRequest("bridge")


def on_bridge(name: str = "wherry0") -> set[str]:
    (found,) = ip("addr", "show", name)
    return {f"{each['local']}/{each['prefixlen']}" for each in found["addr_info"] if each["scope"] == "global"}


@isolated
def test_the_default_bridge_has_ipv6_when_it_is_asked_for_and_none_later_when_it_is_not(engine):
    networks = engine()
    assert on_bridge() == {"172.17.0.1/16"}
    networks.stop(remove=False)
    networks = engine(ipv6=True, fixed_cidr6="fd00:5::/64")
    assert on_bridge() == {"172.17.0.1/16", "fd00:5::1/64"}
    shown = networks.inspect("bridge")
    assert shown["EnableIPv6"] is True
    assert shown["IPAM"]["Config"][1] == {"Subnet": "fd00:5::/64", "IPRange": "fd00:5::/64", "Gateway": "fd00:5::1"}
    box = opened(networks, "c1", BRIDGE)
    assert addresses(box.netns_fd) == ["172.17.0.2/16", "fd00:5::2/64"]
    assert gateways(box.netns_fd) == {4: "172.17.0.1", 6: "fd00:5::1"}
    assert reaches(box.netns_fd, "fd00:5::1")
    box.close()
    networks.close_sandbox("c1")
    networks.stop(remove=False)
    networks = engine()
    assert on_bridge() == {"172.17.0.1/16"}
    assert networks.resolve("bridge").subnet6 == ""
    networks.stop(remove=False)
    engine(ipv6=True, bip6="fd00:6::7/80")
    assert on_bridge() == {"172.17.0.1/16", "fd00:6::7/80"}


@isolated
def test_containers_on_the_default_bridge_get_what_the_settings_leave_them(engine):
    networks = engine(bip="172.30.0.1/16", fixed_cidr="172.30.5.0/24", default_gateway="172.30.0.254")
    box = opened(networks, "c1", BRIDGE)
    assert addresses(box.netns_fd) == ["172.30.5.0/16"]
    assert gateways(box.netns_fd) == {4: "172.30.0.254"}
    assert networks.inspect("bridge")["IPAM"]["Config"] == [
        {
            "Subnet": "172.30.0.0/16",
            "IPRange": "172.30.5.0/24",
            "Gateway": "172.30.0.1",
            "AuxiliaryAddresses": {"DefaultGatewayIPv4": "172.30.0.254"},
        }
    ]
    box.close()
    networks.close_sandbox("c1")
    networks.stop(remove=True)
    for wrong in ({"fixed_cidr": "10.0.0.0/24"}, {"default_gateway": "10.0.0.1"}):
        with pytest.raises(InvalidArgument, match=r"is not within the subnet 172\.30\.0\.0/16 of the default bridge"):
            engine(bip="172.30.0.1/16", **wrong)


@isolated
def test_a_network_may_name_another_gateway_for_its_containers(engine):
    networks = engine()
    pool = {"DefaultGatewayIPv4": "10.1.0.254"}
    config = [IpamPool(subnet="10.1.0.0/24", auxiliary_addresses=pool)]
    networks.create(CreateNetwork(name="n", ipam=Ipam(config=config)))
    box = opened(networks, "c1", EndpointRequest("n"))
    assert gateways(box.netns_fd) == {4: "10.1.0.254"}
    box.close()


@isolated
def test_containers_of_the_default_bridge_may_be_kept_apart(engine):
    networks = engine(icc=False)
    one, two = (opened(networks, name, BRIDGE) for name in ("c1", "c2"))
    assert reaches(one.netns_fd, "172.17.0.1")
    assert not reaches(one.netns_fd, two.endpoints[0].ipv4)
    assert networks.inspect("bridge")["Options"]["com.docker.network.bridge.enable_icc"] == "false"
    one.close()
    two.close()


@isolated
@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_without_rules_there_are_none_and_no_port_is_published(engine, backend):
    before = command("nft", "list", "ruleset")
    networks = engine(rules=(), firewall=backend)
    make(networks, "n", "10.1.0.0/24", "fd12::/64")
    assert command("nft", "list", "ruleset") == before
    ports = (PortRequest("tcp", 80, "", 8080, 8080),)
    with pytest.raises(SystemFailure, match=r"rules for IPv4 are turned off \(iptables: false\)"):
        networks.open_sandbox(SandboxRequest("c1", (EndpointRequest("n"),), ports=ports))
    box = opened(networks, "c1", EndpointRequest("n"))
    assert reaches(box.netns_fd, "10.1.0.1")
    box.close()


@isolated
@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_rules_may_be_those_of_ipv4_alone(engine, backend):
    before = command("nft", "list", "tables", "ip6")
    networks = engine(rules=(4,), firewall=backend)
    make(networks, "n", "10.1.0.0/24", "fd12::/64")
    assert "10.1.0.0/24" in command("nft", "list", "ruleset")
    assert "fd12" not in command("nft", "list", "ruleset")
    assert command("nft", "list", "tables", "ip6") == before
    box = opened(networks, "c1", EndpointRequest("n"))
    assert reaches(box.netns_fd, "fd12::1")
    box.close()


@isolated
def test_rules_of_an_engine_before_go_when_they_are_turned_off(engine):
    engine().stop(remove=False)
    assert "wherry-wherry0" in command("nft", "list", "ruleset")
    engine(rules=())
    assert "wherry-wherry0" not in command("nft", "list", "ruleset")


@isolated
def test_subnets_are_of_the_pools_of_the_settings_until_they_run_out(engine):
    pools = (Pool(ipaddress.ip_network("10.64.0.0/22"), 24), Pool(ipaddress.ip_network("fd64::/63"), 64))
    networks = engine(pools=pools)
    made = [make(networks, name) for name in ("a", "b")]
    assert [(each.subnet, each.subnet6) for each in made] == [
        ("10.64.1.0/24", "fd64::/64"),
        ("10.64.2.0/24", "fd64:0:0:1::/64"),
    ]
    with pytest.raises(SystemFailure, match="all predefined address pools have been fully subnetted: no IPv6 subnet"):
        make(networks, "c")
    assert "10.64.3.0" not in command("ip", "route")
    assert make(networks, "c", ipv6=False).subnet == "10.64.3.0/24"
    with pytest.raises(SystemFailure, match="no IPv4 subnet"):
        make(networks, "d", ipv6=False)
    networks.remove("a")
    assert make(networks, "d").subnet == "10.64.1.0/24"


@isolated
def test_options_that_a_network_does_not_give_are_those_of_the_settings(engine):
    mtu, ipv6 = "com.docker.network.driver.mtu", "com.docker.network.enable_ipv6"
    networks = engine(network_opts={"bridge": {mtu: "1400", ipv6: "true"}, "macvlan": {"parent": "x"}})
    network = networks.create(CreateNetwork(name="n"))
    assert (network.ipv6, network.options) == (True, {mtu: "1400", ipv6: "true"})
    (found,) = ip("link", "show", f"br-{network.id[:12]}")
    assert found["mtu"] == 1400
    assert networks.create(CreateNetwork(name="m", enable_ipv6=False, options={mtu: "1300"})).options[mtu] == "1300"


@isolated
def test_a_subnet_that_would_cut_the_host_off_is_refused(engine, caplog):
    command("ip", "link", "add", "lan", "up", "type", "bridge")
    command("ip", "addr", "add", "192.168.7.20/24", "dev", "lan")
    command("ip", "route", "add", "default", "via", "192.168.7.1")
    command("ip", "-6", "addr", "add", "2001:db8:7::20/64", "dev", "lan", "nodad")
    command("ip", "-6", "route", "add", "default", "via", "2001:db8:7::1")
    networks = engine()
    before = command("ip", "link")
    for wrong in (("192.168.7.0/25",), ("192.168.0.0/16",), ("10.1.0.0/24", "2001:db8:7::/96")):
        with pytest.raises(Forbidden, match="the router that this host sends everything to: this host could not reach"):
            make(networks, "n", *wrong, ipv6=len(wrong) > 1)
    assert command("ip", "link") == before
    make(networks, "n", "192.168.7.128/25", ipv6=False)
    assert "subnet 192.168.7.128/25 overlaps with 192.168.7.0/24, which this host uses" in caplog.text
    # A bridge of the host's own is where the router is.
    make(networks, "m", "192.168.7.0/25", ipv6=False, options={"com.docker.network.bridge.name": "lan"})


@isolated
def test_a_network_that_holds_a_configuration_has_nothing_in_the_kernel_and_no_containers(engine):
    networks = engine()
    before = command("ip", "link"), command("nft", "list", "ruleset")
    ipam = Ipam(config=[IpamPool(subnet="10.66.0.0/24")])
    networks.create(CreateNetwork(name="held", config_only=True, ipam=ipam))
    assert (command("ip", "link"), command("nft", "list", "ruleset")) == before
    with pytest.raises(InvalidArgument, match="cannot create endpoint on configuration-only network"):
        opened(networks, "c1", EndpointRequest("held"))
    taken = networks.create(CreateNetwork(name="n", config_from=ConfigReference(network="held")))
    assert (taken.subnet, networks.inspect("n")["ConfigFrom"]) == ("10.66.0.0/24", {"Network": "held"})
    with pytest.raises(Forbidden, match='configuration network "held" is in use'):
        networks.remove("held")
    networks.stop(remove=False)
    again = engine()
    assert again.inspect("held")["ConfigOnly"] is True
    box = opened(again, "c1", EndpointRequest("n"))
    assert reaches(box.netns_fd, "10.66.0.1")
    box.close()
    again.close_sandbox("c1")
    again.remove("n")
    again.remove("held")
    assert "held" not in again.names()


@isolated
@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_linked_containers_that_are_kept_apart_reach_what_is_let_through(engine, backend):
    networks = engine(icc=False, firewall=backend)
    boxes = {name: opened(networks, name, BRIDGE) for name in ("c1", "c2", "c3")}
    one, two, three = (box.endpoints[0].ipv4 for box in boxes.values())

    def connects(box, port: int) -> bool:
        def attempt() -> bool:
            with socket.socket() as client:
                client.settimeout(1)
                return client.connect_ex((two, port)) == 0

        return inside(box.netns_fd, attempt)

    listeners = [inside(boxes["c2"].netns_fd, lambda port=port: socket.create_server(("", port))) for port in (80, 81)]
    assert not connects(boxes["c1"], 80)
    networks.let_pass([Passage(one, two, socket.IPPROTO_TCP, 80)])
    assert [connects(boxes[name], port) for name, port in (("c1", 80), ("c1", 81), ("c3", 80))] == [True, False, False]
    networks.refresh_firewall()
    assert connects(boxes["c1"], 80)
    networks.close_sandbox("c1")
    boxes["c1"].close()
    assert networks.settle()
    boxes["c1"] = opened(networks, "c4", BRIDGE)
    assert boxes["c1"].endpoints[0].ipv4 not in (two, three)
    assert not connects(boxes["c1"], 80), "whoever has its address next"
    for each in listeners:
        each.close()
    for box in boxes.values():
        box.close()


@isolated
def test_ports_are_published_on_the_address_of_the_settings_whatever_its_family(engine):
    networks = engine(binding6="::1", ipv6=True)
    ports = (PortRequest("tcp", 80, "", 8080, 8080),)
    box = networks.open_sandbox(SandboxRequest("c1", (BRIDGE,), ports=ports))
    assert [(each.host_ip, each.host_port) for each in networks.published("c1")] == [("::1", 8080)]
    box.close()
    make(networks, "four", "10.1.0.0/24", ipv6=False)
    with pytest.raises(SystemFailure, match="a port of ::1 needs a network with IPv6"):
        networks.open_sandbox(SandboxRequest("c2", (EndpointRequest("four"),), ports=ports))


@isolated
def test_an_engine_that_starts_writes_its_rules_once(engine, monkeypatch):
    networks = engine()
    for name in "abc":
        make(networks, name)
    networks.stop(remove=False)
    command("nft", "flush", "ruleset")
    written = []
    monkeypatch.setattr(Ruleset, "commit", lambda change: (written.append(change), commit(change)))
    again = engine()
    rules = command("nft", "list", "ruleset")
    assert all(again.resolve(name).subnet in rules and again.resolve(name).subnet6 in rules for name in "abc")
    assert len(written) <= 3, "one for the tables, and the guards"
