"""Which subnet the default bridge gets when nobody says: the first that collides with nothing on this machine. PURE."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from wherry.errors import SystemFailure

Subnet = ipaddress.IPv4Network


def candidates() -> Iterator[Subnet]:
    """Yield dockerd's default pools in its order: 172.17.0.0/16 to 172.31.0.0/16, then /20s of 192.168.0.0/16."""
    for second in range(17, 32):
        yield Subnet(f"172.{second}.0.0/16")
    yield from Subnet("192.168.0.0/16").subnets(new_prefix=20)


def choose(taken: Iterable[Subnet], preferred: str = "") -> Subnet:
    """Return the preferred subnet (that of the last time) or the first one that overlaps nothing taken."""
    occupied = list(taken)
    wanted = [Subnet(preferred)] if preferred else []
    for subnet in (*wanted, *candidates()):
        if not any(subnet.overlaps(each) for each in occupied):
            return subnet
    raise SystemFailure(
        "could not find an available, non-overlapping IPv4 address pool among the defaults: set --bip, for example "
        "--bip 10.200.0.1/16"
    )
