"""Published ports through the unmodified docker CLI, with real clients outside, on the host, in containers."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine import Engine, running
from tests.kernel.isolation import command, inside, new_namespace
from tests.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.engine]

FLAGS = {
    "nftables": ("--firewall-backend", "nftables"),
    "iptables": ("--firewall-backend", "iptables", "--ip-forward=false"),
}
WHO = "while true; do nc -l -p 80 -e sh -c 'netstat -tn | grep -E \":80 .*(ESTAB|CLOSE_W)\"'; done"
"""Tells each client with which address it is seen."""


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    """These tests name ports of the host: one at a time, whichever process runs them.

    Forwarding is on before: an engine with iptables that turned it on would drop what engines beside it forward.
    """
    with Path(__file__).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        yield


@pytest.fixture(scope="module", params=["nftables", "iptables"])
def backend(request: pytest.FixtureRequest) -> str:
    """Who keeps the rules: all of this is promised of both."""
    return str(request.param)


@pytest.fixture(scope="module")
def shared_engine(backend: str) -> Iterator[Engine]:
    yield from running(*FLAGS[backend])


@pytest.fixture
def ports(engine: Engine) -> Iterator[Engine]:
    yield engine
    engine.remove_all()
    engine.run("network", "prune", "-f")
    # a rule goes a moment after its container, and the next test may be about another engine
    until(lambda: not re.search(r"\b18[01]\d{2}\b", _without_counters()), seconds=15)


def _without_counters() -> str:
    return re.sub(r"counter packets \d+ bytes \d+", "", command("nft", "list", "ruleset"))


@pytest.fixture
def fresh(own_engine: Engine, backend: str) -> Engine:
    """An engine of the test's own that runs, with the image busybox."""
    own_engine.flags = FLAGS[backend]
    own_engine.start()
    own_engine.import_busybox()
    return own_engine


@pytest.fixture
def outside() -> Iterator[int]:
    """A network namespace beyond the host, at 198.51.100.2; the host is 198.51.100.1 there."""
    fd = new_namespace()
    there = f"/proc/{os.getpid()}/fd/{fd}"
    command("ip", "link", "add", "wan0", "type", "veth", "peer", "name", "wan1", "netns", there)
    command("ip", "addr", "add", "198.51.100.1/24", "dev", "wan0")
    command("ip", "addr", "add", "2001:db8::1/64", "dev", "wan0", "nodad")
    command("ip", "link", "set", "wan0", "up")

    def configure() -> None:
        command("ip", "addr", "add", "198.51.100.2/24", "dev", "wan1")
        command("ip", "addr", "add", "2001:db8::2/64", "dev", "wan1", "nodad")
        command("ip", "link", "set", "wan1", "up")
        command("ip", "link", "set", "lo", "up")

    inside(fd, configure)
    yield fd
    command("ip", "link", "del", "wan0")
    os.close(fd)


def ask(address: str, port: int, timeout: float = 5) -> str:
    """What a server says to a TCP client, when it is up."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            with socket.create_connection((address, port), timeout=timeout) as client:
                return "".join(iter(lambda: client.recv(4096).decode(), ""))
        except (ConnectionRefusedError, ConnectionResetError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def seen(text: str) -> str:
    """The client's address in what WHO says."""
    return text.split()[4].rpartition(":")[0].removeprefix("::ffff:")


def server(engine: Engine, name: str, *flags: str) -> str:
    engine.docker("run", "-d", "--name", name, *flags, "busybox", "sh", "-c", WHO)
    return address(engine, name)


