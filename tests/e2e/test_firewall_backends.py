"""Networks of an engine with the firewall backend iptables, and an engine whose backend is changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_ports import FLAGS, ask, server
from tests.engine import Engine
from tests.kernel.isolation import command
from tests.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.engine]


@pytest.fixture
def filtered(own_engine: Engine) -> Iterator[Engine]:
    """An engine with iptables."""
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    own_engine.flags = FLAGS["iptables"]
    own_engine.start()
    own_engine.import_busybox()
    yield own_engine
    own_engine.remove_all()
    own_engine.run("network", "prune", "-f")


def start(engine: Engine, name: str, network: str) -> str:
    engine.docker("run", "-d", "--name", name, "--network", network, "busybox", "sleep", "1000")
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    return engine.docker("inspect", "-f", form, name)


def reaches(engine: Engine, who: str, whom: str) -> bool:
    return engine.run("exec", who, "ping", "-c", "1", "-W", "1", whom, timeout=20).returncode == 0


def rules(engine: Engine) -> list[str]:
    """Those of the engine, by its name."""
    return [line for line in command("iptables-save").splitlines() if f"--comment wherry-{engine.bridge} " in line]


def test_networks_apart_and_names(filtered: Engine):
    info = json.loads(filtered.docker("info", "-f", "{{json .}}"))
    assert info.get("FirewallBackend") in ({"Driver": "iptables"}, None), "the docker command may be older"
    few = len(rules(filtered))
    for name, subnet, *flags in (("a", "10.221.0.0/24"), ("b", "10.222.0.0/24"), ("i", "10.223.0.0/24", "--internal")):
        filtered.docker("network", "create", "--subnet", subnet, *flags, name)
    start(filtered, "a1", "a")
    start(filtered, "a2", "a")
    other, closed = start(filtered, "b1", "b"), start(filtered, "i1", "i")
    start(filtered, "i2", "i")
    assert until(lambda: reaches(filtered, "a1", "a2"))
    assert until(lambda: reaches(filtered, "i2", "i1"))
    for who, whom in (("a1", other), ("a1", closed), ("i1", other)):
        assert not reaches(filtered, who, whom), (who, whom)
    filtered.docker("network", "connect", "b", "a1")
    assert until(lambda: reaches(filtered, "a1", "b1"))
    filtered.docker("network", "disconnect", "b", "a1")
    assert not reaches(filtered, "a1", other)
    filtered.crash()
    filtered.start()
    assert reaches(filtered, "a1", "a2")
    assert not reaches(filtered, "a1", other)
    filtered.remove_all()
    filtered.docker("network", "prune", "-f")
    until(lambda: len(rules(filtered)) == few)


def test_the_backend_is_changed_while_a_container_runs(filtered: Engine):
    server(filtered, "web", "-p", "18280:80")
    ask("127.0.0.1", 18280)
    assert rules(filtered)
    filtered.stop()
    filtered.flags = ()
    filtered.start()
    ask("127.0.0.1", 18280)
    assert not rules(filtered)
    filtered.stop()
    filtered.flags = FLAGS["iptables"]
    filtered.start()
    ask("127.0.0.1", 18280)
    assert f"wherry-{filtered.bridge}" not in command("nft", "list", "tables")
