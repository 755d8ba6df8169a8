"""Networks and addresses of a plugin: a real process that makes bridges and veth pairs of its own."""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.kernel.isolation import command, inside, ip, isolated
from tests.plugins.running import QUICK, Program, plugins
from tests.waiting import until
from wherry.errors import EngineError, NotFound, SystemFailure, Unavailable
from wherry.models.network import CreateNetwork, Ipam, IpamPool
from wherry.network.api import EndpointRequest, Route, SandboxRequest
from wherry.network.config import NetworkConfig
from wherry.network.controller import Networks
from wherry.network.ports import PortRequest
from wherry.plugins.api import Limits
from wherry.store.database import Database

pytestmark = pytest.mark.root

SUBNET = "10.60.0.0/24"
PATIENT = Limits(connect=6.0, answer=6.0, first_pause=0.05)


class World:
    """An engine, its plugin, and what has to be closed."""

    def __init__(self, folder: Path, closing: ExitStack, limits: Limits) -> None:
        self.folder, self.closing, self.limits = folder, closing, limits
        self.program = Program(folder).start()
        closing.callback(self.program.kill)
        self.networks = self.engine()

    def engine(self, running: tuple[str, ...] = ()) -> Networks:
        database = Database(self.folder / "meta.db")
        networks = Networks(database, NetworkConfig(stock=0), self.folder, plugins(self.folder, self.limits))
        networks.start()
        networks.restore(running)
        self.closing.callback(database.close)
        self.closing.callback(networks.stop, remove=False)
        self.closing.callback(self._end_all, networks)
        return networks

    def _end_all(self, networks: Networks) -> None:
        for container in networks._members.groups():
            networks.close_sandbox(container)  # what the name server serves keeps it alive

    def again(self, *running: str) -> Networks:
        """Another engine, as after an end of this one."""
        self.networks.stop(remove=False)
        self.networks = self.engine(running)
        return self.networks

    def make(self, name: str, *, subnet: str = SUBNET, driver: str = "tester", ipam: str = "", **more):
        config = [IpamPool(subnet=subnet)] if subnet else None
        return self.networks.create(
            CreateNetwork(
                name=name,
                driver=driver,
                ipam=Ipam(driver=ipam, config=config, options={"x": "y"} if ipam else None),
                options=more.pop("options", {}),
                **more,
            )
        )

    def open(self, container: str, *names: str, ports: tuple[PortRequest, ...] = (), **more):
        endpoints = tuple(EndpointRequest(name, names=(container,), **more) for name in names)
        sandbox = self.networks.open_sandbox(SandboxRequest(container, endpoints, ports=ports))
        self.closing.callback(sandbox.close)
        return sandbox

    def end(self, sandbox) -> None:
        self.networks.close_sandbox(sandbox.container_id)
        sandbox.close()

    def told(self, *methods: str) -> None:
        """Wait until the plugin's last calls were these."""
        until(lambda: self.program.asked()[-len(methods) :] == list(methods), seconds=10.0)


Make = Callable[..., World]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Make]:
    with ExitStack() as closing:
        yield lambda limits=QUICK: World(tmp_path, closing, limits)


def pinged(fd: int, address: str) -> bool:
    try:
        inside(fd, lambda: command("busybox", "ping", "-c1", "-W2", address))
    except subprocess.CalledProcessError:
        return False
    return True


def links(beginning: str) -> list[str]:
    return [each["ifname"] for each in ip("link") if each["ifname"].startswith(beginning)]


def rows(networks, table: str) -> list:
    return networks._database.query(f"SELECT * FROM {table}")


@isolated
def test_containers_reach_each_other_through_what_the_plugin_made(world):
    here = world()
    network = here.make("n", options={"a": "b"})
    one, two = here.open("c1", "n"), here.open("c2", "n")
    (first,), (second,) = one.endpoints, two.endpoints
    assert (first.interface, first.ipv4, first.ipv4_prefix, first.gateway4) == ("eth0", "10.60.0.2", 24, "10.60.0.1")
    (eth0,) = inside(one.netns_fd, lambda: ip("addr", "show", "eth0"))
    assert eth0["address"] == first.mac
    assert first.mac.startswith("02:99:"), "the plugin chose it"
    assert ("10.60.0.2", 24) in [(each["local"], each["prefixlen"]) for each in eth0["addr_info"]]
    assert pinged(one.netns_fd, second.ipv4)
    assert pinged(one.netns_fd, "10.60.0.1"), "the plugin's bridge"
    assert {each["master"] for each in ip("link") if each["ifname"].startswith("ph-")} == {f"pb-{network.id[:10]}"}
    assert here.networks.inspect("n") | {"Driver": "tester", "Scope": "local"} == here.networks.inspect("n")
    for each in (one, two):
        here.end(each)
    here.networks.remove("n")
    assert (links("p"), rows(here.networks, "announced")) == ([], [])
    assert here.program.asked()[-1] == "DeleteNetwork"