def address(engine: Engine, name: str) -> str:
    return engine.docker("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name)


def published(engine: Engine, name: str) -> dict:
    return json.loads(engine.docker("inspect", "-f", "{{json .NetworkSettings.Ports}}", name))


def host_port(engine: Engine, name: str, key: str = "80/tcp") -> int:
    return int(published(engine, name)[key][0]["HostPort"])


def test_everybody_reaches_a_published_port_and_outside_clients_keep_their_address(ports: Engine, outside: int):
    own = server(ports, "web", "-p", "18080:80")
    assert seen(inside(outside, lambda: ask("198.51.100.1", 18080))) == "198.51.100.2"
    bridge = own.rpartition(".")[0] + ".1"
    assert seen(ask("127.0.0.1", 18080)) == bridge
    assert seen(ask("198.51.100.1", 18080)) == "198.51.100.1"
    for who in ("web", "near"):
        if who == "near":
            ports.docker("run", "-d", "--name", "near", "busybox", "sleep", "1000")
        text = ports.docker("exec", who, "nc", "-w", "5", "198.51.100.1", "18080", timeout=20)
        assert seen(text) == bridge, who
    ports.docker("network", "create", "other")
    ports.docker("run", "-d", "--name", "far", "--network", "other", "busybox", "sleep", "1000")
    assert seen(ports.docker("exec", "far", "nc", "-w", "5", bridge, "18080", timeout=20)) == bridge


def test_what_clients_see_and_every_form_of_the_flag(ports: Engine):
    flags = ("-p", "18080:80", "-p", "127.0.0.1::81/udp", "-p", "18100-18102:82", "-p", "18110-18111:90-91")
    ports.docker("run", "-d", "--name", "a", *flags, "--expose", "99", "busybox", "sleep", "1000")
    found = published(ports, "a")
    ephemeral = found["81/udp"][0]["HostPort"]
    assert 32768 <= int(ephemeral) <= 60999
    assert found == {
        "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "18080"}],
        "81/udp": [{"HostIp": "127.0.0.1", "HostPort": ephemeral}],
        "82/tcp": [{"HostIp": "0.0.0.0", "HostPort": "18100"}],
        "90/tcp": [{"HostIp": "0.0.0.0", "HostPort": "18110"}],
        "91/tcp": [{"HostIp": "0.0.0.0", "HostPort": "18111"}],
        "99/tcp": None,
    }
    assert ports.docker("port", "a", "80") == "0.0.0.0:18080"
    shown = ports.docker("ps", "--format", "{{.Ports}}")
    parts = ("0.0.0.0:18080->80/tcp", f"127.0.0.1:{ephemeral}->81/udp", "0.0.0.0:18111->91/tcp", "99/tcp")
    for part in parts:
        assert part in shown, shown
    for filter_, count in (
        ("publish=18080", 1),
        ("publish=18000-18200/tcp", 1),
        ("publish=18080/udp", 0),
        ("publish=80", 0),
        ("expose=99", 1),
        ("expose=98", 0),
    ):
        assert len(ports.docker("ps", "-q", "--filter", filter_).split()) == count, filter_
    ports.docker("stop", "-t", "0", "a")
    assert published(ports, "a") == {}
    assert ports.docker("ps", "-a", "--format", "{{.Ports}}") == ""


def test_publish_all_and_a_new_ephemeral_port_at_each_start(ports: Engine):
    ports.docker("run", "-d", "--name", "a", "-P", "--expose", "80", "--expose", "53/udp", "busybox", "sleep", "1000")
    found = published(ports, "a")
    assert set(found) == {"80/tcp", "53/udp"}
    assert all(len(each) == 1 for each in found.values())
    before = host_port(ports, "a")
    ports.docker("restart", "-t", "0", "a")
    assert host_port(ports, "a") != before


def test_a_program_that_ends_at_once_has_started(ports: Engine):
    """Its supervisor may be gone before the engine hands the port's socket over."""
    for _ in range(8):
        made = ports.docker("run", "-d", "-p", "127.0.0.1::80", "busybox", "true")
        until(lambda made=made: ports.docker("inspect", "-f", "{{.State.Status}}", made) == "exited")
        assert ports.docker("inspect", "-f", "{{.State.ExitCode}}{{.State.Error}}", made) == "0"


def test_a_port_that_is_taken(ports: Engine):
    with socket.socket() as other:
        other.bind(("0.0.0.0", 18090))
        other.listen()
        refused = ports.run("run", "-d", "--name", "a", "-p", "18090:80", "busybox", "sleep", "1000")
        assert "failed to set up container networking: driver failed programming external " in refused.stderr
        assert "connectivity on endpoint a (" in refused.stderr
        assert "failed to bind host port for 0.0.0.0:18090:172." in refused.stderr
        assert ":80/tcp: address already in use" in refused.stderr
    ports.docker("start", "a")
    refused = ports.run("run", "-d", "--name", "b", "-p", "18091:81", "-p", "127.0.0.1:18090:80", "busybox", "true")
    assert "Bind for 127.0.0.1:18090 failed: port is already allocated" in refused.stderr
    assert ports.docker("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "b") == "created 128"
    with socket.socket() as free:  # nothing is left of the attempt
        free.bind(("0.0.0.0", 18091))
    ports.docker("run", "-d", "--name", "c", "-p", "18090-18091:80", "busybox", "sleep", "1000")
    assert host_port(ports, "c") == 18091
    refused = ports.run("run", "-d", "--name", "d", "-p", "18090-18091:80", "busybox", "true")
    assert "all ports are allocated" in refused.stderr


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_no_program_of_the_host_gets_a_published_port_until_the_container_ends(fresh: Engine, kind: int):
    protocol = "tcp" if kind == socket.SOCK_STREAM else "udp"
    fresh.docker("run", "-d", "--name", "a", "-p", f"18080:80/{protocol}", "busybox", "sleep", "1000")

    def bind() -> None:
        with socket.socket(socket.AF_INET, kind) as other:
            if kind == socket.SOCK_STREAM:
                other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(("127.0.0.1", 18080))

    with pytest.raises(OSError, match="in use"):
        bind()
    fresh.crash()
    with pytest.raises(OSError, match="in use"):
        bind()
    fresh.start()
    assert host_port(fresh, "a", f"80/{protocol}") == 18080
    refused = fresh.run("run", "-d", "-p", f"18080:80/{protocol}", "busybox", "true")
    assert "port is already allocated" in refused.stderr
    fresh.docker("rm", "-f", "a")
    bind()


def test_ports_outlive_the_engine_and_come_back_after_a_flush(fresh: Engine):
    server(fresh, "web", "-p", "18080:80")
    ask("127.0.0.1", 18080)
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    ask("127.0.0.1", 18080)
    fresh.crash()
    ask("127.0.0.1", 18080)
    fresh.flags += ("--firewall-watch=false",)
    fresh.start()
    ask("127.0.0.1", 18080)
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    with pytest.raises(ConnectionRefusedError):
        ask("127.0.0.1", 18080, timeout=0.1)
    assert fresh.process is not None
    fresh.process.send_signal(signal.SIGHUP)
    ask("127.0.0.1", 18080)


def test_nothing_but_the_published_port_is_open_to_the_outside(ports: Engine, outside: int):
    own = server(ports, "web", "-p", "18080:80")
    server(ports, "local", "-p", "127.0.0.1:18081:80")
    ask("127.0.0.1", 18081)

    def attack() -> None:
        command("ip", "route", "add", own.rpartition(".")[0] + ".0/24", "via", "198.51.100.1")
        command("ip", "addr", "del", "127.0.0.1/8", "dev", "lo")  # so that 127.0.0.1 is somewhere else
        command("sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1")
        command("ip", "route", "add", "127.0.0.0/8", "via", "198.51.100.1", "src", "198.51.100.2")
        for target, port in ((own, 80), ("198.51.100.1", 18081), ("127.0.0.1", 18080)):
            refused = contextlib.suppress(TimeoutError, ConnectionRefusedError)
            with refused, socket.create_connection((target, port), timeout=0.5):
                raise AssertionError(f"{target}:{port} is open")

    with attacked():
        inside(outside, attack)


@contextlib.contextmanager
def attacked() -> Iterator[None]:
    """Fail when no packet to 127.0.0.0/8 comes by a link meanwhile: then no attack was tried at all.

    Counted by a table of our own, before any engine's: theirs begin at 0 whenever a network comes or goes.
    """
    rule = 'iifname != "lo" ip daddr 127.0.0.0/8 counter'
    command("nft", "add table ip attacked")
    try:
        command("nft", "add chain ip attacked c { type filter hook prerouting priority -310 ; }")
        command("nft", f"add rule ip attacked c {rule}")
        yield
        chain = command("nft", "list", "chain", "ip", "attacked", "c")
        assert int(chain.split("packets ")[1].split()[0]) > 0
    finally:
        command("nft", "delete table ip attacked")


def test_a_container_cannot_reach_what_listens_on_the_hosts_loopback(ports: Engine):
    own = server(ports, "web", "-p", "18080:80")
    ask("127.0.0.1", 18080)  # route_localnet is on now
    gateway = own.rpartition(".")[0] + ".1"
    with socket.create_server(("127.0.0.1", 18070)) as secret:
        secret.settimeout(0.8)
        script = (
            "mount -o remount,rw /proc/sys; echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet;"
            f"ip addr del 127.0.0.1/8 dev lo; ip route add 127.0.0.0/8 via {gateway} src {own};"
            "nc -w 1 127.0.0.1 18070 </dev/null"
        )
        with attacked():
            ports.run("exec", "--privileged", "web", "sh", "-c", script, timeout=20)
        with pytest.raises(TimeoutError):
            secret.accept()


def listener(engine: Engine, name: str) -> socket.socket:
    """A UDP socket at port 53 inside of a container's network."""
    pid = engine.docker("inspect", "-f", "{{.State.Pid}}", name)
    fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)

    def bind() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.settimeout(2)
        made.bind(("0.0.0.0", 53))
        return made

    try:
        return inside(fd, bind)
    finally:
        os.close(fd)


def test_udp_follows_the_container_that_has_the_port(ports: Engine, outside: int):
    def connected() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.settimeout(2)
        made.connect(("198.51.100.1", 18053))
        return made

    with inside(outside, connected) as client:
        for name in ("none", "one", "two"):
            if name == "none":  # nobody has the port yet: the kernel must not remember that
                client.send(b"hello")
                with contextlib.suppress(ConnectionRefusedError):
                    client.recv(100)
                continue
            ports.docker("run", "-d", "--name", name, "-p", "18053:53/udp", "busybox", "sleep", "1000")
            with listener(ports, name) as server_socket:
                client.send(b"hello")
                data, peer = server_socket.recvfrom(100)
                assert (data, peer[0]) == (b"hello", "198.51.100.2"), name
                server_socket.sendto(name.encode(), peer)
                assert client.recv(100) == name.encode()
            ports.docker("rm", "-f", name)


def test_ports_follow_the_way_out(ports: Engine):
    ports.docker("network", "create", "n")
    server(ports, "web", "-p", "18080:80")
    ask("127.0.0.1", 18080)
    ports.docker("network", "connect", "n", "web")
    ports.docker("network", "disconnect", "bridge", "web")
    ask("127.0.0.1", 18080)
    ports.docker("network", "disconnect", "n", "web")
    assert not published(ports, "web").get("80/tcp")
    with pytest.raises(ConnectionRefusedError):
        ask("127.0.0.1", 18080, timeout=0.1)
    ports.docker("network", "connect", "bridge", "web")
    ask("127.0.0.1", 18080)


def test_the_modes_without_a_network_of_their_own(ports: Engine):
    done = ports.run("run", "-d", "--name", "h", "--network", "host", "-p", "18080:80", "busybox", "sleep", "1000")
    assert "WARNING: Published ports are discarded when using host network mode" in done.stderr
    assert published(ports, "h") == {}
    ports.docker("run", "-d", "--name", "n", "--network", "none", "-p", "18080:80", "busybox", "sleep", "1000")
    assert not published(ports, "n").get("80/tcp")
    refused = ports.run("run", "--network", "container:n", "-p", "18080:80", "busybox", "true")
    assert "conflicting options: port publishing and the container type network mode" in refused.stderr


def test_a_port_is_added_to_a_running_container_and_taken_away_again(ports: Engine):
    server(ports, "web")
    body = json.dumps({"PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "18080"}]}})
    status, text = ports.api("POST", "/wherry/v1/containers/web/ports/add", body)
    assert status == 200, text
    assert json.loads(text)["Ports"] == {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "18080"}]}
    ask("127.0.0.1", 18080)
    ports.docker("restart", "-t", "0", "web")
    ask("127.0.0.1", 18080)
    status, text = ports.api("POST", "/wherry/v1/containers/web/ports/remove", body)
    assert status == 200, text
    with pytest.raises(ConnectionRefusedError):
        ask("127.0.0.1", 18080, timeout=0.1)
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("0.0.0.0", 18080))
    assert published(ports, "web") == {"80/tcp": None}
    assert ports.api("POST", "/wherry/v1/containers/web/ports/remove", body)[0] == 404


