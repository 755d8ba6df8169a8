"""Making a sandbox: a new network namespace with its links, addresses, routes and sysctls.

    thread of the workshop         unshare, open the namespace, a netlink socket inside of it
    the drivers, from the host     per endpoint one message: veth pair, one end a port of the bridge and up, the other
                                   one in the namespace, down, named eth0, with its MAC
    files in /proc/sys/net         no IPv6 on links without an IPv6 address, before they are up: nothing is ever sent
    the inner socket, one message  lo up, links up, addresses, default routes

The namespace lives as long as a descriptor or a process holds it, and takes its links with it when it goes. So there is
nothing to undo on the way but to close the descriptor.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from wherry.errors import InvalidArgument
from wherry.kernel import idmap, netns
from wherry.kernel.netlink import addr, link, route
from wherry.kernel.netlink.codec import Request
from wherry.kernel.netlink.socket import NetlinkSocket
from wherry.network import sysctls
from wherry.network.api import Endpoint, Route
from wherry.network.driver import Driver
from wherry.network.ports import Published
from wherry.network.records import Attached, Network
from wherry.runtime import idholder
from wherry.runtime.idmaps import Ids

DEFAULT_SYSCTLS = {
    "net/ipv4/ip_unprivileged_port_start": "0",
    "net/ipv4/ping_group_range": "0 2147483647",
}
"""What dockerd sets in every namespace that is not the host's: ports below 1024 and ping without capabilities."""

PATIENCE = 2.0
"""Seconds to wait for what is left of a namespace that is dying; the kernel takes some 100 ms for one."""

LINK_LOCAL_PREFIX = {False: 16, True: 64}
"""Of addresses of --link-local-ip, as dockerd: 169.254.0.0/16 (RFC 3927), fe80::/64 (RFC 4291)."""

DEFAULT4, DEFAULT6 = Route("0.0.0.0/0"), Route("::/0")
"""Routes that stand for a gateway: all is reached by the link itself."""

Way = tuple[str, int]
"""A default route: its gateway, and the index of the link where there is none or any link may have it (fe80::/10)."""

_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_ANY = {4: "0.0.0.0", 6: "::"}


@dataclass(frozen=True, slots=True)
class Plan:
    """One endpoint to be made: its addresses are ours already. settings: sysctls of its own, by path."""

    driver: Driver
    network: Network
    endpoint: Endpoint
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Built:
    """A sandbox that no container has yet."""

    netns_fd: int
    attached: tuple[Attached, ...]
    sandbox_id: str


@dataclass(slots=True)
class OpenSandbox:
    """A sandbox in a caller's hands: wherry.network.api.Sandbox."""

    container_id: str
    sandbox_id: str
    netns_fd: int
    endpoints: tuple[Endpoint, ...]
    held: Mapping[Published, socket.socket] = field(default_factory=dict)
    file: str = ""

    def close(self) -> None:
        """Close the descriptors; a second time it does nothing."""
        for each in self.held.values():
            each.close()
        if self.netns_fd >= 0:
            os.close(self.netns_fd)
            self.netns_fd = -1


def build(
    host: NetlinkSocket, plans: Sequence[Plan], settings: Mapping[str, str], sandbox_id: str, ids: Ids | None = None
) -> Built:
    """Make a sandbox; `settings` are further sysctls by path. The thread stays in the new namespace.

    ids: of a new user namespace that it belongs to. `gateway_of` says which endpoints get the default routes. Raises
    OSError or what a driver raises.
    """
    fd = _new_namespace(ids)
    try:
        with NetlinkSocket() as inner:
            attached = tuple(_attach(host, plan, fd, sandbox_id) for plan in plans)
            _set_sysctls(attached, settings, plans)
            _claim(inner, attached)
            inner.apply(*_configuration(attached))
    except BaseException:
        os.close(fd)
        raise
    return Built(fd, attached, sandbox_id)


def _new_namespace(ids: Ids | None) -> int:
    if ids is None:
        netns.unshare()
        return netns.current()
    fd = idmap.namespace(ids.uids, ids.gids, idholder.spawned, "net")
    netns.enter(fd)
    return fd


