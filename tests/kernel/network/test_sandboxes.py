"""Sandboxes: what a container finds in one, and that nothing of them stays."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from functools import partial

import pytest

from tests.kernel.isolation import command, inside, ip, isolated
from tests.waiting import until
from wherry.errors import Conflict, InvalidArgument, NotFound, SystemFailure
from wherry.network import sandbox as sandbox_module
from wherry.network import sysctls
from wherry.network.api import EndpointRequest, SandboxRequest
from wherry.network.endpointstore import EndpointStore

pytestmark = pytest.mark.root

BRIDGE = (EndpointRequest("bridge"),)


def ports() -> list[str]:
    return [each["ifname"] for each in ip("link") if each.get("master") == "wherry0"]


wait_for = partial(until, seconds=5.0)


def rows(networks, table: str) -> list:
    return networks._database.query(f"SELECT * FROM {table}")


@pytest.mark.parametrize("stock", [0, 2])
@isolated
def test_a_container_on_the_bridge(engine, stock):
    networks = engine(stock=stock)
    wait_for(lambda: networks.ready()["bridge"] == stock)
    sandbox = networks.open_sandbox(SandboxRequest("c1", BRIDGE))
    (endpoint,) = sandbox.endpoints
    assert networks.endpoints("c1") == sandbox.endpoints
    assert networks.sandbox("c1") == (sandbox.sandbox_id, sandbox.file)
    assert (endpoint.ipv4, endpoint.ipv4_prefix, endpoint.gateway4) == ("172.17.0.2", 16, "172.17.0.1")
    assert endpoint.mac == "02:42:ac:11:00:02"

    def look():
        (eth0,) = ip("addr", "show", "eth0")
        (default,) = [each for each in ip("route") if each["dst"] == "default"]
        (lo,) = ip("addr", "show", "lo")
        conf = [sysctls.read(f"net/ipv6/conf/eth0/{name}") for name in ("disable_ipv6", "accept_ra")]
        own = sysctls.read("net/ipv4/ip_unprivileged_port_start"), sysctls.read("net/ipv4/ping_group_range")
        return eth0, default, lo, conf, own

    eth0, default, lo, conf, own = inside(sandbox.netns_fd, look)
    assert eth0["address"] == endpoint.mac
    assert "UP" in eth0["flags"]
    assert [(each["local"], each["prefixlen"], each["broadcast"]) for each in eth0["addr_info"]] == [
        ("172.17.0.2", 16, "172.17.255.255")
    ]
    assert (default["gateway"], default["dev"]) == ("172.17.0.1", "eth0")
    assert {each["local"] for each in lo["addr_info"]} == {"127.0.0.1", "::1"}
    assert conf == ["1", "0"]
    assert own == ("0", "0\t2147483647")
    sandbox.close()
    sandbox.close()


@isolated
def test_a_container_without_network_has_a_loopback_and_an_endpoint_in_none(engine):
    networks = engine()
    sandbox = networks.open_sandbox(SandboxRequest("c1"))
    assert [each["ifname"] for each in inside(sandbox.netns_fd, lambda: ip("link"))] == ["lo"]
    assert "UP" in inside(sandbox.netns_fd, lambda: ip("link"))[0]["flags"]
    (endpoint,) = networks.endpoints("c1")
    assert (endpoint.network_name, endpoint.interface, endpoint.ipv4) == ("none", "", "")
    sandbox.close()


@isolated
def test_containers_reach_each_other_and_the_host(engine):
    networks = engine()
    one, two = (networks.open_sandbox(SandboxRequest(name, BRIDGE)) for name in ("c1", "c2"))
    server = [
        sys.executable,
        "-c",
        "import socket; s = socket.create_server(('0.0.0.0', 80)); print(flush=True); "
        "c, a = s.accept(); c.sendall(a[0].encode()); c.close(); s.close()",
    ]
    client = "import socket; s = socket.create_connection(('{}', 80), 5); print(s.recv(99).decode()); s.close()"

    def serve():
        process = subprocess.Popen(server, stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"\n"
        return process

    with inside(one.netns_fd, serve):
        assert (
            inside(two.netns_fd, lambda: command(sys.executable, "-c", client.format("172.17.0.2"))) == "172.17.0.3\n"
        )
    with serve():
        assert (
            inside(two.netns_fd, lambda: command(sys.executable, "-c", client.format("172.17.0.1"))) == "172.17.0.3\n"
        )
    one.close()
    two.close()


@isolated
def test_a_mac_of_the_user(engine):
    networks = engine(stock=2)
    sandbox = networks.open_sandbox(SandboxRequest("c1", (EndpointRequest("bridge", mac="02:42:AC:11:00:99"),)))
    assert inside(sandbox.netns_fd, lambda: ip("link", "show", "eth0"))[0]["address"] == "02:42:ac:11:00:99"
    assert sandbox.endpoints[0].mac == "02:42:ac:11:00:99"
    sandbox.close()


@pytest.mark.parametrize("stock", [0, 2])
@isolated
def test_sysctls_of_the_user(engine, stock):
    networks = engine(stock=stock)
    wait_for(lambda: networks.ready()["bridge"] == stock)
    asked = {"net.ipv4.ip_unprivileged_port_start": "99", "net.core.somaxconn": "77", "kernel.msgmax": "1"}
    sandbox = networks.open_sandbox(SandboxRequest("c1", BRIDGE, sysctls=asked))
    names = ("net/ipv4/ip_unprivileged_port_start", "net/core/somaxconn")
    assert inside(sandbox.netns_fd, lambda: [sysctls.read(name) for name in names]) == ["99", "77"]
    sandbox.close()
    other = networks.open_sandbox(SandboxRequest("c2", BRIDGE))
    assert inside(other.netns_fd, lambda: sysctls.read(names[0])) == "0"
    other.close()
    with pytest.raises(SystemFailure, match="net/nosuch/thing"):
        networks.open_sandbox(SandboxRequest("c3", BRIDGE, sysctls={"net.nosuch.thing": "1"}))
    assert networks.endpoints("c3") == ()
    networks.open_sandbox(SandboxRequest("c3", BRIDGE)).close()


@isolated
def test_bad_requests_leave_nothing(engine):
    networks = engine()
    for asked, kind, message in (
        (EndpointRequest("x"), NotFound, "^network x not found$"),
        (EndpointRequest("host"), InvalidArgument, "cannot be connected to host network"),
        (EndpointRequest("bridge", ipv4="172.17.0.9"), InvalidArgument, "user defined networks only"),
        (EndpointRequest("bridge", mac="zz"), InvalidArgument, "invalid MAC address zz"),
    ):
        with pytest.raises(kind, match=message):
            networks.open_sandbox(SandboxRequest("c1", (asked,)))
        with pytest.raises(kind, match=message):
            networks.check(asked)
    with pytest.raises(InvalidArgument, match="invalid sysctl"):
        networks.open_sandbox(SandboxRequest("c1", BRIDGE, sysctls={"net/../kernel/core_pattern": "x"}))
    assert rows(networks, "addresses") == rows(networks, "endpoints") == []
    assert ports() == []
    networks.open_sandbox(SandboxRequest("c1", BRIDGE)).close()
    with pytest.raises(Conflict, match="c1 has a network sandbox already"):
        networks.open_sandbox(SandboxRequest("c1", BRIDGE))
    assert len(networks.endpoints("c1")) == 1


@pytest.mark.parametrize("place", ["_set_sysctls", "_configuration", "write"])
@isolated
def test_each_step_is_undone_when_a_later_one_fails(engine, monkeypatch, place):
    networks = engine()
    networks.open_sandbox(SandboxRequest("c0")).close()
    networks.close_sandbox("c0")
    assert networks.settle()  # now the threads have opened their sockets
    before = set(os.listdir("/proc/self/fd"))

    def fail(*_args, **_kwargs):
        raise OSError(5, "Input/output error", "somewhere")

    monkeypatch.setattr(EndpointStore if place == "write" else sandbox_module, place, fail)
    with pytest.raises(SystemFailure, match=r"failed to set up container networking: Input/output error \[somewhere\]"):
        networks.open_sandbox(SandboxRequest("c1", BRIDGE))
    wait_for(lambda: ports() == [])
    assert networks.settle()
    assert rows(networks, "addresses") == rows(networks, "endpoints") == []
    assert set(os.listdir("/proc/self/fd")) == before
    monkeypatch.undo()
    networks.open_sandbox(SandboxRequest("c1", BRIDGE)).close()


@isolated
def test_an_address_is_free_only_when_its_link_is_gone(engine):
    networks = engine()
    sandbox = networks.open_sandbox(SandboxRequest("c1", BRIDGE))
    networks.close_sandbox("c1")
    networks.close_sandbox("c1")
    assert networks.endpoints("c1") == ()
    second = networks.open_sandbox(SandboxRequest("c2", BRIDGE))
    assert second.endpoints[0].ipv4 == "172.17.0.3"
    assert networks.settle()
    # c1's process is still in its namespace, and has no link any more.
    assert [each["ifname"] for each in inside(sandbox.netns_fd, lambda: ip("link"))] == ["lo"]
    third = networks.open_sandbox(SandboxRequest("c3", BRIDGE))
    assert third.endpoints[0].ipv4 == "172.17.0.2"
    for each in (sandbox, second, third):
        each.close()


@isolated
def test_many_cycles_leave_nothing(engine):
    networks = engine(stock=4)
    wait_for(lambda: networks.ready()["bridge"] == 4)
    for number in range(200):
        networks.open_sandbox(SandboxRequest(f"c{number}", BRIDGE if number % 2 else ())).close()
        networks.close_sandbox(f"c{number}")
    assert networks.settle()
    for stock in networks._stocks.values():
        stock.close()
    assert networks.settle()
    wait_for(lambda: ports() == [])
    assert rows(networks, "addresses") == rows(networks, "endpoints") == []
    networks.stop(remove=True)
    assert [each["ifname"] for each in ip("link")] == ["lo"]


@isolated
def test_fifty_in_a_row_have_fifty_addresses(engine):
    networks = engine(stock=4)
    opened = [networks.open_sandbox(SandboxRequest(f"c{number}", BRIDGE)) for number in range(50)]
    addresses = {
        inside(each.netns_fd, lambda: ip("addr", "show", "eth0"))[0]["addr_info"][0]["local"] for each in opened
    }
    assert len(addresses) == 50
    assert addresses == {each.endpoints[0].ipv4 for each in opened}
    for number, each in enumerate(opened):
        networks.close_sandbox(f"c{number}")
        each.close()
    assert networks.settle()


CRASHING = """
import sys, time
from pathlib import Path
from wherry.network.config import NetworkConfig
from wherry.network.controller import Networks
from wherry.network.api import EndpointRequest, SandboxRequest
from wherry.store.database import Database
folder = Path(sys.argv[1])
networks = Networks(Database(folder / "meta.db"), NetworkConfig(stock=3), folder)
networks.start()
networks.restore([])
while networks.ready()["bridge"] < 3:
    time.sleep(0.01)
