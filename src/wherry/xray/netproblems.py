"""What keeps a network from working, as sentences: the effect, the cause with the rule to blame, what helps. PURE.

Only what the kernel shows counts. A rule of somebody else (ufw, firewalld, dockerd's policy) that drops what ours let
through is the most usual cause of a container that "has no network": an accept ends one table, a drop ends all.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Protocol

from wherry.models.xray_network import Device, Member, Path, Problem, PublishedPort, Step, Sysctl
from wherry.xray import netpaths, netsysctls
from wherry.xray.netsubject import NetworkSubject
from wherry.xray.network import View
from wherry.xray.path import join


class Found(Protocol):
    """What a look has found so far."""

    bridge: Device | None
    outside: tuple[str, ...]
    sysctls: tuple[Sysctl, ...]
    containers: tuple[Member, ...]
    published: tuple[PublishedPort, ...]
    paths: tuple[Path, ...]


def find(subject: NetworkSubject, found: Found, host: View) -> Iterator[Problem]:
    """Return the problems of a bridge network, those of its links first."""
    yield from _of_bridge(subject, found.bridge)
    for member in found.containers:
        yield from _of_member(subject, found.bridge, member)
    yield from _of_routes(subject, found, host)
    yield from _of_ports(found)
    for path in found.paths:
        yield from _of_path(subject, path)
    yield from _of_neighbours(subject, found)


def _of_bridge(subject: NetworkSubject, bridge: Device | None) -> Iterator[Problem]:
    restart = "start the engine anew: it makes what is missing"
    if bridge is None:
        yield _problem("No container of this network reaches anybody.", f"bridge {subject.bridge} is gone", restart)
    elif not bridge.up:
        why = f"bridge {bridge.name} is down"
        yield _problem("No container of this network reaches anybody.", why, f"ip link set {bridge.name} up")
    elif not bridge.addresses and subject.gateways:
        why = f"bridge {bridge.name} has no address, and containers send to {subject.gateways[0]}"
        advice = f"ip addr add {subject.gateways[0]} dev {bridge.name}"
        yield _problem("Containers reach each other, but neither the host nor what is behind it.", why, advice)


def _of_member(subject: NetworkSubject, bridge: Device | None, member: Member) -> Iterator[Problem]:
    what, own = f"Container {member.name} reaches nobody in this network.", member.link
    connect = f"disconnect it from {subject.name} and connect it again"
    if own is None:
        yield _problem(what, "its link is gone", connect)
        return
    if not own.up:
        yield _problem(what, f"its link {own.name} is down", f"nsenter -t {member.pid} -n ip link set {own.name} up")
    if own.kind == "veth" and bridge is not None and bridge.up:
        port = next((each for each in bridge.ports if each.name == own.peer), None)
        if port is None:
            advice = f"ip link set {own.peer} master {bridge.name}" if own.peer else connect
            why = f"the other end of its link, {own.peer or 'gone'}, is no port of {bridge.name}"
            yield _problem(what, why, advice)
        elif not own.peer_up:
            yield _problem(what, f"the other end of its link, {own.peer}, is down", f"ip link set {own.peer} up")
        elif own.up and port.state != "forwarding":
            yield _problem(what, f"port {port.name} of the bridge is {port.state}", "wait a second and look again")
    if not subject.internal and not any(each.destination == "default" for each in member.routes):
        what = f"Container {member.name} reaches its network only."
        yield _problem(what, "it has no default route", connect)


def _of_routes(subject: NetworkSubject, found: Found, host: View) -> Iterator[Problem]:
    bridge = found.bridge
    if bridge is None or not bridge.up:
        return
    for text in subject.subnets:
        subnet = ipaddress.ip_network(text)
        link = netpaths.leaves_by(host, str(subnet[2] if subnet.num_addresses > 2 else subnet[0]))
        if subject.gateways and link != bridge.name:
            why = f"the host sends what is for {text} to {link or 'nobody'} and not to {bridge.name}"
            strict = netsysctls.value(found.sysctls, netsysctls.shown(f"net/ipv4/conf/{bridge.name}/rp_filter")) == "1"
            why += ", and rp_filter drops what comes from there by the bridge" if strict else ""
            advice = "make the network anew with another --subnet, or take that route away (ip route)"
            yield _problem("The host and its containers do not find each other.", why, advice)
    if subject.internal:
        return
    for each in host.links:
        if each.name in found.outside[:1] and bridge.mtu > each.mtu:
            what = "Large packets are cut up or lost on their way out; connections may hang once data flows."
            why = f"bridge {bridge.name} takes packets of {bridge.mtu} bytes, {each.name} only of {each.mtu}"
            anew = f"make the network anew with -o com.docker.network.driver.mtu={each.mtu}"
            advice = f'"mtu": {each.mtu} in the engine\'s configuration' if subject.name == "bridge" else anew
            yield _problem(what, why, advice)


def _of_ports(found: Found) -> Iterator[Problem]:
    for each in found.published:
        if not each.mapped:
            where = f"{each.address or 'every address of the host'}, port {each.port}/{each.protocol}"
            path = next((path for path in found.paths if path.kind == "published" and _is_of(path, each)), None)
            led = [step for step in path.steps if step.effect in ("dnat", "redirect")] if path else []
            why = f"a rule leads it elsewhere: {_place(led[0])}: {led[0].text}" if led else "no rule leads it there"
            if path and path.stopped_by >= 0 and not led:
                why = _blame(path.steps[path.stopped_by])
            what = f"{where} does not lead to {each.container}."
            yield _problem(what, why, "kill -HUP the engine: it puts all of its rules back")
    name = next((each.name for each in found.sysctls if each.name.endswith(".route_localnet")), "")
    if found.published and name and netsysctls.value(found.sysctls, name) == "0":
        what = "Published ports cannot be reached at 127.0.0.1 of the host."
        yield _problem(what, f"{name} is 0", f"sysctl -w {name}=1")


def _is_of(path: Path, port: PublishedPort) -> bool:
    return path.protocol == port.protocol and path.destination.rpartition(":")[2] == str(port.port)


_EXPECTED = {
    "published": "A client outside does not reach the published port {destination}.",
    "out": "Containers do not reach the outside.",
    "answer": "Answers from outside do not come back to containers.",
    "among": "Containers of this network do not reach each other.",
}


def _of_path(subject: NetworkSubject, path: Path) -> Iterator[Problem]:
    closed = (subject.internal and path.kind in ("out", "answer", "published")) or (
        path.kind == "among" and not subject.icc
    )
    if path.kind in _EXPECTED and not closed and path.stopped_by >= 0:
        step = path.steps[path.stopped_by]
        what = _EXPECTED[path.kind].format(destination=path.destination)
        yield _problem(what, _blame(step) + _unless(path), _advice(step, subject))
    if path.kind == "out" and subject.internal and path.arrives and path.to_link:
        what = "Containers of this network reach the outside, which an internal one must not."
        yield _problem(what, "no rule keeps them", "kill -HUP the engine: it puts all of its rules back")
    invited = path.family in subject.open or path.from_link in subject.trusted
    if path.kind == "foreign" and path.arrives and not invited and not _published(subject, path):
        what = f"{path.source.rpartition(':')[0]} reaches containers unasked, by {path.from_link}."
        yield _problem(what, "no rule keeps it out", "kill -HUP the engine: it puts all of its rules back")
    hidden = any(step.effect in ("masquerade", "snat") for step in path.steps)
    if path.kind == "out" and path.arrives and path.family in subject.masquerade and not hidden:
        what = "Containers get no answer from outside."
        why = f"no rule gives their packets the host's address, and nobody outside knows {path.source}"
        yield _problem(what, why, "kill -HUP the engine: it puts all of its rules back")


def _published(subject: NetworkSubject, path: Path) -> bool:
    """Whether the packet is for a port that is published where containers are reached at their own addresses."""
    return path.family in subject.routed and any(
        path.destination == join(each.to_address, each.to_port) for each in subject.ports
    )


def _of_neighbours(subject: NetworkSubject, found: Found) -> Iterator[Problem]:
    ports = [each for each in (found.bridge.ports if found.bridge else ()) if each.container]
    loose = [each for each in ports if not each.isolated]
    if not subject.icc and len(loose) > 1:
        what = "Containers of this network reach each other, which they were not to."
        why = f"ports {', '.join(each.name for each in loose[:4])} of the bridge are not isolated"
        yield _problem(what, why, "bridge link set dev PORT isolated on")


def _problem(what: str, why: str, advice: str) -> Problem:
    return Problem(what=what, why=why, advice=advice)


def _place(step: Step) -> str:
    return f"{step.family} table {step.table}, chain {step.chain}" if step.table else "the kernel"


def _blame(step: Step) -> str:
    if step.text == netpaths.NOWHERE:
        return "no route of the host leads there"
    if not step.table:
        return f"{step.text}: this host passes no packets on"
    rule = "the policy of the chain, as no rule of it accepts" if step.effect == "policy" else step.text
    counted = f" ({step.packets} packets so far)" if step.packets >= 0 else ""
    return f"{_place(step)}, at {step.hook}: {rule}{counted}"


def _unless(path: Path) -> str:
    unsure = [step for step in path.steps if not step.certain]
    return f"; unless {_place(unsure[0])} applies: {unsure[0].text}" if unsure else ""


def _advice(step: Step, subject: NetworkSubject) -> str:
    name = f"{step.table} {step.chain}".lower()
    if step.text == netpaths.NOWHERE:
        return "give the host a route (ip route)"
    if not step.table:
        return f"sysctl -w {step.text.replace(' ', '')[:-1]}1"
    if "ufw" in name or "ufw" in step.text:
        return f"ufw route allow in on {subject.bridge} (and out on {subject.bridge})"
    if "firewalld" in name:
        return f"firewall-cmd --permanent --zone=trusted --add-interface={subject.bridge}, and --reload"
    if step.chain in ("FORWARD",) or step.chain.startswith("DOCKER"):
        return f"iptables -I DOCKER-USER -i {subject.bridge} -j ACCEPT (and -o), or the same in FORWARD"
    if step.table.startswith("wherry"):
        return "kill -HUP the engine: it puts all of its rules back"
    return f"let {subject.bridge} through in that table: an accept of ours does not count there"


