"""wherry xray network against what ip, bridge, nft and sysctl say, against the way of real packets, and with what is
broken by hand. Every engine here is in a network namespace of its own, with an outside behind a link up0.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import IO, Any

import pytest

from tests.engine import Engine
from tests.kernel.isolation import inside, new_namespace
from tests.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.engine]

MAIN = [sys.executable, "-I", "-m", "wherry.cli.main"]
CLIENT = "198.51.100.10"
SERVE = ("sh", "-c", "while true; do echo hello | nc -l -p 80; done")


class World:
    """A host with an engine, and an outside that knows the host's address and no container's."""

    def __init__(self, engine: Engine, host: int, outside: int) -> None:
        self.engine = engine
        self.host = host
        self.outside = outside

    def told(self, *argv: str) -> str:
        """Run a command on the host."""
        return str(inside(self.host, lambda: self._run(argv)))

    def beyond(self, *argv: str) -> str:
        """Run a command outside."""
        return str(inside(self.outside, lambda: self._run(argv)))

    @staticmethod
    def _run(argv: tuple[str, ...]) -> str:
        return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=30).stdout

    def reaches(self, container: str, address: str) -> bool:
        return self.engine.run("exec", container, "ping", "-c", "1", "-W", "1", address).returncode == 0

    def fetches(self, address: str, port: int) -> bool:
        """Whether a client outside is served by a port of the host."""

        def fetch() -> bool:
            try:
                with socket.create_connection((address, port), timeout=1.5, source_address=(CLIENT, 0)) as sock:
                    return sock.recv(100) == b"hello\n"
            except OSError:
                return False

        return bool(inside(self.outside, fetch))

    def look(self, network: str) -> dict[str, Any]:
        status, body = self.engine.api("GET", f"/wherry/v1/networks/{network}/xray")
        assert status == 200, body
        answer: dict[str, Any] = json.loads(body)
        assert answer["Notes"] == []
        return answer

    def problems(self, network: str) -> dict[str, str]:
        return {each["What"]: each["Why"] for each in self.look(network)["Problems"]}


@pytest.fixture(params=["nftables"])
def world(own_engine: Engine, request: pytest.FixtureRequest) -> Iterator[World]:
    # what is broken here stays broken: the engine would put its rules back
    own_engine.flags = ("--firewall-backend", request.param, "--firewall-watch=false")
    host, outside = new_namespace(), new_namespace()
    world = World(own_engine, host, outside)
    there = f"/proc/{os.getpid()}/fd/{outside}"
    try:
        for words in (
            f"ip link add up0 type veth peer name up1 netns {there}",
            "ip addr add 192.0.2.1/24 dev up0",
            "ip link set up0 up",
            "ip route add default via 192.0.2.2",
        ):
            world.told(*words.split())
        for words in (
            "ip addr add 192.0.2.2/24 dev up1",
            "ip link set up1 up",
            f"ip addr add {CLIENT}/32 dev lo",
        ):
            world.beyond(*words.split())
        own_engine.network = f"/proc/{os.getpid()}/fd/{host}"
        own_engine.start()
        own_engine.import_busybox()
        own_engine.docker("network", "create", "--subnet", "10.250.0.0/24", "front")
        yield world
    finally:
        own_engine.network = ""
        os.close(host)
        os.close(outside)


@pytest.fixture
def web(world: World) -> World:
    """The world with a container that serves port 80 as 8089 of the host."""
    world.engine.docker("run", "-d", "--name", "web", "--network", "front", "-p", "8089:80", "busybox", *SERVE)
    until(lambda: world.fetches("192.0.2.1", 8089))
    return world


def path(answer: dict[str, Any], kind: str, link: str = "") -> dict[str, Any]:
    found = [each for each in answer["Paths"] if each["Kind"] == kind and link in ("", each["FromLink"])]
    assert found, kind
    return found[0]  # type: ignore[no-any-return]


# Figures


def test_every_figure_is_what_other_tools_say(web: World):
    web.engine.docker("run", "-d", "--name", "db", "--network", "front", "busybox", "sleep", "1000")
    answer = web.look("front")
    bridge = answer["Bridge"]
    links = {each["ifname"]: each for each in json.loads(web.told("ip", "-j", "-d", "addr"))}
    own = links[bridge["Name"]]
    assert (bridge["Index"], bridge["Mac"], bridge["Mtu"]) == (own["ifindex"], own["address"], own["mtu"])
    assert bridge["Kind"] == own["linkinfo"]["info_kind"] == "bridge"
    assert bridge["Up"] is ("UP" in own["flags"])
    assert bridge["Addresses"] == [f"{each['local']}/{each['prefixlen']}" for each in own["addr_info"]]
    ports = {each["ifname"]: each for each in json.loads(web.told("bridge", "-j", "-d", "link"))}
    ports = {name: each for name, each in ports.items() if each.get("master") == bridge["Name"]}
    wanted = {name: [each[key] for key in ("ifindex", "state", "hairpin", "isolated")] for name, each in ports.items()}
    has = {each["Name"]: [each[key] for key in ("Index", "State", "Hairpin", "Isolated")] for each in bridge["Ports"]}
    assert has == wanted
    assert sorted(each["Container"] for each in bridge["Ports"]) == ["db", "web"]
    for each in answer["Sysctls"]:
        assert each["Value"] == web.told("sysctl", "-n", each["Name"]).strip(), each["Name"]
    assert sorted(each["Name"] for each in answer["Containers"]) == ["db", "web"]
    for each in answer["Containers"]:
        _is_what_is_inside(web, each, links)
    assert answer["Outside"] == ["up0"]
    assert (answer["Problems"], answer["Differences"]) == ([], [])


def _is_what_is_inside(world: World, member: dict[str, Any], links: dict[str, Any]) -> None:
    enter = ("nsenter", "-t", str(member["Pid"]), "-n", "ip", "-j")
    assert member["Pid"] == int(world.engine.docker("inspect", "-f", "{{.State.Pid}}", member["Name"]))
    inner = {each["ifname"]: each for each in json.loads(world.told(*enter, "addr"))}[member["Link"]["Name"]]
    own, outer = member["Link"], links[member["Link"]["Peer"]]
    assert (own["Index"], own["Mac"], own["Mtu"]) == (inner["ifindex"], inner["address"], inner["mtu"])
    assert own["Addresses"] == [f"{each['local']}/{each['prefixlen']}" for each in inner["addr_info"]]
    # the indices cross: each end names the other's
    assert (own["PeerIndex"], inner["link_index"]) == (outer["ifindex"], outer["ifindex"])
    assert outer["link_index"] == own["Index"]
    assert (own["PeerMac"], own["Bridge"]) == (outer["address"], outer["master"])
    routes = json.loads(world.told(*enter, "route"))
    shown = {(each["Destination"], each["Via"], each["Link"]) for each in member["Routes"]}
    shown = {each for each in shown if ":" not in each[0] + each[1]}
    assert shown == {(each["dst"], each.get("gateway", ""), each["dev"]) for each in routes}


def test_counters_are_those_of_nft(web: World):
    assert not web.fetches("192.0.2.1", 8090)
    # the outside knows the way to the containers now, and is not let in
    web.beyond("ip", "route", "add", "10.250.0.0/24", "via", "192.0.2.1")
    address = web.engine.docker("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", "web")
    before = path(web.look("front"), "foreign", "up0")
    assert not before["Arrives"]
    assert not web.fetches(address, 80)
    after = path(web.look("front"), "foreign", "up0")
    old, new = (each["Steps"][each["StoppedBy"]] for each in (before, after))
    assert new["Packets"] > old["Packets"]
    listed = web.told("nft", "list", "ruleset")
    counted = re.search(r"oifname @bridges counter packets (\d+) bytes (\d+) drop\n\t}", listed)
    assert counted is not None
    assert (new["Packets"], new["Bytes"]) == (int(counted[1]), int(counted[2]))


# The way of real packets

both = pytest.mark.parametrize("world", ["nftables", "iptables"], indirect=True)
_TRACED = re.compile(r"trace id \w+ ip (\S+) (\S+) rule .*\(verdict (\w+)")


def _when_still(output: IO[bytes]) -> str:
    """What has been written, once a second has passed without more."""
    text, since = "", time.monotonic()
    while time.monotonic() - since < 1:
        time.sleep(0.1)
        more = os.pread(output.fileno(), 1 << 20, 0).decode()  # its place in the file is the writer's as well
        text, since = more, time.monotonic() if more != text else since
    return text


def traced(world: World, match: str, send: Callable[[], object]) -> list[tuple[str, str]]:
    """Send a packet with the kernel's own trace on; returns table and chain of each rule that it was decided by."""
    world.told("nft", "add table ip watch; add chain ip watch first { type filter hook prerouting priority -400; }")
    world.told("nft", f"add rule ip watch first {match} meta nftrace set 1")
    with tempfile.TemporaryFile() as output:
        watch = inside(world.host, lambda: subprocess.Popen(["nft", "monitor", "trace"], stdout=output))
        for _ in range(20):  # it may take its time to begin
            send()
            text = _when_still(output)
            if " ip watch first packet: " in text:
                break
        watch.terminate()
        watch.wait()
    world.told("nft", "delete table ip watch")
    first = text.split(" ip watch first packet: ")[1]
    return [(table, chain) for table, chain, verdict in _TRACED.findall(first) if verdict in ("accept", "drop", "jump")]


