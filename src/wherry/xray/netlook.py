"""Looking at one network: its links, its containers' ends, and the way of packets through the rules.

It blocks, some 20 ms and 3 ms for each container, and belongs into a thread that is in the host's network.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass, field

from wherry.kernel import netns
from wherry.kernel.netlink import bridgeport
from wherry.kernel.netlink.bridgeport import BridgePort
from wherry.kernel.netlink.link import Link
from wherry.kernel.netlink.socket import NetlinkSocket
from wherry.kernel.procfs import GONE, Process
from wherry.models.xray import Difference
from wherry.models.xray_network import Device, Member, Path, Port, Problem, PublishedPort, Sysctl
from wherry.xray import netdifferences, netpaths, netproblems, netsysctls, ruleset
from wherry.xray.netsubject import AskedMember, NetworkSubject
from wherry.xray.network import MAIN_TABLE, MOST_ROUTES, View, addresses_of, link_of, links_view, route_of

MOST_MEMBERS = 64
MOST_PORTS = 64
SHARING = ("host", "null")
"""Drivers whose networks have no link of their own."""


@dataclass(slots=True)
class NetworkLook:
    """Everything that one look has found; `take` fills it."""

    subject: NetworkSubject
    bridge: Device | None = None
    parent: Device | None = None
    outside: tuple[str, ...] = ()
    sysctls: tuple[Sysctl, ...] = ()
    containers: tuple[Member, ...] = ()
    published: tuple[PublishedPort, ...] = ()
    paths: tuple[Path, ...] = ()
    problems: tuple[Problem, ...] = ()
    differences: tuple[Difference, ...] = ()
    notes: list[str] = field(default_factory=list)
    left_out: int = 0

    def take(self) -> None:
        """Read everything; raises OSError when the host's links cannot be read."""
        subject, host = self.subject, links_view()
        with NetlinkSocket() as netlink:
            ports = bridgeport.list_ports(netlink)
        self.containers = tuple(self._members(host))
        self.bridge = self._device(subject.bridge, host, ports)
        self.parent = self._device(subject.parent, host, ports)
        self.outside = netpaths.ways_out(host)
        if subject.driver in SHARING:
            return
        self.sysctls = netsysctls.read(subject, self.outside)
        self.differences = tuple(netdifferences.find(subject, self.bridge, self.parent, self.containers))
        if subject.driver == "bridge":
            self._rules(host)

    def _rules(self, host: View) -> None:
        rules = ruleset.read()
        self.notes += rules.notes
        walks = netpaths.Ways(self.subject, rules, host, self.sysctls)
        shown = self.subject.ports[:MOST_PORTS]
        self.left_out += len(self.subject.ports) - len(shown)
        self.paths, self.published = walks.all(shown)
        self.problems = tuple(netproblems.find(self.subject, self, host))

    def _device(self, name: str, host: View, ports: Iterable[BridgePort]) -> Device | None:
        found = next((each for each in host.links if name and each.name == name), None)
        if found is None:
            return None
        names = {each.index: each for each in host.links}
        whose = {each.link.peer: each.name for each in self.containers if each.link and each.link.peer}
        return Device(
            name=found.name,
            index=found.index,
            kind=found.kind or "device",
            mac=found.mac,
            mtu=found.mtu,
            up=found.up,
            addresses=addresses_of(host, found.index),
            ports=tuple(
                Port(
                    name=names[each.index].name,
                    index=each.index,
                    state=each.state,
                    hairpin=each.hairpin,
                    isolated=each.isolated,
                    container=whose.get(names[each.index].name, ""),
                )
                for each in ports
                if each.bridge == found.index and each.index in names
            ),
        )

    def _members(self, host: View) -> Iterable[Member]:
        shown = self.subject.members[:MOST_MEMBERS]
        self.left_out += len(self.subject.members) - len(shown)
        for asked in shown:
            try:
                yield self._member(asked, host)
            except OSError as error:
                if error.errno not in GONE:
                    raise
                self.notes.append(f"{asked.name} has just ended")

    def _member(self, asked: AskedMember, host: View) -> Member:
        with Process(asked.pid) as process:
            if process.stat().start_time != asked.start_time:
                raise ProcessLookupError(errno.ESRCH, "the process has ended")
            shared = process.namespace("net") == os.stat(f"/proc/{os.getpid()}/ns/net").st_ino
            if shared:
                return Member(id=asked.id, name=asked.name, pid=asked.pid, link=None)
            fd = process.open_namespace("net")
        try:
            inside = netns.inside(fd, links_view)
        finally:
            os.close(fd)
        own = self._own(asked, inside, host)
        routes = [route_of(each, inside) for each in inside.routes if each.table == MAIN_TABLE][:MOST_ROUTES]
        link = link_of(own, inside, host, shared=False) if own else None
        return Member(id=asked.id, name=asked.name, pid=asked.pid, link=link, routes=tuple(routes))

    def _own(self, asked: AskedMember, inside: View, host: View) -> Link | None:
        """Return the container's link in this network: the one that leads to its bridge or parent, else that name."""
        device = next((each for each in host.links if each.name == (self.subject.bridge or self.subject.parent)), None)
        ends = {each.index for each in host.links if device and each.master == device.index}
        for each in inside.links:
            if each.kind == "veth" and each.peer in ends and _crosses(each, host):
                return each
            if device and each.kind in ("macvlan", "ipvlan") and each.peer == device.index:
                return each
        return next((each for each in inside.links if asked.interface and each.name == asked.interface), None)



def _crosses(own: Link, host: View) -> bool:
    """Whether a link of the host is the other end: each knows the other's index."""
    return any(each.index == own.peer and each.peer == own.index and each.kind == "veth" for each in host.links)
