"""Networks over the death of the engine and of its helpers: connections go on, and everything is as before."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.test_networks import lookup, name_server
from tests.engine import Engine
from tests.reliability.worlds import World, world
from tests.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.engine]

ECHO = ("sh", "-c", "while true; do nc -l -p 7000 -e cat; done")
TALK = "i=0; while true; do i=$((i+1)); echo $i; sleep 0.1; done | nc three 7000 > /tmp/heard"


@pytest.fixture
def own_world(own_engine: Engine) -> Iterator[World]:
    with world(own_engine) as found:
        yield found


class Talk:
    """A connection that sends a line and waits for it to come back, again and again."""

    def __init__(self, connection: socket.socket) -> None:
        self.rounds = 0
        self.failure = ""
        self._connection = connection
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._talk)
        self._thread.start()

    def _talk(self) -> None:
        self._connection.settimeout(15)
        with self._connection, self._connection.makefile("rb") as answers:
            while not self._over.wait(0.02):
                line = f"{self.rounds}\n".encode()
                try:
                    self._connection.sendall(line)
                    answer = answers.readline()
                except OSError as error:
                    self.failure = f"after {self.rounds}: {error}"
                    return
                if answer != line:
                    self.failure = f"after {self.rounds}: {answer!r}"
                    return
                self.rounds += 1

    def goes_on(self) -> bool:
        """Whether data comes back that was sent from now on."""
        begun = self.rounds
        until(lambda: self.failure or self.rounds > begun + 3)
        return not self.failure

    def end(self) -> None:
        self._over.set()
        self._thread.join()


@contextmanager
def talking(found: World, address: tuple[str, int]) -> Iterator[Talk]:
    def connect() -> socket.socket:
        return socket.create_connection(address, timeout=10)

    talk = Talk(until(lambda: _or_none(lambda: found.do(connect))))
    try:
        yield talk
    finally:
        talk.end()


def _or_none(work: Callable[[], socket.socket]) -> socket.socket | None:
    try:
        return work()
    except ConnectionRefusedError:
        return None  # it does not listen yet


def supervisor(engine: Engine, name: str) -> int:
    pid = engine.docker("inspect", "-f", "{{.State.Pid}}", name)
    with open(f"/proc/{pid}/stat") as stat:
        return int(stat.read().rpartition(")")[2].split()[1])


def shown(engine: Engine, *names: str) -> list[object]:
    """What docker says of networks and of these containers."""
    networks = sorted(engine.docker("network", "ls", "--format", "{{.ID}} {{.Name}}").splitlines())
    settings = [json.loads(engine.docker("inspect", "-f", "{{json .NetworkSettings}}", name)) for name in names]
    return [networks, *settings, json.loads(engine.docker("network", "inspect", "n"))]


class Company:
    """Three containers: one is talked to through a published port, two talks to three all the time."""

    def __init__(self, found: World) -> None:
        self.world, self.engine = found, found.engine
        engine = self.engine
        engine.docker("network", "create", "--subnet", "10.166.0.0/24", "n")
        flags = ("--network", "n", "--ip", "10.166.0.7", "-p", "18400:7000", "--network-alias", "db")
        engine.docker("run", "-d", "--name", "one", *flags, "busybox", *ECHO)
        engine.docker("run", "-d", "--name", "three", "--network", "n", "busybox", *ECHO)
        until(lambda: ":7000 " in engine.docker("exec", "three", "netstat", "-ltn"))
        engine.docker("run", "-d", "--name", "two", "--network", "n", "busybox", "sh", "-c", TALK)
        self._pid = engine.docker("inspect", "-f", "{{.State.Pid}}", "two")
        self._shown, self._rules = shown(engine, "one", "two"), self._ruleset()

    def _ruleset(self) -> list[str]:
        """Rules without their counters, in any order: elements of sets have none."""
        lines = self.world.run("nft", "list", "ruleset").splitlines()
        return sorted(line for each in lines if (line := each.partition("counter packets")[0].strip()))

    def _heard(self) -> int:
        with open(f"/proc/{self._pid}/root/tmp/heard") as file:
            return len(file.readlines())

    def goes_on(self, talk: Talk) -> None:
        """Check that both connections carry what is sent from now on."""
        begun = self._heard()
        assert talk.goes_on(), talk.failure
        until(lambda: self._heard() > begun + 2)

    def is_the_same(self) -> None:
        """Check that networks, addresses, ports, names and rules are as before."""
        assert shown(self.engine, "one", "two") == self._shown
        assert lookup(self.engine, "two", "db") == lookup(self.engine, "two", "one") == {"10.166.0.7"}
        until(lambda: self._ruleset() == self._rules)


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_connections_outlive_engine_zygote_and_name_server(own_world: World, backend: str):
    engine = own_world.engine
    engine.flags = ("--firewall-backend", backend)
    engine.start()
    engine.import_busybox()
    company = Company(own_world)
    with talking(own_world, ("127.0.0.1", 18400)) as talk:
        company.goes_on(talk)
        for end in (engine.crash, engine.stop):
            end()
            company.goes_on(talk)
            engine.start()
            company.goes_on(talk)
            company.is_the_same()
        os.kill(engine.zygote(), signal.SIGKILL)
        os.kill(name_server(engine), signal.SIGKILL)
        company.goes_on(talk)
        until(lambda: lookup(engine, "two", "db") == {"10.166.0.7"})
        company.is_the_same()
        assert engine.docker("run", "--rm", "--network", "n", "busybox", "echo", "works") == "works"


def test_a_killed_supervisor_takes_its_published_port_along(own_world: World):
    engine = own_world.engine
    engine.start()
    engine.import_busybox()
    Company(own_world)
    os.kill(supervisor(engine, "one"), signal.SIGKILL)
    until(lambda: engine.docker("inspect", "-f", "{{.State.Status}}", "one") == "exited")
    until(lambda: "18400" not in own_world.run("nft", "list", "ruleset"))
    assert engine.docker("ps", "--format", "{{.Names}}").split() == ["two", "three"]
    engine.docker("start", "one")
    with talking(own_world, ("127.0.0.1", 18400)) as talk:
        assert talk.goes_on()


PLACES = [
    ("sandbox.taken", "run"),
    ("sandbox.published", "run"),
    ("sandbox.recorded", "run"),
    ("connect.linked", "connect"),
    ("connect.recorded", "connect"),
    ("disconnect.recorded", "disconnect"),
    ("disconnect.unlinked", "disconnect"),
    ("sandbox.closed", "kill"),
]
COMMANDS = {
    "run": ("run", "-d", "--name", "bb", "--network", "n", "-p", "18401:80", "busybox", "sleep", "1000"),
    "connect": ("network", "connect", "n", "aa"),
    "disconnect": ("network", "disconnect", "m", "aa"),
    "kill": ("kill", "cc"),
}
ONLY_KILL = ("connect.recorded", "disconnect.unlinked", "sandbox.closed")


@pytest.mark.parametrize(
    ("place", "verb", "action"),
    [(*each, how) for each in PLACES for how in ("kill", "error") if how == "kill" or each[0] not in ONLY_KILL],
)
def test_an_engine_that_dies_on_the_way_leaves_nothing(
    own_world: World, place: str, verb: str, action: str, monkeypatch: pytest.MonkeyPatch
):
    """In the end the kernel has what the engine says, and what was there before works."""
    engine = own_world.engine
    engine.start()
    engine.import_busybox()
    for name in ("n", "m"):
        engine.docker("network", "create", name)
    engine.docker("run", "-d", "--name", "aa", "--network", "m", "busybox", "sleep", "1000")
    engine.docker("run", "-d", "--name", "cc", "--network", "n", "-p", "18402:80", "busybox", "sleep", "1000")
    engine.docker("network", "connect", "bridge", "aa")
    assert engine.stop() == 0
    monkeypatch.setenv("WHERRY_FAILPOINTS", f"{place}={action}")
    engine.start()
    assert engine.process is not None
    ran = engine.run(*COMMANDS[verb])
    if action == "kill":
        assert engine.process.wait(timeout=20) == -signal.SIGKILL
    else:
        assert (ran.returncode, f"failpoint {place}" in ran.stderr) == (125 if verb == "run" else 1, True)
        assert engine.stop() == 0
    monkeypatch.delenv("WHERRY_FAILPOINTS")
    engine.start()
    _agrees(own_world)
    for name in engine.docker("ps", "-aq").split():
        engine.docker("rm", "-f", name)
    _agrees(own_world)
    assert engine.docker(*COMMANDS["run"])
    engine.docker("rm", "-f", "bb")
    for name in ("n", "m"):
        engine.docker("network", "rm", name)
    _agrees(own_world)


def _agrees(found: World) -> None:
    """Check that links, rules and records are those of the containers that docker shows."""
    engine = found.engine
    wanted: dict[str, int] = {}
    for id_ in engine.docker("network", "ls", "-q", "--no-trunc", "--filter", "driver=bridge").split():
        (network,) = json.loads(engine.docker("network", "inspect", id_))
        name = network["Options"].get("com.docker.network.bridge.name", f"br-{id_[:12]}")
        wanted[name] = len(network["Containers"])
        for container, each in network["Containers"].items():
            addresses = engine.docker("exec", container, "ip", "-o", "-4", "addr")
            assert f"inet {each['IPv4Address']} " in addresses

    def ports(bridge: str) -> int:
        return len(found.run("ip", "-o", "link", "show", "master", bridge).splitlines())

    def stocked() -> dict[str, int]:
        return {name: ports(name) - (4 if name == engine.bridge else 0) for name in wanted}

    until(lambda: stocked() == wanted, seconds=30)
    bridges = found.run("ip", "-o", "link", "show", "type", "bridge").splitlines()
    assert {line.split()[1].rstrip(":") for line in bridges} == set(wanted)
    published = {f"184{n:02}" for n in range(1, 3)}
    shown_ports = engine.docker("ps", "--format", "{{.Ports}}")
    until(lambda: all((port in shown_ports) == (port in found.run("nft", "list", "ruleset")) for port in published))