def compared(way: dict[str, Any], real: list[tuple[str, str]]) -> None:
    """The steps are those that the kernel took, but for jumps into chains of iptables that have nothing to say."""
    told = [(each["Table"], each["Chain"]) for each in way["Steps"]]
    left = iter(real)
    assert all(each in left for each in told), (told, real)
    assert told[-1] == real[-1]
    if told[0][0].startswith("wherry"):
        assert told == real


@both
def test_the_way_to_a_published_port_is_the_one_that_the_kernel_traces(web: World):
    way = path(web.look("front"), "published")
    assert (way["Source"].partition(":")[0], way["Destination"], way["FromLink"]) == (CLIENT, "192.0.2.1:8089", "up0")
    real = traced(web, "ip saddr 198.51.100.10 tcp dport 8089 tcp flags syn", lambda: web.fetches("192.0.2.1", 8089))
    compared(way, real)
    assert way["Arrives"]
    assert way["EndsAs"].endswith(" to 10.250.0.2:80")
    assert way["EndsAs"].startswith(CLIENT)  # the client is seen as what it is


@both
def test_the_way_out_is_the_one_that_the_kernel_traces(web: World):
    way = path(web.look("front"), "out")
    real = traced(web, "ip daddr 198.51.100.10 icmp type echo-request", lambda: web.reaches("web", CLIENT))
    compared(way, real)
    assert way["Steps"][-1]["Effect"] == "masquerade"
    assert way["EndsAs"].startswith("192.0.2.1:")
    assert web.reaches("web", CLIENT)


