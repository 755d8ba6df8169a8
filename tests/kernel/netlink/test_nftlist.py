"""Rules that nft(8) made, read by us, in its own words."""

from __future__ import annotations

import ipaddress
import subprocess

import pytest

from tests.kernel.isolation import command, isolated
from wherry.kernel.netlink import nft, nftexpr, nftlist

pytestmark = pytest.mark.root

RULES = """
table ip t {
  set s { type ifname; elements = { "eth0", "br1" }; }
  map ports { type ipv4_addr . inet_service : verdict; elements = { 10.0.0.1 . 80 : accept }; }
  map m { type inet_service : verdict; elements = { 80 : drop, 443 : jump other }; }
  chain other { return; }
  chain pre {
    type nat hook prerouting priority -100; policy accept;
    tcp dport 8080 dnat to 172.17.0.2:80
    fib daddr type local tcp dport vmap @m
    ip saddr 10.1.0.0/16 ip daddr 10.0.0.0/25 udp sport 53 accept
  }
  chain post {
    type nat hook postrouting priority 100; policy accept;
    ip saddr 10.2.0.0/20 oifname != "br0" masquerade
  }
  chain fw {
    type filter hook forward priority 0; policy drop;
    ct state established,related accept
    iifname "br0" oifname @s counter packets 3 bytes 4 drop
    iifname "veth*" drop
    jump other
  }
}
table inet f {
  chain i {
    type filter hook input priority 10; policy accept;
    ip6 saddr fe80::/10 tcp dport 22 accept
    ip daddr 1.2.3.4 drop
  }
}
"""


def load(rules: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=rules.encode(), check=True)


def told_by_nft() -> list[str]:
    """The rules of `nft list ruleset`, without the figures of counters."""
    lines = [line.strip() for line in command("nft", "list", "ruleset").splitlines()]
    starts = ("table", "chain", "set", "map", "type", "elements", "}", '"')
    rules = [line for line in lines if line and not line.startswith(starts)]
    return [line.replace("counter packets 3 bytes 4", "counter") for line in rules]


@isolated
def test_rules_read_as_nft_writes_them():
    load(RULES)
    with nftlist.open_socket() as netlink:
        rules = nftlist.list_rules(netlink)
    assert [each.text for each in rules] == told_by_nft()
    counted = next(each for each in rules if "counter" in each.text)
    assert (counted.packets, counted.bytes, counted.sets) == (3, 4, ("s",))
    assert [(each.packets, each.bytes) for each in rules if each is not counted] == [(-1, -1)] * (len(rules) - 1)


@isolated
def test_chains_and_elements():
    load(RULES)
    with nftlist.open_socket() as netlink:
        chains = {each.name: each for each in nftlist.list_chains(netlink)}
        assert (chains["fw"].hook, chains["fw"].policy, chains["fw"].type) == ("forward", "drop", "filter")
        assert (chains["pre"].hook, chains["pre"].priority) == ("prerouting", -100)
        assert chains["other"].hook == ""
        assert (chains["i"].family, chains["i"].priority) == ("inet", 10)
        names = {each.key for each in nftlist.list_elements(netlink, "ip", "t", "s")}
        assert names == {'"eth0"', '"br1"'}
        verdicts = {each.key: each.verdict for each in nftlist.list_elements(netlink, "ip", "t", "m")}
        assert verdicts == {"80": "drop", "443": "jump other"}
        joined = nftlist.list_elements(netlink, "ip", "t", "ports")
        assert [(each.key, each.verdict) for each in joined] == [("10.0.0.1 . 80", "accept")]
        assert nftlist.list_elements(netlink, "ip", "t", "nosuch") == []


@isolated
def test_what_is_not_known_is_not_left_out():
    load("table ip t { chain c { limit rate 5/second accept; }\n}")
    with nftlist.open_socket() as netlink:
        assert [each.text for each in nftlist.list_rules(netlink)] == ["[limit] accept"]


@isolated
def test_our_own_rules_come_back():
    change = nft.Ruleset()
    change.table("t")
    change.base_chain("t", "way", "filter", nft.HOOK_FORWARD, nft.PRIORITY_FILTER)
    known = (*nftexpr.to_interface("br0"), *nftexpr.of_known_connection())
    change.rule("t", "way", *known, nftexpr.verdict(nft.NF_ACCEPT))
    inside = nftexpr.from_subnet(ipaddress.ip_network("172.17.0.0/16"))
    change.rule("t", "way", *inside, nftexpr.counter(), nftexpr.verdict(nft.NF_DROP))
    change.commit()
    with nftlist.open_socket() as netlink:
        assert [each.text for each in nftlist.list_rules(netlink)] == [
            'oifname "br0" ct state established,related accept',
            "ip saddr 172.17.0.0/16 counter drop",
        ]
