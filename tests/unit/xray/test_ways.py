"""Packets that are only thought of, and the rules that they meet: of nft and of iptables, judged without a kernel."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from wherry.kernel.netlink.nftlist import Chain, Rule
from wherry.xray import iptables, plainwords
from wherry.xray.packet import Host, Packet, answer, holds
from wherry.xray.path import Walk, join, split
from wherry.xray.ruleset import Ruleset

HOST = Host({"eth0": ("192.0.2.1",), "br0": ("10.0.0.1", "fd00::1")}, {"eth0": 2, "br0": 3})
PACKET = Packet("tcp", "198.51.100.10", "10.0.0.2", 80, comes_in="eth0", goes_out="br0", translated=True)
SIX = Packet("udp", "2001:db8::10", "fd00::2", 53, comes_in="eth0", goes_out="br0")
SETS: dict[str, dict[str, str]] = {
    "bridges": {'"br0"': ""},
    "from": {'"br0"': "jump from-br0"},
    "published": {"tcp . 8080": "10.0.0.2 . 80"},
    "some": {"10.0.0.9": ""},
    "trusted": {'"eth0" . "br0"': ""},
    "open": {"10.0.0.2 . tcp . 80": ""},
    "empty": {},
}


def elements(name: str) -> Mapping[str, str]:
    return SETS[name]


@pytest.mark.parametrize(
    ("word", "truth"),
    [
        ('iifname "eth0"', True),
        ('iifname != "eth0"', False),
        ('iifname "eth*"', True),
        ('iifname "et"', False),
        ("oifname @bridges", True),
        ("oifname != @bridges", False),
        ("iifname @bridges", False),
        ("iif 2", True),
        ("oif 2", False),
        ("ip saddr 198.51.100.0/24", True),
        ("ip saddr != 198.51.100.0/24", False),
        ("ip daddr 10.0.0.1-10.0.0.5", True),
        ("ip daddr 10.0.0.3-10.0.0.5", False),
        ("ip6 saddr fd00::/8", False),
        ("ip6 saddr != fd00::/8", False),
        ("meta l4proto tcp", True),
        ("meta nfproto ipv4", True),
        ("tcp dport 80", True),
        ("tcp dport 70-90", True),
        ("tcp dport 22,80", True),
        ("udp dport 80", False),
        ("ct state new", True),
        ("ct state established,related", False),
        ("ct status dnat", True),
        ("ct status != dnat", False),
        ("fib daddr type local", False),
        ("fib saddr type local", False),
        ("ip daddr @empty", False),
        ("iifname . oifname @trusted", True),
        ("oifname . iifname @trusted", False),
        ("ip daddr . meta l4proto . th dport @open", True),
        ("meta mark . th dport @open", None),
        ("ip daddr @some", None),
        ("[limit]", None),
        ("xt match recent", None),
        ("meta mark 0x1", None),
        ("ct state & established", None),
    ],
)
def test_conditions(word: str, truth: bool | None) -> None:
    assert holds(word, PACKET, HOST, elements) is truth


def test_conditions_of_ipv6() -> None:
    assert holds("ip6 daddr fd00::/64", SIX, HOST, elements) is True
    assert holds("ip daddr 10.0.0.2", SIX, HOST, elements) is False
    assert holds("meta nfproto ipv6", SIX, HOST, elements) is True


def test_maps() -> None:
    arriving = Packet("tcp", "198.51.100.10", "192.0.2.1", 8080, comes_in="eth0")
    assert answer("meta l4proto . th dport map @published", arriving, HOST, elements) == "10.0.0.2 . 80"
    assert answer("meta l4proto . th dport map @published", PACKET, HOST, elements) == ""
    assert answer("iifname vmap @from", Packet("tcp", "a", "b", 1, comes_in="br0"), HOST, elements) == "jump from-br0"
    assert answer("meta mark vmap @from", PACKET, HOST, elements) is None


def chain(name: str, hook: str = "", priority: int = 0, policy: str = "accept", kind: str = "filter") -> Chain:
    return Chain("ip", "t", name, kind, hook, priority, policy)


def rules(chains: list[Chain], **words: list[list[str]]) -> Ruleset:
    found = {
        ("ip", "t", name): [Rule("ip", "t", name, 0, " ".join(each), 7, 8, (), tuple(each)) for each in listed]
        for name, listed in words.items()
    }
    return Ruleset(chains, found, sets={("ip", "t", name): held for name, held in SETS.items()})


Seen = tuple[bool, list[tuple[str, str]], Walk]


def walked(ruleset: Ruleset, hook: str = "forward", packet: Packet = PACKET) -> Seen:
    walk = Walk(ruleset, HOST, packet)
    passed = walk.through(hook)
    return passed, [(each.chain, each.effect) for each in walk.steps], walk


def test_an_accept_ends_one_chain_and_a_drop_all() -> None:
    both = [chain("late", "forward", 10), chain("early", "forward", -5)]
    passed, steps, walk = walked(rules(both, early=[["accept"], ["drop"]], late=[["tcp dport 80", "counter", "drop"]]))
    assert (passed, steps) == (False, [("early", "accept"), ("late", "drop")])
    assert (walk.stopped_by, walk.steps[1].packets, walk.steps[1].bytes) == (1, 7, 8)


def test_jumps_go_and_gotos_end() -> None:
    base = [chain("forward", "forward", policy="drop")]
    passed, steps, _ = walked(
        rules(base, forward=[["jump aa"], ["jump bb"], ["accept"]], aa=[["udp dport 1", "drop"]], bb=[["return"]])
    )
    assert (passed, steps) == (True, [("forward", "accept")])  # what was nothing to this packet is not told
    passed, steps, _ = walked(rules(base, forward=[["goto aa"], ["accept"]], aa=[]))
    assert (passed, steps) == (False, [("forward", "policy")])
    passed, steps, _ = walked(rules(base, forward=[["jump aa"]], aa=[["jump bb"]], bb=[["accept"]]))
    assert (passed, steps) == (True, [("forward", "jump"), ("aa", "jump"), ("bb", "accept")])


def test_chains_that_jump_in_a_circle_end() -> None:
    passed, _, walk = walked(rules([chain("aa", "forward")], aa=[["jump aa"]]))
    assert passed
    assert len(walk.steps) <= 100


def test_a_map_sends_on_and_only_once() -> None:
    arriving = Packet("tcp", "198.51.100.10", "192.0.2.1", 8080, comes_in="eth0")
    nat = [chain("aa", "prerouting", -100, kind="nat"), chain("bb", "prerouting", -90, kind="nat")]
    lead = ["meta l4proto . th dport map @published", "dnat to @published:reg 9"]
    ruleset = rules(nat, aa=[["fib daddr type local", "jump cc"]], cc=[lead], bb=[["dnat to 10.0.0.9:9"]])
    _, steps, walk = walked(ruleset, "prerouting", arriving)
    assert steps == [("aa", "jump"), ("cc", "dnat")]
    assert (walk.packet.destination, walk.packet.port, walk.packet.translated) == ("10.0.0.2", 80, True)
    assert walk.steps[1].says == "send it on to 10.0.0.2:80"


def test_masquerade_gives_the_address_of_the_link() -> None:
    leaving = Packet("tcp", "10.0.0.2", "198.51.100.10", 443, comes_in="br0", goes_out="eth0")
    ruleset = rules([chain("pp", "postrouting", 100, kind="nat")], pp=[["ip saddr 10.0.0.0/8", "masquerade"]])
    _, steps, walk = walked(ruleset, "postrouting", leaving)
    assert (steps, walk.packet.source) == ([("pp", "masquerade")], "192.0.2.1")


def test_what_nobody_can_say_is_told_and_passed() -> None:
    ruleset = rules([chain("ff", "forward", policy="drop")], ff=[["[limit]", "accept"], ["[quota]", "drop"]])
    passed, steps, walk = walked(ruleset)
    assert (passed, steps) == (False, [("ff", "accept"), ("ff", "drop"), ("ff", "policy")])
    assert [each.certain for each in walk.steps] == [False, False, True]


SAVED = """\
*filter
:FORWARD DROP [12:720]
:DOCKER-USER - [0:0]
:ours - [0:0]
[3:180] -A FORWARD -j DOCKER-USER
[0:0] -A FORWARD -i br0 ! -o br0 -j ours
[5:300] -A FORWARD -o br0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
[1:60] -A FORWARD -d 10.0.0.2/32 ! -i br+ -o br0 -p tcp -m tcp --dport 70:90 -m comment --comment "a -j DROP" -j ACCEPT
[0:0] -A FORWARD -m set --match-set trusted src -j ACCEPT
[0:0] -A ours -m conntrack --ctstate DNAT -g DOCKER-USER
[0:0] -A ours -j LOG --log-prefix "x y"
[0:0] -A ours -j REJECT --reject-with icmp-port-unreachable
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
[2:120] -A PREROUTING -m addrtype --dst-type LOCAL -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.0.0.2:80
[9:540] -A POSTROUTING -s 10.0.0.0/24 ! -o br0 -j MASQUERADE
COMMIT
"""


def test_iptables_in_the_words_of_nft() -> None:
    saved = iptables.parse(SAVED, "ip")
    assert [each.words for each in saved.rules] == [
        ("jump DOCKER-USER",),
        ('iifname "br0"', 'oifname != "br0"', "jump ours"),
        ('oifname "br0"', "ct state related,established", "accept"),
        ("ip daddr 10.0.0.2/32", 'iifname != "br*"', 'oifname "br0"', "meta l4proto tcp", "tcp dport 70-90", "accept"),
        ("[--match-set trusted src]", "accept"),
        ("ct status dnat", "goto DOCKER-USER"),
        ("[--log-prefix x y]", "log LOG"),
        ("reject",),
        ("fib daddr type local", "meta l4proto tcp", "tcp dport 8080", "dnat to 10.0.0.2:80"),
        ("ip saddr 10.0.0.0/24", 'oifname != "br0"', "masquerade"),
    ]
    assert [(each.packets, each.bytes) for each in saved.rules][:3] == [(3, 180), (0, 0), (5, 300)]
    assert saved.policies["filter", "FORWARD"] == (12, 720)
    bases = {each.name: (each.type, each.hook, each.priority, each.policy) for each in saved.chains if each.hook}
    assert bases == {
        "FORWARD": ("filter", "forward", 0, "drop"),
        "PREROUTING": ("nat", "prerouting", -100, "accept"),
        "POSTROUTING": ("nat", "postrouting", 100, "accept"),
    }


def test_a_packet_through_iptables() -> None:
    saved = iptables.parse(SAVED, "ip")
    ruleset = Ruleset(saved.chains, {}, {("ip", "filter", "FORWARD"): saved.policies["filter", "FORWARD"]})
    for each in saved.rules:
        ruleset.rules.setdefault(("ip", each.table, each.chain), []).append(each)
    walk = Walk(ruleset, HOST, Packet("tcp", "198.51.100.10", "192.0.2.1", 8080, comes_in="eth0"))
    assert walk.through("prerouting")
    walk.packet = Packet("tcp", "198.51.100.10", "10.0.0.2", 80, comes_in="eth0", goes_out="br0", translated=True)
    assert walk.through("forward")
    assert [(each.chain, each.effect) for each in walk.steps] == [("PREROUTING", "dnat"), ("FORWARD", "accept")]
    walk = Walk(ruleset, HOST, Packet("tcp", "198.51.100.10", "10.0.0.2", 22, comes_in="eth0", goes_out="br0"))
    assert not walk.through("forward")
    last = walk.steps[-1]
    assert (last.effect, last.packets, last.bytes) == ("policy", 12, 720)


@pytest.mark.parametrize(("place", "parts"), [("10.0.0.2:80", ("10.0.0.2", 80)), ("[fd00::2]:80", ("fd00::2", 80)),
                                              ("10.0.0.2", ("10.0.0.2", 0)), ("fd00::2", ("fd00::2", 0))])  # fmt: skip
def test_addresses_with_ports(place: str, parts: tuple[str, int]) -> None:
    assert split(place) == parts
    assert join(*parts) == place


def test_rules_in_plain_words() -> None:
    words = ("oifname @bridges", "ct state established,related", "counter", "accept")
    assert plainwords.say(words) == (
        "if it goes to a link of the set bridges and belongs to a connection that is known: let it through"
    )
    assert plainwords.say(("iifname vmap @from",), "jump from-br0") == "read the rules of from-br0"
    assert plainwords.say(("[limit]", "drop")) == "if it [limit]: drop it"
