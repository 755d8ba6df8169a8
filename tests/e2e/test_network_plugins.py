"""A whole engine with a plugin for networks and addresses, found where plugins are."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine import Engine
from tests.kernel.isolation import ip
from tests.plugins.running import Program
from tests.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.engine]


@pytest.fixture
def program(own_engine: Engine, tmp_path: Path) -> Iterator[Program]:
    made = Program(tmp_path).start()
    own_engine.run_root.mkdir(mode=0o700)
    (own_engine.run_root / "plugins").symlink_to(made.socket.parent)
    own_engine.start()
    own_engine.import_busybox()
    yield made
    if own_engine.process is not None and own_engine.process.poll() is not None:
        own_engine.start()
    own_engine.remove_all()
    own_engine.docker("network", "prune", "-f")
    made.kill()
    networks = [request["NetworkID"] for method, request in made.calls() if method == "NetworkDriver.CreateNetwork"]
    endpoints = [request["EndpointID"] for method, request in made.calls() if method == "NetworkDriver.CreateEndpoint"]
    left = {f"pb-{each[:10]}" for each in networks}
    left |= {f"{end}-{each[:10]}" for end in ("ph", "pc") for each in endpoints}
    assert left.isdisjoint(each["ifname"] for each in ip("link"))


def run(engine: Engine, name: str, *more: str) -> str:
    return engine.docker("run", "-d", "--name", name, "--network", "n", *more, "busybox", "sleep", "1000")


def test_containers_live_in_a_network_of_a_plugin_and_outlive_the_engine(own_engine: Engine, program: Program):
    own_engine.docker("network", "create", "-d", "tester", "--ipam-driver", "tester", "--ipam-opt", "x=y", "n")
    one, two = run(own_engine, "c1"), run(own_engine, "c2", "-p", "8080:80")
    assert "10.200.0.253/24" in own_engine.docker("exec", "c1", "ip", "addr", "show", "eth0")
    own_engine.docker("exec", "c1", "ping", "-c1", "-W2", "c2")
    assert "tester" in own_engine.docker("info", "-f", "{{json .Plugins.Network}}")
    (network,) = json.loads(own_engine.docker("network", "inspect", "n"))
    assert (network["Driver"], network["Scope"], network["IPAM"]["Driver"]) == ("tester", "local", "tester")
    assert network["Containers"][one]["IPv4Address"] == "10.200.0.253/24"
    assert own_engine.docker("inspect", "-f", "{{json .NetworkSettings.Ports}}", "c2") in ("{}", '{"80/tcp":null}')
    seen = own_engine.docker("events", "--since", "1h", "--until", "0s", "-f", "type=network", "--format", "{{json .}}")
    kinds = {each["Actor"]["Attributes"]["type"] for each in map(json.loads, seen.splitlines())}
    assert kinds == {"tester"}
    pid = int(own_engine.docker("inspect", "-f", "{{.State.Pid}}", "c2"))
    endpoint = own_engine.docker("inspect", "-f", "{{.NetworkSettings.Networks.n.EndpointID}}", "c2")
    own_engine.crash()
    os.kill(pid, signal.SIGKILL)
    own_engine.start()
    until(lambda: "DeleteEndpoint" in program.asked(), seconds=10.0)
    assert program.last("DeleteEndpoint")["EndpointID"] == endpoint
    assert own_engine.docker("inspect", "-f", "{{.State.Running}}", "c1", "c2") == "true\nfalse"
    own_engine.docker("start", "c2")
    # The plugin gives c2 another MAC address, of which c1 hears.
    ping = ("exec", "c1", "ping", "-c1", "-W1", "c2")
    until(lambda: own_engine.run(*ping).returncode == 0, seconds=10.0)
    assert program.asked().count("CreateNetwork") == 1
    assert two in own_engine.docker("ps", "--no-trunc", "-q")
    own_engine.docker("rm", "-f", "c1", "c2")
    own_engine.docker("network", "rm", "n")
    assert json.loads((program.folder / "pools").read_text()) == {}


def test_a_network_whose_creation_was_cut_off_is_forgotten_by_the_plugin_too(
    own_engine: Engine, program: Program, monkeypatch: pytest.MonkeyPatch
):
    assert own_engine.stop() == 0
    monkeypatch.setenv("WHERRY_FAILPOINTS", "network.bridge=kill")
    own_engine.start()
    assert own_engine.run("network", "create", "-d", "tester", "n").returncode == 1
    assert own_engine.process is not None
    assert own_engine.process.wait(timeout=10) == -signal.SIGKILL
    assert program.asked()[-1] == "CreateNetwork"
    monkeypatch.delenv("WHERRY_FAILPOINTS")
    own_engine.start()
    until(lambda: program.asked()[-1] == "DeleteNetwork", seconds=10.0)
    assert program.last("DeleteNetwork")["NetworkID"] == program.last("CreateNetwork")["NetworkID"]
    own_engine.docker("network", "create", "-d", "tester", "n")


def test_what_a_client_reads_of_a_plugin_that_refuses_or_is_none(own_engine: Engine, program: Program):
    program.order(CreateNetwork="err no luck")
    refused = own_engine.run("network", "create", "-d", "tester", "n")
    assert (refused.returncode, refused.stderr) == (1, "Error response from daemon: remote: no luck\n")
    missing = own_engine.run("network", "create", "-d", "nosuch", "n")
    assert (missing.returncode, missing.stderr) == (1, 'Error response from daemon: plugin "nosuch" not found\n')
    status, text = own_engine.api("POST", "/networks/create", json.dumps({"Name": "n", "Driver": "nosuch"}))
    assert (status, json.loads(text)) == (404, {"message": 'plugin "nosuch" not found'})
    program.order()
    own_engine.docker("network", "create", "-d", "tester", "n")
    program.order(CreateEndpoint="err full")
    refused = own_engine.run("run", "--rm", "--name", "c1", "--network", "n", "busybox", "true")
    text = "failed to set up container networking: failed to create endpoint c1 on network n: remote: full"
    assert text in refused.stderr