@both
def test_the_way_from_another_network_is_the_one_that_the_kernel_traces(web: World):
    web.engine.docker("network", "create", "--subnet", "10.251.0.0/24", "back")
    web.engine.docker("run", "-d", "--name", "db", "--network", "back", "busybox", "sleep", "1000")
    own = web.engine.docker("network", "inspect", "-f", "{{.Id}}", "back")[:12]
    way = path(web.look("back"), "foreign", web.look("front")["Bridge"]["Name"])
    real = traced(web, "ip daddr 10.251.0.2", lambda: web.reaches("web", "10.251.0.2"))
    compared(way, real)
    assert (way["Arrives"], way["ToLink"]) == (False, f"br-{own}")


# What is broken by hand, and what is said of it


def test_somebody_elses_drop_is_found(web: World):
    assert web.problems("front") == {}
    web.told("nft", "add table inet guard; add chain inet guard strict { type filter hook forward priority 10; }")
    web.told("nft", 'add rule inet guard strict oifname "up0" ip saddr 10.250.0.0/24 counter drop')
    assert not web.reaches("web", CLIENT)
    why = web.problems("front")["Containers do not reach the outside."]
    assert why.startswith("inet table guard, chain strict, at forward: ")
    assert re.search(r"\([1-9]\d* packets so far\)", why)
    web.told("nft", "delete table inet guard")
    assert web.problems("front") == {}
    assert web.reaches("web", CLIENT)


