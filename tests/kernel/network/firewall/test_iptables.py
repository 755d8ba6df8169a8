"""The rules of the backend iptables as iptables-save shows them, what they cost, and whom they leave alone."""

from __future__ import annotations

import threading

import pytest

from tests.kernel.isolation import command, isolated
from tests.kernel.network.firewall.world import HOST, NEIGHBOUR, TCP, UDP, publish, seen, shut
from wherry.errors import InvalidArgument, NotImplementedHere, SystemFailure
from wherry.network.firewall import chains, xtables
from wherry.network.firewall.api import BridgeRules, Forward
from wherry.network.firewall.iptables import Iptables

pytestmark = pytest.mark.root

TAG = "wherry-wherry0"
DOCKERD = """
*raw
-A PREROUTING -d 10.101.0.2/32 ! -i br-nat -j DROP
*filter
:FORWARD DROP
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
-A DOCKER -d 10.101.0.2/32 ! -i br-nat -o br-nat -p udp -m udp --dport 81 -j ACCEPT
-A DOCKER -d 10.101.0.2/32 ! -i br-nat -o br-nat -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER ! -i br-nat -o br-nat -j DROP
-A DOCKER ! -i br-icc -o br-icc -j DROP
-A DOCKER ! -i br-unp -o br-unp -j ACCEPT
-A DOCKER -o br-rou -p icmp -j ACCEPT
-A DOCKER ! -i br-rou -o br-rou -j DROP
-A DOCKER-BRIDGE -o br-nat -j DOCKER
-A DOCKER-BRIDGE -o br-icc -j DOCKER
-A DOCKER-BRIDGE -o br-unp -j DOCKER
-A DOCKER-BRIDGE -o br-rou -j DOCKER
-A DOCKER-CT -o br-nat -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-CT -o br-icc -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-CT -o br-unp -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-CT -o br-rou -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-FORWARD -j DOCKER-CT
-A DOCKER-FORWARD -j DOCKER-ISOLATION-STAGE-1
-A DOCKER-FORWARD -j DOCKER-BRIDGE
-A DOCKER-FORWARD -i br-nat -j ACCEPT
-A DOCKER-FORWARD -i br-int -o br-int -j ACCEPT
-A DOCKER-FORWARD -i br-icc -o br-icc -j DROP
-A DOCKER-FORWARD -i br-icc ! -o br-icc -j ACCEPT
-A DOCKER-FORWARD -i br-unp -j ACCEPT
-A DOCKER-FORWARD -i br-rou -j ACCEPT
-A DOCKER-FORWARD -i br-iso -o br-iso -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 ! -s 10.106.0.0/24 -o br-iso -j DROP
-A DOCKER-ISOLATION-STAGE-1 ! -d 10.106.0.0/24 -i br-iso -j DROP
-A DOCKER-ISOLATION-STAGE-1 -i br-rou -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -o br-rou -j RETURN
-A DOCKER-ISOLATION-STAGE-1 ! -s 10.102.0.0/24 -o br-int -j DROP
-A DOCKER-ISOLATION-STAGE-1 ! -d 10.102.0.0/24 -i br-int -j DROP
-A DOCKER-ISOLATION-STAGE-1 -i br-nat ! -o br-nat -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -i br-icc ! -o br-icc -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -i br-unp ! -o br-unp -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -i br-rou ! -o br-rou -j DOCKER-ISOLATION-STAGE-2
*nat
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 10.104.0.0/24 ! -o br-unp -j MASQUERADE
-A POSTROUTING -s 10.103.0.0/24 ! -o br-icc -j MASQUERADE
-A POSTROUTING -s 10.101.0.0/24 ! -o br-nat -j MASQUERADE
"""
"""What dockerd 28.5.2 has for the networks below, with two ports published by a container of the first; without what
stands there in another form, because its docker-proxy takes part."""

