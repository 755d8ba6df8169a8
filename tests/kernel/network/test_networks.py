"""Networks of the user on the host: bridges, rules, addresses; what a crash leaves of them."""

from __future__ import annotations

import pytest

from tests.kernel.isolation import command, inside, ip, isolated
from wherry.errors import Conflict, EngineError, Forbidden, InvalidArgument, NotFound, SystemFailure
from wherry.kernel.netlink import link as link_module
from wherry.models.network import CreateNetwork, Ipam, IpamPool
from wherry.network import directory as directory_module
from wherry.network import sandbox as sandbox_module
from wherry.network.api import EndpointRequest, SandboxRequest
from wherry.network.drivers import bridge as bridge_module

pytestmark = pytest.mark.root


def links() -> set[str]:
    return {each["ifname"] for each in ip("link")}


def firewall() -> list[str]:
    """The rules, whatever the order of the tables."""
    return sorted(command("nft", "list", "ruleset").splitlines())


def make(networks, name: str, subnet: str = "", **more):
    pools = [IpamPool(subnet=subnet)] if subnet else None
    return networks.create(CreateNetwork(name=name, ipam=Ipam(config=pools), **more))


def opened(networks, container: str, *asked: EndpointRequest):
    return networks.open_sandbox(SandboxRequest(container, asked))


def ping(fd: int, address: str) -> bool:
    out = inside(fd, lambda: command("sh", "-c", f"busybox ping -c 1 -W 1 {address} >/dev/null && echo yes || echo no"))
    return out == "yes\n"


@isolated
def test_a_network_has_a_bridge_and_rules_and_leaves_nothing(engine):
    networks = engine()
    before = firewall(), links()
    network = make(networks, "front", options={"com.docker.network.driver.mtu": "1400"}, labels={"a": "b"})
    name = f"br-{network.id[:12]}"
    (bridge,) = ip("addr", "show", name)
    assert (bridge["mtu"], [(each["local"], each["prefixlen"]) for each in bridge["addr_info"]]) == (
        1400,
        [("172.18.0.1", 16)],
    )
    assert network.subnet == "172.18.0.0/16"
    assert f'ip saddr 172.18.0.0/16 oifname != "{name}"' in command("nft", "list", "ruleset")
    networks.remove("front")
    assert (firewall(), links()) == before
    with pytest.raises(NotFound, match="network front not found"):
        networks.resolve("front")


@isolated
def test_subnets_avoid_the_host_and_each_other(engine):
    command("ip", "link", "add", "other", "up", "type", "bridge")
    command("ip", "route", "add", "172.18.5.0/24", "dev", "other")
    networks = engine()
    assert [make(networks, name).subnet for name in "ab"] == ["172.19.0.0/16", "172.20.0.0/16"]
    with pytest.raises(Forbidden, match="invalid pool request: Pool overlaps with other one on this address space"):
        make(networks, "c", "172.20.128.0/24")
    with pytest.raises(Conflict, match="network with name a already exists"):
        make(networks, "a")
    bridge = {"com.docker.network.bridge.name": "wherry0"}
    with pytest.raises(Forbidden, match="networks have same bridge name"):
        make(networks, "c", options=bridge)
    with pytest.raises(InvalidArgument, match="lo exists and is no bridge"):
        make(networks, "c", options={"com.docker.network.bridge.name": "lo"})
    assert networks.names() == ["bridge", "host", "none", "a", "b"]


@isolated
def test_addresses_of_the_user(engine):
    networks = engine()
    pool = IpamPool(
        subnet="10.1.0.0/24", ip_range="10.1.0.64/28", gateway="10.1.0.9", auxiliary_addresses={"r": "10.1.0.64"}
    )
    networks.create(CreateNetwork(name="n", ipam=Ipam(config=[pool])))
    one = opened(networks, "c1", EndpointRequest("n"))
    two = opened(networks, "c2", EndpointRequest("n", ipv4="10.1.0.200", mac="02:42:AA:00:00:01"))
    assert (one.endpoints[0].ipv4, one.endpoints[0].gateway4) == ("10.1.0.65", "10.1.0.9")
    (eth0,) = inside(two.netns_fd, lambda: ip("addr", "show", "eth0"))
    assert (eth0["address"], eth0["addr_info"][0]["local"]) == ("02:42:aa:00:00:01", "10.1.0.200")
    with pytest.raises(Conflict, match="Address already in use"):
        opened(networks, "c3", EndpointRequest("n", ipv4="10.1.0.200"))
    with pytest.raises(InvalidArgument, match="no configured subnet or ip-range contain the IP address"):
        opened(networks, "c3", EndpointRequest("n", ipv4="10.9.0.1"))
    one.close()
    two.close()


