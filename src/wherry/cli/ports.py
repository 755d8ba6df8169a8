"""Published ports: the flags -p and -P of run and create, and wherry port, which also changes them."""

from __future__ import annotations

import re

from wherry.cli import engine
from wherry.cli.failures import Failure, UsageError
from wherry.cli.flags import Command, Flag, Parsed
from wherry.cli.http import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PORT = Command(
    "port", "CONTAINER [PRIVATE_PORT[/PROTO]]", "List published ports of a container", "ports:show", (), (1, 2)
)
ADD = Command("port add", "CONTAINER SPEC [SPEC...]", "Publish more ports of a container", "ports:add", (), (2, -1))
REMOVE = Command(
    "port rm", "CONTAINER SPEC [SPEC...]", "Publish ports of a container no more", "ports:remove", (), (2, -1)
)
FLAGS = (
    Flag("-p --publish", "Publish a container's port(s) to the host", "list"),
    Flag("-P --publish-all", "Publish all exposed ports to random ports"),
)
_RANGE = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?", re.ASCII)
_PROTOCOLS = ("tcp", "udp", "sctp")
_FIELDS = ("target", "published", "protocol", "mode")


def _range(text: str, spec: str) -> range:
    match = _RANGE.fullmatch(text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if not first <= last <= 65535:
        raise ValueError(f"invalid port in {spec}: {text}")
    return range(first, last + 1)


def _long(spec: str) -> str:
    """target=80,published=8080,protocol=udp, as docker service has it, in the short form."""
    found = dict(each.partition("=")[::2] for each in spec.split(","))
    unknown = [name for name in found if name not in _FIELDS]
    if unknown or "target" not in found:
        raise ValueError(f"invalid port {spec}: " + (f"unknown field {unknown[0]}" if unknown else "target is missing"))
    return f"{found.get('published', '')}:{found['target']}/{found.get('protocol', 'tcp')}"


def parse(spec: str) -> list[tuple[str, dict[str, str]]]:
    """[[IP:]HOST[-LAST]:]PORT[-LAST][/PROTO] as entries of PortBindings. Raises ValueError."""
    text, _, protocol = (_long(spec) if "=" in spec else spec).partition("/")
    kind = protocol.lower() or "tcp"
    if kind not in _PROTOCOLS:
        raise ValueError(f"invalid proto: {protocol}")
    place, _, private = text.rpartition(":")
    address, _, public = place.rpartition(":")
    ports = _range(private, spec)
    address = address.removeprefix("[").removesuffix("]")
    if not public:
        return [(f"{port}/{kind}", {"HostIp": address, "HostPort": ""}) for port in ports]
    places = _range(public, spec)
    if len(ports) == 1:
        return [(f"{private}/{kind}", {"HostIp": address, "HostPort": public})]
    if len(places) != len(ports):
        raise ValueError(f"invalid ranges specified for container and host Ports: {private} and {public}")
    return [
        (f"{port}/{kind}", {"HostIp": address, "HostPort": str(at)}) for port, at in zip(ports, places, strict=True)
    ]


def bindings(specs: list[str]) -> dict[str, list[dict[str, str]]]:
    """Several of them as PortBindings. Raises ValueError."""
    found: dict[str, list[dict[str, str]]] = {}
    for spec in specs:
        for key, place in parse(spec):
            found.setdefault(key, []).append(place)
    return found


def exposed(specs: list[str]) -> list[str]:
    """--expose PORT[-LAST][/PROTO] as keys of ExposedPorts. Raises ValueError."""
    found = []
    for spec in specs:
        numbers, _, protocol = spec.partition("/")
        found += [f"{port}/{protocol or 'tcp'}" for port in _range(numbers, spec)]
    return found


def _host(place: dict[str, str]) -> str:
    address = place["HostIp"]
    return f"[{address}]:{place['HostPort']}" if ":" in address else f"{address}:{place['HostPort']}"


def _lines(found: dict[str, Any]) -> list[str]:
    return [f"{key} -> {_host(place)}" for key, places in sorted(found.items()) for place in places or ()]


def show(host: str, flags: Parsed) -> int:
    """List the published ports of a container, or where one of its ports is."""
    ref, *port = flags.words
    found = engine.client(host).get(f"/containers/{quote(ref)}/json")["NetworkSettings"]["Ports"] or {}
    if not port:
        print("".join(f"{line}\n" for line in _lines(found)), end="")
        return 0
    key = port[0] if "/" in port[0] else f"{port[0]}/tcp"
    if not found.get(key):
        raise Failure(f"No public port '{key}' published for {ref}")
    for place in found[key]:
        print(_host(place))
    return 0


def _change(host: str, flags: Parsed, verb: str) -> int:
    ref, *specs = flags.words
    try:
        body = {"PortBindings": bindings(specs)}
    except ValueError as error:
        raise UsageError(str(error)) from error
    answer = engine.client(host).post(f"/wherry/v1/containers/{quote(ref)}/ports/{verb}", body=body)
    print("".join(f"{line}\n" for line in _lines(answer["Ports"])), end="")
    return 0


def add(host: str, flags: Parsed) -> int:
    """Publish more ports of a container, running or not."""
    return _change(host, flags, "add")


def remove(host: str, flags: Parsed) -> int:
    """Publish ports no more; PORT alone means wherever it is published."""
    return _change(host, flags, "remove")
