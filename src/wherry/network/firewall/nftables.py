"""The packet filter through nf_tables, without nft(8) or iptables.

    table ip wherry-BRIDGE                one per engine
      chain postrouting  nat srcnat       ip saddr SUBNET oifname != BRIDGE masquerade
      chain forward      filter           oifname BRIDGE ct state established,related accept
                                          iifname BRIDGE accept
                                          oifname BRIDGE counter drop
    table ip wherry_forwarding            there while forwarding is on because an engine turned it on
      set outside                         the links of the host at that time
      chain forward      filter           iifname @outside oifname @outside counter drop

dockerd makes the policy of FORWARD drop in that case, which cuts off virtual machines and other engines. What must not
happen is only that the host becomes a router between links between which it was none, and that is what the guard says;
a link made later, such as another engine's bridge, is not in the set. The underscore cannot collide: "wherry-" is
followed by the name of a bridge.

An accept ends only the chain it stands in: other tables, an administrator's or dockerd's, may still drop the packet.
"""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Collection

from wherry.errors import NotImplementedHere
from wherry.kernel.netlink import nft
from wherry.network.firewall.api import BridgeRules

PREFIX = "wherry-"
GUARD = "wherry_forwarding"
MISSING = {errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.ENOENT}


class Nftables:
    """Firewall."""

    def install(self, rules: BridgeRules) -> None:
        """Replace the table of a bridge."""
        table = PREFIX + rules.bridge
        subnet = ipaddress.IPv4Network(rules.subnet)
        change = nft.Ruleset()
        _emptied(change, table)
        if rules.masquerade:
            change.base_chain(table, "postrouting", "nat", nft.HOOK_POSTROUTING, nft.PRIORITY_SRCNAT)
            change.rule(
                table,
                "postrouting",
                *nft.from_subnet4(str(subnet.network_address), subnet.prefixlen),
                *nft.to_interface(rules.bridge, equal=False),
                nft.counter(),
                nft.masquerade(),
            )
        change.base_chain(table, "forward", "filter", nft.HOOK_FORWARD, nft.PRIORITY_FILTER)
        into = nft.to_interface(rules.bridge)
        accept = nft.verdict(nft.NF_ACCEPT)
        change.rule(table, "forward", *into, *nft.of_known_connection(), accept)
        change.rule(table, "forward", *nft.from_interface(rules.bridge), accept)
        change.rule(table, "forward", *into, nft.counter(), nft.verdict(nft.NF_DROP))
        _commit(change)

    def uninstall(self, bridge: str) -> None:
        """Delete the table of a bridge."""
        _drop(PREFIX + bridge)

    def guard(self, outside: Collection[str]) -> None:
        """Make the guard's table."""
        change = nft.Ruleset()
        _emptied(change, GUARD)
        change.set(GUARD, "outside", nft.IFNAME_TYPE, nft.IFNAMSIZ)
        change.add_elements(GUARD, "outside", [nft.interface_key(name) for name in outside])
        change.base_chain(GUARD, "forward", "filter", nft.HOOK_FORWARD, nft.PRIORITY_FILTER)
        change.rule(
            GUARD,
            "forward",
            nft.load_meta(nft.META_IIFNAME),
            nft.in_set("outside"),
            nft.load_meta(nft.META_OIFNAME),
            nft.in_set("outside"),
            nft.counter(),
            nft.verdict(nft.NF_DROP),
        )
        _commit(change)

    def guarded(self) -> bool:
        """Whether the guard's table is there."""
        return nft.table_exists(GUARD)

    def unguard(self) -> None:
        """Delete the guard's table."""
        _drop(GUARD)

    def others(self, bridge: str) -> bool:
        """Whether there are tables of other engines."""
        return any(name.startswith(PREFIX) and name != PREFIX + bridge for name in nft.list_tables())


def _emptied(change: nft.Ruleset, table: str) -> None:
    """Begin the table afresh. Making it first lets the deletion succeed in any case (DESTROYTABLE needs 6.3)."""
    change.table(table)
    change.delete_table(table)
    change.table(table)


def _drop(table: str) -> None:
    change = nft.Ruleset()
    change.table(table)
    change.delete_table(table)
    _commit(change)


def _commit(change: nft.Ruleset) -> None:
    try:
        change.commit()
    except OSError as error:
        if error.errno not in MISSING:
            raise
        raise NotImplementedHere(
            f"this kernel lacks what the nftables firewall needs ({error.strerror}; modules nf_tables, nft_chain_nat, "
            "nft_masq, nft_ct): load them; "
            "the iptables backend does not exist yet"
        ) from error