@isolated
def test_the_requests_are_those_of_dockerd(world):
    here = world()
    network = here.make("n", options={"a": "b"}, internal=True)
    assert here.program.last("CreateNetwork") == {
        "NetworkID": network.id,
        "Options": {
            "com.docker.network.enable_ipv4": True,
            "com.docker.network.enable_ipv6": False,
            "com.docker.network.generic": {"a": "b"},
            "com.docker.network.internal": True,
        },
        "IPv4Data": [{"AddressSpace": "LocalDefault", "Pool": SUBNET, "Gateway": "10.60.0.1/24"}],
        "IPv6Data": [],
    }
    one = here.open("c1", "n", ports=(PortRequest("tcp", 80, "", 8088, 8088),))
    ids = {"NetworkID": network.id, "EndpointID": one.endpoints[0].endpoint_id}
    options = {
        "com.docker.network.endpoint.exposedports": [{"Proto": 6, "Port": 80}],
        "com.docker.network.portmap": [
            {"Proto": 6, "IP": "", "Port": 80, "HostIP": "", "HostPort": 8088, "HostPortEnd": 8088}
        ],
    }
    address = {"Address": "10.60.0.2/24", "AddressIPv6": "", "MacAddress": ""}
    assert here.program.last("CreateEndpoint") == {**ids, "Interface": address, "Options": options}
    join = here.program.last("Join")
    assert join == {**ids, "SandboxKey": join["SandboxKey"], "Options": options}
    assert join["SandboxKey"] == f"{here.folder}/netns/{one.sandbox_id[:12]}"
    assert here.program.last("ProgramExternalConnectivity") == {**ids, "Options": options}
    assert here.networks.published("c1") == (), "that is the plugin's affair"
    here.end(one)
    here.told("RevokeExternalConnectivity", "Leave", "DeleteEndpoint")
    assert here.program.last("Leave") == here.program.last("DeleteEndpoint") == ids
    assert here.program.asked()[:3] == ["Activate", "GetCapabilities", "CreateNetwork"]


@isolated
def test_names_gateways_and_routes_of_the_answer_are_obeyed(world):
    here = world()
    said = [
        {"Destination": "10.99.0.0/16", "RouteType": 0, "NextHop": "10.60.0.254"},
        {"Destination": "10.98.0.0/16", "RouteType": 1},
    ]
    here.make("n", options={"prefix": "tst", "routes": json.dumps(said), "gateway": "none"})
    here.make("second", subnet="10.61.0.0/24", options={"prefix": "tst"})
    one = here.open("c1", "n", "second")
    assert [each.interface for each in one.endpoints] == ["tst0", "tst1"]
    assert one.endpoints[0].routes == (Route("10.99.0.0/16", "10.60.0.254"), Route("10.98.0.0/16"))
    found = {each["dst"]: (each.get("gateway"), each["dev"]) for each in inside(one.netns_fd, lambda: ip("route"))}
    assert found == {
        "default": ("10.61.0.1", "tst1"),
        "10.60.0.0/24": (None, "tst0"),
        "10.61.0.0/24": (None, "tst1"),
        "10.98.0.0/16": (None, "tst0"),
        "10.99.0.0/16": ("10.60.0.254", "tst0"),
    }


@isolated
def test_a_running_container_comes_into_a_network_and_leaves_it(world):
    here = world()
    network = here.make("n")
    one = here.open("c1", "bridge")
    other = here.open("c2", "n")
    fresh = here.networks.connect("c1", one.netns_fd, EndpointRequest("n"))
    assert (fresh.interface, pinged(one.netns_fd, other.endpoints[0].ipv4)) == ("eth1", True)
    here.networks.disconnect("c1", one.netns_fd, network.id)
    assert [each["ifname"] for each in inside(one.netns_fd, lambda: ip("link"))] == ["lo", "eth0"]
    here.told("Leave", "DeleteEndpoint")
    until(lambda: len(links("ph-")) == 1, seconds=5.0)
    assert links("pc-") == []


