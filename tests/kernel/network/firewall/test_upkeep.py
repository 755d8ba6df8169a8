"""Rules that come back of themselves: when somebody removes them, and when firewalld has read its own anew."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.kernel.isolation import command, isolated
from tests.kernel.network.firewall.world import HOST, NEIGHBOUR, publish, seen, shut
from tests.waiting import until
from wherry.network import sysctls
from wherry.network.upkeep import COLLECT

pytestmark = pytest.mark.root

ROOT = Path(__file__).parents[4]
FLUSH = {"nftables": "nft flush table ip wherry-wherry0", "iptables": "iptables -F; iptables -t nat -F"}


def serving(world: Callable, **config: object):
    here = world(firewall_watch=True, **config)
    box = here.container("bridge", publish(80, 18080))
    here.serving(box.netns_fd, 80)
    assert seen(here.neighbour, HOST, 18080) == NEIGHBOUR
    return here


@pytest.mark.parametrize("whole", [True, False], ids=["ruleset", "rules"])
@isolated
def test_what_somebody_flushes_is_back_a_moment_later(world, backend, whole):
    here = serving(world)
    for _ in range(2):
        command("sh", "-c", "nft flush ruleset" if whole else FLUSH[backend])
        assert seen(here.neighbour, HOST, 18080) == NEIGHBOUR


@isolated
def test_the_guard_of_forwarding_is_back_too(world):
    here = serving(world)
    before = command("nft", "list", "ruleset").count("policy drop") or "wherry_forwarding"
    assert sysctls.read("net/ipv4/ip_forward") == "1"
    command("nft", "flush", "ruleset")

    def guarded() -> object:
        rules = command("nft", "list", "ruleset")
        return rules.count("policy drop") or ("wherry_forwarding" if "table ip wherry_forwarding" in rules else "")

    assert until(guarded, seconds=5) == before
    assert seen(here.neighbour, HOST, 18080) == NEIGHBOUR


@isolated
def test_changes_of_our_own_and_of_others_cost_no_rebuilding(world, monkeypatch):
    here = serving(world)
    restored = []
    monkeypatch.setattr(here.networks._directory.firewall, "refresh", lambda: restored.append(1))
    here.network("n", "10.1.0.0/24")
    here.container("n", publish(81, 18081))
    here.networks.close_sandbox("c1")
    assert here.networks.settle()
    here.networks.remove("n")
    for words in ("add table ip other", "add chain ip other c", "add rule ip other c drop", "delete table ip other"):
        command("nft", words)
    time.sleep(COLLECT * 3)
    assert restored == []


@isolated
def test_it_can_be_turned_off(engine, backend, world):
    here = world(firewall_watch=False)
    box = here.container("bridge", publish(80, 18080))
    here.serving(box.netns_fd, 80)
    assert seen(here.neighbour, HOST, 18080)
    command("nft", "flush", "ruleset")
    time.sleep(COLLECT * 3)
    assert shut(here.neighbour, HOST, 18080)


@isolated
def test_an_engine_that_ends_lets_the_rules_go(world):
    here = serving(world)
    here.networks.close_sandbox("c0")
    assert here.networks.settle()
    here.networks.stop(remove=True)
    time.sleep(COLLECT * 3)
    left = command("nft", "list", "ruleset")
    assert "wherry" not in left
    assert "DOCKER" not in left


class Firewalld:
    """A bus of its own, and the fake on it when it has been started."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.path = str(folder / "bus")
        self._stack = stack
        words = ["dbus-daemon", "--session", "--nofork", f"--address=unix:path={self.path}", "--print-address"]
        daemon = self._run(words)
        assert daemon.stdout is not None
        daemon.stdout.readline()  # it listens

    def _run(self, words: list[str]) -> subprocess.Popen[str]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(words, text=True, cwd=ROOT, **pipes)
        self._stack.enter_context(process)
        self._stack.callback(process.kill)
        return process

    def start(self) -> None:
        self.fake = self._run([sys.executable, "-m", "tests.kernel.network.firewall.fakefirewalld", self.path])
        assert self.heard() == "ready"

    def heard(self) -> object:
        assert self.fake.stdout is not None
        return json.loads(self.fake.stdout.readline())

    def until(self, *call: str) -> list[object]:
        """Return all calls up to one."""
        found = []
        while not found or found[-1] != list(call):
            found.append(self.heard())
        return found

    def reload(self) -> None:
        assert self.fake.stdin is not None
        self.fake.stdin.write("reload\n")
        self.fake.stdin.flush()


@pytest.fixture
def firewalld(tmp_path: Path) -> Iterator[Firewalld]:
    with ExitStack() as stack:
        yield Firewalld(tmp_path, stack)


@isolated
def test_bridges_are_in_the_zone_of_dockerd_and_rules_are_back_after_a_reload(world, firewalld):
    firewalld.start()
    here = world(firewall_watch=False, bus=firewalld.path)
    box = here.container("bridge", publish(80, 18080))
    here.serving(box.netns_fd, 80)
    calls = firewalld.until("addInterface", "docker", "wherry0")
    zone, policy = ["addZone2", "docker"], ["addPolicy", "docker-forwarding"]
    assert calls[:5] == [["getZones"], zone, ["getPolicies"], policy, ["reload"]]
    here.network("n", "10.1.0.0/24", bridge="br-n")
    assert ["addZone2", "docker"] not in firewalld.until("addInterface", "docker", "br-n")
    command("nft", "flush", "ruleset")
    assert shut(here.neighbour, HOST, 18080)
    firewalld.reload()
    firewalld.until("addInterface", "docker", "wherry0")
    assert seen(here.neighbour, HOST, 18080) == NEIGHBOUR
    here.networks.remove("n")
    firewalld.until("removeInterface", "docker", "br-n")


@isolated
def test_firewalld_that_comes_up_later(world, firewalld):
    here = world(firewall_watch=False, bus=firewalld.path)
    box = here.container("bridge", publish(80, 18080))
    here.serving(box.netns_fd, 80)
    assert seen(here.neighbour, HOST, 18080) == NEIGHBOUR
    command("nft", "flush", "ruleset")
    firewalld.start()
    firewalld.until("addInterface", "docker", "wherry0")
    assert seen(here.neighbour, HOST, 18080) == NEIGHBOUR
    here.networks.close_sandbox("c0")
    assert here.networks.settle()
    here.networks.stop(remove=True)
    firewalld.until("removeInterface", "docker", "wherry0")
