"""Rules that an engine left in the other backend, from before its setting was changed while containers ran on.

A guard of forwarding goes with them: the next backend makes its own before. It stays when other engines need it.
"""

from __future__ import annotations

import logging

from wherry.kernel.netlink import nft
from wherry.kernel.netlink.socket import NetlinkSocket
from wherry.network import forwarding
from wherry.network.firewall.api import Firewall

log = logging.getLogger(__name__)

LEGACY = "/proc/thread-self/net/ip_tables_names"
"""The tables of the legacy kind of iptables in this network namespace, a line each; only root can read it."""


def of_nftables(table: str, chosen: Firewall) -> None:
    """Delete the engine's table. chosen: the backend that it has now. Raises OSError."""
    if nft.table_exists(table):
        from wherry.network.firewall.nftables import Nftables

        _withdraw(Nftables(table), chosen)


def of_iptables(tag: str, chosen: Firewall) -> None:
    """Delete the engine's rules in dockerd's chains, of both families. chosen: the backend that it has now.

    iptables is called only where somebody has used it: its tables are then to be seen without it. A table that it
    cannot read has none of our rules in it.
    """
    if "filter" not in nft.list_tables() and not _legacy():
        return
    from wherry.network.firewall import xtables
    from wherry.network.firewall.iptables import Iptables

    if not xtables.available(4):
        return
    try:
        _withdraw(Iptables(tag), chosen)
    except OSError as error:
        log.warning("not looked for rules of iptables", extra={"error": str(error.strerror)})


def _withdraw(before: Firewall, chosen: Firewall) -> None:
    before.uninstall("")  # it knows no bridge, so that all of its rules go
    for version in forwarding.SWITCHES:
        if before.guarded(version) and not before.others():
            with NetlinkSocket() as netlink:
                chosen.guard(forwarding.outside(netlink), version)
            before.unguard(version)


def _legacy() -> bool:
    try:
        with open(LEGACY) as file:
            return "filter" in file.read().split()
    except FileNotFoundError:
        return False
