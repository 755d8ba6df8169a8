"""The packet filter through iptables, with dockerd's chains: see chains.py for what stands in them.

For those whose tools, rules in DOCKER-USER or habits expect dockerd's; the default is nftables.py. A start without
published ports calls no program, one with ports iptables-restore once per family.

Several engines, and dockerd, share the chains: each rule of ours has the name of its engine as its comment, names a
bridge or an address of that engine, and decides nothing about others. We empty no chain. dockerd empties these chains
when it starts; `refresh` then brings ours back. The chains and the jumps into them are everybody's: they go with the
last engine, when nothing of anybody else is in them, and DOCKER-USER never while it has rules.

When forwarding is turned on for us, the policy of FORWARD becomes DROP, as with dockerd. What it was is written into an
empty chain of that table, which says by its being there that an engine did this:

    filter WHERRY-FORWARDING         -m comment --comment policy-was-ACCEPT -j RETURN      (nothing leads there)
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial

from wherry.kernel.netlink import nft
from wherry.kernel.netlink.nftwatch import Transaction
from wherry.network.firewall import chains, xtables
from wherry.network.firewall.api import BridgeRules, Forward
from wherry.network.firewall.chains import Rule
from wherry.network.firewall.xtables import Saved

GUARD = "WHERRY-FORWARDING"
_FAMILIES = (nft.NFPROTO_IPV4, nft.NFPROTO_IPV6)
ATTEMPTS = 3
"""How often what is there is read anew, when another program changes it in between."""
_POLICY = re.compile(r"policy-was-(ACCEPT|DROP)")
_COMMENT = re.compile(r'--comment "?(wherry-[A-Za-z0-9_.-]+)"?(?: |$)')

Tables = Mapping[tuple[str, str], list[Rule]]
Forwards = Mapping[tuple[int, int, str, int], Forward]


class Iptables:
    """Firewall. Thread-safe."""

    def __init__(self, tag: str, known: Iterable[BridgeRules] = (), forwards: Iterable[Forward] = ()) -> None:
        """Have rules with that comment. known, forwards: what belongs to it and comes with the first `install`."""
        self._tag = tag
        self._lock = threading.Lock()
        self._rules = {each.bridge: each for each in known}
        self._forwards = {each.place: each for each in forwards}
        self._families: tuple[int, ...] = ()
        """Those that have been looked at; from the first time on all that we need."""

    # Networks

    def install(self, rules: BridgeRules) -> None:
        """Have these rules too; nothing is done when they are there since the last time that we looked."""
        with self._lock:
            wanted = {**self._rules, rules.bridge: rules}
            if not self._families or wanted != self._rules:
                self._bring(wanted, self._forwards)
                self._rules = wanted

    def uninstall(self, bridge: str) -> None:
        """Have the rules of a bridge no more; with the last ones go the chains."""
        with self._lock:
            wanted = {name: rules for name, rules in self._rules.items() if name != bridge}
            if wanted != self._rules or not wanted:
                self._bring(wanted, self._forwards)
                self._rules = wanted

    def refresh(self) -> None:
        """Put back what is missing."""
        with self._lock:
            if self._rules:
                self._bring(self._rules, self._forwards)

    def _bring(self, rules: Mapping[str, BridgeRules], forwards: Forwards) -> None:
        """Bring both families to these rules, and to no others of ours."""
        families = self._needed(rules)
        if not rules:
            _attempt(partial(self._leave, families))
        for family in families if rules else ():
            wanted = _by_chain(self._all(family, rules, forwards.values()))
            _attempt(partial(self._sync, family, wanted))
        self._families = families

    def _needed(self, rules: Mapping[str, BridgeRules]) -> tuple[int, ...]:
        """IPv6 when a network has it; and once in any case, as an engine that died may have left something."""
        six = any(each.subnet6 for each in rules.values()) or 6 in self._families
        return (4, 6) if six or (not self._families and xtables.available(6)) else (4,)

    def _all(self, family: int, rules: Mapping[str, BridgeRules], forwards: Iterable[Forward]) -> list[Rule]:
        found: list[Rule] = []
        targets: dict[str, BridgeRules] = {}
        for forward in forwards:
            network = chains.behind(rules.values(), forward.to_address) if forward.family == family else None
            if network is not None:
                targets[forward.to_address] = network
                found += chains.of_forward(self._tag, network, forward)
        for address, network in targets.items():
            found += chains.of_target(self._tag, network, address)
        for each in rules.values():
            found += chains.of_bridge(self._tag, family, each)
        return [*found, *chains.of_engine(self._tag, family)]

    def _sync(self, family: int, wanted: Tables) -> None:
        saved = xtables.save(family)
        lines: list[str] = []
        for table in chains.TABLES:
            changes = _changed(saved, table, wanted, self._tag)
            if wanted:  # not for a family that no network has
                own = self._tag if table == chains.OWN and family == 4 else ""
                changes = [*_made(saved, table, own), *_joined(saved, table, family), *changes]
            if changes:
                lines += [f"*{table}", *changes, "COMMIT"]
        if lines:
            xtables.restore(family, lines)

    def _leave(self, families: Collection[int]) -> None:
        """Take away all of ours, and the chains when nobody else has anything in them, in any family."""
        found = {family: xtables.save(family) for family in families}
        used = any(_used(saved, family, self._tag) for family, saved in found.items())
        for family, saved in found.items():
            lines: list[str] = []
            for table in chains.TABLES:
                changes = _changed(saved, table, {}, self._tag)
                changes += [f"-X {self._tag}"] if (table, self._tag) in saved.policies else []
                if not used:
                    changes += _unmade(saved, table, family)
                if changes:
                    lines += [f"*{table}", *changes, "COMMIT"]
            if lines:
                xtables.restore(family, lines)

    # Ports

    def forward(self, gone: Iterable[Forward], fresh: Iterable[Forward]) -> None:
        """Change the rules of these ports; all that differs when somebody else has changed them."""
        with self._lock:
            new = {each.place: each for each in fresh}
            old = [each for each in gone if self._forwards.get(each.place) == each and each.place not in new]
            old += [self._forwards[place] for place in new if place in self._forwards]
            if not old and not new:
                return
            wanted = {place: each for place, each in self._forwards.items() if each not in old} | new
            try:
                for family in (4, 6):
                    self._exchange(
                        [each for each in old if each.family == family],
                        [each for each in new.values() if each.family == family],
                        Counter(each.to_address for each in wanted.values()),
                    )
            except OSError:
                self._bring(self._rules, wanted)
            self._forwards = wanted

    def _exchange(self, old: list[Forward], new: list[Forward], after: Counter[str]) -> None:
        """Change the rules of ports of one family. after: how many ports each container will have."""
        before = Counter(each.to_address for each in self._forwards.values())
        gone = [rule for each in old for rule in self._of(each)]
        fresh = [rule for each in new for rule in self._of(each)]
        gone += self._of_targets({each.to_address for each in old if not after[each.to_address]})
        fresh += self._of_targets({each.to_address for each in new if not before[each.to_address]})
        lines: list[str] = []
        for table in chains.TABLES:
            changes = [f"-D {each.chain} {each.text}" for each in gone if each.table == table]
            changes += [_added(each) for each in fresh if each.table == table]
            if changes:
                lines += [f"*{table}", *changes, "COMMIT"]
        if lines:
            xtables.restore((old or new)[0].family, lines)

    def _of(self, forward: Forward) -> list[Rule]:
        network = chains.behind(self._rules.values(), forward.to_address)
        return chains.of_forward(self._tag, network, forward) if network is not None else []

    def _of_targets(self, addresses: Iterable[str]) -> list[Rule]:
        found: list[Rule] = []
        for address in sorted(addresses):
            network = chains.behind(self._rules.values(), address)
            found += chains.of_target(self._tag, network, address) if network is not None else []
        return found

    # Forwarding in general

    def guard(self, outside: Collection[str], version: int) -> None:
        """Make the policy of FORWARD drop, and remember what it was."""
        saved = xtables.save(version)
        policy = saved.policies.get(("filter", "FORWARD"), "ACCEPT")
        if ("filter", GUARD) in saved.policies:
            return
        mark = f"-A {GUARD} -m comment --comment policy-was-{policy} -j RETURN"
        xtables.restore(version, ["*filter", f"-N {GUARD}", mark, "-P FORWARD DROP", "COMMIT"])

    def guarded(self, version: int) -> bool:
        """Whether the guard's chain is there."""
        return xtables.available(version) and ("filter", GUARD) in xtables.save(version).policies

    def unguard(self, version: int) -> None:
        """Give FORWARD the policy that it had, and delete the guard's chain."""
        saved = xtables.save(version)
        if ("filter", GUARD) not in saved.policies:
            return
        marks = [_POLICY.search(text) for text in saved.of("filter", GUARD)]
        policy = next((mark[1] for mark in marks if mark), "ACCEPT")
        xtables.restore(version, ["*filter", f"-P FORWARD {policy}", f"-F {GUARD}", f"-X {GUARD}", "COMMIT"])

    def others(self) -> bool:
        """Whether there are rules of other engines."""
        saved = xtables.save(4)
        owners = {found[1] for rules in saved.rules.values() for text in rules if (found := _COMMENT.search(text))}
        return bool(owners - {self._tag})

    def bridges(self) -> tuple[str, ...]:
        """Return the bridges that have rules."""
        return tuple(self._rules)

    def misses(self, change: Transaction | None) -> bool:
        """Whether another program than ours took something away; `refresh` reads what is there, and says what."""
        if change is None:
            return True
        if change.pid in xtables.ours:
            return False
        return any(each.table in chains.TABLES and each.family in _FAMILIES for each in change.removals)