NETWORKS = (
    BridgeRules("br-nat", "10.101.0.0/24"),
    BridgeRules("br-int", "10.102.0.0/24", internal=True),
    BridgeRules("br-icc", "10.103.0.0/24", icc=False),
    BridgeRules("br-unp", "10.104.0.0/24", gateway_mode="nat-unprotected"),
    BridgeRules("br-rou", "10.105.0.0/24", gateway_mode="routed"),
    BridgeRules("br-iso", "10.106.0.0/24", gateway_mode="isolated"),
)
OURS = {
    "raw PREROUTING -s 127.0.0.0/8 ! -i lo -j DROP",
    "raw PREROUTING -d 127.0.0.0/8 ! -i lo -j DROP",
    "filter DOCKER -i br-icc -o br-icc -m conntrack --ctstate DNAT -j ACCEPT",
    "filter DOCKER ! -i br-int -o br-int -j DROP",
    "filter DOCKER ! -i br-iso -o br-iso -j DROP",
    "filter DOCKER-BRIDGE -o br-int -j DOCKER",
    "filter DOCKER-BRIDGE -o br-iso -j DOCKER",
    f"nat OUTPUT -d 127.0.0.0/8 -j {TAG}",
    f"nat {TAG} -p tcp -m tcp --dport 7080 -j DNAT --to-destination 10.101.0.2:80",
    f"nat {TAG} -d 127.0.0.1/32 -p udp -m udp --dport 7081 -j DNAT --to-destination 10.101.0.2:81",
    "nat DOCKER -p tcp -m tcp --dport 7080 -j DNAT --to-destination 10.101.0.2:80",
    "nat DOCKER -d 127.0.0.1/32 -p udp -m udp --dport 7081 -j DNAT --to-destination 10.101.0.2:81",
    *(
        f"filter DOCKER-ISOLATION-STAGE-2 -o {name} -m conntrack ! --ctstate DNAT -j DROP"
        for name in ("br-nat", "br-icc", "br-unp", "br-rou")
    ),
    *(
        f"nat POSTROUTING -s {subnet} -o {name} -m conntrack --ctstate DNAT -j MASQUERADE"
        for name, subnet in (("br-nat", "10.101.0.0/24"), ("br-icc", "10.103.0.0/24"), ("br-unp", "10.104.0.0/24"))
    ),
    *(f"nat POSTROUTING -s 127.0.0.0/8 -o {name} -j MASQUERADE" for name in ("br-nat", "br-icc", "br-unp")),
}
"""What dockerd does not have in this form: see the first lines of chains.py."""
PORTS = (Forward(6, "", 7080, "10.101.0.2", 80), Forward(17, "127.0.0.1", 7081, "10.101.0.2", 81))


def rules(text: str) -> set[str]:
    """The rules of iptables-save, each with its table, without our comments."""
    saved = xtables.parse(text)
    comment = f" -m comment --comment {TAG}"
    return {f"{' '.join(key)} {each.replace(comment, '')}" for key, all_ in saved.rules.items() for each in all_}


def everything() -> str:
    return command("iptables-save") + command("ip6tables-save")


@isolated
def test_the_rules_are_dockerds_but_for_what_its_proxy_does():
    firewall = Iptables(TAG, NETWORKS)
    firewall.install(NETWORKS[0])
    firewall.forward((), PORTS)
    found = rules(command("iptables-save"))
    assert found - rules(DOCKERD) == OURS
    assert rules(DOCKERD) - found == set()
    assert chains.CHAINS["filter"] == tuple(
        sorted(name for table, name in xtables.save(4).policies if table == "filter" and name.startswith("DOCKER"))
    )


@isolated
def test_both_families_and_nothing_is_left():
    six = BridgeRules("br-six", "10.107.0.0/24", subnet6="fd00:107::/64")
    port = Forward(6, "", 7080, "fd00:107::2", 80)
    firewall = Iptables(TAG)
    firewall.install(six)
    firewall.forward((), [port])
    found = rules(command("ip6tables-save"))
    assert {
        "raw PREROUTING -d fd00:107::2/128 ! -i br-six -j DROP",
        "filter DOCKER -d fd00:107::2/128 ! -i br-six -o br-six -p tcp -m tcp --dport 80 -j ACCEPT",
        "nat OUTPUT ! -d ::1/128 -m addrtype --dst-type LOCAL -j DOCKER",
        "nat POSTROUTING -s fd00:107::/64 ! -o br-six -j MASQUERADE",
        "nat DOCKER ! -s fe80::/10 -p tcp -m tcp --dport 7080 -j DNAT --to-destination [fd00:107::2]:80",
    } <= found
    firewall.forward([port], ())
    assert not [each for each in rules(command("ip6tables-save")) if "fd00:107::2" in each]
    firewall.uninstall("br-six")
    assert rules(everything()) == set()
    assert not [name for table, name in xtables.save(6).policies if name.startswith("DOCKER")]


