"""The firewall rules that concern a container: all of its own namespace, and those of the host that can match it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from typing import Protocol

from wherry.kernel.netlink import nftlist
from wherry.models.xray import Link, Rule

MOST = 200
_ADDRESS = re.compile(r"(?<![\w.:])(\d{1,3}(?:\.\d{1,3}){3}(?:/\d{1,2})?|[0-9a-f]*:[0-9a-f:.]+(?:/\d{1,3})?)(?![\w.])")


class Ruled(Protocol):
    """A network namespace's rules."""

    @property
    def chains(self) -> list[nftlist.Chain]: ...
    @property
    def rules(self) -> list[nftlist.Rule]: ...


def concerning(links: Iterable[Link], inside: Ruled, outside: Ruled, *, shared: bool) -> tuple[Rule, ...]:
    """Return the rules, those of the container's namespace first. In the host's network: all of the host's."""
    found: list[Rule] = []
    if shared:
        found += [_rule("host", each, outside, "in the network that it shares") for each in outside.rules]
        return tuple(found[:MOST])
    own = [each for each in links if each.kind != "loopback"]
    found += [_rule("container", each, inside, "in its own namespace") for each in inside.rules]
    for rule in outside.rules:
        why = "; ".join(_reasons(" ".join(rule.words) or rule.text, own))
        if why:
            found.append(_rule("host", rule, outside, why))
    found += _elements(own, outside)
    return tuple(found[:MOST])


def _rule(where: str, rule: nftlist.Rule, source: Ruled, why: str) -> Rule:
    hook = next((each.hook for each in source.chains if _same(each, rule)), "")
    return Rule(
        where=where,
        family=rule.family,
        table=rule.table,
        chain=rule.chain,
        hook=hook,
        text=rule.text,
        packets=rule.packets,
        bytes=rule.bytes,
        why=why,
    )


def _same(chain: nftlist.Chain, rule: nftlist.Rule) -> bool:
    return (chain.family, chain.table, chain.name) == (rule.family, rule.table, rule.chain)


def _reasons(text: str, links: Iterable[Link]) -> Iterator[str]:
    """Yield what of a rule is the container's: its bridge, its link outside, its address or a network around it."""
    named = set(re.findall(r'"([^"]+)"', text))
    networks = list(_networks(text))
    for link in links:
        if link.bridge in named:
            yield f"bridge {link.bridge}"
        if link.peer and any(_matches(name, link.peer) for name in named):
            yield f"link {link.peer}"
        for own in link.addresses:
            address = ipaddress.ip_interface(own).ip
            for network in networks:
                if address in network:
                    yield f"address {address}" if network.num_addresses == 1 else f"network {network}"


def _matches(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def _networks(text: str) -> Iterator[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    for word in _ADDRESS.findall(text):
        try:
            yield ipaddress.ip_network(word, strict=False)
        except ValueError:
            continue  # a part of a rule that only looks like an address


def _elements(links: Iterable[Link], outside: Ruled) -> list[Rule]:
    """Elements of the host's sets and maps that name the container: published ports are kept so."""
    looked = {(rule.family, rule.table, name) for rule in outside.rules for name in rule.sets}
    if not looked:
        return []
    found = []
    own = list(links)
    with nftlist.open_socket() as netlink:
        for family, table, name in sorted(looked):
            for element in nftlist.list_elements(netlink, family, table, name):
                text = f"{element.key} : {element.verdict}" if element.verdict else element.key
                why = "; ".join(_reasons(text, own))
                if why:
                    found.append(
                        Rule(
                            where="host",
                            family=family,
                            table=table,
                            chain=f"@{name}",
                            hook="",
                            text=f"element {text}",
                            packets=-1,
                            bytes=-1,
                            why=why,
                        )
                    )
    return found
