"""Where a network in the kernel is not what was asked for: a bridge, an address or a port of it that is gone. PURE."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from wherry.models.xray import Difference
from wherry.models.xray_network import Device, Member
from wherry.xray.netsubject import AskedMember, NetworkSubject


def find(
    subject: NetworkSubject, bridge: Device | None, parent: Device | None, members: Sequence[Member]
) -> Iterator[Difference]:
    """Compare the links of the network, then each container's."""
    yield from _of_bridge(subject, bridge)
    if subject.parent and parent is None:
        yield _differs(f"link {subject.parent}", "the parent of the network", "not there")
    has = {each.id: each for each in members}
    for asked in subject.members:
        if asked.id in has:
            yield from _of_member(subject, asked, has[asked.id])


def _of_bridge(subject: NetworkSubject, bridge: Device | None) -> Iterator[Difference]:
    if not subject.bridge:
        return
    if bridge is None:
        yield _differs(f"bridge {subject.bridge}", "there", "not there")
        return
    if bridge.kind != "bridge":
        yield _differs(f"link {subject.bridge}", "a bridge", bridge.kind)
    if not bridge.up:
        yield _differs(f"bridge {subject.bridge}", "up", "down")
    for address in subject.gateways:
        if address not in bridge.addresses:
            yield _differs(f"address of {bridge.name}", address, ", ".join(bridge.addresses) or "none")


def _of_member(subject: NetworkSubject, asked: AskedMember, has: Member) -> Iterator[Difference]:
    own = has.link
    if own is None:
        yield _differs(f"{asked.name}: link {asked.interface}", "there", "not there")
        return
    for address in asked.addresses:
        if address not in own.addresses:
            yield _differs(f"{asked.name}: address of {own.name}", address, ", ".join(own.addresses) or "none")
    if asked.mac and own.mac != asked.mac:
        yield _differs(f"{asked.name}: MAC of {own.name}", asked.mac, own.mac)
    if not own.up:
        yield _differs(f"{asked.name}: link {own.name}", "up", "down")
    if own.kind == "veth" and own.peer and not own.peer_up:
        yield _differs(f"{asked.name}: link {own.peer} on the host", "up", "down")
    if subject.bridge and own.kind == "veth" and own.bridge != subject.bridge:
        yield _differs(f"{asked.name}: other end of {own.name}", f"port of {subject.bridge}", own.bridge or "no port")


def _differs(what: str, asked: str, found: str) -> Difference:
    return Difference(section="network", what=what, asked=asked, found=found)