@isolated
def test_the_default_route_goes_by_priority_and_then_by_name(engine):
    networks = engine()
    for name, subnet in (("b", "10.2.0.0/24"), ("a", "10.1.0.0/24"), ("c", "10.3.0.0/24")):
        make(networks, name, subnet)
    make(networks, "aa", "10.4.0.0/24", internal=True)

    def gateway(box) -> str:
        return next(
            (each["gateway"] for each in inside(box.netns_fd, lambda: ip("route")) if each["dst"] == "default"), ""
        )

    plain = opened(networks, "c1", EndpointRequest("c"), EndpointRequest("aa"), EndpointRequest("b"))
    assert gateway(plain) == "10.2.0.1"
    chosen = opened(networks, "c2", EndpointRequest("b"), EndpointRequest("c", gw_priority=1))
    assert gateway(chosen) == "10.3.0.1"
    networks.connect("c1", plain.netns_fd, EndpointRequest("a"))
    assert gateway(plain) == "10.1.0.1"
    networks.disconnect("c1", plain.netns_fd, networks.resolve("a").id)
    assert gateway(plain) == "10.2.0.1"
    for name in "bc":
        networks.disconnect("c1", plain.netns_fd, networks.resolve(name).id)
    assert gateway(plain) == ""
    plain.close()
    chosen.close()


@isolated
def test_a_running_container_comes_and_goes(engine):
    networks = engine(stock=2)
    make(networks, "n", "10.1.0.0/24")
    box = opened(networks, "c1", EndpointRequest("bridge"))
    endpoint = networks.connect("c1", box.netns_fd, EndpointRequest("n", ipv4="10.1.0.7", names=("web", "w")))
    assert (endpoint.interface, endpoint.ipv4, endpoint.names) == ("eth1", "10.1.0.7", ("web", "w"))
    (eth1,) = inside(box.netns_fd, lambda: ip("addr", "show", "eth1"))
    assert eth1["addr_info"][0]["local"] == "10.1.0.7"
    assert ping(box.netns_fd, "10.1.0.1")
    with pytest.raises(Forbidden, match="endpoint with name web already exists in network n"):
        networks.connect("c1", box.netns_fd, EndpointRequest("n", names=("web",)))
    with pytest.raises(Forbidden, match=r'network n has active endpoints \(name:"web" id:"[0-9a-f]{12}"\)'):
        networks.remove("n")
    networks.rename("c1", {networks.resolve("n").id: ("db",)})
    assert [each.names for each in networks.endpoints("c1")] == [(), ("db",)]
    networks.disconnect("c1", box.netns_fd, networks.resolve("n").id)
    assert [each["ifname"] for each in inside(box.netns_fd, lambda: ip("link"))] == ["lo", "eth0"]
    with pytest.raises(NotFound):
        networks.disconnect("c1", box.netns_fd, networks.resolve("n").id)
    networks.remove("n")
    networks.disconnect("c1", box.netns_fd, networks.resolve("bridge").id)
    assert [each.network_name for each in networks.endpoints("c1")] == ["none"]
    make(networks, "m", "10.2.0.0/24")
    assert networks.connect("c1", box.netns_fd, EndpointRequest("m")).interface == "eth0"
    assert [each.network_name for each in networks.endpoints("c1")] == ["m"]
    networks.disconnect("c1", box.netns_fd, networks.resolve("m").id)
    assert networks.settle()
    hello = {"type": "hello"}
    assert networks._naming._server._exchange(hello)["sandboxes"] == [box.sandbox_id]
    box.close()
    networks.close_sandbox("c1")
    assert networks.settle()
    assert networks._naming._server._exchange(hello)["sandboxes"] == [], "also one that had left before"


