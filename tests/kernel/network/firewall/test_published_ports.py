"""Published ports from everywhere, with the address that the server sees; and what they must not open."""

from __future__ import annotations

import pytest

from tests.kernel.isolation import command, inside, isolated
from tests.kernel.network.firewall.world import HOST, NEIGHBOUR, TCP, UDP, attacked, publish, seen, shut

pytestmark = pytest.mark.root


@pytest.mark.parametrize("kind", [TCP, UDP], ids=["tcp", "udp"])
@isolated
def test_everybody_reaches_a_published_port_and_is_seen_with_an_address_that_can_be_answered(world, kind):
    here = world()
    here.network("other", "10.2.0.0/24")
    box = here.container("bridge", publish(80, 18080, kind))
    near, far = here.container("bridge"), here.container("other")
    here.serving(box.netns_fd, 80, kind)
    assert seen(here.neighbour, HOST, 18080, kind) == NEIGHBOUR, "a client outside keeps its address"
    assert seen(None, HOST, 18080, kind) == HOST
    assert seen(None, "127.0.0.1", 18080, kind) == "172.17.0.1"
    assert seen(box.netns_fd, HOST, 18080, kind) == "172.17.0.1", "the container itself"
    assert seen(near.netns_fd, HOST, 18080, kind) == "172.17.0.1", "one in the same network"
    assert seen(near.netns_fd, "172.17.0.1", 18080, kind) == "172.17.0.1"
    assert seen(far.netns_fd, "10.2.0.1", 18080, kind) == "172.17.0.1", "one in another network"
    assert seen(far.netns_fd, HOST, 18080, kind) == "172.17.0.1"
    assert shut(here.neighbour, HOST, 80, kind)


@isolated
def test_a_port_is_published_at_the_address_that_was_asked_for(world):
    here = world()
    command("ip", "addr", "add", "198.51.100.3/24", "dev", "wan0")
    one = here.container("bridge", publish(80, 18080, address="198.51.100.3"))
    two = here.container("bridge", publish(81, 18080, address=HOST))
    here.serving(one.netns_fd, 80)
    here.serving(two.netns_fd, 81)
    assert seen(here.neighbour, "198.51.100.3", 18080) == NEIGHBOUR
    assert seen(here.neighbour, HOST, 18080) == NEIGHBOUR
    assert shut(None, "127.0.0.1", 18080)
    here.networks.close_sandbox("c0")
    assert here.networks.settle()
    assert shut(here.neighbour, "198.51.100.3", 18080)
    assert seen(here.neighbour, HOST, 18080) == NEIGHBOUR


@isolated
def test_a_port_of_the_loopback_address_is_closed_to_neighbours_and_containers(world):
    here = world()
    box = here.container("bridge", publish(80, 18081, address="127.0.0.1"))
    here.serving(box.netns_fd, 80)
    here.serving(None, 18070)
    assert seen(None, "127.0.0.1", 18081) == "172.17.0.1"
    assert shut(here.neighbour, HOST, 18081)
    command("sysctl", "-qw", "net.ipv4.conf.wan0.route_localnet=1")  # as some set-ups of Kubernetes leave it

    def roundabout(gateway: str, own: str) -> None:
        command("ip", "addr", "del", "127.0.0.1/8", "dev", "lo")
        command("sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1")
        command("ip", "route", "add", "127.0.0.0/8", "via", gateway, "src", own)

    for who, gateway, own in ((here.neighbour, HOST, NEIGHBOUR), (box.netns_fd, "172.17.0.1", "172.17.0.2")):
        inside(who, lambda gateway=gateway, own=own: roundabout(gateway, own))
        with attacked():
            assert shut(who, "127.0.0.1", 18081), own
            assert shut(who, "127.0.0.1", 18070), f"a program of the host, from {own}"


@isolated
def test_route_localnet_is_on_at_a_bridge_that_publishes_and_nowhere_else(world):
    here = world()
    here.network("n", "10.1.0.0/24")
    here.container("bridge", publish(80, 18080))
    here.container("n")
    found = command("sh", "-c", "grep -l 1 /proc/sys/net/ipv4/conf/*/route_localnet")
    assert found.split() == ["/proc/sys/net/ipv4/conf/wherry0/route_localnet"]


@isolated
def test_ports_end_with_their_container_and_others_stay(world):
    here = world()
    one, two = here.container("bridge", publish(80, 18080)), here.container("bridge", publish(80, 18081))
    for box in (one, two):
        here.serving(box.netns_fd, 80)
    assert seen(here.neighbour, HOST, 18080)
    here.networks.close_sandbox("c0")
    assert here.networks.settle()
    assert shut(here.neighbour, HOST, 18080)
    assert seen(here.neighbour, HOST, 18081) == NEIGHBOUR


@isolated
def test_a_hundred_ports_of_one_container(world):
    here = world()
    box = here.container("bridge", *(publish(80, 18000 + number) for number in range(100)))
    here.serving(box.netns_fd, 80)
    for port in (18000, 18050, 18099):
        assert seen(here.neighbour, HOST, port) == NEIGHBOUR


OWN_TABLE = f"""
table inet mine {{
    chain forward {{
        type filter hook forward priority filter; policy accept;
        iifname "wan0" meta l4proto tcp ct original proto-dst 18080 ip saddr {NEIGHBOUR} drop
    }}
}}
"""
OWN_RULE = f"-I DOCKER-USER -i wan0 -p tcp -m conntrack --ctorigdstport 18080 -s {NEIGHBOUR} -j DROP"


@isolated
def test_a_rule_of_the_administrators_goes_before_ours_as_the_guide_says(world, backend, tmp_path):
    here = world()
    box = here.container("bridge", publish(80, 18080), publish(80, 18081))
    here.serving(box.netns_fd, 80)
    assert seen(here.neighbour, HOST, 18080) == NEIGHBOUR
    if backend == "iptables":
        command("iptables", *OWN_RULE.split())
    else:
        (tmp_path / "mine.nft").write_text(OWN_TABLE)
        command("nft", "-f", str(tmp_path / "mine.nft"))
    assert shut(here.neighbour, HOST, 18080)
    assert seen(here.neighbour, HOST, 18081) == NEIGHBOUR
    here.network("n", "10.1.0.0/24")
    assert shut(here.neighbour, HOST, 18080), "also when ours have been written anew"