kept = [networks.open_sandbox(SandboxRequest(name, (EndpointRequest("bridge"),))) for name in ("lives", "dies")]
print(kept[0].netns_fd, flush=True)
time.sleep(60)
"""


@isolated
def test_a_killed_engine_leaves_what_runs_and_nothing_else(engine, tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    crashing = subprocess.Popen([sys.executable, "-c", CRASHING, str(folder)], stdout=subprocess.PIPE)
    with crashing:
        number = int(crashing.stdout.readline())
        # A process in the namespace, as a container's.
        living = os.open(f"/proc/{crashing.pid}/fd/{number}", os.O_RDONLY | os.O_CLOEXEC)
        assert len(ports()) >= 3
        crashing.send_signal(signal.SIGKILL)
    wait_for(lambda: len(ports()) == 1)
    networks = engine(start=False)
    networks.start()
    networks.restore(["lives"])
    (endpoint,) = networks.endpoints("lives")
    assert endpoint.ipv4 == "172.17.0.2"
    assert networks.sandbox("lives")[0]
    assert networks.endpoints("dies") == ()
    assert {row[1] for row in rows(networks, "addresses")} == {"172.17.0.2"}
    assert inside(living, lambda: ip("addr", "show", "eth0"))[0]["addr_info"][0]["local"] == "172.17.0.2"
    assert len(ports()) == 1
    networks.close_sandbox("lives")
    assert networks.settle()
    assert ports() == []
    os.close(living)


@isolated
def test_after_a_reboot_no_link_is_touched_by_a_name_of_before(engine):
    """The store still names a link of a container that ran; a user's link has that name now."""
    first = engine()
    first.open_sandbox(SandboxRequest("c1", BRIDGE)).close()
    name = first._members.of("c1")[0].host_link
    first.stop(remove=False)
    wait_for(lambda: ports() == [])
    command("ip", "link", "add", name, "type", "veth", "peer", "name", "mine1")
    again = engine()
    assert name in {each["ifname"] for each in ip("link")}
    assert rows(again, "addresses") == rows(again, "endpoints") == []


@pytest.mark.parametrize("killed", [False, True])
@isolated
def test_the_host_forgets_a_container_as_its_neighbour(engine, killed):
    networks = engine()
    sandbox = networks.open_sandbox(SandboxRequest("c1", BRIDGE))
    command("ip", "neigh", "add", "172.17.200.1", "lladdr", "02:00:00:00:00:01", "nud", "permanent", "dev", "wherry0")

    def known() -> list[str]:
        return [each["dst"] for each in ip("-4", "neigh") if each["dev"] == "wherry0"]

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((sandbox.endpoints[0].ipv4, 9), timeout=5)
    assert sorted(known()) == ["172.17.0.2", "172.17.200.1"]
    sandbox.close()
    if killed:  # what ended while no engine ran, the next one finds
        networks._directory.get(networks.resolve("bridge").id).driver.close(networks.resolve("bridge"), remove=False)
        networks = engine()
    else:
        networks.close_sandbox("c1")
        assert networks.settle()
    assert known() == ["172.17.200.1"], "what the administrator entered stays"