@isolated
def test_a_mac_address_and_ipv6_reach_the_plugin_and_the_kernel(world):
    here = world()
    pools = [IpamPool(subnet=SUBNET), IpamPool(subnet="fd00:60::/64")]
    here.networks.create(CreateNetwork(name="n", driver="tester", enable_ipv6=True, ipam=Ipam(config=pools)))
    one = here.open("c1", "n", mac="02:00:00:00:00:07")
    assert here.program.last("CreateEndpoint")["Interface"] == {
        "Address": "10.60.0.2/24",
        "AddressIPv6": "fd00:60::2/64",
        "MacAddress": "02:00:00:00:00:07",
    }
    assert here.program.last("CreateNetwork")["IPv6Data"] == [
        {"AddressSpace": "LocalDefault", "Pool": "fd00:60::/64", "Gateway": "fd00:60::1/64"}
    ]
    (eth0,) = inside(one.netns_fd, lambda: ip("addr", "show", "eth0"))
    assert eth0["address"] == "02:00:00:00:00:07"
    assert "fd00:60::2" in {each["local"] for each in eth0["addr_info"]}


@isolated
def test_neighbours_hear_of_the_mac_address_that_the_plugin_chose(world):
    """Otherwise they would go on sending to who had the IP address before."""
    here = world()
    pools = [IpamPool(subnet=SUBNET), IpamPool(subnet="fd00:60::/64")]
    here.networks.create(CreateNetwork(name="n", driver="tester", enable_ipv6=True, ipam=Ipam(config=pools)))
    one = here.open("c1", "n")
    wrong = "02:00:00:00:00:55"

    def remember() -> None:
        for address in ("10.60.0.3", "fd00:60::3"):
            command("ip", "neigh", "replace", address, "lladdr", wrong, "nud", "reachable", "dev", "eth0")

    def known() -> set[str]:
        return {each["lladdr"] for each in ip("neigh") if each["dst"] in ("10.60.0.3", "fd00:60::3")}

    inside(one.netns_fd, remember)
    assert inside(one.netns_fd, known) == {wrong}
    two = here.open("c2", "n")
    assert (two.endpoints[0].ipv4, two.endpoints[0].ipv6) == ("10.60.0.3", "fd00:60::3")
    until(lambda: inside(one.netns_fd, known) == {two.endpoints[0].mac}, seconds=5.0)
    assert pinged(one.netns_fd, "10.60.0.3")


@pytest.mark.parametrize("driver", ["tester", "bridge"])
@isolated
def test_a_plugin_gives_out_addresses(world, driver):
    here = world()
    network = here.make("n", driver=driver, ipam="tester", subnet="")
    config = here.networks.inspect("n")["IPAM"]
    assert config == {
        "Driver": "tester",
        "Options": {"x": "y"},
        "Config": [{"Subnet": "10.200.0.0/24", "Gateway": "10.200.0.254"}],
    }
    pool = {"PoolID": "pool/10.200.0.0/24"}
    assert here.program.last("RequestPool") == {
        "AddressSpace": "here",
        "Pool": "",
        "SubPool": "",
        "Options": {"x": "y"},
        "V6": False,
    }
    gateway = {**pool, "Address": "", "Options": {"RequestAddressType": "com.docker.network.gateway"}}
    assert here.program.last("RequestAddress") == gateway
    one, two = here.open("c1", "n"), here.open("c2", "n", ipv4="")
    assert [each.endpoints[0].ipv4 for each in (one, two)] == ["10.200.0.253", "10.200.0.252"]
    seen = inside(one.netns_fd, lambda: [each["local"] for each in ip("addr", "show", "eth0")[0]["addr_info"]])
    assert "10.200.0.253" in seen
    assert pinged(one.netns_fd, "10.200.0.252")
    assert pinged(one.netns_fd, "10.200.0.254")
    for each in (one, two):
        here.end(each)
    here.networks.remove("n")
    assert rows(here.networks, "addresses") == []
    assert here.program.last("ReleasePool") == pool
    released = {request["Address"] for method, request in here.program.calls() if method == "IpamDriver.ReleaseAddress"}
    assert released == {"10.200.0.254", "10.200.0.253", "10.200.0.252"}
    assert json.loads((here.program.folder / "pools").read_text()) == {}
    assert network.pool_id == "pool/10.200.0.0/24"


