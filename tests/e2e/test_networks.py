"""Networks of the user through the unmodified docker CLI: who reaches whom, by which name, and what remains."""

from __future__ import annotations

import json
import os
import signal
import socketserver
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine import Engine
from tests.kernel.isolation import ip

pytestmark = [pytest.mark.root, pytest.mark.engine]


@pytest.fixture
def networks(engine: Engine) -> Iterator[Engine]:
    yield engine
    engine.remove_all()
    assert engine.run("network", "prune", "-f").returncode == 0


def start(engine: Engine, name: str, *flags: str) -> None:
    engine.docker("run", "-d", "--name", name, *flags, "busybox", "sleep", "1000")


def endpoints(engine: Engine, name: str) -> dict:
    return json.loads(engine.docker("inspect", "-f", "{{json .NetworkSettings.Networks}}", name))


def lookup(engine: Engine, asker: str, name: str) -> set[str]:
    """The IPv4 addresses that a container gets for a name."""
    text = engine.run("exec", asker, "nslookup", name, timeout=30).stdout
    answer = text.partition("\n\n")[2]
    return {line.split()[-1] for line in answer.splitlines() if line.startswith("Address: ")}


def test_create_look_and_remove(networks: Engine):
    id_ = networks.docker("network", "create", "--label", "tier=db", "--subnet", "10.211.0.0/24", "n")
    assert networks.docker("network", "ls", "-q", "--no-trunc", "--filter", "label=tier=db") == id_
    for filter_ in ("name=n", f"id={id_[:9]}", "type=custom", "dangling=true", "driver=bridge"):
        assert id_ in networks.docker("network", "ls", "-q", "--no-trunc", "--filter", filter_), filter_
    assert id_ not in networks.docker("network", "ls", "-q", "--no-trunc", "--filter", "type=builtin")
    assert f"br-{id_[:12]}" in {each["ifname"] for each in ip("link")}
    start(networks, "aa", "--network", "n")
    for value in ("n", id_):
        assert networks.docker("ps", "--filter", f"network={value}", "--format", "{{.Names}}") == "aa"
    refused = networks.run("network", "rm", "n")
    assert 'network n has active endpoints (name:"aa" id:"' in refused.stderr
    assert "dangling" not in networks.docker("network", "ls", "-q", "--filter", "dangling=true")
    (entry,) = json.loads(networks.docker("network", "inspect", "n"))
    assert [(each["Name"], each["IPv4Address"]) for each in entry["Containers"].values()] == [("aa", "10.211.0.2/24")]
    networks.docker("rm", "-f", "aa")
    assert networks.docker("network", "rm", "n") == "n"
    assert f"br-{id_[:12]}" not in {each["ifname"] for each in ip("link")}


def test_prune(networks: Engine):
    for name, label in (("used", "a=b"), ("idle", "a=b"), ("other", "c=d")):
        networks.docker("network", "create", "--label", label, name)
    start(networks, "aa", "--network", "used")
    assert networks.docker("network", "prune", "-f", "--filter", "label=a").split() == ["Deleted", "Networks:", "idle"]
    left = networks.docker("network", "ls", "--filter", "type=custom", "--format", "{{.Name}}")
    assert left.splitlines() == ["other", "used"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "text"),
    [
        ("POST", "/networks/create", '{"Name":"n"}', 409, "network with name n already exists"),
        (
            "POST",
            "/networks/create",
            '{"Name":"bridge"}',
            403,
            "operation is not permitted on predefined bridge network ",
        ),
        ("POST", "/networks/create", "{}", 400, "invalid name: name is empty"),
        ("DELETE", "/networks/bridge", None, 403, "bridge is a pre-defined network and cannot be removed"),
        ("DELETE", "/networks/nosuch", None, 404, "network nosuch not found"),
        ("POST", "/networks/n/connect", '{"Container":"nosuch"}', 404, "No such container: nosuch"),
        ("POST", "/networks/n/connect", "{}", 400, 'invalid name or ID supplied: ""'),
        ("POST", "/networks/nosuch/connect", '{"Container":"x"}', 404, "network nosuch not found"),
        ("POST", "/networks/n/disconnect", '{"Container":"nosuch","Force":true}', 404, "endpoint nosuch not found"),
        ("GET", '/networks?filters={"foo":["x"]}', None, 400, "invalid filter 'foo'"),
        ("GET", '/networks?filters={"type":["x"]}', None, 400, "invalid filter: 'type'='x'"),
    ],
)
def test_dockerds_refusals(networks: Engine, method, path, body, status, text):
    networks.docker("network", "create", "n")
    path, _, query = path.partition("?filters=")
    found, answer = networks.api(method, path + (f"?filters={networks.quote(query)}" if query else ""), body)
    assert (found, json.loads(answer)["message"]) == (status, text)


