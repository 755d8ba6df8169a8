"""All rules of a network namespace in the order in which a packet meets them: those of nft and those of iptables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from wherry.kernel.netlink import nftlist
from wherry.kernel.netlink.nftlist import Chain, Rule
from wherry.xray import iptables

Place = tuple[str, str, str]
"""Family, table and name of a chain."""
TABLES = ("raw", "mangle", "nat", "filter", "security")


@dataclass(slots=True)
class Ruleset:
    """policies: packets and bytes that met the policy of a base chain, if counted. notes: what is missing."""

    chains: list[Chain]
    rules: dict[Place, list[Rule]]
    policies: dict[Place, tuple[int, int]] = field(default_factory=dict)
    sets: dict[Place, dict[str, str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def at(self, hook: str, family: int) -> list[Chain]:
        """Return the base chains that a packet of a family meets at a hook, in their order."""
        names = ("ip6" if family == 6 else "ip", "inet")
        found = [each for each in self.chains if each.hook == hook and each.family in names]
        return sorted(found, key=lambda each: each.priority)

    def of(self, chain: Chain, name: str = "") -> list[Rule]:
        """Return the rules of a chain, or of another one of its table."""
        return self.rules.get((chain.family, chain.table, name or chain.name), [])

    def elements(self, chain: Chain, name: str) -> Mapping[str, str]:
        """Return what a set or map of a chain's table holds: the answer by the key. Raises OSError."""
        place = (chain.family, chain.table, name)
        if place not in self.sets:
            with nftlist.open_socket() as netlink:
                found = nftlist.list_elements(netlink, *place)
            self.sets[place] = {each.key: each.verdict for each in found}
        return self.sets[place]


def read() -> Ruleset:
    """Return the rules of the calling thread's network namespace. Raises OSError."""
    with nftlist.open_socket() as netlink:
        chains, rules = nftlist.list_chains(netlink), nftlist.list_rules(netlink)
    found = Ruleset(chains, {})
    for each in rules:
        found.rules.setdefault((each.family, each.table, each.chain), []).append(each)
    for family in iptables.FAMILIES:
        if any(each.family == family and each.table in TABLES for each in chains):
            _take(found, family)
        if _legacy(family):
            _take(found, family, legacy=True)
    return found


def _legacy(family: str) -> bool:
    """Whether iptables-legacy has tables here; asking it would make them."""
    try:
        with open(f"/proc/net/{family}_tables_names", encoding="ascii") as names:
            return bool(names.read().strip())
    except FileNotFoundError:  # no module of it is loaded
        return False


def _take(found: Ruleset, family: str, *, legacy: bool = False) -> None:
    """Have iptables' own words for its tables, in place of what nf_tables can tell of them."""
    try:
        saved = iptables.save(family, legacy=legacy)
    except OSError as error:
        found.notes.append(f"rules of iptables are not understood: {error.filename}: {error.strerror}")
        return
    known = {(each.family, each.table, each.name): each for each in found.chains}
    for chain in saved.chains:
        place = (family, chain.table, chain.name)
        found.rules[place] = [each for each in saved.rules if (each.table, each.chain) == (chain.table, chain.name)]
        if chain.hook:
            found.policies[place] = saved.policies[chain.table, chain.name]
        if place not in known:
            found.chains.append(chain)