def _attach(host: NetlinkSocket, plan: Plan, fd: int, sandbox_id: str) -> Attached:
    if not plan.endpoint.interface:
        return Attached(plan.endpoint, sandbox_id)
    joined = plan.driver.attach(host, plan.network, plan.endpoint, fd)
    return Attached(joined.endpoint, sandbox_id, joined.host_link, returns=joined.returns)


def _set_sysctls(
    attached: Sequence[Attached], settings: Mapping[str, str], plans: Sequence[Plan], *, fresh: bool = True
) -> None:
    """Write the sysctls of a namespace that the thread is in.

    accept_ra: nobody on the network may add addresses or routes. disable_ipv6: a link whose network has no IPv6 must
    have no link-local address either, by which neighbours could be reached past all rules (CVE-2024-32473).
    """
    for each in attached:
        if each.endpoint.interface:
            conf = f"net/ipv6/conf/{each.endpoint.interface}"
            sysctls.write(f"{conf}/accept_ra", "0", missing_ok=True)
            sysctls.write(f"{conf}/disable_ipv6", "0" if each.endpoint.ipv6 else "1", missing_ok=not each.endpoint.ipv6)
    for path, value in {**(DEFAULT_SYSCTLS if fresh else {}), **settings}.items():
        sysctls.write(path, value)
    for plan in plans:
        for path, value in plan.settings.items():
            try:
                sysctls.write(path, value)
            except FileNotFoundError as error:
                raise InvalidArgument(f"{error.filename} is not a sysctl file") from error


def _claim(inner: NetlinkSocket, attached: Sequence[Attached]) -> None:
    """Bring up links that are in this namespace alone, once their MAC addresses are free.

    One of macvlan cannot be up while another one of its parent has the same address (EADDRINUSE in
    drivers/net/macvlan.c), such as that of a container that has just ended, whose namespace is still dying.
    """
    deadline = time.monotonic() + PATIENCE
    for each in attached:
        while each.endpoint.interface and not each.host_link:
            try:
                inner.apply(link.set_up(socket.if_nametoindex(each.endpoint.interface)))
            except OSError as error:
                if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
                continue
            break


def configure(fd: int, settings: Mapping[str, str]) -> None:
    """Write further sysctls into a sandbox that exists. The thread stays in its namespace. Raises OSError."""
    netns.enter(fd)
    for path, value in settings.items():
        sysctls.write(path, value)


def _configuration(attached: Sequence[Attached]) -> list[Request]:
    requests = [link.set_up(link.LOOPBACK)]
    for each in attached:
        requests += _addresses(each.endpoint)
    return requests + _default_routes([each.endpoint for each in attached])


def _addresses(endpoint: Endpoint) -> list[Request]:
    """Return what brings the link of an endpoint up; nothing for one without a link. Only inside its namespace."""
    if not endpoint.interface:
        return []
    index = socket.if_nametoindex(endpoint.interface)
    requests = [link.set_up(index)]
    if endpoint.ipv4:
        subnet = ipaddress.IPv4Network(f"{endpoint.ipv4}/{endpoint.ipv4_prefix}", strict=False)
        broadcast = str(subnet.broadcast_address)
        requests.append(addr.new_address(index, endpoint.ipv4, endpoint.ipv4_prefix, broadcast=broadcast))
    if endpoint.ipv6:
        requests.append(addr.new_address(index, endpoint.ipv6, endpoint.ipv6_prefix))
    requests += [addr.new_address(index, each, LINK_LOCAL_PREFIX[":" in each]) for each in endpoint.link_local]
    return requests + [_route(each, endpoint) for each in endpoint.routes if each not in (DEFAULT4, DEFAULT6)]


def gateway_of(endpoints: Iterable[Endpoint], version: int = 4) -> Endpoint | None:
    """Return the endpoint that has the default route of a family, 4 or 6.

    It is the one with the highest priority; among those the first with both families, so that both go one way; and of
    several the first in the alphabet. In dockerd one with both families comes before any priority.
    """
    return min((each for each in endpoints if _leads_out(each, version)), key=_rank, default=None)


def _leads_out(endpoint: Endpoint, version: int) -> bool:
    gateway, everything = (endpoint.gateway4, DEFAULT4) if version == 4 else (endpoint.gateway6, DEFAULT6)
    return bool(gateway) or everything in endpoint.routes