@pytest.mark.parametrize(
    ("network", "mode", "text"),
    [
        ("host", "bridge", "cannot connect container to host network - container must be created in host network mode"),
        (
            "none",
            "bridge",
            "container cannot be connected to multiple networks with one of the networks in private (none)",
        ),
        (
            "n",
            "host",
            "container sharing network namespace with another container or host cannot be connected to any other",
        ),
        (
            "n",
            "none",
            "container cannot be connected to multiple networks with one of the networks in private (none) mode",
        ),
    ],
)
def test_networks_that_exclude_each_other(networks: Engine, network, mode, text):
    networks.docker("network", "create", "n")
    start(networks, "aa", "--network", mode)
    assert text in networks.run("network", "connect", network, "aa").stderr


def test_a_running_container_is_connected_and_disconnected(networks: Engine):
    since = str(time.time())
    networks.docker("network", "create", "--subnet", "10.211.0.0/24", "n")
    start(networks, "aa")
    networks.docker("network", "connect", "--ip", "10.211.0.77", "--alias", "db", "n", "aa")
    found = endpoints(networks, "aa")["n"]
    assert (found["IPAddress"], found["Aliases"], found["DNSNames"][:2]) == ("10.211.0.77", ["db"], ["aa", "db"])
    assert "10.211.0.77/24" in networks.docker("exec", "aa", "ip", "addr", "show", "eth1")
    assert "10.211.0.77\t" in networks.docker("exec", "aa", "cat", "/etc/hosts")
    assert lookup(networks, "aa", "db") == {"10.211.0.77"}, "its resolv.conf leads to the name server now"
    networks.docker("restart", "-t", "0", "aa")
    assert endpoints(networks, "aa")["n"]["IPAddress"] == "10.211.0.77"
    networks.docker("network", "disconnect", "n", "aa")
    assert "eth1" not in networks.docker("exec", "aa", "ip", "addr")
    assert "10.211.0.77" not in networks.docker("exec", "aa", "cat", "/etc/hosts")
    assert set(endpoints(networks, "aa")) == {"bridge"}
    again = networks.run("network", "disconnect", "n", "aa")
    assert "is not connected to network n" in again.stderr
    told = networks.docker(
        *("events", "--since", since, "--until", str(time.time()), "--filter", "type=network"),
        *("--format", "{{.Action}} {{.Actor.Attributes.name}} {{.Actor.Attributes.type}}"),
    )
    assert told.splitlines() == [
        "create n bridge",
        "connect bridge bridge",
        "connect n bridge",
        *("disconnect bridge bridge", "disconnect n bridge", "connect bridge bridge", "connect n bridge"),
        "disconnect n bridge",
    ]


def test_several_networks_at_create_and_the_default_route(networks: Engine):
    for name, subnet in (("a", "10.211.0.0/24"), ("b", "10.212.0.0/24")):
        networks.docker("network", "create", "--subnet", subnet, name)
    start(networks, "aa", "--network", "a", "--network", "name=b,gw-priority=1,alias=x,ip=10.212.0.50")
    assert set(endpoints(networks, "aa")) == {"a", "b"}
    assert "default via 10.212.0.1" in networks.docker("exec", "aa", "ip", "route")
    networks.docker("create", "--name", "bb", "--network", "a", "busybox", "sleep", "1000")
    networks.docker("network", "connect", "--ip", "10.212.0.60", "b", "bb")
    networks.docker("start", "bb")
    assert endpoints(networks, "bb")["b"]["IPAddress"] == "10.212.0.60"
    assert "default via 10.211.0.1" in networks.docker("exec", "bb", "ip", "route")
    networks.docker("exec", "bb", "ping", "-c", "1", "-W", "2", "10.212.0.50")


def test_names_and_aliases(networks: Engine):
    for name in ("front", "back"):
        networks.docker("network", "create", name)
    start(networks, "one", "--network", "front", "--network-alias", "web")
    start(networks, "two", "--network", "front", "--network-alias", "web", "--hostname", "hosty")
    start(networks, "far", "--network", "back")
    one, two = (endpoints(networks, name)["front"]["IPAddress"] for name in ("one", "two"))
    assert lookup(networks, "one", "two") == lookup(networks, "one", "hosty") == lookup(networks, "one", "TWO") == {two}
    assert lookup(networks, "one", "web") == {one, two}
    assert lookup(networks, "one", "two.front") == {two}
    assert lookup(networks, "one", networks.docker("inspect", "-f", "{{.Id}}", "two")[:12]) == {two}
    assert lookup(networks, "one", "far") == set(), "of another network"
    assert "name = two.front" in networks.docker("exec", "one", "nslookup", two)
    networks.docker("exec", "one", "ping", "-c", "1", "-W", "2", "two")
    networks.docker("rename", "two", "second")
    assert (lookup(networks, "one", "second"), lookup(networks, "one", "two")) == ({two}, set())
    networks.docker("rm", "-f", "second")
    deadline = time.monotonic() + 5
    while lookup(networks, "one", "web") != {one}:
        assert time.monotonic() < deadline, "the name of a container that is gone"
    start(networks, "plain")
    assert "127.0.0.11" not in networks.docker("exec", "plain", "cat", "/etc/resolv.conf")