def _attempt(change: Callable[[], None]) -> None:
    """Try again when another program was faster."""
    for attempt in range(ATTEMPTS):
        try:
            change()
            return
        except OSError:
            if attempt == ATTEMPTS - 1:
                raise


def _by_chain(rules: Iterable[Rule]) -> Tables:
    found: dict[tuple[str, str], list[Rule]] = {}
    for each in rules:
        found.setdefault((each.table, each.chain), []).append(each)
    return found


def _added(rule: Rule) -> str:
    return f"-{'I' if rule.first else 'A'} {rule.chain} {rule.text}"


def _changed(saved: Saved, table: str, wanted: Tables, tag: str) -> list[str]:
    """Return the lines that bring all chains of a table to the rules of an engine."""
    keys = dict.fromkeys(key for key in (*saved.rules, *wanted) if key[0] == table)
    return [line for key in keys for line in _difference(key, saved.tagged(*key, tag), wanted.get(key, []))]


def _difference(key: tuple[str, str], have: list[str], wanted: list[Rule]) -> list[str]:
    """Return the lines that bring one chain there. Where the order matters, all of ours in it begin anew."""
    ordered = [each for each in wanted if each.first] + [each for each in wanted if not each.first]
    texts = [each.text for each in ordered]
    if have == texts:
        return []
    kept = Counter(have) & Counter(texts) if chains.of_ports(*key) else Counter[str]()
    lines = [f"-D {key[1]} {text}" for text in _without(have, kept)]
    missing = set(_without(texts, kept))
    fresh = [each for each in ordered if each.text in missing]
    lines += [_added(each) for each in reversed(fresh) if each.first]
    return lines + [_added(each) for each in fresh if not each.first]


