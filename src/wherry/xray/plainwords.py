"""Firewall rules in plain words. PURE. Words that are not known are left as they are."""

from __future__ import annotations

import re
from collections.abc import Iterable

_FIXED = {
    "ct state established,related": "belongs to a connection that is known",
    "ct state related,established": "belongs to a connection that is known",
    "ct state established": "belongs to a connection that is known",
    "ct state new": "begins a connection",
    "ct state invalid": "fits no connection",
    "ct status dnat": "came for a published port",
    "ct status != dnat": "did not come for a published port",
    "fib daddr type local": "is for this host",
    "fib daddr type != local": "is not for this host",
    "accept": "let it through",
    "drop": "drop it",
    "reject": "refuse it",
    "return": "go back to where it came from",
    "masquerade": "give it the address of the link that it leaves by",
}
_PATTERNS = (
    (re.compile(r'iifname "(.+)"'), r"comes from \1"),
    (re.compile(r'iifname != "(.+)"'), r"comes from another link than \1"),
    (re.compile(r"iifname @(.+)"), r"comes from a link of the set \1"),
    (re.compile(r"iifname != @(.+)"), r"comes from no link of the set \1"),
    (re.compile(r'oifname "(.+)"'), r"goes to \1"),
    (re.compile(r'oifname != "(.+)"'), r"goes to another link than \1"),
    (re.compile(r"oifname @(.+)"), r"goes to a link of the set \1"),
    (re.compile(r"oifname != @(.+)"), r"goes to no link of the set \1"),
    (re.compile(r"ip6? saddr != (.+)"), r"is not from \1"),
    (re.compile(r"ip6? saddr (.+)"), r"is from \1"),
    (re.compile(r"ip6? daddr != (.+)"), r"is not to \1"),
    (re.compile(r"ip6? daddr (.+)"), r"is to \1"),
    (re.compile(r"(?:tcp|udp|sctp|th) dport (.+)"), r"is to port \1"),
    (re.compile(r"(?:tcp|udp|sctp|th) sport (.+)"), r"is from port \1"),
    (re.compile(r"meta l4proto (tcp|udp|sctp|icmp)"), r"is \1"),
    (re.compile(r"(?:jump|goto) (.+)"), r"read the rules of \1"),
    (re.compile(r"dnat to (.+)"), r"send it on to \1"),
    (re.compile(r"snat to (.+)"), r"give it the address \1"),
    (re.compile(r"redirect(.*)"), r"send it to this host\1"),
    (re.compile(r"reject .+"), r"refuse it"),
)
_VERDICTS = ("accept", "drop", "reject", "return", "masquerade", "jump ", "goto ", "dnat ", "snat ", "redirect")


def verdict(word: str) -> bool:
    """Whether a word says what happens to a packet, and is no condition."""
    return word.startswith(_VERDICTS)


def condition(word: str) -> bool:
    """Whether a word decides if the rule applies: neither a verdict nor something done by the way."""
    done = word == "counter" or word.startswith(("log", "[log", "meta set", "notrack")) or " set " in word
    return not verdict(word) and not done


def say(words: Iterable[str], answer: str = "", translated: str = "") -> str:
    """Return a rule as a sentence: if it ... and ...: do ... . answer: what its map answers; translated: to where."""
    conditions, actions = [], []
    for word in words:
        if " vmap @" in word or " map @" in word:
            continue
        if verdict(word):
            actions.append(f"send it on to {translated}" if translated and word.startswith("dnat") else _plain(word))
        elif condition(word):
            conditions.append(_plain(word))
    if answer:
        actions.append(_plain(answer))
    action = ", ".join(actions) or "count it"
    return f"if it {' and '.join(conditions)}: {action}" if conditions else action


def _plain(word: str) -> str:
    if word in _FIXED:
        return _FIXED[word]
    for pattern, text in _PATTERNS:
        if match := pattern.fullmatch(word):
            return match.expand(text)
    return word