class Upstream(socketserver.ThreadingMixIn):
    """Answers every A question with 192.0.2.53 by UDP, 192.0.2.54 by TCP."""

    daemon_threads = True
    allow_reuse_address = True


def _answer(query: bytes, last: int) -> bytes:
    record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + bytes((192, 0, 2, last))
    return query[:2] + b"\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00" + query[12 : query.index(b"\0", 12) + 5] + record


class Datagram(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request[1].sendto(_answer(self.request[0], 53), self.client_address)


class Stream(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        (length,) = struct.unpack("!H", self.request.recv(2))
        answer = _answer(self.request.recv(length), 54)
        self.request.sendall(struct.pack("!H", len(answer)) + answer)


class UDPServer(Upstream, socketserver.UDPServer):
    pass


class TCPServer(Upstream, socketserver.TCPServer):
    pass


BY_TCP = (
    r"printf '\000\035\022\064\001\000\000\001\000\000\000\000\000\000\007example\003org\000\000\001\000\001'"
    " | nc -w 2 127.0.0.11 53 | tail -c 4 | od -An -tu1"
)


def test_other_names_are_asked_of_other_servers(networks: Engine):
    networks.docker("network", "create", "--subnet", "10.211.0.0/24", "n")
    networks.docker("network", "create", "--internal", "closed")
    with UDPServer(("10.211.0.1", 53), Datagram) as udp, TCPServer(("10.211.0.1", 53), Stream) as tcp:
        for server in (udp, tcp):
            threading.Thread(target=server.serve_forever, daemon=True).start()
        start(networks, "aa", "--network", "n", "--dns", "10.211.0.1")
        start(networks, "in", "--network", "closed", "--dns", "10.211.0.1")
        assert lookup(networks, "aa", "example.org") == {"192.0.2.53"}
        assert lookup(networks, "aa", "aa") == {endpoints(networks, "aa")["n"]["IPAddress"]}
        assert lookup(networks, "in", "example.org") == set(), "nothing leaves an internal network by questions"
        assert networks.docker("exec", "aa", "sh", "-c", BY_TCP).split()[-4:] == ["192", "0", "2", "54"]
        for server in (udp, tcp):
            server.shutdown()


def name_server(engine: Engine) -> int:
    """The process id of the engine's name server."""
    found = []
    for path in Path("/proc").iterdir():
        try:
            named = path.name.isdigit() and (path / "comm").read_text() == "wherry-names\n"
            if named and os.readlink(path / "fd/2").startswith(str(engine.root)):
                found.append(int(path.name))
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended while we looked
    assert len(found) == 1, found
    return found[0]


def test_everything_outlives_the_engine(own_engine: Engine):
    own_engine.start()
    own_engine.import_busybox()
    id_ = own_engine.docker("network", "create", "--subnet", "10.213.0.0/24", "n")
    for name, address in (("one", "10.213.0.7"), ("two", "10.213.0.9")):
        start(own_engine, name, "--network", "n", "--ip", address)
    before = endpoints(own_engine, "one")
    inside = own_engine.docker("inspect", "-f", "{{.State.Pid}}", "one")
    server = name_server(own_engine)
    own_engine.crash()
    asking = ["nsenter", "-t", inside, "--net", "--mount", "--root", "/bin/nslookup", "two"]
    asked = subprocess.run(asking, capture_output=True, text=True, timeout=20)
    assert "10.213.0.9" in asked.stdout, f"while no engine runs: {asked}"
    own_engine.start()
    assert (endpoints(own_engine, "one"), name_server(own_engine)) == (before, server)
    own_engine.docker("exec", "one", "ping", "-c", "1", "-W", "2", "two")
    start(own_engine, "three", "--network", "n")
    assert lookup(own_engine, "one", "three") == {"10.213.0.2"}
    os.kill(server, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while lookup(own_engine, "one", "three") != {"10.213.0.2"}:
        assert time.monotonic() < deadline, "the name server comes back by itself"
    own_engine.docker("rm", "-f", "one", "two", "three")
    own_engine.docker("network", "rm", "n")
    assert f"br-{id_[:12]}" not in {each["ifname"] for each in ip("link")}
    server = name_server(own_engine)
    own_engine.stop()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{server}").exists():
        assert time.monotonic() < deadline, "it serves nobody any more"
        time.sleep(0.02)


def test_rules_that_were_flushed_come_back_with_a_reload(own_engine: Engine):
    own_engine.flags = ("--firewall-watch=false",)
    own_engine.start()
    table = ["table", "ip", f"wherry-{own_engine.bridge}"]
    before = subprocess.run(["nft", "list", *table], check=True, capture_output=True, text=True).stdout
    subprocess.run(["nft", "delete", *table], check=True)
    assert own_engine.process is not None
    own_engine.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 10
    while (ran := subprocess.run(["nft", "list", *table], capture_output=True, text=True)).returncode:
        assert time.monotonic() < deadline, "the rules come back"
        time.sleep(0.02)
    assert ran.stdout == before
