"""Ports that containers publish: what is asked for, in the grammar of the API. PURE. The texts are dockerd's.

    PortBindings  {"80/tcp": [{"HostIp": "", "HostPort": "8000-8010"}]}
                  an address: only there; a range: one free port of it; "" or "0": any free port
    "0.0.0.0" and "::": every address of that family; "": of both, as far as the container has them, at one port

A protocol that is none, or an address that is none, dockerd takes and publishes nothing; here it is refused.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wherry.errors import InvalidArgument, NotImplementedHere
from wherry.models.container import PortBinding
from wherry.network.firewall.api import Forward

PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
ANY = "0.0.0.0"
ANY6 = "::"
MOST = 4096
"""Ports of one container: each is a socket that its supervisor holds."""
_RANGE = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?", re.ASCII)

Bindings = Mapping[str, "Sequence[PortBinding] | None"]


@dataclass(frozen=True, slots=True)
class PortRequest:
    """One port of a container to publish. first, last: the host's ports to choose from, 0 for any that is free."""

    protocol: str
    port: int
    address: str
    first: int = 0
    last: int = 0


@dataclass(frozen=True, slots=True)
class Published:
    """A port of a container with the address and port of the host that lead to it."""

    protocol: str
    port: int
    host_ip: str
    host_port: int

    @property
    def key(self) -> str:
        """The container's port as the API writes it."""
        return f"{self.port}/{self.protocol}"

    @property
    def version(self) -> int:
        """The family of the host's address, 4 or 6."""
        return 6 if ":" in self.host_ip else 4

    def forward(self, address: str) -> Forward:
        """Return what the firewall has to know; address: the container's, of the same family."""
        place = "" if self.host_ip in (ANY, ANY6) else self.host_ip
        return Forward(PROTOCOLS[self.protocol], place, self.host_port, address, self.port)


def parse_port(text: str) -> tuple[int, str]:
    """Return number and protocol of "80/tcp" or "80"; raises InvalidArgument."""
    number, slash, protocol = text.partition("/")
    name = protocol.lower() if slash else "tcp"
    if not (number.isdecimal() and number.isascii() and 0 < int(number[:6]) <= 65535):
        raise InvalidArgument(f'invalid port specification: "{number}"')
    if name not in PROTOCOLS:
        raise InvalidArgument(f"invalid protocol {protocol!r} of port {text}: use tcp, udp or sctp")
    return int(number), name


def parse_range(text: str) -> tuple[int, int]:
    """Return the host's ports that may be taken: "8080", "8000-8010", "" and "0" for any; raises InvalidArgument."""
    if not text:
        return 0, 0
    match = _RANGE.fullmatch(text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if first > last or last > 65535 or (not first and last):
        raise InvalidArgument(f'invalid port specification: "{text}"')
    return first, last


def _address(text: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise InvalidArgument(f"invalid IP address {text!r} to publish a port on") from None
    if address.version == 6 and (address.is_link_local or address.is_loopback):
        kind = "loopback" if address.is_loopback else "link-local"
        raise NotImplementedHere(f"cannot publish a port on {text}: the kernel routes no {kind} address of IPv6")
    return str(address)


def requests(bindings: Bindings, default_address: str = "") -> tuple[PortRequest, ...]:
    """Return what is asked for, without repetitions; raises InvalidArgument, NotImplementedHere."""
    found = []
    for key, places in bindings.items():
        port, protocol = parse_port(key)
        for place in places or ():
            address = _address(place.host_ip) if place.host_ip else default_address
            found.append(PortRequest(protocol, port, address, *parse_range(place.host_port)))
    if len(found) > MOST:
        raise InvalidArgument(f"{len(found)} published ports: a container can have {MOST}")
    return tuple(dict.fromkeys(found))


def exposed(ports: Mapping[str, object]) -> list[tuple[int, str]]:
    """Return the ports that a configuration exposes; what is no port is left out."""
    found = []
    for text in ports:
        try:
            found.append(parse_port(text))
        except InvalidArgument:
            continue  # dockerd shows such a one as port 0; nobody can use it
    return found
