"""Rules as nft(8) reads them back."""

from __future__ import annotations

import errno
import ipaddress
import json
import socket

import pytest

from tests.kernel.isolation import command, isolated
from wherry.kernel.netlink import nft, nftexpr

pytestmark = pytest.mark.root


def listing() -> str:
    """What nft prints, without its indentation."""
    return "\n".join(line.strip() for line in command("nft", "list", "ruleset").splitlines())


@isolated
def test_every_expression():
    change = nft.Ruleset()
    change.table("t")
    change.base_chain("t", "out", "nat", nft.HOOK_POSTROUTING, nft.PRIORITY_SRCNAT)
    change.base_chain("t", "way", "filter", nft.HOOK_FORWARD, nft.PRIORITY_FILTER)
    change.chain("t", "more")
    change.set("t", "names", nft.IFNAME_TYPE, nft.IFNAMSIZ)
    change.add_elements("t", "names", [nftexpr.interface_key("eth0"), nftexpr.interface_key("eth1")])
    change.verdict_map("t", "by_source", nft.IPV4_TYPE, 4)
    change.add_verdicts(
        "t",
        "by_source",
        {
            socket.inet_aton("10.0.0.1"): nftexpr.verdict_data(nft.NF_DROP),
            socket.inet_aton("10.0.0.2"): nftexpr.verdict_data(nft.NFT_JUMP, "more"),
        },
    )
    outside = nftexpr.to_interface("br0", equal=False)
    inside = nftexpr.from_subnet(ipaddress.ip_network("172.17.0.0/16"))
    change.rule("t", "out", *inside, *outside, nftexpr.counter(), nftexpr.masquerade())
    change.rule("t", "out", *nftexpr.from_subnet(ipaddress.ip_network("10.128.0.0/9")), nftexpr.masquerade())
    known = (*nftexpr.to_interface("br0"), *nftexpr.of_known_connection())
    change.rule("t", "way", *known, nftexpr.verdict(nft.NF_ACCEPT))
    change.rule("t", "way", *nftexpr.from_interface("br0"), nftexpr.verdict(nft.NFT_JUMP, "more"))
    change.rule(
        *("t", "way", nftexpr.load_meta(nftexpr.META_IIFNAME), nftexpr.in_set("names", inverted=True)),
        nftexpr.verdict(nft.NF_DROP),
    )
    change.rule("t", "way", nftexpr.load_network(12, 4), nftexpr.verdict_from("by_source"))
    change.rule("t", "more", nftexpr.verdict(nft.NFT_RETURN))
    change.commit()
    seen = listing()
    for line in (
        "type nat hook postrouting priority srcnat; policy accept;",
        "type filter hook forward priority filter; policy accept;",
        'ip saddr 172.17.0.0/16 oifname != "br0" counter packets 0 bytes 0 masquerade',
        "ip saddr 10.128.0.0/9 masquerade",
        'oifname "br0" ct state established,related accept',
        'iifname "br0" jump more',
        "iifname != @names drop",
        "ip saddr vmap @by_source",
        "return",
    ):
        assert line in seen
    rules = json.loads(command("nft", "-j", "list", "ruleset"))["nftables"]
    (names,) = [each["set"] for each in rules if "set" in each]
    assert (names["type"], sorted(names["elem"])) == ("ifname", ["eth0", "eth1"])
    (verdicts,) = [each["map"] for each in rules if "map" in each]
    assert sorted(key for key, _ in verdicts["elem"]) == ["10.0.0.1", "10.0.0.2"]


@isolated
def test_a_transaction_is_all_or_nothing():
    change = nft.Ruleset()
    change.table("t")
    change.chain("t", "c")
    change.rule("t", "nosuch", nftexpr.verdict(nft.NF_DROP))
    with pytest.raises(OSError, match="NFT_MSG_NEWRULE") as caught:
        change.commit()
    assert (caught.value.errno, caught.value.filename) == (errno.ENOENT, "t nosuch")
    assert listing() == ""


@isolated
def test_tables_are_listed_and_deleted():
    for name in ("a", "b"):
        change = nft.Ruleset()
        change.table(name)
        change.commit()
    assert sorted(nft.list_tables()) == ["a", "b"]
    assert nft.table_exists("a")
    change = nft.Ruleset()
    change.delete_table("a")
    change.commit()
    assert not nft.table_exists("a")
    assert nft.list_tables() == ["b"]
    with pytest.raises(OSError, match="NFT_MSG_DELTABLE"):
        change.commit()


@isolated
def test_elements_come_and_go():
    change = nft.Ruleset()
    change.table("t")
    change.set("t", "s", nft.IPV4_TYPE, 4)
    change.add_elements("t", "s", [socket.inet_aton("10.0.0.1"), socket.inet_aton("10.0.0.2")])
    change.add_elements("t", "s", [])
    change.commit()
    change = nft.Ruleset()
    change.delete_elements("t", "s", [socket.inet_aton("10.0.0.1")])
    change.commit()
    assert "elements = { 10.0.0.2 }" in listing()
