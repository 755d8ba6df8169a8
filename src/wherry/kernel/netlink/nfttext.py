"""The expressions of an nf_tables rule in the words of nft(8).

A rule is a small program: load something into a register, mask it, compare it, give a verdict. nft(8) turns that back
into one line, and so does this, for what engines and administrators write. An expression that is not known here is
shown by its name in brackets: a rule is never shown as less than it is.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import sys
from collections.abc import Callable

from wherry.kernel.netlink.codec import as_be32, as_be64, as_text, attributes

Fields = dict[int, bytes]

META = {
    1: "meta protocol", 3: "meta mark", 4: "iif", 5: "oif", 6: "iifname", 7: "oifname", 10: "meta skuid",
    11: "meta skgid", 15: "meta nfproto", 16: "meta l4proto", 19: "meta pkttype",
}  # fmt: skip
CT = {0: "ct state", 1: "ct direction", 2: "ct status", 3: "ct mark"}
CT_STATES = {1: "invalid", 2: "established", 4: "related", 8: "new", 64: "untracked"}
CT_STATUS = {1: "expected", 2: "seen-reply", 4: "assured", 8: "confirmed", 16: "snat", 32: "dnat", 512: "dying"}
PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "ipv6-icmp", 132: "sctp"}
VERDICTS = {0: "drop", 1: "accept", 3: "queue", -1: "continue", -2: "break", -3: "jump", -4: "goto", -5: "return"}
OPERATORS = ("", "!= ", "< ", "<= ", "> ", ">= ")
NETWORK, TRANSPORT = 1, 2
_HEADERS = {
    ("ip", 9, 1): "ip protocol", ("ip", 12, 4): "ip saddr", ("ip", 16, 4): "ip daddr",
    ("ip6", 6, 1): "ip6 nexthdr", ("ip6", 8, 16): "ip6 saddr", ("ip6", 24, 16): "ip6 daddr",
}  # fmt: skip


class Words:
    """Collects the words of one rule. packets, bytes: of the counter, -1 without one."""

    def __init__(self, family: str) -> None:
        self._family = family
        self._words: list[str] = []
        self._registers: dict[int, str] = {}
        self._values: dict[int, bytes] = {}
        self._masks: dict[int, bytes] = {}
        self._protocol = "th"
        self.packets = self.bytes = -1
        self.sets: list[str] = []
        self._known: dict[str, Callable[[Fields], None]] = {
            "meta": self._meta, "ct": self._ct, "payload": self._payload, "bitwise": self._bitwise, "cmp": self._cmp,
            "lookup": self._lookup, "immediate": self._immediate, "counter": self._counter, "nat": self._nat,
            "masq": self._masquerade, "reject": self._reject, "fib": self._fib, "redir": self._redirect,
            "range": self._range,
        }  # fmt: skip

    def add(self, name: str, fields: Fields) -> None:
        """Add one expression."""
        step = self._known.get(name)
        if step is not None:
            step(fields)
        elif name in ("match", "target"):  # of xtables, through iptables-nft
            self._words.append(f"xt {name} {as_text(fields.get(1))}")
        else:
            self._words.append(f"[{name}]")

    def words(self) -> tuple[str, ...]:
        """Return every condition and statement by itself, in the order of the rule."""
        return tuple(self._words)

    def text(self) -> str:
        """Return the rule, without what another word of it implies: tcp dport says that it is tcp."""
        implied = set()
        for kind in PROTOCOLS.values():
            if any(word.startswith((f"{kind} dport", f"{kind} sport")) for word in self._words):
                implied.add(f"meta l4proto {kind}")
        for family, kind in (("ip", "ipv4"), ("ip6", "ipv6")):
            if any(word.startswith(f"{family} ") for word in self._words):
                implied.add(f"meta nfproto {kind}")
        return " ".join(word for word in self._words if word not in implied)

    def _load(self, register: int, name: str) -> None:
        self._registers[_wide(register)] = name
        self._masks.pop(_wide(register), None)

    def _loaded(self, register: int) -> str:
        return self._registers.get(_wide(register), f"reg {register}")

    def _meta(self, fields: Fields) -> None:
        name = META.get(as_be32(fields.get(2)), f"meta key {as_be32(fields.get(2))}")
        if 3 in fields:
            self._words.append(f"{name} set {self._value(as_be32(fields[3]), name)}")
        else:
            self._load(as_be32(fields.get(1)), name)

    def _ct(self, fields: Fields) -> None:
        self._load(as_be32(fields.get(1)), CT.get(as_be32(fields.get(2)), f"ct key {as_be32(fields.get(2))}"))

    def _payload(self, fields: Fields) -> None:
        base, offset, length = (as_be32(fields.get(each)) for each in (2, 3, 4))
        name = f"@{('ll', 'nh', 'th', 'ih')[base & 3]},{offset * 8},{length * 8}"
        if base == NETWORK:
            family = self._family if self._family in ("ip", "ip6") else ("ip6" if length == 16 else "ip")
            name = _HEADERS.get((family, offset, length), name)
            if family == "ip" and offset in (12, 16) and length < 4:  # a prefix of whole bytes
                name = _HEADERS[family, offset, 4]
        elif base == TRANSPORT and length == 2 and offset in (0, 2):
            name = f"{self._protocol} {'sport' if offset == 0 else 'dport'}"
        self._load(as_be32(fields.get(1)), name)

    def _bitwise(self, fields: Fields) -> None:
        source, target = as_be32(fields.get(1)), as_be32(fields.get(2))
        self._load(target, self._loaded(source))
        self._masks[_wide(target)] = attributes(fields.get(4, b"")).get(1, b"")

    def _cmp(self, fields: Fields) -> None:
        register, operator = as_be32(fields.get(1)), as_be32(fields.get(2))
        raw = attributes(fields.get(3, b"")).get(1, b"")
        name, mask = self._loaded(register), self._masks.get(_wide(register))
        if mask is not None and name in ("ct state", "ct status"):
            states = _flags(mask, CT_STATES if name == "ct state" else CT_STATUS)
            self._words.append(f"{name} {states}" if operator == 1 and not any(raw) else f"{name} & {states}")
            return
        if name in ("meta l4proto", "ip protocol", "ip6 nexthdr") and raw:
            self._protocol = PROTOCOLS.get(raw[0], "th")
        self._words.append(f"{name} {OPERATORS[operator % 6]}{shown(name, raw, mask)}")

    def _range(self, fields: Fields) -> None:
        register = as_be32(fields.get(1))
        name = self._loaded(register)
        low, high = (attributes(fields.get(each, b"")).get(1, b"") for each in (3, 4))
        sign = "!= " if as_be32(fields.get(2)) else ""
        self._words.append(f"{name} {sign}{shown(name, low)}-{shown(name, high)}")

    def _lookup(self, fields: Fields) -> None:
        name, register = as_text(fields.get(1)), as_be32(fields.get(2))
        self.sets.append(name)
        sign = "!= " if as_be32(fields.get(5)) & 1 else ""
        verdict = " vmap" if 3 in fields and as_be32(fields[3]) == 0 else (" map" if 3 in fields else "")
        self._words.append(f"{self._joined(register)}{verdict} {sign}@{name}")
        self._registers.clear()
        if 3 in fields:
            self._load(as_be32(fields[3]), f"@{name}")

    def _joined(self, first: int) -> str:
        """A key of several parts lies in registers one after the other."""
        rest = [self._registers[each] for each in sorted(self._registers) if each > _wide(first)]
        return " . ".join([self._loaded(first), *rest])

    def _immediate(self, fields: Fields) -> None:
        register = as_be32(fields.get(1))
        if register == 0:
            self._words.append(data(fields.get(2, b"")))
        else:
            self._values[register] = attributes(fields.get(2, b"")).get(1, b"")

    def _value(self, register: int, name: str) -> str:
        if register in self._values:
            return shown(name, self._values[register])
        return self._loaded(register)

    def _counter(self, fields: Fields) -> None:
        self.bytes, self.packets = as_be64(fields.get(1)), as_be64(fields.get(2))
        self._words.append("counter")

    def _nat(self, fields: Fields) -> None:
        address, port = as_be32(fields.get(3)), as_be32(fields.get(5))
        family = {2: "ip", 10: "ip6"}.get(as_be32(fields.get(2)), "")
        where = self._value(address, f"{family} daddr") if address else ""
        where += f":{self._value(port, 'th dport')}" if port else ""
        shown_family = f" {family}" if self._family == "inet" and address else ""
        self._words.append(f"{('snat', 'dnat')[as_be32(fields.get(1)) & 1]}{shown_family} to {where}")

    def _masquerade(self, fields: Fields) -> None:
        self._words.append("masquerade")

    def _reject(self, fields: Fields) -> None:
        self._words.append("reject")

    def _redirect(self, fields: Fields) -> None:
        port = as_be32(fields.get(1))
        self._words.append(f"redirect to :{self._value(port, 'th dport')}" if port else "redirect")

    def _fib(self, fields: Fields) -> None:
        flags, result = as_be32(fields.get(3)), as_be32(fields.get(2))
        keys = [word for bit, word in enumerate(("saddr", "daddr", "mark", "iif", "oif")) if flags >> bit & 1]
        self._load(as_be32(fields.get(1)), f"fib {' . '.join(keys)} {('', 'oif', 'oifname', 'type')[result & 3]}")


def _wide(register: int) -> int:
    """NFT_REG_1 to 4 are 16 bytes each, and the same as four of the 32-bit ones that are numbered from 8 on."""
    return 8 + (register - 1) * 4 if 1 <= register <= 4 else register


def shown(name: str, raw: bytes, mask: bytes | None = None) -> str:
    """Return the value of a comparison as nft(8) writes it for what is compared."""
    if name.endswith(("saddr", "daddr")) and name.startswith("ip") and 0 < len(raw) <= 16:
        return _address(name, raw, mask)
    plain = _plain(name, raw)
    return plain if mask is None else f"& 0x{mask.hex()} == {plain}"


def _plain(name: str, raw: bytes) -> str:
    if name in ("iifname", "oifname"):
        text = raw.split(b"\0", 1)[0].decode(errors="replace")
        return f'"{text}"' if b"\0" in raw else f'"{text}*"'
    if name.endswith(("sport", "dport")) and len(raw) == 2:
        return str(struct.unpack("!H", raw)[0])
    if name in ("meta l4proto", "ip protocol", "ip6 nexthdr") and raw:
        return PROTOCOLS.get(raw[0], str(raw[0]))
    if name == "meta nfproto" and raw:
        return {2: "ipv4", 10: "ipv6"}.get(raw[0], str(raw[0]))
    if name.startswith("fib") and name.endswith("type"):
        return {0: "unspec", 1: "unicast", 2: "local", 3: "broadcast", 5: "multicast"}.get(_host(raw), str(_host(raw)))
    if name == "ct state":
        return _flags(raw, CT_STATES)
    if name in ("iif", "oif", "meta mark", "ct mark", "meta skuid", "meta skgid"):
        return str(_host(raw))
    return f"0x{raw.hex()}"


def _host(raw: bytes) -> int:
    return int.from_bytes(raw, "little" if sys.byteorder == "little" else "big")


def _flags(mask: bytes, names: dict[int, str]) -> str:
    bits = _host(mask[:4])
    return ",".join(name for bit, name in names.items() if bits & bit) or "0"


def _address(name: str, raw: bytes, mask: bytes | None) -> str:
    full = 4 if name.startswith("ip ") else 16
    length = len(raw) * 8 if len(raw) < full else None  # a prefix of whole bytes is compared without a mask
    if mask is not None:
        number = int.from_bytes(mask, "big")
        if bin(number)[2:].rstrip("0").count("0"):
            return f"& 0x{mask.hex()} == 0x{raw.hex()}"
        length = number.bit_count()
    address = ipaddress.ip_address(raw.ljust(full, b"\0"))
    return str(address) if length is None else f"{address}/{length}"


def data(payload: bytes) -> str:
    """Return NFTA_DATA: a verdict, or a value in hexadecimal."""
    fields = attributes(payload)
    if 2 in fields:
        verdict = attributes(fields[2])
        code = as_be32(verdict.get(1))
        code = code - (1 << 32) if code >> 31 else code
        chain = as_text(verdict.get(2))
        return f"{VERDICTS.get(code, code)}{f' {chain}' if chain else ''}"
    return key(fields.get(1, b""))


def key(raw: bytes) -> str:
    """Return a set's key, whose type the kernel does not keep: as a name, an address, a port, or in hexadecimal."""
    text = raw.rstrip(b"\0")
    if len(raw) == 16 and text and b"\0" not in text and text.isascii() and text.decode("ascii").isprintable():
        return f'"{text.decode()}"'
    if len(raw) == 4:
        return socket.inet_ntoa(raw)
    if len(raw) == 2:
        return str(struct.unpack("!H", raw)[0])
    if len(raw) in (8, 12):
        return " . ".join(_part(raw[at : at + 4]) for at in range(0, len(raw), 4))
    if len(raw) == 32:  # two names of links
        return " . ".join(key(raw[at : at + 16]) for at in (0, 16))
    if len(raw) in (16, 20, 24):
        address = socket.inet_ntop(socket.AF_INET6, raw[:16])
        return " . ".join([address, *(_part(raw[at : at + 4]) for at in range(16, len(raw), 4))])
    return f"0x{raw.hex()}"


def _part(raw: bytes) -> str:
    """One part of a joined key, each padded to four bytes: a port or protocol is shorter than an address."""
    if raw[1:] == b"\0\0\0" and raw[0] in PROTOCOLS:
        return PROTOCOLS[raw[0]]
    return str(struct.unpack("!H", raw[:2])[0]) if raw[2:] == b"\0\0" else socket.inet_ntoa(raw)