def test_ports_of_both_families_in_every_form(ports: Engine, outside: int):
    switch = Path("/proc/sys/net/ipv6/conf/all/forwarding")
    before = switch.read_text()
    switch.write_text("1")
    try:
        ports.docker("network", "create", "--ipv6", "--subnet", "fd12::/64", "six")
        flags = ("-p", "18080:80", "-p", "[2001:db8::1]:18081:80", "-p", "[::]:18082:80", "-p", "80")
        more = ("-p", "18090-18093:90-93/udp", "-p", "18100-18110:80", "--network", "six")
        server(ports, "web", *flags, *more)
        _check_both_families(ports, outside)
        ports.crash()
        assert seen(inside(outside, lambda: ask("2001:db8::1", 18080))) == "2001:db8::2"
        ports.start()
        assert seen(inside(outside, lambda: ask("2001:db8::1", 18081))) == "2001:db8::2"
        _check_that_one_family_goes(ports)
    finally:
        switch.write_text(before)


def _check_that_one_family_goes(ports: Engine) -> None:
    ports.docker("rm", "-f", "web")
    server(ports, "web", "-p", "18080:80", "--network", "six")
    body = json.dumps({"PortBindings": {"80/tcp": [{"HostIp": "::", "HostPort": "18080"}]}})
    for answer in (ports.api("POST", "/wherry/v1/containers/web/ports/remove", body), None):
        assert answer is None or answer[0] == 200
        assert published(ports, "web") == {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "18080"}]}
        ports.docker("restart", "-t", "0", "web")
    ask("127.0.0.1", 18080)
    ports.docker("rm", "-f", "web")


