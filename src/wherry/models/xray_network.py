"""What `wherry xray network` answers: a network as the kernel has it. docs/protocol/xray.md is the schema in words.

As stable as the answer about a container (models/xray.py), whose links, routes and differences are used here.
"""

from __future__ import annotations

from wherry.models.base import Model
from wherry.models.xray import Difference, Link, Route

SCHEMA = 1
"""Changes when a reader of the older one would misunderstand the newer one."""


class Port(Model, frozen=True):
    """A port of the bridge. state: forwarding, or why not. container: whose link it is, "" when nobody is known.

    hairpin: a packet may go out where it came in; isolated: no packet between two such ports.
    """

    name: str
    index: int
    state: str
    hairpin: bool
    isolated: bool
    container: str


class Sysctl(Model, frozen=True):
    """A setting of the kernel that decides about packets of this network. name: below /proc/sys."""

    name: str
    value: str
    meaning: str


class Device(Model, frozen=True):
    """A link of the host that the network is made of: its bridge, or the parent of macvlan and ipvlan.

    kind: bridge, device, vlan and so on. ports: of a bridge.
    """

    name: str
    index: int
    kind: str
    mac: str
    mtu: int
    up: bool
    addresses: tuple[str, ...]
    ports: tuple[Port, ...] = ()


class Member(Model, frozen=True):
    """A running container in the network. link: its own end, with the other one; null when it has none.

    routes: of its namespace, in both families.
    """

    id: str
    name: str
    pid: int
    link: Link | None
    routes: tuple[Route, ...] = ()


class PublishedPort(Model, frozen=True):
    """A port of the host that leads to a container. mapped: whether the rules in the kernel lead there."""

    protocol: str
    address: str
    port: int
    container: str
    to_address: str
    to_port: int
    mapped: bool


class Step(Model, frozen=True):
    """One rule that a packet meets and that applies to it, or the policy at a chain's end.

    hook: where in the kernel. effect: accept, drop, jump, dnat, masquerade, snat, redirect, policy. certain: false when
    the rule has a condition that cannot be judged from outside. packets, bytes: of its counter, -1 without one.
    says: the rule in plain words.
    """

    hook: str
    family: str
    table: str
    chain: str
    text: str
    effect: str
    says: str
    packets: int = -1
    bytes: int = -1
    certain: bool = True


class Path(Model, frozen=True):
    """A packet's way through the rules, each that applies in order.

    kind: published (from outside to a published port), out, answer (to a connection that began inside), foreign (from
    outside or another network, unasked), among (between two containers of the network). source, destination: of the
    packet at the start, with the port; from_link, to_link: where it comes in and leaves, as the routes say. arrives:
    whether it gets there; stopped_by: the step that ends it otherwise, -1. ends_as: source and destination at the end.
    """

    kind: str
    family: int
    protocol: str
    source: str
    destination: str
    from_link: str
    to_link: str
    steps: tuple[Step, ...]
    arrives: bool
    stopped_by: int
    ends_as: str


class Problem(Model, frozen=True):
    """Something that keeps the network from working. what: the effect; why: the cause; advice: what helps."""

    what: str
    why: str
    advice: str


class NetworkXray(Model, frozen=True):
    """The whole answer. bridge, parent: null when the driver has none."""

    schema: int
    id: str
    name: str
    driver: str
    scope: str
    internal: bool
    taken_at: str
    took: int
    kernel: str
    bridge: Device | None = None
    parent: Device | None = None
    outside: tuple[str, ...] = ()
    sysctls: tuple[Sysctl, ...] = ()
    containers: tuple[Member, ...] = ()
    published: tuple[PublishedPort, ...] = ()
    paths: tuple[Path, ...] = ()
    problems: tuple[Problem, ...] = ()
    differences: tuple[Difference, ...] = ()
    notes: tuple[str, ...] = ()
    left_out: int = 0