@isolated
def test_a_certain_address_of_a_plugins_pool_is_kept_over_a_restart_of_its_container(world):
    here = world()
    here.make("n", ipam="tester", subnet="10.62.0.0/24")
    for _ in range(2):
        one = here.open("c1", "n", ipv4="10.62.0.77")
        assert one.endpoints[0].ipv4 == "10.62.0.77"
        here.end(one)
    one = here.open("c1", "n", ipv4="10.62.0.77")
    with pytest.raises(EngineError, match="Address already in use"):
        here.open("c2", "n", ipv4="10.62.0.77")
    with pytest.raises(SystemFailure, match=r"remote: 10.62.0.254 is somebody's"):
        here.open("c2", "n", ipv4="10.62.0.254")


def attempt(work: Callable[[], object]) -> tuple[str, float]:
    """Return the error of something and how long it took."""
    start = time.monotonic()
    with pytest.raises(EngineError) as caught:
        work()
    return caught.value.message, time.monotonic() - start


@isolated
def test_a_plugin_that_refuses_is_quoted_and_nothing_stays(world):
    here = world()
    here.program.order(CreateNetwork="err no luck")
    assert attempt(lambda: here.make("n"))[0] == "remote: no luck"
    here.program.order(CreateNetwork="status 500 bang")
    assert attempt(lambda: here.make("n"))[0] == "NetworkDriver.CreateNetwork: bang"
    here.program.order(IpamDriver_RequestPool="err no pool")
    assert attempt(lambda: here.make("n", driver="bridge", ipam="tester"))[0] == "remote: no pool"
    here.program.order(GetCapabilities='{"Scope": "swarm"}')
    text = "invalid capability: expecting 'local' or 'global', got swarm"
    assert attempt(lambda: here.make("n"))[0] == text
    assert (here.networks.names(), rows(here.networks, "announced")) == (["bridge", "host", "none"], [])
    here.program.order()
    here.make("n")
    before = "failed to set up container networking: "
    for order, message in (
        ({"CreateEndpoint": "err no luck"}, f"{before}failed to create endpoint c1 on network n: remote: no luck"),
        ({"Join": "err no luck"}, f"{before}remote: no luck"),
        ({"Join": '{"InterfaceName": {"SrcName": "x"}, "Gateway": "zz"}'}, f'{before}unable to parse Gateway "zz"'),
        ({"Join": "{}"}, f"{before}plugin tester names no interface (InterfaceName.SrcName)"),
        (
            {"Join": '{"InterfaceName": {"SrcName": "nosuch", "DstPrefix": "eth"}}'},
            f'{before}failed to add interface nosuch to sandbox: failed to get link by name "nosuch": Link not found',
        ),
        (
            {"Join": '{"InterfaceName": {"SrcName": "lo", "DstPrefix": "../x"}}'},
            f"{before}failed to set interface name: invalid prefix '../x'",
        ),
        (
            {"CreateEndpoint": '{"Interface": {"Address": "10.0.0.1/8"}}'},
            f"{before}failed to create endpoint c1 on network n: driver modified interface address: endpoint interface "
            "IP present (10.60.0.2/24). Cannot be modified with (10.0.0.1/8).",
        ),
        ({"ProgramExternalConnectivity": "err no luck"}, f"{before}remote: no luck"),
    ):
        here.program.order(**order)
        assert attempt(lambda: here.open("c1", "n"))[0] == message
        until(lambda: not rows(here.networks, "addresses"), seconds=5.0)
        until(lambda: len(rows(here.networks, "announced")) == 1, seconds=5.0)
    assert links("pc-") == []


@pytest.mark.parametrize("dead", [True, False])
@isolated
def test_one_that_is_dead_or_hangs_fails_in_time_and_holds_up_nobody_else(world, dead):
    here = world(PATIENT)
    here.make("n")
    here.make("m", driver="bridge", subnet="10.63.0.0/24")
    running = here.open("c0", "n")
    here.program.order(**dict.fromkeys(("CreateEndpoint", "CreateNetwork", "Leave", "DeleteEndpoint"), "hang"))
    if dead:
        here.program.kill()
    outcome: list[tuple[str, float]] = []
    works = (
        lambda: here.open("c1", "n"),
        lambda: here.make("late", subnet="10.64.0.0/24"),
    )
    threads = [threading.Thread(target=lambda work=work: outcome.append(attempt(work))) for work in works]
    here.networks.close_sandbox("c0")
    running.close()
    for each in threads:
        each.start()
    start = time.monotonic()
    for number in range(5):
        box = here.open(f"x{number}", "m")
        here.end(box)
    here.make("k", driver="bridge", subnet="10.65.0.0/24")
    here.networks.remove("k")
    assert here.networks.settle(2.0)
    assert time.monotonic() - start < PATIENT.answer
    assert outcome == [], "those who ask the plugin wait still"
    for each in threads:
        each.join()
    assert len(outcome) == 2
    for message, seconds in outcome:
        assert "cannot connect to the plugin" in message if dead else "no answer within 6 seconds" in message, message
        assert seconds < 3 * PATIENT.answer
    here.program.kill()
    here.program.order()
    here.program.start()
    box = here.open("c2", "n")
    assert pinged(box.netns_fd, "10.60.0.1"), "it works on"
    announced = here.networks._directory.told.announced
    until(lambda: len(announced.endpoints(box.endpoints[0].network_id)) == 1, seconds=30.0)
    assert {method for method in here.program.asked()[-6:]} >= {"Leave", "DeleteEndpoint"}