@isolated
def test_a_connection_that_fails_leaves_nothing(engine, monkeypatch):
    networks = engine()
    make(networks, "n", "10.1.0.0/24")
    box = opened(networks, "c1", EndpointRequest("bridge"))
    before = inside(box.netns_fd, lambda: command("sh", "-c", "ip link; ip route; ip addr"))

    def fail(*_args, **_kwargs):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("wherry.network.sandbox._addresses", fail)
    with pytest.raises(SystemFailure, match="failed to set up container networking: Input/output error"):
        networks.connect("c1", box.netns_fd, EndpointRequest("n"))
    monkeypatch.undo()
    assert inside(box.netns_fd, lambda: command("sh", "-c", "ip link; ip route; ip addr")) == before
    assert networks.settle()
    assert networks.connect("c1", box.netns_fd, EndpointRequest("n")).ipv4 == "10.1.0.2"
    with pytest.raises(Conflict, match="has no network sandbox"):
        networks.connect("nobody", box.netns_fd, EndpointRequest("n"))
    box.close()


@isolated
def test_a_network_removed_while_a_container_comes_into_it(engine, monkeypatch):
    """Before its link is up, and after: what the container had, its default route too, is there again."""
    networks = engine()
    make(networks, "z", "10.1.0.0/24")
    box = opened(networks, "c1", EndpointRequest("z"))
    before = inside(box.netns_fd, lambda: command("sh", "-c", "ip link; ip route; ip addr"))
    for module, name in ((networks._members, "show"), (sandbox_module, "_set_sysctls")):
        network = make(networks, "a", "10.2.0.0/24")
        run = getattr(module, name)

        def removed_first(*args, run=run, network=network, **more):
            networks._directory.take_down(networks._directory.forget(network))
            return run(*args, **more)

        monkeypatch.setattr(module, name, removed_first)
        with pytest.raises(NotFound, match=r"network \w+ not found"):
            networks.connect("c1", box.netns_fd, EndpointRequest("a"))
        monkeypatch.undo()
        assert inside(box.netns_fd, lambda: command("sh", "-c", "ip link; ip route; ip addr")) == before
    assert networks.settle()
    box.close()


@isolated
def test_a_network_removed_while_a_container_leaves_it(engine, monkeypatch):
    networks = engine()
    network = make(networks, "a", "10.1.0.0/24")
    make(networks, "z", "10.2.0.0/24")
    box = opened(networks, "c1", EndpointRequest("a"), EndpointRequest("z"))
    part = networks._part

    def forgotten_first(*args):
        entry = networks._directory.forget(network)
        part(*args)
        networks._directory.take_down(entry)

    monkeypatch.setattr(networks, "_part", forgotten_first)
    networks.disconnect("c1", box.netns_fd, network.id)
    routes = inside(box.netns_fd, lambda: ip("route"))
    assert [each["gateway"] for each in routes if each["dst"] == "default"] == ["10.2.0.1"]
    assert [each["ifname"] for each in inside(box.netns_fd, lambda: ip("link"))] == ["lo", "eth1"]
    assert networks.settle()
    box.close()


@isolated
def test_networks_outlive_the_engine_with_their_containers(engine):
    first = engine()
    network = make(first, "n", "10.1.0.0/24", labels={"a": "b"})
    box = opened(first, "c1", EndpointRequest("n", ipv4="10.1.0.7"))
    opened(first, "gone", EndpointRequest("n")).close()
    before = first.inspect("n")
    first.stop(remove=False)
    command("nft", "flush", "ruleset")
    command("ip", "link", "del", f"br-{network.id[:12]}")
    again = engine(start=False)
    again.start()
    again.restore(["c1"])
    assert again.inspect("n") == before
    assert "10.1.0.0/24" in command("nft", "list", "ruleset")
    assert ping(box.netns_fd, "10.1.0.1"), "its link was put into the new bridge"
    other = opened(again, "c2", EndpointRequest("n"))
    assert other.endpoints[0].ipv4 == "10.1.0.2"
    assert ping(other.netns_fd, "10.1.0.7")
    box.close()
    other.close()
    again.close_sandbox("c1")
    again.close_sandbox("c2")
    again.remove("n")
    again.stop(remove=True)
    assert links() == {"lo"}
    assert command("nft", "list", "ruleset") == ""


