"""What only a kernel with ipvlan, 8021q and dummy shows: run by test_sublinks.py in an emulated machine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.kernel.isolation import command, inside, ip, isolated, new_namespace
from tests.kernel.network.conftest import engine  # noqa: F401  (a fixture)
from wherry.errors import Forbidden, InvalidArgument, SystemFailure
from wherry.kernel.netlink import link
from wherry.kernel.netlink.socket import NetlinkSocket
from wherry.models.network import CreateNetwork, Ipam, IpamPool
from wherry.network.api import EndpointRequest, SandboxRequest

pytestmark = [pytest.mark.root, pytest.mark.slow]

OUTSIDE = "10.77.0.1"


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def asked(name: str, driver: str, subnet: str = "10.77.0.0/24", **options: str) -> CreateNetwork:
    return CreateNetwork(name=name, driver=driver, ipam=Ipam(config=[IpamPool(subnet=subnet)]), options=options)


def wire(closing: ExitStack, *more: str) -> int:
    """Make wire0, whose other end is in a namespace of its own with the address of the gateway; return that."""
    outside = new_namespace()
    closing.callback(os.close, outside)
    with NetlinkSocket() as netlink:
        netlink.apply(link.new_veth("wire0", link.VethPeer("far0", outside, "02:00:00:00:00:01")))

    def up():
        command("ip", "link", "set", "far0", "up")
        command("ip", "addr", "add", f"{OUTSIDE}/24", "dev", "far0")
        for each in more:
            command("ip", *each.split())

    inside(outside, up)
    return outside


def opened(closing: ExitStack, networks, container: str, name: str, **more):
    sandbox = networks.open_sandbox(SandboxRequest(container, (EndpointRequest(name, **more),)))
    closing.callback(sandbox.close)
    return sandbox


def pinged(fd: int, address: str) -> bool:
    try:
        inside(fd, lambda: command("busybox", "ping", "-c2", "-W3", address))
    except subprocess.CalledProcessError:
        return False
    return True


def kind(fd: int) -> dict:
    info = inside(fd, lambda: ip("link", "show", "eth0"))[0]["linkinfo"]
    return {"kind": info["info_kind"], **info["info_data"]}


@isolated
def test_ipvlan_in_layer_2(engine, closing):  # noqa: F811
    outside = wire(closing)
    networks = engine()
    networks.create(asked("lan", "ipvlan", parent="wire0"))
    (parent,) = ip("link", "show", "wire0")
    one, two = opened(closing, networks, "c1", "lan"), opened(closing, networks, "c2", "lan")
    assert (one.endpoints[0].ipv4, one.endpoints[0].mac, one.endpoints[0].gateway4) == ("10.77.0.2", "", OUTSIDE)
    found = kind(one.netns_fd)
    assert (found["kind"], found["mode"], found["bridge"]) == ("ipvlan", "l2", True)
    assert inside(one.netns_fd, lambda: ip("link", "show", "eth0"))[0]["address"] == parent["address"]
    assert pinged(one.netns_fd, two.endpoints[0].ipv4)
    assert pinged(one.netns_fd, OUTSIDE)
    assert pinged(outside, two.endpoints[0].ipv4)
    seen = inside(outside, lambda: {each["lladdr"] for each in ip("neigh") if "lladdr" in each})
    assert seen == {parent["address"]}, "all containers have the parent's address"


@pytest.mark.parametrize("flag", ["private", "vepa"])
@isolated
def test_ipvlan_keeps_containers_apart(engine, closing, flag):  # noqa: F811
    wire(closing)
    networks = engine()
    networks.create(asked("lan", "ipvlan", parent="wire0", ipvlan_flag=flag))
    one, two = opened(closing, networks, "c1", "lan"), opened(closing, networks, "c2", "lan")
    assert kind(one.netns_fd)[flag] is True
    assert pinged(one.netns_fd, OUTSIDE)
    assert not pinged(one.netns_fd, two.endpoints[0].ipv4)


@pytest.mark.parametrize("mode", ["l3", "l3s"])
@isolated
def test_ipvlan_in_layer_3(engine, closing, mode):  # noqa: F811
    """What is outside needs a route to the containers, whose parent answers no ARP for them."""
    outside = wire(closing, "addr add 10.66.0.1/24 dev far0", "route add 10.78.0.0/24 via 10.66.0.2")
    command("ip", "addr", "add", "10.66.0.2/24", "dev", "wire0")
    networks = engine()
    networks.create(asked("lan", "ipvlan", "10.78.0.0/24", parent="wire0", ipvlan_mode=mode))
    networks.create(asked("other", "bridge", "10.79.0.0/24"))
    one, two = opened(closing, networks, "c1", "lan"), opened(closing, networks, "c2", "lan")
    assert (one.endpoints[0].ipv4, one.endpoints[0].gateway4) == ("10.78.0.1", "")
    (default,) = [each for each in inside(one.netns_fd, lambda: ip("route")) if each["dst"] == "default"]
    assert (default["dev"], "gateway" in default) == ("eth0", False)
    assert kind(one.netns_fd)["mode"] == mode
    assert pinged(one.netns_fd, two.endpoints[0].ipv4)
    assert pinged(outside, one.endpoints[0].ipv4)
    fresh = networks.connect("c1", one.netns_fd, EndpointRequest("other"))
    networks.disconnect("c1", one.netns_fd, fresh.network_id)
    assert [each["dev"] for each in inside(one.netns_fd, lambda: ip("route")) if each["dst"] == "default"] == ["eth0"]
    networks.connect("c1", one.netns_fd, EndpointRequest("other"))
    networks.disconnect("c1", one.netns_fd, networks.resolve("lan").id)
    (default,) = [each for each in inside(one.netns_fd, lambda: ip("route")) if each["dst"] == "default"]
    assert default["gateway"] == "10.79.0.1"


@isolated
def test_ipvlan_refuses_a_mac_address_and_a_parent_that_another_has(engine, closing):  # noqa: F811
    wire(closing)
    networks = engine()
    lan = networks.create(asked("lan", "ipvlan", parent="wire0"))
    with pytest.raises(InvalidArgument, match="ipvlan interfaces do not support custom mac address assignment"):
        opened(closing, networks, "c1", "lan", mac="02:00:00:00:00:09")
    with pytest.raises(Forbidden, match=f"network di-{lan.id[:12]} is already using parent interface wire0"):
        networks.create(asked("second", "ipvlan", "10.78.0.0/24", parent="wire0"))
    networks.create(asked("mac", "macvlan", "10.78.0.0/24", parent="wire0"))
    opened(closing, networks, "c2", "lan")
    with pytest.raises(SystemFailure, match="failed to create the macvlan port: device or resource busy"):
        opened(closing, networks, "c3", "mac")


@pytest.mark.parametrize("driver", ["macvlan", "ipvlan"])
@isolated
def test_a_link_for_a_vlan_is_made_shared_and_taken_away_with_the_last_network(engine, closing, driver):  # noqa: F811
    outside = wire(closing, "link add link far0 name far0.10 type vlan id 10", "link set far0.10 up")
    inside(outside, lambda: command("ip", "addr", "add", "10.80.0.1/24", "dev", "far0.10"))
    networks = engine()
    networks.create(asked("lan", driver, "10.80.0.0/24", parent="wire0.10"))
    (vlan,) = ip("link", "show", "wire0.10")
    assert (vlan["linkinfo"]["info_kind"], vlan["linkinfo"]["info_data"]["id"]) == ("vlan", 10)
    one = opened(closing, networks, "c1", "lan")
    assert pinged(one.netns_fd, "10.80.0.1")
    if driver == "macvlan":
        networks.create(asked("second", driver, "10.81.0.0/24", parent="wire0.10"))
        networks.remove("second")
        assert pinged(one.netns_fd, "10.80.0.1")
    networks.close_sandbox("c1")
    one.close()
    networks.remove("lan")
    assert "wire0.10" not in {each["ifname"] for each in ip("link")}


@isolated
def test_a_vlan_link_that_was_there_before_stays(engine, closing):  # noqa: F811
    wire(closing)
    command("ip", "link", "add", "link", "wire0", "name", "wire0.11", "type", "vlan", "id", "11")
    networks = engine()
    networks.create(asked("lan", "macvlan", parent="wire0.11"))
    networks.remove("lan")
    assert "wire0.11" in {each["ifname"] for each in ip("link")}


@pytest.mark.parametrize(("driver", "prefix"), [("macvlan", "dm-"), ("ipvlan", "di-")])
@isolated
def test_without_a_parent_containers_reach_each_other_alone(engine, closing, driver, prefix):  # noqa: F811
    networks = engine()
    lan = networks.create(asked("lan", driver))
    name = f"{prefix}{lan.id[:12]}"
    (dummy,) = ip("link", "show", name)
    assert (dummy["linkinfo"]["info_kind"], "UP" in dummy["flags"]) == ("dummy", True)
    one, two = opened(closing, networks, "c1", "lan"), opened(closing, networks, "c2", "lan")
    assert pinged(one.netns_fd, two.endpoints[0].ipv4)
    for container, sandbox in (("c1", one), ("c2", two)):
        networks.close_sandbox(container)
        sandbox.close()
    networks.remove("lan")
    assert name not in {each["ifname"] for each in ip("link")}


@isolated
def test_parents_of_networks_that_were_never_written_down_are_swept(engine, closing):  # noqa: F811
    wire(closing)
    networks = engine()
    kept = networks.create(asked("kept", "macvlan"))
    lost = networks.create(asked("lost", "macvlan", "10.78.0.0/24"))
    networks._database.execute("DELETE FROM networks WHERE id = ?", (lost.id,))
    networks.stop(remove=False)
    again = engine(start=False)
    again.start()
    again.restore([])
    names = {each["ifname"] for each in ip("link")}
    assert f"dm-{kept.id[:12]}" in names
    assert f"dm-{lost.id[:12]}" not in names
