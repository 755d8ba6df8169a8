"""macvlan and ipvlan networks on a link of the host, and what is seen of them at the other end of that link."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.kernel.isolation import command, inside, ip, isolated, new_namespace
from wherry.errors import Forbidden, InvalidArgument, SystemFailure
from wherry.kernel.netlink import link
from wherry.kernel.netlink.socket import NetlinkSocket
from wherry.models.network import CreateNetwork, Ipam, IpamPool
from wherry.network.api import EndpointRequest, SandboxRequest

pytestmark = pytest.mark.root

SUBNET = "10.77.0.0/24"
OUTSIDE = "10.77.0.1"


def asked(name: str, subnet: str = SUBNET, driver: str = "macvlan", **more) -> CreateNetwork:
    options = {key: value for key, value in more.items() if key != "internal"}
    ipam = Ipam(config=[IpamPool(subnet=subnet)] if subnet else None)
    return CreateNetwork(name=name, driver=driver, ipam=ipam, options=options, internal=more.get("internal", False))


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    """Close namespaces and sandboxes at the end."""
    with ExitStack() as stack:
        yield stack


def wire(closing: ExitStack) -> int:
    """Make wire0, whose other end is in a namespace of its own with the address of the gateway; return that."""
    outside = new_namespace()
    closing.callback(os.close, outside)
    with NetlinkSocket() as netlink:
        netlink.apply(link.new_veth("wire0", link.VethPeer("far0", outside, "02:00:00:00:00:01")))

    def up():
        command("ip", "addr", "add", f"{OUTSIDE}/24", "dev", "far0")
        command("ip", "link", "set", "far0", "up")

    inside(outside, up)
    return outside


def opened(closing: ExitStack, networks, container: str, name: str, **more):
    sandbox = networks.open_sandbox(SandboxRequest(container, (EndpointRequest(name, **more),)))
    closing.callback(sandbox.close)
    return sandbox


def pinged(fd: int, address: str) -> bool:
    try:
        inside(fd, lambda: command("busybox", "ping", "-c1", "-W1", address))
    except subprocess.CalledProcessError:
        return False
    return True


@isolated
def test_containers_of_a_macvlan_network_reach_each_other_and_what_is_outside(engine, closing):
    outside = wire(closing)
    networks = engine()
    networks.create(asked("lan", parent="wire0"))
    one, two = opened(closing, networks, "c1", "lan"), opened(closing, networks, "c2", "lan")
    (first,), (second,) = one.endpoints, two.endpoints
    assert (first.interface, first.ipv4, first.ipv4_prefix, first.gateway4) == ("eth0", "10.77.0.2", 24, OUTSIDE)

    def look():
        (eth0,) = ip("addr", "show", "eth0")
        return eth0, [each for each in ip("route") if each["dst"] == "default"]

    eth0, (default,) = inside(one.netns_fd, look)
    assert eth0["linkinfo"] == {"info_kind": "macvlan", "info_data": {"mode": "bridge"}} | eth0["linkinfo"]
    assert eth0["address"] == first.mac == "02:42:0a:4d:00:02"
    assert default["gateway"] == OUTSIDE
    assert pinged(one.netns_fd, second.ipv4)
    assert pinged(one.netns_fd, OUTSIDE)
    assert pinged(outside, second.ipv4)
    neighbours = inside(outside, lambda: {each["dst"]: each["lladdr"] for each in ip("neigh") if "lladdr" in each})
    assert neighbours == {first.ipv4: first.mac, second.ipv4: second.mac}
    assert not pinged(one.netns_fd, "172.17.0.1")  # the host: there is no way by its parent
    assert [each["ifname"] for each in ip("link") if each.get("linkinfo", {}).get("info_kind") == "macvlan"] == []


@isolated
def test_private_containers_reach_what_is_outside_but_not_each_other(engine, closing):
    wire(closing)
    networks = engine()
    networks.create(asked("lan", parent="wire0", macvlan_mode="private"))
    one, two = opened(closing, networks, "c1", "lan"), opened(closing, networks, "c2", "lan")
    assert pinged(one.netns_fd, OUTSIDE)
    assert not pinged(one.netns_fd, two.endpoints[0].ipv4)


@isolated
def test_passthru_is_for_one_container_and_has_the_parents_address(engine, closing):
    outside = wire(closing)
    networks = engine()
    networks.create(asked("lan", parent="wire0", macvlan_mode="passthru"))
    (parent,) = ip("link", "show", "wire0")
    one = opened(closing, networks, "c1", "lan")
    assert one.endpoints[0].mac == parent["address"]
    assert pinged(outside, one.endpoints[0].ipv4)
    with pytest.raises(SystemFailure, match="failed to create the macvlan port: invalid argument"):
        opened(closing, networks, "c2", "lan")
    networks.close_sandbox("c1")
    one.close()
    wanted = "02:00:00:00:00:77"
    two = opened(closing, networks, "c2", "lan", mac=wanted)
    assert inside(two.netns_fd, lambda: ip("link", "show", "eth0"))[0]["address"] == wanted


@isolated
def test_an_internal_network_has_no_gateway_and_gives_its_address_out(engine, closing):
    wire(closing)
    networks = engine()
    networks.create(asked("lan", parent="wire0", internal=True))
    one = opened(closing, networks, "c1", "lan")
    assert (one.endpoints[0].ipv4, one.endpoints[0].gateway4) == ("10.77.0.1", "")
    assert [each for each in inside(one.netns_fd, lambda: ip("route")) if each["dst"] == "default"] == []
    assert networks.inspect("lan")["IPAM"]["Config"] == [{"Subnet": SUBNET}]


@isolated
def test_a_subnet_is_chosen_where_none_is_asked_for(engine, closing):
    wire(closing)
    networks = engine()
    networks.create(asked("lan", "", parent="wire0"))
    assert networks.inspect("lan")["IPAM"]["Config"] == [{"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1"}]


@isolated
def test_a_running_container_comes_into_a_macvlan_network_and_leaves_it(engine, closing):
    outside = wire(closing)
    networks = engine()
    networks.create(asked("lan", parent="wire0"))
    one = opened(closing, networks, "c1", "bridge")
    fresh = networks.connect("c1", one.netns_fd, EndpointRequest("lan"))
    assert (fresh.interface, pinged(outside, fresh.ipv4)) == ("eth1", True)
    networks.disconnect("c1", one.netns_fd, fresh.network_id)
    assert [each["ifname"] for each in inside(one.netns_fd, lambda: ip("link"))] == ["lo", "eth0"]
    assert networks.settle()
    assert networks._database.query("SELECT address FROM addresses WHERE pool = ?", (fresh.network_id,)) == []


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"parent": "lo"}, InvalidArgument, "loopback interface is not a valid macvlan parent link"),
        ({"parent": "nosuch"}, InvalidArgument, "invalid subinterface vlan name nosuch, example formatting is eth0.10"),
        ({"parent": "no.5"}, InvalidArgument, "-o parent interface was not found on the host: no"),
        ({"parent": "wire0.x"}, InvalidArgument, "unable to parse a valid vlan id from: x (ex. eth0.10 for vlan 10)"),
        ({"parent": "wire0.4095"}, InvalidArgument, "vlan id must be between 1-4094, received: 4095"),
        (
            {"parent": "wire0.5.6"},
            InvalidArgument,
            "required interface name format is: name.vlan_id, ex. eth0.10 for vlan 10, instead received wire0.5.6",
        ),
        (
            {"parent": "wire0", "macvlan_mode": "x"},
            InvalidArgument,
            "requested macvlan mode 'x' is not valid, 'bridge' mode is the macvlan driver default",
        ),
        (
            {"parent": "wire0", "macvlan_mode": "passthru"},
            Forbidden,
            "cannot use mode passthru, macvlan network {id} is already using parent interface wire0",
        ),
    ],
)
@isolated
def test_what_is_refused(engine, closing, options, kind, message):
    wire(closing)
    networks = engine()
    first = networks.create(asked("first", "10.78.0.0/24", parent="wire0"))
    with pytest.raises(kind) as caught:
        networks.create(asked("lan", **options))
    assert caught.value.message == message.replace("{id}", first.id)
    assert networks.names() == ["bridge", "host", "none", "first"]


@isolated
def test_several_networks_share_a_parent_unless_one_has_it_for_itself(engine, closing):
    wire(closing)
    networks = engine()
    networks.create(asked("one", "10.78.1.0/24", parent="wire0"))
    two = networks.create(asked("two", "10.78.2.0/24", parent="wire0"))
    networks.remove("one")
    networks.remove("two")
    three = networks.create(asked("three", "10.78.3.0/24", parent="wire0", macvlan_mode="passthru"))
    with pytest.raises(Forbidden) as caught:
        networks.create(asked("four", "10.78.4.0/24", parent="wire0"))
    text = f"macvlan network {three.id} is already using parent interface wire0 in mode passthru"
    assert (caught.value.message, len(two.id)) == (text, 64)


@isolated
def test_a_parent_that_is_gone_is_said_at_the_start_of_a_container(engine, closing):
    wire(closing)
    networks = engine()
    networks.create(asked("lan", parent="wire0"))
    command("ip", "link", "del", "wire0")
    with pytest.raises(SystemFailure, match="the requested parent interface wire0 was not found on the Docker host"):
        opened(closing, networks, "c1", "lan")
    assert networks.settle()
    assert networks._database.query("SELECT * FROM addresses") == []


def missing(kind: str) -> bool:
    """Whether ip(8) cannot make links of a kind, because this kernel has none."""
    more = ["link", "wire0"] if kind != "dummy" else []
    rest = ["id", "5"] if kind == "vlan" else []
    try:
        command("ip", "link", "add", *more, "name", "probe0", "type", kind, *rest)
    except subprocess.CalledProcessError:
        return True
    command("ip", "link", "del", "probe0")
    return False


@isolated
def test_a_kernel_without_a_kind_of_link_is_said_with_the_remedy(engine, closing):
    wire(closing)
    networks = engine()
    if missing("dummy"):
        with pytest.raises(SystemFailure, match=r"create dm-[0-9a-f]{12} dummy link: .*modprobe dummy"):
            networks.create(asked("lan"))
    if missing("vlan"):
        with pytest.raises(SystemFailure, match=r"wire0.7 vlan link: operation not supported: .*modprobe 8021q"):
            networks.create(asked("lan", parent="wire0.7"))
    networks.create(asked("lan", driver="ipvlan", parent="wire0"))
    if missing("ipvlan"):
        with pytest.raises(SystemFailure, match=r"failed to create the ipvlan port: operation .*modprobe ipvlan"):
            opened(closing, networks, "c1", "lan")


@isolated
def test_networks_come_back_after_a_restart_and_running_containers_stay_in_them(engine, closing):
    outside = wire(closing)
    networks = engine()
    network = networks.create(asked("lan", parent="wire0"))
    one, two = opened(closing, networks, "c1", "lan"), opened(closing, networks, "c2", "lan")
    two.close()
    networks.stop(remove=False)
    again = engine(start=False)
    again.start()
    again.restore(["c1"])
    assert again.endpoints("c1") == one.endpoints
    assert again.endpoints("c2") == ()
    assert pinged(outside, one.endpoints[0].ipv4)
    three = opened(closing, again, "c3", "lan")
    assert three.endpoints[0].ipv4 == two.endpoints[0].ipv4
    assert pinged(three.netns_fd, one.endpoints[0].ipv4)
    assert again.inspect(network.id)["Driver"] == "macvlan"