@isolated
def test_stopping_takes_the_bridges_away_and_starting_brings_them_back(engine):
    first = engine()
    network = make(first, "n")
    first.stop(remove=True)
    assert links() == {"lo"}
    again = engine()
    assert again.resolve("n") == network
    assert f"br-{network.id[:12]}" in links()


@isolated
def test_each_step_of_a_creation_is_undone(engine, monkeypatch):
    networks = engine()
    before = firewall(), links()

    def fail(*_args, **_kwargs):
        raise OSError(5, "Input/output error", "somewhere")

    for owner, name in ((bridge_module.BridgeDriver, "_set_up"), (directory_module.Directory, "_write")):
        monkeypatch.setattr(owner, name, fail)
        with pytest.raises((SystemFailure, OSError)):
            make(networks, "n")
        monkeypatch.undo()
        assert (firewall(), links()) == before
    make(networks, "n")


@isolated
def test_a_bridge_without_a_record_is_taken_away_at_the_next_start(engine, monkeypatch):
    """As when the engine is killed between the bridge and the record, or between the record and the bridge."""
    networks = engine()
    for name in ("early", "late"):
        make(networks, name)
    networks._database.execute("DELETE FROM networks WHERE name = 'early'")
    entry = networks._directory.forget(networks.resolve("late"))
    assert len(links()) == 4
    networks.stop(remove=False)
    entry.driver.close(entry.network, remove=False)
    command("ip", "link", "add", "br-other", "type", "bridge")
    command("ip", "link", "set", "br-other", "alias", "wherry ffffffffffff " + "0" * 64)
    again = engine()
    assert links() == {"lo", "wherry0", "br-other"}, "what belongs to another engine stays"
    assert again.names() == ["bridge", "host", "none"]


@isolated
def test_a_network_that_cannot_come_up_does_not_keep_the_engine_down(engine):
    first = engine()
    network = make(first, "n", "10.1.0.0/24")
    first.stop(remove=True)
    command("ip", "link", "add", f"br-{network.id[:12]}", "type", "veth", "peer", "name", "far")
    again = engine()
    assert again.resolve("n") == network
    with pytest.raises(SystemFailure, match="network n is down"):
        opened(again, "c1", EndpointRequest("n"))
    opened(again, "c1", EndpointRequest("bridge")).close()
    assert not again._naming._server.running, "the default bridge has no name server"
    again.remove("n")
    assert f"br-{network.id[:12]}" in links(), "it is not ours"
    assert network.id[:12] not in command("nft", "list", "ruleset")


@isolated
def test_a_network_removed_while_a_container_starts_in_it(engine, monkeypatch):
    networks = engine()
    network = make(networks, "n", "10.1.0.0/24")
    build = networks._take

    def slow(*args):
        built = build(*args)
        networks._directory.take_down(networks._directory.forget(network))
        return built

    monkeypatch.setattr(networks, "_take", slow)
    with pytest.raises(NotFound, match="network n not found"):
        opened(networks, "c1", EndpointRequest("n"))
    assert networks.endpoints("c1") == ()
    assert networks.settle()
    assert links() == {"lo", "wherry0"}


@isolated
def test_a_bridge_of_the_user_is_used_and_left(engine):
    command("ip", "link", "add", "br0", "type", "bridge")
    networks = engine()
    name = {"com.docker.network.bridge.name": "br0"}
    with pytest.raises(EngineError, match="bridge br0 has no IPv4 address: give it one, or name one with --subnet"):
        make(networks, "n", options=name)
    command("ip", "addr", "add", "10.77.0.1/24", "dev", "br0")
    assert make(networks, "n", options=name).subnet == "10.77.0.0/24"
    box = opened(networks, "c1", EndpointRequest("n"))
    assert ping(box.netns_fd, "10.77.0.1")
    box.close()
    networks.close_sandbox("c1")
    networks.remove("n")
    assert "br0" in links()


@isolated
def test_isolated_ports_are_marked_in_the_kernel():
    command("ip", "link", "add", "br0", "type", "bridge")
    command("ip", "link", "add", "one", "master", "br0", "type", "veth", "peer", "name", "two")
    with link_module.NetlinkSocket() as netlink:
        netlink.apply(link_module.set_attributes("one", link_module.isolated()))
    assert "isolated on" in command("bridge", "-d", "link", "show", "dev", "one")
