"""What becomes of the rules when somebody flushes them, when an engine ends or dies, and with two engines."""

from __future__ import annotations

import pytest

from tests.kernel.isolation import command, inside, isolated
from tests.kernel.network.firewall.world import HOST, NEIGHBOUR, UDP, World, publish, seen, shut
from wherry.network import sysctls

pytestmark = pytest.mark.root

FORWARD = "net/ipv4/ip_forward"
EVERYTHING = "nft flush ruleset"
RULES_ONLY = {
    "nftables": "nft flush table ip wherry-wherry0",
    "iptables": "iptables -F; iptables -t nat -F; iptables -t raw -F",
}
"""What leaves chains and sets, without anything in them."""


def working(here: World) -> bool:
    return bool(seen(here.neighbour, HOST, 18080)) and shut(here.neighbour, "172.17.0.2", 80)


@pytest.mark.parametrize("whole", [True, False], ids=["ruleset", "rules"])
@isolated
def test_a_flush_is_undone(world, backend, whole):
    here = world()
    box = here.container("bridge", publish(80, 18080))
    here.serving(box.netns_fd, 80)
    here.route("172.17.0.0/16")
    assert working(here)
    command("sh", "-c", EVERYTHING if whole else RULES_ONLY[backend])
    assert shut(here.neighbour, HOST, 18080)
    here.networks.refresh_firewall()
    assert working(here)


@isolated
def test_after_a_flush_the_next_port_brings_all_back(world):
    here = world()
    box = here.container("bridge", publish(80, 18080))
    here.serving(box.netns_fd, 80)
    here.route("172.17.0.0/16")
    command("nft", "flush", "ruleset")
    here.container("bridge", publish(80, 18081))
    assert working(here)
    command("nft", "flush", "ruleset")
    here.networks.close_sandbox("c1")
    assert here.networks.settle()
    here.network("n", "10.1.0.0/24")
    assert working(here)


@isolated
def test_rules_that_are_all_there_are_refreshed_without_a_difference(world):
    here = world()
    here.container("bridge", publish(80, 18080), publish(81, 18081, UDP))
    here.network("n", "10.1.0.0/24", enable_icc="false")
    here.network("i", "10.2.0.0/24", internal=True)
    before = command("nft", "list", "ruleset")
    here.networks.refresh_firewall()
    assert command("nft", "list", "ruleset") == before


@isolated
def test_the_next_engine_has_the_ports_and_lets_go_of_those_that_ended(engine, backend, world):
    here = world()
    box, ended = here.container("bridge", publish(80, 18080)), here.container("bridge", publish(80, 18081))
    for each in (box, ended):
        here.serving(each.netns_fd, 80)
    here.networks.stop(remove=False)
    assert seen(here.neighbour, HOST, 18080) == NEIGHBOUR, "while no engine runs"
    again = engine(start=False, firewall=backend)
    again.start()
    assert seen(here.neighbour, HOST, 18081) == NEIGHBOUR, "before it is known what runs"
    again.restore(["c0"])
    assert seen(here.neighbour, HOST, 18080) == NEIGHBOUR
    assert shut(here.neighbour, HOST, 18081)


@isolated
def test_another_backend_takes_over_while_containers_run(engine, backend, world):
    here = world()
    box = here.container("bridge", publish(80, 18080))
    here.serving(box.netns_fd, 80)
    here.network("n", "10.1.0.0/24")
    here.route("172.17.0.0/16")
    here.networks.stop(remove=False)
    assert working(here)
    again = engine(start=False, firewall="iptables" if backend == "nftables" else "nftables")
    again.start()
    again.restore(["c0"])
    assert working(here)
    here.networks.close_sandbox("c0")
    again.close_sandbox("c0")
    assert again.settle()
    assert shut(here.neighbour, HOST, 18080), "nothing leads there by the rules of before"
    again.stop(remove=True)
    left = command("nft", "list", "ruleset")
    assert "wherry-wherry0" not in left
    assert "DOCKER" not in left


@isolated
def test_two_engines_side_by_side(engine, backend, world):
    here = world()
    box = here.container("bridge", publish(80, 18080))
    here.serving(box.netns_fd, 80)
    here.route("172.17.0.0/16")
    other = engine(root="b", bridge="wherry1", firewall=backend)
    second = here.container("bridge", publish(80, 18081), of=other)
    here.serving(second.netns_fd, 80)
    address = second.endpoints[0].ipv4
    assert working(here)
    assert seen(here.neighbour, HOST, 18081) == NEIGHBOUR
    assert shut(box.netns_fd, address, 80)
    assert shut(second.netns_fd, "172.17.0.2", 80)
    assert seen(box.netns_fd, HOST, 18081), "published for everybody"
    other.close_sandbox("c0")
    assert other.settle()
    other.stop(remove=True)
    assert working(here)
    assert shut(here.neighbour, HOST, 18081)
    assert sysctls.read(FORWARD) == "1"


@isolated
def test_an_engine_turns_forwarding_on_for_itself_alone_and_off_again(engine, backend, world):
    """The host was no router between links of its own, and does not become one."""
    here = world(bridge="")
    lan = here.beyond("lan", "203.0.113.1", "203.0.113.2")
    here.serving(lan, 80)
    here.route("203.0.113.0/24")
    inside(lan, lambda: command("ip", "route", "add", "default", "via", "203.0.113.1"))
    networks = engine(root="b", firewall=backend)
    assert sysctls.read(FORWARD) == "1"
    assert shut(here.neighbour, "203.0.113.2", 80)
    box = here.container(of=networks)
    assert seen(box.netns_fd, "203.0.113.2", 80) == "203.0.113.1", "for containers it is one"
    networks.close_sandbox("c0")
    assert networks.settle()
    networks.stop(remove=True)
    assert sysctls.read(FORWARD) == "0"
    sysctls.write(FORWARD, "1")
    assert seen(here.neighbour, "203.0.113.2", 80) == NEIGHBOUR, "nothing is left of the guard"


@isolated
def test_forwarding_that_was_on_is_left_as_it_was(engine, backend, world):
    here = world(bridge="")
    lan = here.beyond("lan", "203.0.113.1", "203.0.113.2")
    here.serving(lan, 80)
    here.route("203.0.113.0/24")
    inside(lan, lambda: command("ip", "route", "add", "default", "via", "203.0.113.1"))
    sysctls.write(FORWARD, "1")
    networks = engine(root="b", firewall=backend)
    assert seen(here.neighbour, "203.0.113.2", 80) == NEIGHBOUR, "a router stays a router"
    networks.stop(remove=True)
    assert sysctls.read(FORWARD) == "1"
    assert seen(here.neighbour, "203.0.113.2", 80) == NEIGHBOUR