def _rank(endpoint: Endpoint) -> tuple[int, bool, str]:
    both = _leads_out(endpoint, 4) and _leads_out(endpoint, 6)
    return -endpoint.gw_priority, not both, endpoint.network_name


def _way(endpoint: Endpoint, version: int) -> Way:
    """Return how an endpoint leads out; the number of the link is that inside of the thread's namespace."""
    gateway = endpoint.gateway4 if version == 4 else endpoint.gateway6
    return gateway, 0 if gateway and not _is_local(gateway) else socket.if_nametoindex(endpoint.interface)


def _known_as(found: route.Route) -> Way:
    return found.gateway, 0 if found.gateway and not _is_local(found.gateway) else found.link


def _is_local(gateway: str) -> bool:
    return ipaddress.ip_address(gateway).is_link_local


def _default_routes(endpoints: Sequence[Endpoint]) -> list[Request]:
    chosen = [(gateway_of(endpoints, version), version) for version in _FAMILIES]
    return [_default_route(_way(each, version), version) for each, version in chosen if each is not None]


def _default_route(way: Way, version: int) -> Request:
    gateway, index = way
    return route.new_route(_ANY[version], 0, gateway=gateway, link=index)


def _route(wanted: Route, endpoint: Endpoint) -> Request:
    """Return what adds a route of an endpoint. Only inside its namespace."""
    subnet = ipaddress.ip_network(wanted.destination)
    link_index = socket.if_nametoindex(endpoint.interface)
    return route.new_route(str(subnet.network_address), subnet.prefixlen, gateway=wanted.next_hop, link=link_index)


def join(host: NetlinkSocket, plan: Plan, fd: int, sandbox_id: str, others: Sequence[Endpoint]) -> Attached:
    """Put one more link into a sandbox that has these others. The thread stays in its namespace.

    Raises OSError or what the driver raises; then the link is gone again.
    """
    with _from_home(fd) as home, NetlinkSocket() as inner:
        attached = _attach(host, plan, fd, sandbox_id)
        try:
            _set_sysctls((attached,), {}, (plan,), fresh=False)
            _claim(inner, (attached,))
            inner.apply(*_addresses(attached.endpoint))
            _reroute(inner, [*others, attached.endpoint])
        except BaseException:
            if attached.host_link:
                plan.driver.detach(host, plan.network, [attached])
            _take_out(inner, attached, home)
            _reroute(inner, others)
            raise
    return attached


def part(fd: int, left: Attached, endpoints: Sequence[Endpoint]) -> None:
    """Take a link out that its driver has not, and bring the default route to where the other endpoints want it.

    The thread stays in the namespace. Raises OSError.
    """
    with _from_home(fd) as home, NetlinkSocket() as inner:
        _take_out(inner, left, home)
        _reroute(inner, endpoints)


@contextmanager
def _from_home(fd: int) -> Iterator[int]:
    """Enter a namespace for good; gives a descriptor of the one before."""
    home = netns.current()
    try:
        netns.enter(fd)
        yield home
    finally:
        os.close(home)


def _take_out(inner: NetlinkSocket, left: Attached, home: int) -> None:
    """Delete a link that is in the namespace alone, or give it back to whom it came from. One that is gone is fine."""
    found = link.find_link(inner, left.endpoint.interface) if left.endpoint.interface and not left.host_link else None
    if found is None:
        return
    if not left.returns:
        inner.apply(link.delete_link(found.index))
        return
    inner.apply(link.set_up(found.index, up=False))
    inner.apply(link.set_attributes(found.index, link.moved(home), link.renamed(left.returns)))


def _reroute(inner: NetlinkSocket, endpoints: Sequence[Endpoint]) -> None:
    """Routes that the container made itself, by other gateways, stay."""
    changes: list[Request] = []
    for version, kind in _FAMILIES.items():
        chosen = gateway_of(endpoints, version)
        wanted = _way(chosen, version) if chosen is not None else None
        ours = {_way(each, version) for each in endpoints if _leads_out(each, version)}
        have = [_known_as(each) for each in route.list_routes(inner, kind) if not each.prefix]
        gone = [way for way in have if way in ours and way != wanted]
        changes += [route.delete_route(_ANY[version], 0, gateway=gateway, link=index) for gateway, index in gone]
        if wanted is not None and wanted not in have:
            changes.append(_default_route(wanted, version))
    inner.apply(*changes)