def test_a_policy_of_iptables_is_found(web: World):
    web.told("iptables", "-P", "FORWARD", "DROP")
    web.told("iptables", "-A", "FORWARD", "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-j", "ACCEPT")
    assert not web.reaches("web", CLIENT)
    answer = web.look("front")
    found = {each["What"]: each for each in answer["Problems"]}
    assert set(found) == {
        "A client outside does not reach the published port 192.0.2.1:8089.",
        "Containers do not reach the outside.",
    } | ({"Containers of this network do not reach each other."} if path(answer, "among")["Steps"] else set())
    problem = found["Containers do not reach the outside."]
    assert problem["Why"].startswith("ip table filter, chain FORWARD, at forward: the policy of the chain")
    web.told("iptables", "-I", "FORWARD", "-i", answer["Bridge"]["Name"], "-j", "ACCEPT")
    web.told("iptables", "-I", "FORWARD", "-o", answer["Bridge"]["Name"], "-j", "ACCEPT")
    assert web.problems("front") == {}
    assert web.reaches("web", CLIENT)


def test_a_port_that_is_missing_from_the_map(web: World):
    assert web.look("front")["Published"] == [
        {"Protocol": "tcp", "Address": "", "Port": 8089, "Container": "web", "ToAddress": "10.250.0.2", "ToPort": 80,
         "Mapped": True}
    ]  # fmt: skip
    table = path(web.look("front"), "published")["Steps"][0]["Table"]
    listed = web.told("nft", "list", "map", "ip", table, "published")
    element = re.search(r"tcp \. \d+ : 10\.250\.0\.2 \. 80", listed)
    web.told("nft", f"delete element ip {table} published {{ tcp . 8089 }}")
    assert element is not None
    assert not web.fetches("192.0.2.1", 8089)
    answer = web.look("front")
    assert [each["Mapped"] for each in answer["Published"]] == [False]
    (problem,) = answer["Problems"]
    assert problem["What"] == "every address of the host, port 8089/tcp does not lead to web."


def test_links_that_are_down_or_gone(web: World):
    bridge = web.look("front")["Bridge"]["Name"]
    port = web.look("front")["Containers"][0]["Link"]["Peer"]
    web.told("ip", "link", "set", bridge, "down")
    assert web.problems("front")["No container of this network reaches anybody."] == f"bridge {bridge} is down"
    web.told("ip", "link", "set", bridge, "up")
    web.told("ip", "link", "set", port, "nomaster")
    answer = web.look("front")
    what = "Container web reaches nobody in this network."
    assert {each["What"]: each["Why"] for each in answer["Problems"]} == {
        what: f"the other end of its link, {port}, is no port of {bridge}"
    }
    assert [each["Found"] for each in answer["Differences"]] == ["no port"]
    web.told("ip", "link", "set", port, "master", bridge)
    web.told("ip", "link", "set", port, "down")
    assert web.problems("front") == {what: f"the other end of its link, {port}, is down"}
    web.told("ip", "link", "set", port, "up")
    until(lambda: web.problems("front") == {})
    web.told("ip", "addr", "flush", "dev", bridge)
    assert "Containers reach each other, but neither the host nor what is behind it." in web.problems("front")
    web.told("ip", "link", "del", bridge)
    assert web.problems("front")["No container of this network reaches anybody."] == f"bridge {bridge} is gone"


def test_settings_routes_and_sizes(web: World):
    bridge = web.look("front")["Bridge"]["Name"]
    web.told("sysctl", "-w", "net.ipv4.ip_forward=0")
    assert not web.reaches("web", CLIENT)
    why = f"net.ipv4.conf.{bridge}.forwarding = 0: this host passes no packets on"
    assert web.problems("front")["Containers do not reach the outside."] == why
    web.told("sysctl", "-w", "net.ipv4.ip_forward=1")
    web.told("sysctl", "-w", f"net.ipv4.conf.{bridge}.route_localnet=0")
    assert "Published ports cannot be reached at 127.0.0.1 of the host." in web.problems("front")
    web.told("sysctl", "-w", f"net.ipv4.conf.{bridge}.route_localnet=1")
    web.told("ip", "link", "set", "up0", "mtu", "1400")
    (why,) = web.problems("front").values()
    assert why == f"bridge {bridge} takes packets of 1500 bytes, up0 only of 1400"
    web.told("ip", "link", "set", "up0", "mtu", "1500")
    web.told("ip", "route", "del", "default")
    assert web.problems("front") == {"Containers do not reach the outside.": "no route of the host leads there"}
    web.told("ip", "route", "add", "default", "via", "192.0.2.2")
    web.told("ip", "route", "add", "10.250.0.0/25", "dev", "up0")
    assert web.problems("front")["The host and its containers do not find each other."].startswith(
        f"the host sends what is for 10.250.0.0/24 to up0 and not to {bridge}"
    )


