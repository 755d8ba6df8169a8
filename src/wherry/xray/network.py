"""The network of a container, from both sides: its own links and routes, and what they are connected with outside."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from wherry.kernel import netns
from wherry.kernel.netlink import addr, link, nftlist, route
from wherry.kernel.netlink.socket import NetlinkSocket
from wherry.kernel.procfs import GONE, Process
from wherry.kernel.sockettables import Listening, listening
from wherry.models.xray import FileText, Link, ListeningSocket, Network, Route
from wherry.xray import firewall, ruleset
from wherry.xray.subject import Subject

MOST_LINKS = 64
MOST_ROUTES = 200
MOST_SOCKETS = 256
MOST_HOLDERS = 200
DESCRIPTORS = 1024
MAIN_TABLE = route.RT_TABLE_MAIN
FILE_BYTES = 8192


@dataclass(frozen=True, slots=True)
class View:
    """One network namespace as netlink shows it."""

    links: list[link.Link]
    addresses: list[addr.Address]
    routes: list[route.Route]
    chains: list[nftlist.Chain] = field(default_factory=list)
    rules: list[nftlist.Rule] = field(default_factory=list)


def view() -> View:
    """Return the calling thread's network namespace; raises OSError."""
    seen = links_view()
    with nftlist.open_socket() as netlink:
        return replace(seen, chains=nftlist.list_chains(netlink), rules=nftlist.list_rules(netlink))


def host_view() -> View:
    """Return the host's, with rules of iptables in its own words; raises OSError.

    Of a container's namespace they are left as the kernel has them: no program of the host reads what it made there.
    """
    found = ruleset.read()
    return replace(links_view(), chains=found.chains, rules=[each for rules in found.rules.values() for each in rules])


def links_view() -> View:
    """Return the same without its firewall; raises OSError."""
    with NetlinkSocket() as netlink:
        links, addresses = link.list_links(netlink), addr.list_addresses(netlink)
        return View(links, addresses, [*route.list_routes(netlink), *_routes6(netlink)])


def _routes6(netlink: NetlinkSocket) -> list[route.Route]:
    try:
        return route.list_routes(netlink, 10)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:  # a kernel without IPv6
            return []
        raise


def read(process: Process, subject: Subject, members: Iterable[int]) -> Network:
    """Return the network of a process; raises OSError. Must not be called in a thread that left the host's network."""
    shared = process.namespace("net") == os.stat(f"/proc/{os.getpid()}/ns/net").st_ino
    outside = host_view()
    inside = outside if shared else _inside(process)
    links = [link_of(each, inside, outside, shared=shared) for each in inside.links[:MOST_LINKS]]
    routes = [route_of(each, inside) for each in inside.routes if each.table == MAIN_TABLE]
    sockets, left_out = _sockets(process, members, shared=shared)
    return Network(
        mode=subject.modes.get("net", "host" if shared else "private"),
        links=tuple(links),
        routes=tuple(routes[:MOST_ROUTES]),
        files=tuple(_file(target, path) for target, path in subject.files.items()),
        rules=firewall.concerning(links, inside, outside, shared=shared),
        sockets=sockets,
        left_out=left_out + max(0, len(inside.links) - MOST_LINKS) + max(0, len(routes) - MOST_ROUTES),
    )


def _inside(process: Process) -> View:
    fd = process.open_namespace("net")
    try:
        return netns.inside(fd, view)
    finally:
        os.close(fd)


def link_of(own: link.Link, inside: View, outside: View, *, shared: bool) -> Link:
    """Return one of a namespace's links with what it is connected with outside."""
    peer = None if shared else _peer(own, outside)
    bridge = next((each for each in outside.links if peer and peer.master and each.index == peer.master), None)
    return Link(
        name=own.name,
        index=own.index,
        kind=own.kind or ("loopback" if own.flags & link.IFF_LOOPBACK else "device"),
        mac=own.mac,
        mtu=own.mtu,
        up=own.up,
        addresses=addresses_of(inside, own.index),
        rx_bytes=own.rx_bytes,
        tx_bytes=own.tx_bytes,
        rx_packets=own.rx_packets,
        tx_packets=own.tx_packets,
        peer=peer.name if peer else "",
        peer_index=own.peer if own.kind == "veth" else 0,
        peer_mac=peer.mac if peer else "",
        peer_up=peer is not None and peer.up,
        bridge=bridge.name if bridge else "",
        bridge_addresses=addresses_of(outside, bridge.index) if bridge else (),
        bridge_ports=sum(each.master == bridge.index for each in outside.links) if bridge else 0,
    )


def _peer(own: link.Link, outside: View) -> link.Link | None:
    """The other end of a veth, if that is in the host's namespace: each end knows the other's index."""
    if own.kind != "veth" or own.peer_netns < 0:
        return None
    return next(
        (each for each in outside.links if each.index == own.peer and each.kind == "veth" and each.peer == own.index),
        None,
    )


def addresses_of(where: View, index: int) -> tuple[str, ...]:
    """Return the addresses of a link with their prefix lengths."""
    return tuple(f"{each.address}/{each.prefix}" for each in where.addresses if each.link == index)


def route_of(found: route.Route, where: View) -> Route:
    """Return a route with the name of its link."""
    names = {each.index: each.name for each in where.links}
    destination = f"{found.destination}/{found.prefix}" if found.destination else "default"
    return Route(destination=destination, via=found.gateway, link=names.get(found.link, ""))


def _file(target: str, path: str) -> FileText:
    """The host's side of a file that is mounted into the container: no path inside of the container is walked."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return FileText(target=target, path="", text="")
    try:
        text = os.read(fd, FILE_BYTES).decode(errors="surrogateescape")
    finally:
        os.close(fd)
    return FileText(target=target, path=path, text=text)


def _sockets(process: Process, members: Iterable[int], *, shared: bool) -> tuple[tuple[ListeningSocket, ...], int]:
    """What listens. In the host's network only what the container's own processes hold: the rest is not its own."""
    found = listening(process)
    holders = _holders(members)
    if shared:
        found = [each for each in found if each.inode in holders]
    shown = [_socket(each, holders) for each in found[:MOST_SOCKETS]]
    return tuple(shown), max(0, len(found) - MOST_SOCKETS)


def _socket(found: Listening, holders: Mapping[int, set[int]]) -> ListeningSocket:
    return ListeningSocket(
        protocol=found.protocol,
        address=found.address,
        port=found.port,
        uid=found.uid,
        pids=tuple(sorted(holders.get(found.inode, ()))),
    )


def _holders(members: Iterable[int]) -> dict[int, set[int]]:
    """Return which processes hold which socket, by inode number."""
    found: dict[int, set[int]] = {}
    for pid in sorted(members)[:MOST_HOLDERS]:
        try:
            with Process(pid) as process:
                for inode in process.socket_inodes(DESCRIPTORS):
                    found.setdefault(inode, set()).add(pid)
        except OSError as error:
            if error.errno not in GONE:
                raise
    return found