@pytest.mark.parametrize("backend", ["iptables"])
@isolated
def test_a_start_calls_the_program_once_with_ports_and_not_at_all_without(world, monkeypatch):
    here = world()
    calls = []
    run = xtables._run

    def counted(*words):
        if threading.current_thread().name != "wherry-net-upkeep":  # which looks at the guard, once in its life
            calls.append(words[:2])
        return run(*words)

    monkeypatch.setattr(xtables, "_run", counted)
    here.container()
    assert calls == []
    here.container("bridge", *(publish(80, 18000 + number, kind) for number in range(20) for kind in (TCP, UDP)))
    assert calls == [(4, "restore")]
    calls.clear()
    here.networks.refresh_firewall()
    assert {action for _, action in calls} == {"save"}, "nothing was missing"


@pytest.mark.parametrize("backend", ["iptables"])
@isolated
def test_rules_of_others_in_the_same_chains_stay_and_decide_first_in_docker_user(world):
    here = world()
    box = here.container("bridge", publish(80, 18080))
    here.serving(box.netns_fd, 80)
    assert seen(here.neighbour, HOST, 18080) == NEIGHBOUR
    theirs = (
        ("DOCKER", "! -i docker0 -o docker0 -j DROP"),
        ("DOCKER-FORWARD", "-i docker0 -j ACCEPT"),
        ("DOCKER-USER", f"-s {NEIGHBOUR}/32 -j DROP"),
        ("FORWARD", "-s 192.0.2.1/32 -j DROP"),
    )
    for chain, rule in theirs:
        command("iptables", "-I", chain, *rule.split())
    assert shut(here.neighbour, HOST, 18080)
    here.networks.refresh_firewall()
    assert shut(here.neighbour, HOST, 18080), "what an administrator says in DOCKER-USER goes before"
    assert xtables.save(4).of("filter", "FORWARD")[:2] == ["-j DOCKER-USER", "-j DOCKER-FORWARD"]
    here.networks.close_sandbox("c0")
    assert here.networks.settle()
    here.networks.stop(remove=True)
    found = rules(command("iptables-save"))
    assert {f"filter {chain} {rule}" for chain, rule in theirs} <= found
    assert "filter FORWARD -j DOCKER-FORWARD" in found, "dockerd has not gone"
    assert TAG not in command("iptables-save")


@isolated
def test_docker_user_stays_with_what_is_in_it_and_works_again_with_the_next_engine(engine):
    first = engine(firewall="iptables")
    assert "filter DOCKER-USER" not in " ".join(rules(everything())), "we write nothing there"
    command("iptables", "-A", "DOCKER-USER", "-s", "192.0.2.1", "-j", "DROP")
    first.stop(remove=True)
    assert rules(everything()) == {"filter FORWARD -j DOCKER-USER", "filter DOCKER-USER -s 192.0.2.1/32 -j DROP"}
    engine(firewall="iptables")
    assert xtables.save(4).of("filter", "FORWARD")[0] == "-j DOCKER-USER"


@pytest.mark.parametrize(("version", "program"), [(4, "iptables"), (6, "ip6tables")])
@isolated
def test_the_policy_of_forward_is_given_back(version, program):
    firewall = Iptables(TAG)
    for policy in ("ACCEPT", "DROP"):
        command(program, "-P", "FORWARD", policy)
        assert not firewall.guarded(version)
        firewall.guard((), version)
        firewall.guard((), version)
        assert firewall.guarded(version)
        assert xtables.save(version).policies["filter", "FORWARD"] == "DROP"
        Iptables("wherry-other").unguard(version)
        assert xtables.save(version).policies["filter", "FORWARD"] == policy
        assert not firewall.guarded(version)


@isolated
def test_what_an_engine_that_died_left_is_taken_away():
    dead = Iptables(TAG, NETWORKS, PORTS)
    dead.install(BridgeRules("br-six", "10.107.0.0/24", subnet6="fd00:107::/64"))
    only = BridgeRules("br-nat", "10.101.0.0/24")
    Iptables(TAG).install(only)
    left = everything()
    assert "br-six" not in left
    assert "7080" not in left
    other = Iptables("wherry-other")
    assert other.others()
    assert not Iptables(TAG).others()


