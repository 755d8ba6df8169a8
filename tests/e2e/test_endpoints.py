"""Endpoints: their options, the names of interfaces, and containers that move between networks."""

from __future__ import annotations

import json
import random
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.engine import Engine
from tests.kernel.isolation import ip
from tests.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.engine]

IFNAME = "driver-opt=com.docker.network.endpoint.ifname="
SYSCTLS = "driver-opt=com.docker.network.endpoint.sysctls="


@pytest.fixture
def networks(engine: Engine) -> Iterator[Engine]:
    """The module's engine with the networks a, b and c, which go with their containers."""
    for name, subnet in (("a", "10.161.0.0/24"), ("b", "10.162.0.0/24"), ("c", "10.163.0.0/24")):
        engine.docker("network", "create", "--subnet", subnet, name)
    yield engine
    engine.remove_all()
    engine.docker("network", "prune", "-f")


def start(engine: Engine, name: str, *flags: str) -> None:
    engine.docker("run", "-d", "--name", name, *flags, "busybox", "sleep", "1000")


def links(engine: Engine, name: str) -> dict[str, str]:
    """The IPv4 address of each interface in a container."""
    lines = engine.docker("exec", name, "ip", "-o", "-4", "addr").splitlines()
    return {words[1]: words[3] for words in (line.split() for line in lines) if words[1] != "lo"}


def default_route(engine: Engine, name: str) -> str:
    lines = engine.docker("exec", name, "ip", "route").splitlines()
    return " ".join(line for line in lines if line.startswith("default")).strip()