def _without(texts: list[str], kept: Counter[str]) -> list[str]:
    left, found = kept.copy(), []
    for text in texts:
        if left[text]:
            left[text] -= 1
        else:
            found.append(text)
    return found


def _made(saved: Saved, table: str, own: str) -> list[str]:
    names = [*chains.CHAINS[table], *([own] if own else [])]
    return [f"-N {name}" for name in names if (table, name) not in saved.policies]


def _joined(saved: Saved, table: str, family: int) -> list[str]:
    """Return the lines that bring the jumps to their places."""
    lines: list[str] = []
    for each in chains.jumps(family):
        if each.table != table:
            continue
        have = saved.of(table, each.chain)
        if each.on_top and have[: len(each.texts)] != list(each.texts):
            lines += [f"-D {each.chain} {text}" for text in have if text in each.texts]
            lines += [f"-I {each.chain} {text}" for text in reversed(each.texts)]
        elif not each.on_top:
            lines += [f"-A {each.chain} {text}" for text in each.texts if text not in have]
    return lines


def _used(saved: Saved, family: int, tag: str) -> bool:
    """Whether anybody but us and the administrator's DOCKER-USER has something in the chains, or leads there."""
    known = {(each.table, each.chain): each.texts for each in chains.jumps(family)}
    for (table, chain), rules in saved.rules.items():
        ours = chain in chains.CHAINS.get(table, ())
        if chain.startswith("DOCKER") and not ours:
            return True
        spared = {*known.get((table, chain), ()), *saved.tagged(table, chain, tag)}
        foreign = [text for text in rules if text not in spared]
        if any((ours and chain != chains.USER) or "-j DOCKER" in text for text in foreign):
            return True
    return False


def _unmade(saved: Saved, table: str, family: int) -> list[str]:
    """Return the lines that take jumps and chains away; DOCKER-USER stays while it has rules."""
    spared = {chains.USER} if saved.of("filter", chains.USER) else set()
    lines: list[str] = []
    for each in chains.jumps(family):
        gone = {text for text in each.texts if text.rpartition(" ")[2] not in spared}
        if each.table == table:
            lines += [f"-D {each.chain} {text}" for text in saved.of(table, each.chain) if text in gone]
    names = [name for name in chains.CHAINS[table] if (table, name) in saved.policies and name not in spared]
    return lines + [f"-X {name}" for name in names]
