"""The address flags of network create as pools: which range, gateway and auxiliary address is of which subnet."""

from __future__ import annotations

from wherry.cli.failures import Failure
from wherry.cli.flags import Parsed
from wherry.cli.values import pairs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def pools(flags: Parsed) -> list[dict[str, Any]]:
    """One entry of IPAM's Config for each --subnet; raises Failure for what belongs to none of them."""
    subnets, ranges, gateways = (_separated(flags[name]) for name in ("subnet", "ip-range", "gateway"))
    if len(subnets) < max(len(ranges), len(gateways)):
        raise Failure("every ip-range or gateway must have a corresponding subnet")
    found: dict[str, dict[str, Any]] = {}
    for subnet in subnets:
        if any(_holds(subnet, other) or _holds(other, subnet) for other in found):
            raise Failure("multiple overlapping subnet configuration is not supported")
        found[subnet] = {"Subnet": subnet}
    for each in ranges:
        _give(found, "IPRange", each, f"no matching subnet for range {each}", "ranges")
    for each in gateways:
        _give(found, "Gateway", each, f"no matching subnet for gateway {each}", "gateways")
    for name, each in pairs(flags["aux-address"]).items():
        pool = _of(found, each)
        if pool is None:
            raise Failure(f"no matching subnet for aux-address {each}")
        pool.setdefault("AuxiliaryAddresses", {})[name] = each
    return list(found.values())


def _separated(entries: list[str]) -> list[str]:
    return [part.strip() for entry in entries for part in entry.split(",") if part.strip()]


def _give(found: dict[str, dict[str, Any]], key: str, value: str, missing: str, kind: str) -> None:
    pool = _of(found, value)
    if pool is None:
        raise Failure(missing)
    if key in pool:
        raise Failure(f"cannot configure multiple {kind} ({value}, {pool[key]}) on the same subnet ({pool['Subnet']})")
    pool[key] = value


def _of(found: dict[str, dict[str, Any]], value: str) -> dict[str, Any] | None:
    return next((pool for subnet, pool in found.items() if _holds(subnet, value)), None)


def _holds(subnet: str, value: str) -> bool:
    """Whether the subnet has the address, or the first one of another subnet; what is no subnet, the engine refuses."""
    import ipaddress

    try:
        return ipaddress.ip_interface(value).ip in ipaddress.ip_network(subnet, strict=False)
    except ValueError:
        return False