def _check_both_families(ports: Engine, outside: int) -> None:
    shown = ports.docker("port", "web").splitlines()
    for line in (
        "80/tcp -> 0.0.0.0:18080",
        "80/tcp -> [::]:18080",
        "80/tcp -> [2001:db8::1]:18081",
        "80/tcp -> [::]:18082",
        "90/udp -> 0.0.0.0:18090",
        "93/udp -> [::]:18093",
        "80/tcp -> 0.0.0.0:18100",
        "80/tcp -> [::]:18100",
    ):
        assert line in shown
    assert "[::]:18080->80/tcp" in ports.docker("ps")
    places = published(ports, "web")["80/tcp"]
    drawn = [each for each in places if int(each["HostPort"]) > 20000]
    assert [each["HostIp"] for each in drawn] == ["0.0.0.0", "::"]
    assert drawn[0]["HostPort"] == drawn[1]["HostPort"]
    for port in (18080, 18081, 18082, 18100, int(drawn[0]["HostPort"])):
        assert seen(inside(outside, lambda port=port: ask("2001:db8::1", port))) == "2001:db8::2", port
    assert seen(ask("2001:db8::1", 18080)) == "2001:db8::1"
    assert seen(ask("localhost", 18080)).endswith(".1"), "::1 is refused, and clients go on to 127.0.0.1"
    with pytest.raises(ConnectionRefusedError):
        ask("::1", 18080, timeout=0.1)
    taken = ports.run("run", "-d", "--network", "six", "-p", "[::]:18080:80", "busybox", "true")
    assert "Bind for [::]:18080 failed: port is already allocated" in taken.stderr
    refused = ports.run("run", "-d", "--network", "six", "-p", "[::1]:18200:80", "busybox", "true")
    assert "cannot publish a port on ::1: the kernel routes no loopback address of IPv6" in refused.stderr


