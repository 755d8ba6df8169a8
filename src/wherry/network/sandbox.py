"""Making a sandbox: a new network namespace with its links, addresses, routes and sysctls.

    thread of the workshop         unshare, open the namespace, a netlink socket inside of it
    the drivers, from the host     per endpoint one message: veth pair, one end a port of the bridge and up, the other
                                   one in the namespace, down, named eth0, with its MAC
    files in /proc/sys/net         no IPv6 on links without an IPv6 address, before they are up: nothing is ever sent
    the inner socket, one message  lo up, links up, addresses, default route

The namespace lives as long as a descriptor or a process holds it, and takes its links with it when it goes. So there is
nothing to undo on the way but to close the descriptor.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from wherry.kernel import netns
from wherry.kernel.netlink import addr, link, route
from wherry.kernel.netlink.codec import Request
from wherry.kernel.netlink.socket import NetlinkSocket
from wherry.network import sysctls
from wherry.network.api import Endpoint, Route
from wherry.network.driver import Driver
from wherry.network.ports import Published
from wherry.network.records import Attached, Network

DEFAULT_SYSCTLS = {
    "net/ipv4/ip_unprivileged_port_start": "0",
    "net/ipv4/ping_group_range": "0 2147483647",
}
"""What dockerd sets in every namespace that is not the host's: ports below 1024 and ping without capabilities."""

PATIENCE = 2.0
"""Seconds to wait for what is left of a namespace that is dying; the kernel takes some 100 ms for one."""

DEFAULT4, DEFAULT6 = Route("0.0.0.0/0"), Route("::/0")
"""Routes that stand for a gateway: all is reached by the link itself."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One endpoint to be made: its addresses are ours already."""

    driver: Driver
    network: Network
    endpoint: Endpoint


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


def build(host: NetlinkSocket, plans: Sequence[Plan], settings: Mapping[str, str], sandbox_id: str) -> Built:
    """Make a sandbox; `settings` are further sysctls by path. The thread stays in the new namespace.

    `gateway_of` says which endpoint gets the default route. Raises OSError or what a driver raises.
    """
    netns.unshare()
    fd = netns.current()
    try:
        with NetlinkSocket() as inner:
            attached = tuple(_attach(host, plan, fd, sandbox_id) for plan in plans)
            _set_sysctls(attached, settings)
            _claim(inner, attached)
            inner.apply(*_configuration(attached))
    except BaseException:
        os.close(fd)
        raise
    return Built(fd, attached, sandbox_id)


def _attach(host: NetlinkSocket, plan: Plan, fd: int, sandbox_id: str) -> Attached:
    if not plan.endpoint.interface:
        return Attached(plan.endpoint, sandbox_id)
    joined = plan.driver.attach(host, plan.network, plan.endpoint, fd)
    return Attached(joined.endpoint, sandbox_id, joined.host_link)


def _set_sysctls(attached: Sequence[Attached], settings: Mapping[str, str], *, fresh: bool = True) -> None:
    """Write the sysctls of a namespace that the thread is in. accept_ra: nobody on the network may add addresses."""
    for each in attached:
        if each.endpoint.interface and not each.endpoint.ipv6:
            conf = f"net/ipv6/conf/{each.endpoint.interface}"
            sysctls.write(f"{conf}/disable_ipv6", "1", missing_ok=True)
            sysctls.write(f"{conf}/accept_ra", "0", missing_ok=True)
    for path, value in {**(DEFAULT_SYSCTLS if fresh else {}), **settings}.items():
        sysctls.write(path, value)


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
    return requests + [_route(each, endpoint) for each in endpoint.routes if each not in (DEFAULT4, DEFAULT6)]


def gateway_of(endpoints: Iterable[Endpoint]) -> Endpoint | None:
    """Return the endpoint that has the default route: highest priority, then first in the alphabet, as dockerd."""
    able = [each for each in endpoints if each.gateway4 or DEFAULT4 in each.routes]
    return min(able, key=lambda each: (-each.gw_priority, each.network_name), default=None)


def _default_routes(endpoints: Sequence[Endpoint]) -> list[Request]:
    chosen = gateway_of(endpoints)
    if chosen is None:
        return []
    gateways = [route.new_route("", 0, gateway=each) for each in (chosen.gateway4, chosen.gateway6) if each]
    return gateways + [_route(each, chosen) for each in chosen.routes if each in (DEFAULT4, DEFAULT6)]


def _route(wanted: Route, endpoint: Endpoint) -> Request:
    """Return what adds a route of an endpoint. Only inside its namespace."""
    subnet = ipaddress.ip_network(wanted.destination)
    link_index = socket.if_nametoindex(endpoint.interface)
    return route.new_route(str(subnet.network_address), subnet.prefixlen, gateway=wanted.next_hop, link=link_index)


def join(host: NetlinkSocket, plan: Plan, fd: int, sandbox_id: str, others: Sequence[Endpoint]) -> Attached:
    """Put one more link into a sandbox that has these others. The thread stays in its namespace.

    Raises OSError or what the driver raises; then the link is gone again.
    """
    netns.enter(fd)
    with NetlinkSocket() as inner:
        attached = _attach(host, plan, fd, sandbox_id)
        try:
            _set_sysctls((attached,), {}, fresh=False)
            _claim(inner, (attached,))
            inner.apply(*_addresses(attached.endpoint))
            _reroute(inner, [*others, attached.endpoint])
        except BaseException:
            plan.driver.detach(host, plan.network, [attached])
            if not attached.host_link:
                inner.apply(link.delete_link(attached.endpoint.interface))
            _reroute(inner, others)
            raise
    return attached


def part(fd: int, left: Attached, endpoints: Sequence[Endpoint]) -> None:
    """Take a link out that its driver has not, and bring the default route to where the other endpoints want it.

    The thread stays in the namespace. Raises OSError.
    """
    netns.enter(fd)
    with NetlinkSocket() as inner:
        if left.endpoint.interface and not left.host_link:
            inner.apply(link.delete_link(left.endpoint.interface))
        _reroute(inner, endpoints)


def _reroute(inner: NetlinkSocket, endpoints: Sequence[Endpoint]) -> None:
    """Routes that the container made itself, by other gateways, stay."""
    chosen = gateway_of(endpoints)
    wanted = _way(chosen) if chosen is not None else None
    ours = {_way(each) for each in endpoints if each.gateway4 or DEFAULT4 in each.routes}
    have = [(each.gateway, 0 if each.gateway else each.link) for each in route.list_routes(inner) if not each.prefix]
    changes = [route.delete_route("", 0, gateway=way[0], link=way[1]) for way in have if way in ours and way != wanted]
    if wanted is not None and wanted not in have:
        changes.append(route.new_route("", 0, gateway=wanted[0], link=wanted[1]))
    inner.apply(*changes)


def _way(endpoint: Endpoint) -> tuple[str, int]:
    """Return the gateway of an endpoint, or the number of the link by which everything is reached."""
    return (endpoint.gateway4, 0) if endpoint.gateway4 else ("", socket.if_nametoindex(endpoint.interface))
