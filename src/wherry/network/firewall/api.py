"""What the bridge driver needs of the host's packet filter.

One `BridgeRules` value says everything about one bridge. A backend holds those of one engine and brings the kernel to
all of them in one transaction, from whatever was there before: starting after a crash and adding a network are the
same call. A published port is a `Forward`: one element of a map, whatever the number of ports and networks.

Every engine has a table of its own. Forwarding in general is shared by all engines of a network namespace: see
`Firewall.guard`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Protocol

from wherry.kernel.netlink.nftwatch import Transaction


@dataclass(frozen=True, slots=True)
class Passage:
    """What a container of a bridge may reach of another one, by IPv4, where it may not reach all of it (no icc).

    protocol: the number of IANA's.
    """

    source: str
    target: str
    protocol: int
    port: int


@dataclass(frozen=True, slots=True)
class BridgeRules:
    """masquerade: packets leaving the subnet by another interface get that interface's address.

    icc: containers of the bridge may talk to each other. internal: nothing goes out of the bridge, nothing comes in.
    subnet, subnet6: "" for a family that the network does not have; masquerade6, gateway_mode6: as without the number.
    gateway_mode: "nat"; "nat-unprotected" (every port of a container can be reached from outside); "routed" (as it is,
    without translation, published ports only); "isolated" (internal, and the host has no address in it).
    trusted: links of the host from which published ports can be reached by the container's own address too.
    passages: what is let through without icc.
    """

    bridge: str
    subnet: str
    masquerade: bool = True
    icc: bool = True
    internal: bool = False
    subnet6: str = ""
    masquerade6: bool = True
    gateway_mode: str = "nat"
    gateway_mode6: str = "nat"
    trusted: tuple[str, ...] = ()
    passages: tuple[Passage, ...] = ()


@dataclass(frozen=True, slots=True)
class Forward:
    """A port of the host that leads to one of a container, of one family, which is that of to_address.

    address "": every address of the host. protocol: the number of IANA's (6 tcp, 17 udp, 132 sctp).
    """

    protocol: int
    address: str
    port: int
    to_address: str
    to_port: int

    @property
    def family(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.to_address else 4

    @property
    def place(self) -> tuple[int, int, str, int]:
        """What of the host it takes; only one forward can have it."""
        return self.family, self.protocol, self.address, self.port


class Firewall(Protocol):
    """A packet filter backend. Methods block; they raise OSError, or NotImplementedHere when the kernel lacks it."""

    def install(self, rules: BridgeRules) -> None:
        """Let containers out and answers in; drop what comes in unasked from anywhere else, other bridges included."""
        ...

    def uninstall(self, bridge: str) -> None:
        """Take the rules of a bridge away; none there is fine."""
        ...

    def forward(self, gone: Iterable[Forward], fresh: Iterable[Forward]) -> None:
        """Take forwards away and make others, in one transaction. A fresh one takes the place that another has.

        One that is not there, or whose place another has by now, need not be taken away.
        """
        ...

    def refresh(self) -> None:
        """Bring the kernel to all rules again: somebody else may have flushed them."""
        ...

    def guard(self, outside: Collection[str], version: int) -> None:
        """Drop packets of a family (4 or 6) forwarded between these interfaces: the host was no router before."""
        ...

    def guarded(self, version: int) -> bool:
        """Whether an engine of this network namespace turned forwarding of a family on."""
        ...

    def unguard(self, version: int) -> None:
        """Take the guard of a family away."""
        ...

    def others(self) -> bool:
        """Whether rules of other engines are installed."""
        ...

    def bridges(self) -> tuple[str, ...]:
        """Return the bridges that have rules."""
        ...

    def misses(self, change: Transaction | None) -> bool:
        """Whether rules may be missing after a change that may have been somebody else's; None: it is not known which.

        A quick look: a `refresh` that was not needed must do no harm.
        """
        ...
