"""Published ports that the host's own INPUT rules open and close: as ufw writes them, as firewalld does, by source."""

from __future__ import annotations

import socket
import time

import pytest

from tests.kernel.isolation import command, inside, isolated
from tests.kernel.network.firewall.world import HOST, HOST6, NEIGHBOUR, TCP, UDP, publish, seen, shut
from tests.waiting import until

pytestmark = pytest.mark.root
UFW = """*filter
:INPUT DROP [0:0]
:FORWARD {forward} [0:0]
:ufw-before-input - [0:0]
:ufw-user-input - [0:0]
-A INPUT -j ufw-before-input
-A ufw-before-input -i lo -j ACCEPT
-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-input -m conntrack --ctstate INVALID -j DROP
-A ufw-before-input -p {icmp} -j ACCEPT
-A ufw-before-input -j ufw-user-input
-A ufw-user-input -p tcp -m tcp --dport 443 -j ACCEPT
COMMIT
"""
FIREWALLD = """table inet firewalld {
    chain filter_INPUT {
        type filter hook input priority filter + 10; policy accept;
        ct state { established, related } accept
        iifname "lo" accept
        meta l4proto { icmp, ipv6-icmp } accept
        tcp dport 443 accept
        reject with icmpx admin-prohibited
    }
}
"""


def ufw(backend: str, tmp_path) -> None:
    """Load what `ufw default deny incoming; ufw allow 443/tcp` makes, with the policy of FORWARD that it needs."""
    for program, icmp in (("iptables", "icmp"), ("ip6tables", "ipv6-icmp")):
        file = tmp_path / program
        file.write_text(UFW.format(forward="DROP" if backend == "iptables" else "ACCEPT", icmp=icmp))
        command(f"{program}-restore", "--noflush", str(file))


def closed(here: int | None, port: int, kind: int = TCP, address: str = HOST) -> bool:
    """Whether a client that asks again and again has no answer; the first packet has none in any case."""
    return all(shut(here, address, port, kind) for _ in range(4))


@isolated
def test_ufw_opens_and_closes_published_ports(world, backend, tmp_path):
    here = world(respect_host=True)
    ufw(backend, tmp_path)
    here.network("dual", "172.30.9.0/24", six="fd00:9::/64")
    box = here.container("dual", publish(80, 443), publish(81, 8080))
    for port in (80, 81):
        here.serving(box.netns_fd, port)
    assert seen(here.neighbour, HOST, 443) == NEIGHBOUR
    assert seen(here.neighbour, HOST6, 443)
    assert closed(here.neighbour, 8080)
    assert closed(here.neighbour, 8080, address=HOST6)
    assert seen(None, HOST, 8080), "the host itself is not asked about"
    other = here.container()
    assert seen(other.netns_fd, HOST, 8080), "nor are containers"
    command("iptables", "-A", "ufw-user-input", "-p", "tcp", "--dport", "8080", "-j", "ACCEPT")
    assert seen(here.neighbour, HOST, 8080) == NEIGHBOUR
    assert closed(here.neighbour, 8080, address=HOST6)


@isolated
def test_one_question_takes_a_second_and_the_next_ones_none(world, backend, tmp_path):
    here = world(respect_host=True)
    ufw(backend, tmp_path)
    box = here.container("bridge", publish(80, 443))
    here.serving(box.netns_fd, 80)
    assert seen(None, HOST, 443)

    def took() -> float:
        begun = time.monotonic()
        with socket.create_connection((HOST, 443), 5) as client:
            assert client.recv(100)
        return time.monotonic() - begun

    first, second = inside(here.neighbour, lambda: (took(), took()))
    assert 0.9 < first < 3, first
    assert second < 0.5, second


@isolated
def test_firewalld_udp_and_sources(world, tmp_path):
    here = world(respect_host=True)
    file = tmp_path / "rules"
    file.write_text(FIREWALLD)
    command("nft", "-f", str(file))
    box = here.container("bridge", publish(80, 443), publish(81, 8080), publish(53, 5353, UDP, HOST))
    here.serving(box.netns_fd, 80)
    here.serving(box.netns_fd, 81)
    here.serving(box.netns_fd, 53, UDP)
    assert seen(here.neighbour, HOST, 443) == NEIGHBOUR
    assert closed(here.neighbour, 8080)
    assert closed(here.neighbour, 5353, UDP)
    rule = ("nft", "insert", "rule", "inet", "firewalld", "filter_INPUT")
    command(*rule, "ip", "saddr", "203.0.113.0/24", "tcp", "dport", "8080", "accept")
    assert closed(here.neighbour, 8080)
    command(*rule, "ip", "saddr", NEIGHBOUR, "tcp", "dport", "8080", "accept")
    command(*rule, "udp", "dport", "5353", "accept")
    assert seen(here.neighbour, HOST, 8080) == NEIGHBOUR
    assert seen(here.neighbour, HOST, 5353, UDP) == NEIGHBOUR


@isolated
def test_a_port_that_goes_belongs_to_the_host_again_and_the_table_ends_with_the_setting(world, engine, backend):
    here = world(respect_host=True)
    command("iptables", "-A", "INPUT", "-p", "tcp", "--dport", "8080", "-i", "wan0", "-j", "DROP")
    box = here.container("bridge", publish(80, 8080))
    other = here.container("bridge", publish(80, 8081))
    here.serving(other.netns_fd, 80)
    assert seen(here.neighbour, HOST, 8081) == NEIGHBOUR
    here.networks.close_sandbox("c0")
    box.close()
    assert here.networks.settle()
    command("iptables", "-F", "INPUT")
    here.serving(None, 8080)
    assert seen(here.neighbour, HOST, 8080) == NEIGHBOUR, "a program of the host has it"
    command("nft", "delete", "table", "ip", "wherry_input_wherry0")
    here.networks.refresh_firewall()
    assert "wherry_input_wherry0" in command("nft", "list", "tables")
    here.networks.stop(remove=False)
    engine(firewall=backend)
    assert "wherry_input" not in command("nft", "list", "tables")


@isolated
def test_what_somebody_flushes_asks_again_a_moment_later(world, backend, tmp_path):
    here = world(respect_host=True, firewall_watch=True)
    ufw(backend, tmp_path)
    box = here.container("bridge", publish(80, 443), publish(81, 8080))
    here.serving(box.netns_fd, 80)
    here.serving(box.netns_fd, 81)
    assert seen(here.neighbour, HOST, 443)
    command("nft", "delete", "table", "ip", "wherry_input_wherry0")
    until(lambda: "wherry_input_wherry0" in command("nft", "list", "tables", "ip"))
    assert closed(here.neighbour, 8080)
    assert seen(here.neighbour, HOST, 443)


@isolated
def test_the_next_engine_asks_from_the_start(world, engine, backend, tmp_path):
    here = world(respect_host=True)
    ufw(backend, tmp_path)
    box = here.container("bridge", publish(80, 443), publish(81, 8080))
    here.serving(box.netns_fd, 80)
    here.serving(box.netns_fd, 81)
    here.networks.stop(remove=False)
    assert closed(here.neighbour, 8080), "while no engine runs"
    again = engine(start=False, firewall=backend, respect_host=True)
    again.start()
    assert closed(here.neighbour, 8080), "before it is known what runs"
    again.restore(["c0"])
    assert seen(here.neighbour, HOST, 443) == NEIGHBOUR
    assert closed(here.neighbour, 8080)
