"""A packet that is only thought of, and whether a condition of a firewall rule holds for it. PURE.

Conditions are words of nft(8), as kernel/netlink/nfttext.py and xray/iptables.py write them. Of some nobody outside the
kernel can say whether they hold (a rate, a mark that is set elsewhere): then the answer is None.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

PROTOCOLS = ("tcp", "udp", "sctp", "icmp", "ipv6-icmp")
_CONDITION = re.compile(
    r"(?P<key>iifname|oifname|iif|oif|ip6? [sd]addr|meta l4proto|ip protocol|ip6 nexthdr|meta nfproto"
    r"|(?:tcp|udp|sctp|th) [sd]port|ct state|ct status|fib [sd]addr type|meta mark|ct mark) "
    r"(?P<sign>!= )?(?P<value>[^<>=&].*)"
)

Elements = Callable[[str], Mapping[str, str]]
"""What a set or map of the rule's table holds: the answer by the key, "" in a set."""


@dataclass(frozen=True, slots=True)
class Packet:
    """source_port: any of those that clients choose. state: of its connection; translated: it was sent elsewhere."""

    protocol: str
    source: str
    destination: str
    port: int
    source_port: int = 40000
    comes_in: str = ""
    goes_out: str = ""
    state: str = "new"
    translated: bool = False

    @property
    def family(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.destination else 4


@dataclass(frozen=True, slots=True)
class Host:
    """What of the host conditions ask for: its addresses by link, and the indices of its links, both by name."""

    addresses: Mapping[str, Collection[str]]
    indices: Mapping[str, int]

    def has(self, address: str) -> bool:
        """Whether an address is the host's own."""
        return address.startswith("127.") or any(address in each for each in self.addresses.values())

    def first(self, link: str, family: int) -> str:
        """Return the first address of a link that others can answer, "" when it has none of that family."""
        own = [each for each in self.addresses.get(link, ()) if (":" in each) == (family == 6)]
        return next((each for each in own if not each.startswith("fe80:")), "")


def value_of(packet: Packet, key: str, host: Host) -> str | None:
    """Return what the packet has where a condition looks; None: nobody can say."""
    family = "ip6" if packet.family == 6 else "ip"
    words = key.split()
    if words[0] in ("ip", "ip6") and words[0] != family:
        return ""
    if words[-1] in ("sport", "dport") and words[0] not in ("th", packet.protocol):
        return ""
    kind = "local" if host.has(packet.destination) else "unicast"
    own = "local" if host.has(packet.source) else "unicast"
    links = {name: str(host.indices.get(name, 0)) for name in (packet.comes_in, packet.goes_out)}
    answers = {
        "iifname": packet.comes_in, "oifname": packet.goes_out, "iif": links[packet.comes_in],
        "oif": links[packet.goes_out], f"{family} saddr": packet.source, f"{family} daddr": packet.destination,
        "meta l4proto": packet.protocol, "ip protocol": packet.protocol, "ip6 nexthdr": packet.protocol,
        "meta nfproto": f"ipv{packet.family}", "ct state": packet.state,
        "ct status": "dnat" if packet.translated else "none", "fib daddr type": kind, "fib saddr type": own,
    }  # fmt: skip
    if words[-1] in ("sport", "dport"):
        return str(packet.port if words[-1] == "dport" else packet.source_port)
    return answers.get(key)


def holds(word: str, packet: Packet, host: Host, elements: Elements) -> bool | None:
    """Whether one condition holds; None: nobody can say."""
    if " . " in word:
        return _joined(word, packet, host, elements)
    match = _CONDITION.fullmatch(word)
    if match is None:
        return None
    has = value_of(packet, match["key"], host)
    if has is None:
        return None
    if match["key"].split()[0] in ("ip", "ip6") and not has:
        return False  # of the other family: also no "!=" holds
    found = _equal(match["key"], has, match["value"], elements)
    return found if found is None or not match["sign"] else not found


def _joined(word: str, packet: Packet, host: Host, elements: Elements) -> bool | None:
    keys, found, name = word.rpartition(" @")
    values = _values(keys, packet, host)
    if not found or values is None:
        return None
    return values in elements(name)


def _values(keys: str, packet: Packet, host: Host) -> str | None:
    """Return what the packet has where a key of one or more parts looks, as elements are written; None: unknown."""
    values = [value_of(packet, key, host) for key in keys.split(" . ")]
    if None in values:
        return None
    names = [key in ("iifname", "oifname") for key in keys.split(" . ")]
    return " . ".join(f'"{each}"' if name else each or "" for each, name in zip(values, names, strict=True))


def answer(word: str, packet: Packet, host: Host, elements: Elements) -> str | None:
    """Return what a map answers ("iifname vmap @from"), "" when it has nothing for the packet, None: unknown."""
    keys, _, name = word.partition(" vmap @" if " vmap @" in word else " map @")
    key = _values(keys, packet, host)
    return None if key is None else elements(name).get(key, "")


def _equal(key: str, has: str, value: str, elements: Elements) -> bool | None:
    if value.startswith("@"):
        return _in_set(key, has, elements(value[1:]))
    if key in ("iifname", "oifname"):
        name = value.strip('"')
        return bool(has) and has.startswith(name[:-1]) if name.endswith("*") else has == name
    if key in ("ct state", "ct status"):
        return has in value.split(",")
    if key.endswith("addr"):
        return _within(has, value)
    if key.endswith("port"):
        return any(_in_range(has, each) for each in value.split(","))
    return has == value


def _in_set(key: str, has: str, held: Mapping[str, str]) -> bool | None:
    if key in ("iifname", "oifname"):
        return f'"{has}"' in held
    if has in held:
        return True
    return None if key.endswith(("addr", "port")) and held else False  # the set may hold ranges


def _in_range(has: str, value: str) -> bool | None:
    low, dash, high = value.partition("-")
    if not has.isdigit() or not low.isdigit():
        return has == value
    return int(low) <= int(has) <= int(high if dash else low)


def _within(address: str, value: str) -> bool | None:
    try:
        one = ipaddress.ip_address(address)
        if "-" in value:
            low, high = (ipaddress.ip_address(each) for each in value.split("-"))
            return int(low) <= int(one) <= int(high)
        return one in ipaddress.ip_network(value, strict=False)
    except ValueError:
        return None