def endpoint(engine: Engine, name: str, network: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(
        engine.docker("inspect", "-f", f'{{{{json (index .NetworkSettings.Networks "{network}")}}}}', name)
    )
    return found


def test_interfaces_have_the_names_that_were_asked_for(networks: Engine):
    start(networks, "aa", "--network", f"name=b,{IFNAME}lan0", "--network", "c", "--network", f"name=a,{IFNAME}eth0")
    for _ in range(2):
        subnets = {name: address.rpartition(".")[0] for name, address in links(networks, "aa").items()}
        assert subnets == {"eth0": "10.161.0", "lan0": "10.162.0", "eth1": "10.163.0"}
        networks.docker("restart", "-t", "0", "aa")
    assert endpoint(networks, "aa", "b")["DriverOpts"] == {"com.docker.network.endpoint.ifname": "lan0"}
    networks.docker("network", "disconnect", "b", "aa")
    networks.docker("network", "connect", "--driver-opt", "com.docker.network.endpoint.ifname=wan0", "b", "aa")
    assert set(links(networks, "aa")) == {"eth0", "eth1", "wan0"}
    networks.docker("network", "disconnect", "a", "aa")
    networks.docker("network", "connect", "a", "aa")
    assert set(links(networks, "aa")) == {"eth0", "eth1", "wan0"}, "the first number that is free"


def test_names_that_no_interface_can_have(networks: Engine):
    for name, text in (("a/b", "invalid com.docker.network.endpoint.ifname 'a/b'"), ("x" * 16, "at most 15 letters")):
        ran = networks.run("run", "--network", f"name=a,{IFNAME}{name}", "busybox", "true")
        assert (ran.returncode, text in ran.stderr) == (125, True)
    twice = ("--network", f"name=a,{IFNAME}z0", "--network", f"name=b,{IFNAME}z0")
    ran = networks.run("run", "--rm", *twice, "busybox", "true")
    assert (ran.returncode, "interface name z0 is asked for" in ran.stderr) == (125, True)
    start(networks, "aa")
    option = ("--driver-opt", "com.docker.network.endpoint.ifname=eth0")
    assert "interface name eth0" in networks.run("network", "connect", *option, "a", "aa").stderr
    networks.docker("exec", "--privileged", "aa", "ip", "link", "set", "lo", "down")
    assert set(links(networks, "aa")) == {"eth0"}


def test_a_network_says_what_names_begin_with(networks: Engine):
    option = "com.docker.network.container_iface_prefix"
    networks.docker("network", "create", "-o", f"{option}=lan", "d")
    start(networks, "aa", "--network", "a", "--network", "d")
    assert set(links(networks, "aa")) == {"eth0", "lan0"}
    ran = networks.run("network", "create", "-o", f"{option}=much/too", "e")
    assert "invalid com.docker.network.container_iface_prefix" in ran.stderr


def test_sysctls_of_one_endpoint(networks: Engine):
    option = f"{SYSCTLS}net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.disable_ipv6=0"
    start(networks, "aa", "--network", f'name=a,"{option}"', "--network", "b")
    read = ("exec", "aa", "sh", "-c", "cd /proc/sys/net; cat ipv4/conf/eth?/log_martians ipv6/conf/eth?/disable_ipv6")
    assert networks.docker(*read).split() == ["1", "0", "0", "1"]
    networks.docker("restart", "-t", "0", "aa")
    assert networks.docker(*read).split() == ["1", "0", "0", "1"]
    connect = ("--driver-opt", "com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1")
    networks.docker("network", "connect", *connect, "c", "aa")
    assert networks.docker("exec", "aa", "cat", "/proc/sys/net/ipv4/conf/eth2/log_martians") == "1"
    ran = networks.run("run", "--rm", "--network", f"name=a,{SYSCTLS}net.ipv4.conf.IFNAME.nosuch=1", "busybox", "true")
    assert (ran.returncode, "/proc/sys/net/ipv4/conf/eth0/nosuch is not a sysctl file" in ran.stderr) == (125, True)
    body = {"Container": "aa", "EndpointConfig": {"DriverOpts": {"com.docker.network.endpoint.sysctls": "kernel.x=1"}}}
    networks.docker("network", "disconnect", "b", "aa")
    status, answer = networks.api("POST", "/networks/b/connect", json.dumps(body))
    assert (status, "to have format net.X.Y.IFNAME.Z" in answer) == (400, True)


def test_priority_decides_on_the_route_and_the_order(networks: Engine):
    start(networks, "aa", "--network", "b", "--network", "name=c,gw-priority=7", "--network", "a")
    assert links(networks, "aa") == {"eth0": "10.163.0.2/24", "eth1": "10.161.0.2/24", "eth2": "10.162.0.2/24"}
    assert default_route(networks, "aa") == "default via 10.163.0.1 dev eth0"
    networks.docker("network", "disconnect", "c", "aa")
    assert default_route(networks, "aa") == "default via 10.161.0.1 dev eth1"
    networks.docker("network", "connect", "--gw-priority", "1", "c", "aa")
    assert default_route(networks, "aa") == "default via 10.163.0.1 dev eth0"
    for name in ("a", "b", "c"):
        networks.docker("network", "disconnect", name, "aa")
    assert (links(networks, "aa"), default_route(networks, "aa")) == ({}, "")
    assert networks.docker("inspect", "-f", "{{json .NetworkSettings.Networks}}", "aa") == "{}"
    networks.docker("network", "connect", "b", "aa")
    assert default_route(networks, "aa") == "default via 10.162.0.1 dev eth0"
    networks.docker("network", "disconnect", "b", "aa")
    networks.docker("restart", "-t", "0", "aa")
    assert links(networks, "aa") == {}


def test_mac_addresses_at_create_and_connect(networks: Engine):
    one, two = "02:42:0a:a1:07:01", "02:42:0a:a1:07:02"
    start(networks, "aa", "--network", f"name=a,mac-address={one}")
    body = json.dumps({"Container": "aa", "EndpointConfig": {"MacAddress": two}})
    assert networks.api("POST", "/networks/b/connect", body)[0] == 200
    for _ in range(2):
        found = [networks.docker("exec", "aa", "cat", f"/sys/class/net/eth{n}/address") for n in (0, 1)]
        assert found == [endpoint(networks, "aa", each)["MacAddress"] for each in ("a", "b")] == [one, two]
        networks.docker("restart", "-t", "0", "aa")
    bad = json.dumps({"Container": "aa", "EndpointConfig": {"MacAddress": "zz"}})
    assert networks.api("POST", "/networks/c/connect", bad)[0] == 400


def test_addresses_belong_to_one_at_a_time(networks: Engine):
    start(networks, "aa", "--network", "name=a,ip=10.161.0.77")
    ran = networks.run("run", "-d", "--name", "bb", "--network", "a", "--ip", "10.161.0.77", "busybox", "sleep", "1000")
    assert "Address already in use" in ran.stderr
    networks.docker("rm", "bb")
    start(networks, "bb")
    assert "Address already in use" in networks.run("network", "connect", "--ip", "10.161.0.77", "a", "bb").stderr
    assert set(links(networks, "bb")) == {"eth0"}
    networks.docker("stop", "-t", "0", "aa")
    networks.docker("network", "connect", "--ip", "10.161.0.77", "a", "bb")
    assert "Address already in use" in networks.run("start", "aa").stderr
    networks.docker("network", "disconnect", "a", "bb")
    networks.docker("start", "aa")
    assert links(networks, "aa") == {"eth0": "10.161.0.77/24"}


def test_a_stopped_container_is_connected_from_its_next_start_on(networks: Engine):
    networks.docker("create", "--name", "aa", "busybox", "sleep", "1000")
    networks.docker("network", "connect", "--ip", "10.161.0.9", "--alias", "db", "a", "aa")
    networks.docker("network", "create", "x")
    networks.docker("network", "connect", "x", "aa")
    networks.docker("network", "disconnect", "bridge", "aa")
    assert endpoint(networks, "aa", "a")["Aliases"] == ["db"]
    networks.docker("network", "rm", "x")
    ran = networks.run("start", "aa")
    assert "failed to set up container networking: network x not found" in ran.stderr
    networks.docker("network", "disconnect", "x", "aa")
    assert "network x not found" in networks.run("network", "disconnect", "x", "aa").stderr
    networks.docker("start", "aa")
    assert links(networks, "aa") == {"eth0": "10.161.0.9/24"}


def test_the_name_of_a_removed_network_is_not_the_beginning_of_an_id(networks: Engine):
    id_ = networks.docker("network", "inspect", "-f", "{{.Id}}", "c")
    networks.docker("network", "create", "--subnet", "10.164.0.0/24", id_[:9])
    networks.docker("create", "--name", "aa", "--network", id_[:9], "busybox", "sleep", "1000")
    networks.docker("network", "rm", id_[:9])
    ran = networks.run("start", "aa")
    assert f"network {id_[:9]} not found" in ran.stderr, ran


def test_disconnecting_what_is_ending_or_gone(networks: Engine):
    start(networks, "aa", "--network", "a")
    pid = int(networks.docker("inspect", "-f", "{{.State.Pid}}", "aa"))
    subprocess.run(["kill", "-9", str(pid)], check=True)
    ran = networks.run("network", "disconnect", "-f", "a", "aa")
    assert (ran.returncode, ran.stderr) == (0, "")
    networks.docker("rm", "-f", "aa")
    assert "endpoint aa not found" in networks.run("network", "disconnect", "-f", "a", "aa").stderr
    assert networks.docker("network", "inspect", "-f", "{{len .Containers}}", "a") == "0"


def test_sharing_another_containers_network(networks: Engine):
    start(networks, "aa", "--network", "a")
    start(networks, "bb", "--network", "container:aa")
    id_ = networks.docker("inspect", "-f", "{{.Id}}", "aa")
    assert networks.docker("inspect", "-f", "{{.HostConfig.NetworkMode}}", "bb") == f"container:{id_}"
    shown = json.loads(networks.docker("inspect", "-f", "{{json .NetworkSettings}}", "bb"))
    assert (shown["Networks"], shown["SandboxID"], shown["SandboxKey"], shown["Ports"]) == ({}, "", "", {})
    assert links(networks, "bb") == {"eth0": "10.161.0.2/24"}
    networks.docker("network", "connect", "b", "aa")
    assert set(links(networks, "bb")) == {"eth0", "eth1"}, "it is one namespace"
    for command in (("connect", "b", "bb"), ("disconnect", "a", "bb")):
        assert networks.run("network", *command).returncode == 1
    networks.docker("restart", "-t", "0", "aa")
    until(lambda: links(networks, "bb") == {})  # it keeps the namespace of before, as with dockerd, less its links
    networks.docker("restart", "-t", "0", "bb")
    assert set(links(networks, "bb")) == {"eth0", "eth1"}
    networks.docker("stop", "-t", "0", "aa")
    assert networks.docker("inspect", "-f", "{{.State.Running}}", "bb") == "true"
    ran = networks.run("restart", "-t", "0", "bb")
    assert "cannot join network namespace of a non running container: container aa is exited" in ran.stderr
    networks.docker("rm", "aa")
    assert f"joining network namespace of container: No such container: {id_}" in networks.run("start", "bb").stderr


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("-p", "80:80"), "conflicting options: port publishing and the container type network mode"),
        (("--ip", "10.161.0.5"), "user specified IP address is supported on user defined networks only"),
        (("--dns", "192.0.2.1"), "conflicting options: dns and the network mode"),
        (("--hostname", "x"), "conflicting options: hostname and the network mode"),
    ],
)
def test_what_a_shared_network_cannot_be_asked(networks: Engine, flags: tuple[str, ...], text: str):
    start(networks, "aa")
    ran = networks.run("run", "--rm", "--network", "container:aa", *flags, "busybox", "true")
    assert (ran.returncode, text in ran.stderr) == (125, True)


