"""What the bridge driver needs of the host's packet filter.

One `BridgeRules` value says everything about one bridge; `install` brings the kernel to it in one transaction, from
whatever was there before, so starting after a crash and reloading after a flush are the same call. Published ports
will be one more field of the value and a map element each.

Every engine has a table of its own. Forwarding in general is shared by all engines of a network namespace: see
`Firewall.guard`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class BridgeRules:
    """masquerade: packets leaving the subnet by another interface get that interface's address."""

    bridge: str
    subnet: str
    masquerade: bool = True


class Firewall(Protocol):
    """A packet filter backend. Methods block; they raise OSError, or NotImplementedHere when the kernel lacks it."""

    def install(self, rules: BridgeRules) -> None:
        """Let containers out and answers in; drop what comes in unasked from anywhere else."""
        ...

    def uninstall(self, bridge: str) -> None:
        """Take the rules of a bridge away; none there is fine."""
        ...

    def guard(self, outside: Collection[str]) -> None:
        """Drop packets forwarded between these interfaces: the host was no router between them before."""
        ...

    def guarded(self) -> bool:
        """Whether an engine of this network namespace turned forwarding on."""
        ...

    def unguard(self) -> None:
        """Take the guard away."""
        ...

    def others(self, bridge: str) -> bool:
        """Whether rules of other engines are installed."""
        ...
