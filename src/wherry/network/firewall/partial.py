"""A firewall that leaves families alone whose rules are turned off: IPv6 by the setting ip6tables, both by iptables.

Networks work then as whatever else is in the packet filter lets them. What cannot work without rules is refused: to
publish a port.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from wherry.errors import SystemFailure
from wherry.kernel.netlink.nftwatch import Transaction
from wherry.network.firewall.api import BridgeRules, Firewall, Forward

FAMILIES = (4, 6)


class Partial:
    """Firewall. Hands on what concerns the families that are left; with none of them the backend does nothing."""

    def __init__(self, backend: Firewall, versions: Collection[int]) -> None:
        """versions: the families (4, 6) that have rules."""
        self._backend = backend
        self._versions = versions

    def install(self, rules: BridgeRules) -> None:
        """Hand on the families with rules; nothing when the bridge has none of them."""
        for each in cut([rules], self._versions):
            self._backend.install(each)

    def uninstall(self, bridge: str) -> None:
        """Also for a bridge without rules, which changes nothing."""
        if self._versions:
            self._backend.uninstall(bridge)

    def forward(self, gone: Iterable[Forward], fresh: Iterable[Forward]) -> None:
        """Raise SystemFailure for a port of a family without rules."""
        fresh = list(fresh)
        for each in fresh:
            if each.family not in self._versions:
                setting = "ip6tables" if self._versions else "iptables"
                raise SystemFailure(
                    f"port {each.port} cannot be published: rules for IPv{each.family} are turned off "
                    f"({setting}: false)"
                )
        self._backend.forward([each for each in gone if each.family in self._versions], fresh)

    def bridges(self) -> tuple[str, ...]:
        """Return the bridges that have rules."""
        return self._backend.bridges() if self._versions else ()

    def misses(self, change: Transaction | None) -> bool:
        """Whether rules may be missing."""
        return bool(self._versions) and self._backend.misses(change)

    def refresh(self) -> None:
        """Bring the kernel to the rules that there are."""
        if self._versions:
            self._backend.refresh()

    def guard(self, outside: Collection[str], version: int) -> None:
        """Nothing for a family without rules: the host forwards what its administrator lets it."""
        if version in self._versions:
            self._backend.guard(outside, version)

    def guarded(self, version: int) -> bool:
        """Whether there is a guard of ours."""
        return version in self._versions and self._backend.guarded(version)

    def unguard(self, version: int) -> None:
        """Take the guard away."""
        if version in self._versions:
            self._backend.unguard(version)

    def others(self) -> bool:
        """Whether rules of other engines are installed."""
        return bool(self._versions) and self._backend.others()


def cut(known: Iterable[BridgeRules], versions: Collection[int]) -> list[BridgeRules]:
    """Return the rules of bridges without the families that have none, and no bridge without any."""
    found = [
        replace(
            each,
            subnet=each.subnet if 4 in versions else "",
            subnet6=each.subnet6 if 6 in versions else "",
        )
        for each in known
    ]
    return [each for each in found if each.subnet or each.subnet6]