def test_twenty_at_once_move_containers_between_networks(networks: Engine):
    """No answer is a failure of the engine's, and in the end everything is as it was told last."""
    names = [f"c{number}" for number in range(4)]
    for name in names:
        start(networks, name)
    before = {each["ifname"] for each in ip("link")}
    answers: list[tuple[int, str]] = []
    deadline = time.monotonic() + 6
    chosen = threading.local()

    def move(seed: int) -> None:
        chosen.random = random.Random(seed)
        while time.monotonic() < deadline:
            verb, network, name = (chosen.random.choice(each) for each in (("connect", "disconnect"), "abc", names))
            body = {"Container": name} | ({"Force": True} if verb == "disconnect" else {})
            answers.append(networks.api("POST", f"/networks/{network}/{verb}", json.dumps(body)))

    with ThreadPoolExecutor(20) as threads:
        list(threads.map(move, range(20)))
    assert {status for status, _ in answers} <= {200, 403, 404}, [each for each in answers if each[0] >= 500][:3]
    assert sum(status == 200 for status, _ in answers) > 20
    for name in names:
        shown = json.loads(networks.docker("inspect", "-f", "{{json .NetworkSettings.Networks}}", name))
        addresses = {f"{each['IPAddress']}/{each['IPPrefixLen']}" for each in shown.values()}
        assert set(links(networks, name).values()) == addresses
        for network in set("abc") & set(shown):
            networks.docker("network", "disconnect", network, name)
        assert default_route(networks, name) == f"default via {shown['bridge']['Gateway']} dev eth0"

    def stray() -> set[str]:
        found = {each["ifname"] for each in ip("link")} - before
        return {each for each in found if each.startswith("w")}

    until(lambda: not stray())
    for network in "abc":
        assert networks.docker("network", "inspect", "-f", "{{len .Containers}}", network) == "0"