@isolated
def test_a_plugin_that_was_restarted_works_on(world):
    here = world()
    here.make("n")
    one = here.open("c1", "n")
    here.program.kill()
    assert pinged(one.netns_fd, "10.60.0.1"), "what it made stays"
    here.program.start()
    two = here.open("c2", "n")
    assert pinged(two.netns_fd, one.endpoints[0].ipv4)
    assert here.program.asked().count("CreateNetwork") == 1


@isolated
def test_after_a_restart_of_the_engine_the_plugin_hears_of_what_has_ended_and_of_nothing_else(world):
    here = world()
    network = here.make("n", ipam="tester", subnet="10.62.0.0/24")
    here.make("m", subnet=SUBNET)
    one, two = here.open("c1", "n"), here.open("c2", "n")
    two.close()
    told = here.networks._directory.told.announced
    told.add("tester", network.id, "e" * 64)  # of an engine that was killed before it wrote the endpoint down
    told.add("tester", "f" * 64)  # and the same with a network
    count = len(here.program.calls())
    again = here.again("c1")
    assert again.endpoints("c1") == one.endpoints
    assert pinged(one.netns_fd, one.endpoints[0].gateway4)
    until(lambda: len(again._directory.told.announced.endpoints(network.id)) == 1, seconds=5.0)
    until(lambda: "f" * 64 not in again._directory.told.announced.networks(), seconds=5.0)
    until(lambda: len(rows(again, "addresses")) == 1, seconds=5.0)
    later = here.program.calls()[count:]
    deleted = {request["EndpointID"] for method, request in later if method == "NetworkDriver.DeleteEndpoint"}
    assert deleted == {two.endpoints[0].endpoint_id, "e" * 64}
    removed = [request["NetworkID"] for method, request in later if method == "NetworkDriver.DeleteNetwork"]
    assert removed == ["f" * 64]
    assert not [method for method, _ in later if method in ("NetworkDriver.CreateNetwork", "IpamDriver.RequestPool")]
    three = here.open("c3", "n")
    assert pinged(three.netns_fd, one.endpoints[0].ipv4)
    for sandbox in (three, one):
        here.end(sandbox)
    again.remove("n")
    assert ipaddress.ip_address(three.endpoints[0].ipv4) in ipaddress.ip_network("10.62.0.0/24")


@isolated
def test_the_engine_starts_and_ends_while_the_plugin_is_away(world):
    here = world()
    here.make("n", ipam="tester", subnet="10.62.0.0/24")
    one = here.open("c1", "n")
    here.program.kill()
    one.close()
    start = time.monotonic()
    here.again()
    assert time.monotonic() - start < QUICK.connect + 1.0
    box = here.open("c2", "bridge")
    with pytest.raises(Unavailable, match="cannot connect to the plugin"):
        here.open("c3", "n")
    here.program.start()
    until(lambda: not rows(here.networks, "addresses")[1:], seconds=15.0)
    assert "DeleteEndpoint" in here.program.asked()
    here.end(box)


@isolated
def test_a_network_of_a_plugin_that_does_not_answer_can_be_removed(world):
    here = world()
    here.make("n")
    here.program.kill()
    here.networks.remove("n")
    assert here.networks.names() == ["bridge", "host", "none"]
    here.program.start()
    until(lambda: "DeleteNetwork" in here.program.asked(), seconds=10.0)
    until(lambda: rows(here.networks, "announced") == [], seconds=5.0)


@isolated
def test_who_is_no_plugin_is_not_found(world):
    here = world()
    for work in (lambda: here.make("n", driver="nosuch"), lambda: here.make("n", driver="bridge", ipam="nosuch")):
        with pytest.raises(NotFound, match='plugin "nosuch" not found'):
            work()
    assert os.listdir(here.folder / "run") == ["tester.sock"]