def test_rules_that_were_flushed(web: World):
    web.beyond("ip", "route", "add", "10.250.0.0/24", "via", "192.0.2.1")
    table = path(web.look("front"), "out")["Steps"][0]["Table"]
    web.told("nft", f"delete table ip {table}")
    assert web.fetches("10.250.0.2", 80)
    assert {
        f"{CLIENT} reaches containers unasked, by up0.",
        "Containers get no answer from outside.",
        "every address of the host, port 8089/tcp does not lead to web.",
    } <= set(web.problems("front"))


# Networks of other kinds


def test_both_families(world: World):
    world.told("sysctl", "-w", "net.ipv6.conf.up0.accept_dad=0")
    world.told("ip", "-6", "addr", "add", "2001:db8:1::1/64", "dev", "up0", "nodad")
    world.told("ip", "-6", "route", "add", "default", "via", "2001:db8:1::2")
    words = ("--ipv6", "--subnet", "10.253.0.0/24", "--subnet", "fd00:253::/64")
    world.engine.docker("network", "create", *words, "dual")
    world.engine.docker("run", "-d", "--name", "aa", "--network", "dual", "busybox", "sleep", "1000")
    answer = world.look("dual")
    assert {"10.253.0.1/24", "fd00:253::1/64"} <= set(answer["Bridge"]["Addresses"])
    (member,) = answer["Containers"]
    assert {"10.253.0.2/24", "fd00:253::2/64"} <= set(member["Link"]["Addresses"])
    assert ("default", "fd00:253::1") in {(each["Destination"], each["Via"]) for each in member["Routes"]}
    assert {each["Family"] for each in answer["Paths"] if each["Kind"] == "out"} == {4, 6}
    assert answer["Differences"] == []


def test_an_internal_network_and_one_without_talk_among_containers(world: World):
    world.engine.docker("network", "create", "--internal", "--subnet", "10.251.0.0/24", "inner")
    icc = "com.docker.network.bridge.enable_icc=false"
    world.engine.docker("network", "create", "-o", icc, "--subnet", "10.252.0.0/24", "quiet")
    for name, network in (("aa", "inner"), ("bb", "quiet"), ("cc", "quiet")):
        world.engine.docker("run", "-d", "--name", name, "--network", network, "busybox", "sleep", "1000")
    inner = world.look("inner")
    assert (inner["Problems"], path(inner, "out")["Arrives"]) == ([], False)
    assert not world.reaches("aa", CLIENT)
    quiet = world.look("quiet")
    assert quiet["Problems"] == []
    assert [each["Isolated"] for each in quiet["Bridge"]["Ports"]] == [True, True]
    for each in quiet["Bridge"]["Ports"]:
        world.told("bridge", "link", "set", "dev", each["Name"], "isolated", "off")
    assert "Containers of this network reach each other, which they were not to." in world.problems("quiet")


def test_macvlan_has_a_parent(world: World):
    words = ("-d", "macvlan", "-o", "parent=up0", "--subnet", "192.0.2.0/24", "--gateway", "192.0.2.2")
    world.engine.docker("network", "create", *words, "lan")
    own = ("--network", "lan", "--ip", "192.0.2.77")
    world.engine.docker("run", "-d", "--name", "aa", *own, "busybox", "sleep", "1000")
    answer = world.look("lan")
    (up0,) = json.loads(world.told("ip", "-j", "link", "show", "up0"))
    assert (answer["Bridge"], answer["Paths"], answer["Problems"], answer["Differences"]) == (None, [], [], [])
    assert (answer["Parent"]["Name"], answer["Parent"]["Index"]) == ("up0", up0["ifindex"])
    own = answer["Containers"][0]["Link"]
    assert (own["Kind"], own["Addresses"][0]) == ("macvlan", "192.0.2.77/24")
    assert world.reaches("aa", "192.0.2.2")  # past the host, as one more machine
    world.told("ip", "link", "del", "up0")
    found = {each["What"]: each["Found"] for each in world.look("lan")["Differences"]}
    assert found == {"link up0": "not there", "aa: link eth0": "not there"}


