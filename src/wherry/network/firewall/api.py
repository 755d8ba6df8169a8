"""What the bridge driver needs of the host's packet filter.

One `BridgeRules` value says everything about one bridge. A backend holds those of one engine and brings the kernel to
all of them in one transaction, from whatever was there before: starting after a crash and adding a network are the
same call. Published ports will be one more field of the value and a map element each.

Every engine has a table of its own. Forwarding in general is shared by all engines of a network namespace: see
`Firewall.guard`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class BridgeRules:
    """masquerade: packets leaving the subnet by another interface get that interface's address.

    icc: containers of the bridge may talk to each other. internal: nothing goes out of the bridge, nothing comes in.
    """

    bridge: str
    subnet: str
    masquerade: bool = True
    icc: bool = True
    internal: bool = False


class Firewall(Protocol):
    """A packet filter backend. Methods block; they raise OSError, or NotImplementedHere when the kernel lacks it."""

    def install(self, rules: BridgeRules) -> None:
        """Let containers out and answers in; drop what comes in unasked from anywhere else, other bridges included."""
        ...

    def uninstall(self, bridge: str) -> None:
        """Take the rules of a bridge away; none there is fine."""
        ...

    def renew(self) -> None:
        """Bring all rules back, whatever somebody else made of them."""
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

    def others(self) -> bool:
        """Whether rules of other engines are installed."""
        ...
