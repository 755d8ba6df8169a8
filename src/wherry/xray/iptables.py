"""Rules of iptables in the words of nft(8), read with iptables-save(8) and what it counts.

iptables-nft keeps its rules in nf_tables, but matches and targets as bytes that only its own libraries understand, and
iptables-legacy keeps all of them elsewhere. What cannot be said in these words stands in brackets, as an option of
iptables: whether it holds is then not known, and a rule is never shown as less than it is.
"""

from __future__ import annotations

import errno
import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from shutil import which

from wherry.kernel.netlink.nftlist import Chain, Rule

SECONDS = 5.0
FAMILIES = {"ip": "", "ip6": "6"}
PRIORITIES = {"raw": -300, "mangle": -150, "filter": 0, "security": 50}
NAT_PRIORITIES = {"PREROUTING": -100, "INPUT": 100, "OUTPUT": -100, "POSTROUTING": 100}
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CHAIN = re.compile(r":(\S+) (\S+) \[(\d+):(\d+)\]")
_COUNTED = re.compile(r"\[(\d+):(\d+)\] -A (\S+) ?(.*)")
_LINKS = {"-i": "iifname", "-o": "oifname"}
_PORTS = {"--sport": "sport", "--dport": "dport", "--sports": "sport", "--dports": "dport"}
_TYPES = {"--dst-type": "fib daddr type", "--src-type": "fib saddr type"}
_SILENT = {"-m", "--comment"}
_STATES = {"NEW", "ESTABLISHED", "RELATED", "INVALID", "UNTRACKED"}
_BARE = {"ACCEPT": "accept", "DROP": "drop", "RETURN": "return", "REJECT": "reject", "MASQUERADE": "masquerade"}
_OTHERS = {"LOG", "NFLOG", "MARK", "CONNMARK", "TCPMSS", "NOTRACK", "CT", "TRACE", "CHECKSUM", "CLASSIFY"}
"""Targets after which the next rule is read."""


@dataclass(slots=True)
class Saved:
    """One family's tables. policies: packets and bytes that met the policy of a chain, by table and chain."""

    chains: list[Chain] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    policies: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)


def save(family: str, *, legacy: bool = False) -> Saved:
    """Return the tables of one family ("ip", "ip6"). Raises OSError, with ENOENT when there is no such program."""
    name = f"ip{FAMILIES[family]}tables-{'legacy' if legacy else 'nft'}-save"
    program = which(name, path=_PATH)
    if program is None:
        raise OSError(errno.ENOENT, "not installed", name)
    try:
        ran = subprocess.run([program, "-c"], capture_output=True, text=True, env={}, timeout=SECONDS, check=True)
    except subprocess.SubprocessError as error:
        raise OSError(errno.EIO, str(error), name) from error
    return parse(ran.stdout, family)


def parse(text: str, family: str) -> Saved:
    """Read what iptables-save -c wrote."""
    saved, table = Saved(), ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
        elif match := _CHAIN.match(line):
            name, policy, packets, counted = match.groups()
            saved.chains.append(_chain(family, table, name, policy))
            saved.policies[table, name] = (int(packets), int(counted))
        elif match := _COUNTED.match(line):
            packets, counted, name, rest = match.groups()
            saved.rules.append(_rule(family, table, name, rest, int(packets), int(counted)))
    return saved


def _chain(family: str, table: str, name: str, policy: str) -> Chain:
    if policy == "-":
        return Chain(family, table, name)
    priority = NAT_PRIORITIES.get(name, 0) if table == "nat" else PRIORITIES.get(table, 0)
    kind = "nat" if table == "nat" else "filter"
    return Chain(family, table, name, kind, name.lower(), priority, policy.lower())


def _rule(family: str, table: str, chain: str, text: str, packets: int, counted: int) -> Rule:
    words = tuple(_words(text, family))
    sets = tuple(word.rpartition("@")[2] for word in words if " @" in word)
    return Rule(family, table, chain, 0, text, packets, counted, sets, words)


def _options(text: str) -> Iterator[tuple[str, bool, list[str]]]:
    """Yield every option with its values, and whether a "!" stands before it."""
    tokens = shlex.split(text)
    negated = False
    while tokens:
        name = tokens.pop(0)
        if name == "!":
            negated = True
            continue
        values = []
        while tokens and not tokens[0].startswith("-") and tokens[0] != "!":
            values.append(tokens.pop(0))
        yield name, negated, values
        negated = False


def _words(text: str, family: str) -> Iterator[str]:
    protocol, verdict = "th", ""
    for name, negated, values in _options(text):
        value = " ".join(values)
        sign = "!= " if negated else ""
        if name == "-p":
            protocol = value if value in ("tcp", "udp", "sctp") else "th"
            yield f"meta l4proto {sign}{value}"
        elif name in ("-j", "-g"):
            verdict = _verdict(name, value)
        elif name.startswith("--to-"):
            verdict += f" to {value}"
        elif name == "--reject-with" or name in _SILENT:
            continue
        else:
            yield _condition(name, sign, value, family, protocol)
    if verdict:
        yield verdict


def _condition(name: str, sign: str, value: str, family: str, protocol: str) -> str:
    if name in _LINKS:
        return f'{_LINKS[name]} {sign}"{value.replace("+", "*")}"'
    if name in ("-s", "-d"):
        return f"{family} {'saddr' if name == '-s' else 'daddr'} {sign}{value}"
    if name in _PORTS:
        return f"{protocol} {_PORTS[name]} {sign}{value.replace(':', '-')}"
    if name in _TYPES:
        return f"{_TYPES[name]} {sign}{value.lower()}"
    if name in ("--ctstate", "--state"):
        states = value.split(",")
        if not set(states) - _STATES:
            return f"ct state {sign}{value.lower()}"
        if states == ["DNAT"]:
            return f"ct status {sign}dnat"
    return f"[{'! ' if sign else ''}{name}{' ' + value if value else ''}]"


def _verdict(option: str, target: str) -> str:
    if target in _BARE:
        return _BARE[target]
    if target in ("DNAT", "SNAT", "REDIRECT"):
        return target.lower()
    if target in _OTHERS:
        return f"log {target}" if target.endswith("LOG") else f"meta set {target}"
    return f"{'goto' if option == '-g' else 'jump'} {target}"