@pytest.mark.parametrize("world", ["iptables"], indirect=True)
def test_gateway_modes(world: World):
    modes = {"routed": "routed", "open": "nat-unprotected"}
    for number, (name, mode) in enumerate(modes.items()):
        option = f"com.docker.network.bridge.gateway_mode_ipv4={mode}"
        world.engine.docker("network", "create", "-o", option, "--subnet", f"10.25{number + 4}.0.0/24", name)
        own = ("--name", name, "--network", name, "-p", f"809{number}:80")
        world.engine.docker("run", "-d", *own, "busybox", *SERVE)
        world.beyond("ip", "route", "add", f"10.25{number + 4}.0.0/24", "via", "192.0.2.1")
    until(lambda: world.fetches("10.254.0.2", 80) and world.fetches("10.255.0.2", 80))
    routed, opened = world.look("routed"), world.look("open")
    assert (routed["Problems"], opened["Problems"]) == ([], [])
    assert [(each["Mapped"], each["ToAddress"]) for each in routed["Published"]] == [(True, "10.254.0.2")]
    assert path(routed, "published")["Destination"] == "10.254.0.2:80"
    assert path(routed, "out")["EndsAs"].startswith("10.254.0.2:")  # as what it is
    assert path(opened, "foreign", "up0")["Arrives"]
    assert path(opened, "out")["EndsAs"].startswith("192.0.2.1:")


def test_networks_without_a_bridge(world: World):
    world.engine.docker("run", "-d", "--name", "aa", "--network", "host", "busybox", "sleep", "1000")
    world.engine.docker("run", "-d", "--name", "bb", "--network", "none", "busybox", "sleep", "1000")
    for network, name in (("host", "aa"), ("none", "bb")):
        answer = world.look(network)
        assert (answer["Bridge"], answer["Paths"], answer["Problems"], answer["Differences"]) == (None, [], [], [])
        assert [(each["Name"], each["Link"]) for each in answer["Containers"]] == [(name, None)]


def test_what_is_not_there(world: World):
    status, body = world.engine.api("GET", "/wherry/v1/networks/nosuch/xray")
    assert (status, json.loads(body)["message"]) == (404, "network nosuch not found")


# The command


def test_the_command_shows_it(web: World):
    command = [*MAIN, "-H", web.engine.host, "xray", "network"]
    page = subprocess.run([*command, "front"], check=True, capture_output=True, text=True, env={"COLUMNS": "90"}).stdout
    answer = web.look("front")
    link = answer["Containers"][0]["Link"]
    for text in (
        f"{link['Name']} ({link['Index']}) ",
        f"{link['Peer']} ({link['PeerIndex']}) ",
        "every address, 8089/tcp",
        f"In, to a published port: tcp from {CLIENT}:40000 to 192.0.2.1:8089",
        "send it on to 10.250.0.2:80",
        "give it the address of the link that it leaves by",
        "net.ipv4.ip_forward = 1",
        "none that the kernel shows",
    ):
        assert text in page, text
    assert max(map(len, page.splitlines())) <= 90
    shown = subprocess.run([*command, "--json", "front"], check=True, capture_output=True, text=True).stdout
    assert json.loads(shown)["Bridge"] == answer["Bridge"]
    part = subprocess.run([*command, "-s", "ports", "front"], check=True, capture_output=True, text=True).stdout
    assert part.startswith("PUBLISHED PORTS")
    assert "CONTAINERS" not in part


@pytest.mark.parametrize("world", ["iptables"], indirect=True)
def test_a_container_is_shown_with_its_rules_of_iptables(web: World):
    status, body = web.engine.api("GET", "/wherry/v1/containers/web/xray")
    assert status == 200
    answer = json.loads(body)
    saved = web.told("iptables-save")
    rules = [each for each in answer["Network"]["Rules"] if each["Where"] == "host"]
    found = [each for each in rules if each["Table"] in ("nat", "filter")]
    assert any(each["Text"].endswith("--to-destination 10.250.0.2:80") for each in found)
    for each in found:
        assert f"-A {each['Chain']} {each['Text']}" in saved
    assert answer["Differences"] == []