@isolated
def test_a_port_that_goes_when_its_rules_are_gone_already_brings_all_others_back():
    firewall = Iptables(TAG, NETWORKS, PORTS)
    firewall.install(NETWORKS[0])
    command("iptables", "-F", "DOCKER")
    command("iptables", "-t", "nat", "-F")
    firewall.forward(PORTS[:1], ())
    found = rules(everything())
    fresh = Iptables(TAG, NETWORKS, PORTS[1:])
    fresh.install(NETWORKS[0])
    assert rules(everything()) == found
    assert any("10.101.0.2:81" in each for each in found)
    assert not any("10.101.0.2:80" in each for each in found)


@pytest.mark.parametrize(
    "make",
    [
        lambda: chains.of_engine("wherry-a b", 4),
        lambda: chains.of_bridge(TAG, 4, BridgeRules("br0 -j ACCEPT", "10.1.0.0/24")),
        lambda: chains.of_bridge(TAG, 4, BridgeRules("br0\nCOMMIT", "10.1.0.0/24")),
        lambda: chains.Rule("nat", "DOCKER", ("-j", "DNAT\n")).text,
        lambda: chains.of_forward(TAG, NETWORKS[0], Forward(6, "", 0, "10.101.0.2", 80)),
    ],
)
def test_what_is_no_name_or_number_becomes_no_rule(make):
    with pytest.raises((InvalidArgument, ValueError)):
        make()


@isolated
def test_without_the_program_the_package_is_named(monkeypatch, engine):
    monkeypatch.setattr(xtables, "PATH", "/nowhere")
    with pytest.raises(NotImplementedHere, match="iptables-save, which is not there: install the package iptables"):
        engine(firewall="iptables")


@isolated
def test_a_failure_says_which_line(engine):
    with pytest.raises(OSError, match=r"iptables-restore: .*\(-A NOWHERE -j ACCEPT\)"):
        xtables.restore(4, ["*filter", "-A NOWHERE -j ACCEPT", "COMMIT"])
    command("nft", "add table ip filter")
    command("nft", "add chain ip filter FORWARD { type filter hook forward priority 5 ; }")
    with pytest.raises(SystemFailure):
        engine(firewall="iptables")


@pytest.mark.parametrize("backend", ["iptables"])
@isolated
def test_a_program_on_loopback_keeps_the_port_that_dockerd_publishes(world):
    """dockerd leads a port to a container everywhere but at 127.0.0.1, where docker-proxy listens."""
    here = world()
    here.serving(here.container("bridge", publish(80, 18080)).netns_fd, 80)
    here.serving(None, 18090)
    theirs = "-p tcp --dport 18090 -j DNAT --to-destination 203.0.113.9:80"
    command("iptables", "-t", "nat", "-A", "DOCKER", *theirs.split())
    assert seen(None, "127.0.0.1", 18090) == "127.0.0.1"
    assert seen(None, "127.0.0.1", 18080) == "172.17.0.1"


@pytest.mark.parametrize("backend", ["iptables"])
@isolated
def test_with_the_legacy_kind(world, monkeypatch, tmp_path):
    for name in ("iptables", "ip6tables"):
        for action in ("save", "restore"):
            (tmp_path / f"{name}-{action}").symlink_to(f"/usr/sbin/{name}-legacy-{action}")
    monkeypatch.setattr(xtables, "PATH", str(tmp_path))
    here = world()
    here.network("n", "10.1.0.0/24")
    box, other = here.container("bridge", publish(80, 18080)), here.container("n")
    here.serving(box.netns_fd, 80)
    here.route("172.17.0.0/16")
    assert seen(here.neighbour, HOST, 18080) == NEIGHBOUR
    assert seen(None, "127.0.0.1", 18080) == "172.17.0.1"
    assert seen(other.netns_fd, HOST, 18080)
    assert shut(other.netns_fd, "172.17.0.2", 80)
    assert shut(here.neighbour, "172.17.0.2", 80)
    assert "DOCKER" not in command("nft", "list", "ruleset")
    command("iptables-legacy", "-F")
    command("iptables-legacy", "-t", "nat", "-F")
    assert shut(here.neighbour, HOST, 18080)
    here.networks.refresh_firewall()
    assert seen(here.neighbour, HOST, 18080) == NEIGHBOUR
    for name in ("c0", "c1"):
        here.networks.close_sandbox(name)
    assert here.networks.settle()
    here.networks.stop(remove=True)
    assert rules(command("iptables-legacy-save")) == set()
