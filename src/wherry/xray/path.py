"""The way of a packet through the rules: every base chain at every hook, rule by rule, as the kernel reads them.

    from a link:     prerouting -> where to? -> forward -> postrouting, or input when it is for this host
    accept ends the chain of one table; those of others at the same hook are read all the same. drop ends everything.

No packet is sent for this. What cannot be judged from outside, a rate for instance, is told as a step that is not
certain, and the packet goes on as if it did not apply. Connection tracking is thought of as having seen what the packet
says of itself. See net/netfilter/nf_tables_core.c, nft_do_chain, and nf_nat_core.c, nf_nat_inet_fn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from wherry.kernel.netlink.nftlist import Chain, Rule
from wherry.models.xray_network import Step
from wherry.xray import packet as packets
from wherry.xray import plainwords
from wherry.xray.packet import Host, Packet
from wherry.xray.ruleset import Ruleset

DEEPEST = 16
MOST_STEPS = 100
Outcome = Literal["accept", "drop", "return", ""]
"""What a chain has decided; "": it has not, and the next rule is read."""
_CHANGES = ("dnat", "masquerade", "snat", "redirect")


@dataclass(slots=True)
class Walk:
    """One packet on its way; `packet` changes as rules change it."""

    rules: Ruleset
    host: Host
    packet: Packet
    steps: list[Step] = field(default_factory=list)
    stopped_by: int = -1
    _hook: str = ""
    _renamed: bool = False

    def through(self, hook: str) -> bool:
        """Read the chains of one hook; False when the packet has ended there."""
        self._hook, self._renamed = hook, False
        for chain in self.rules.at(hook, self.packet.family):
            if chain.type == "nat" and (self.packet.state != "new" or self._renamed):
                continue  # only the first packet of a connection is seen, until something is decided
            outcome = self._chain(chain, chain.name, 0)
            if outcome not in ("drop", "accept") and chain.policy == "drop":
                self._policy(chain)
                outcome = "drop"
            if outcome == "drop":
                self.stopped_by = len(self.steps) - 1
                return False
        return True

    def refused(self, setting: str, says: str) -> None:
        """End here for want of a setting of the kernel, which drops a packet as a rule does."""
        step = Step(hook="forward", family="", table="", chain="", text=setting, effect="drop", says=says)
        self.steps.append(step)
        self.stopped_by = len(self.steps) - 1

    def _policy(self, chain: Chain) -> None:
        counted = self.rules.policies.get((chain.family, chain.table, chain.name), (-1, -1))
        step = Step(
            hook=self._hook,
            family=chain.family,
            table=chain.table,
            chain=chain.name,
            text="policy drop",
            effect="policy",
            says="no rule let it through: drop it",
            packets=counted[0],
            bytes=counted[1],
        )
        self.steps.append(step)

    def _chain(self, base: Chain, name: str, depth: int) -> Outcome:
        for rule in self.rules.of(base, name):
            if len(self.steps) >= MOST_STEPS:
                return "return"
            outcome = self._rule(base, rule, depth)
            if outcome:
                return outcome
        return "return"

    def _rule(self, base: Chain, rule: Rule, depth: int) -> Outcome:
        def elements(name: str) -> Mapping[str, str]:
            return self.rules.elements(base, name)

        answers = ""
        certain = True
        verdict = ""
        for word in rule.words:
            if " vmap @" in word or " map @" in word:
                found = packets.answer(word, self.packet, self.host, elements)
                if found == "":
                    return ""
                certain, answers = certain and found is not None, found or ""
                verdict = answers if " vmap @" in word else verdict
            elif plainwords.verdict(word):
                verdict = word
            elif plainwords.condition(word):
                applies = packets.holds(word, self.packet, self.host, elements)
                if applies is False:
                    return ""
                certain = certain and applies is True
        return self._do(base, rule, verdict, answers, certain=certain, depth=depth) if verdict else ""

    def _do(self, base: Chain, rule: Rule, verdict: str, answers: str, *, certain: bool, depth: int) -> Outcome:
        action, _, target = verdict.partition(" ")
        if action in ("jump", "goto"):
            return self._jump(base, rule, verdict, answers, certain=certain, depth=depth)
        effect = "drop" if action == "reject" else action
        if action == "return" or effect not in ("accept", "drop", *_CHANGES):
            return "return" if action == "return" and certain else ""
        translated = _translated(target, answers) if action == "dnat" else ""
        self._add(base, rule, effect, translated=translated, certain=certain)
        if not certain:
            return ""
        if effect in _CHANGES:
            self._renamed = True
            self.packet = self._changed(effect, translated or target.removeprefix("to "))
            return "accept"
        return "drop" if effect == "drop" else "accept"

    def _changed(self, effect: str, place: str) -> Packet:
        if effect == "dnat":
            address, port = split(place)
            port = port or self.packet.port
            return replace(self.packet, destination=address or self.packet.destination, port=port, translated=True)
        if effect == "redirect":
            return replace(self.packet, port=split(place)[1] or self.packet.port, translated=True)
        source = split(place)[0] if effect == "snat" else self.host.first(self.packet.goes_out, self.packet.family)
        return replace(self.packet, source=source or self.packet.source)

    def _jump(self, base: Chain, rule: Rule, verdict: str, answers: str, *, certain: bool, depth: int) -> Outcome:
        before = len(self.steps)
        self._add(base, rule, "jump", answer=answers, certain=certain)
        if not certain or depth >= DEEPEST:
            return ""
        outcome = self._chain(base, verdict.partition(" ")[2], depth + 1)
        if len(self.steps) == before + 1:
            self.steps.pop()  # nothing there is about this packet
        if outcome == "return":
            return "return" if verdict.startswith("goto") else ""
        return outcome

    def _add(
        self, base: Chain, rule: Rule, effect: str, *, answer: str = "", translated: str = "", certain: bool
    ) -> None:
        step = Step(
            hook=self._hook,
            family=base.family,
            table=base.table,
            chain=rule.chain,
            text=rule.text,
            effect=effect,
            says=plainwords.say(rule.words, answer, translated),
            packets=rule.packets,
            bytes=rule.bytes,
            certain=certain,
        )
        self.steps.append(step)


def _translated(target: str, answers: str) -> str:
    """To where: of the map's answer ("172.18.0.2 . 80"), or of the rule ("to 172.18.0.2:80")."""
    if answers:
        address, _, port = answers.partition(" . ")
        return join(address, int(port or 0))
    return target.split()[-1]


def join(address: str, port: int) -> str:
    """An address and a port as one writes them; without a port when that is 0."""
    shown = f"[{address}]" if ":" in address and port else address
    return f"{shown}:{port}" if port else shown


def split(place: str) -> tuple[str, int]:
    """The two parts of `join`; port 0 when there is none."""
    if place.startswith("["):
        address, _, port = place[1:].partition("]")
        return address, int(port.removeprefix(":") or 0)
    if place.count(":") == 1:
        address, _, port = place.partition(":")
        return address, int(port.partition("-")[0] or 0)
    return place, 0