def test_three_hundred_ports(ports: Engine):
    command_line = ("sh", "-c", "nc -l -p 9299 -e echo hi")
    ports.docker("run", "-d", "--name", "a", "-p", "19000-19299:9000-9299", "busybox", *command_line)
    assert ask("127.0.0.1", 19299) == "hi\n"


def test_the_own_command_line(ports: Engine, backend: str):
    def wherry(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "wherry.cli.main", "-H", ports.host, *words]
        return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)

    flags = ("-p", "127.0.0.1:18080:80", "-P", "--expose", "90")
    made = wherry("run", "-d", "--name", "web", *flags, "busybox", "sleep", "1000")
    assert made.returncode == 0, made.stderr
    assert wherry("port", "web", "80").stdout == "127.0.0.1:18080\n"
    assert "127.0.0.1:18080->80/tcp" in wherry("ps").stdout
    assert set(published(ports, "web")) == {"80/tcp", "90/tcp"}
    added = wherry("port", "add", "web", "18081:81", "18082-18083:82-83/udp")
    assert "81/tcp -> 0.0.0.0:18081\n82/udp -> 0.0.0.0:18082\n83/udp -> 0.0.0.0:18083\n" in added.stdout, added.stderr
    assert wherry("port", "rm", "web", "18082-18083:82-83/udp").returncode == 0
    assert "18082" not in wherry("port", "web").stdout
    xray = wherry("xray", "web").stdout
    for text in ("published", "tcp . 18081") if backend == "nftables" else ("DOCKER-BRIDGE", "--dport 81"):
        assert text in xray
