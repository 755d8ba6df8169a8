"""How a container is to be in its networks: the flags of run, create and network connect as settings of endpoints."""

from __future__ import annotations

from wherry.cli.failures import Rejected, UsageError
from wherry.cli.flags import Flag, Parsed
from wherry.cli.values import comma_separated

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FLAGS = (
    Flag("--ip", "IPv4 address (e.g., 172.30.100.104)", "text"),
    Flag("--ip6", "IPv6 address (e.g., 2001:db8::33)", "text"),
    Flag("--link", "Add link to another container", "list"),
    Flag("--link-local-ip", "Container IPv4/IPv6 link-local addresses", "list"),
    Flag("--mac-address", "Container MAC address (e.g., 92:d0:c6:0a:29:33)", "text"),
    Flag("--net --network", "Connect a container to a network", "list"),
    Flag("--net-alias --network-alias", "Add network-scoped alias for the container", "list"),
)

# Field of the long form of --network -> the flag that says the same of the first network, and what errors call it.
_FIELDS = {
    "alias": ("network-alias", "alias"),
    "ip": ("ip", "IPv4 address"),
    "ip6": ("ip6", "IPv6 address"),
    "mac-address": ("mac-address", "MAC address"),
    "link-local-ip": ("link-local-ip", "link-local IP addresses"),
    "link": ("link", "links"),
}
_SEVERAL = ("alias", "link-local-ip", "driver-opt", "link")
_HEX = set("0123456789abcdefABCDEF")
_NOT_OF_USERS = ("default", "bridge", "host", "none")


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """NAME, or name=NAME,alias=A,ip=1.2.3.4,... as docker has it: the name and the other fields. Raises ValueError."""
    if "=" not in text:
        return text, {}
    found: dict[str, Any] = {}
    for part in comma_separated(text):
        key, equals, value = part.partition("=")
        key = key.strip().lower()
        if not equals:
            raise ValueError(f"invalid field {part}")
        if key not in ("name", "driver-opt", "gw-priority", *_FIELDS) or key == "link":
            raise ValueError(f"invalid field key {key}")
        if key in _SEVERAL:
            found.setdefault(key, []).append(value.strip())
        else:
            found[key] = value.strip()
    name = found.pop("name", "")
    if not name:
        raise ValueError("network name/id is not specified")
    options(found.get("driver-opt", []))
    priority(found.get("gw-priority", "0"))
    return name, found


def options(entries: list[str]) -> dict[str, str]:
    """KEY=VALUE entries of a driver. Raises ValueError."""
    found = {}
    for entry in entries:
        key, equals, value = entry.partition("=")
        if not equals:
            raise ValueError("invalid key value pair format in driver options")
        found[key.strip().lower()] = value.strip()
    return found


def priority(text: str) -> int:
    """A gateway priority. Raises ValueError."""
    try:
        return int(text, 10)
    except ValueError:
        raise ValueError(f"invalid gw-priority ({text}): invalid syntax") from None


def settings(fields: dict[str, Any]) -> dict[str, Any]:
    """Settings of one endpoint for the API, without those that are not given."""
    addresses = {
        "IPv4Address": fields.get("ip"),
        "IPv6Address": fields.get("ip6"),
        "LinkLocalIPs": fields.get("link-local-ip"),
    }
    body = {
        "IPAMConfig": {key: value for key, value in addresses.items() if value},
        "MacAddress": fields.get("mac-address"),
        "Aliases": fields.get("alias"),
        "Links": fields.get("link"),
        "DriverOpts": options(fields.get("driver-opt", [])),
        "GwPriority": priority(str(fields.get("gw-priority") or 0)),
    }
    return {key: value for key, value in body.items() if value}


def link(text: str) -> str:
    """CONTAINER[:ALIAS]. Raises ValueError."""
    parts = text.split(":")
    if not text or len(parts) > 2:
        raise ValueError(f"bad format for links: {text}")
    return text


def networks(flags: Parsed) -> list[tuple[str, dict[str, Any]]]:
    """The networks of --network in their order, one that is "default" when none is given."""
    try:
        found = [parse(each) for each in flags["network"]] or [("default", {})]
    except ValueError as error:
        given = next(each for each in flags["network"] if not _parses(each))
        raise UsageError(f'invalid argument "{given}" for "--network" flag: {error}') from error
    names = [name for name, _ in found]
    for name in names:
        if names.count(name) > 1:
            raise Rejected(f'network "{name}" is specified multiple times', 125)
    if len({_of_user(name) for name in names}) > 1:
        raise Rejected("conflicting options: cannot attach both user-defined and non-user-defined network-modes", 125)
    return found


def _parses(text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True


def _of_user(name: str) -> bool:
    return name not in _NOT_OF_USERS and not name.startswith("container:")


def endpoints(flags: Parsed) -> dict[str, dict[str, Any]]:
    """EndpointsConfig: what the flags say beside --network is said of the first network."""
    found = networks(flags)
    name, fields = found[0]
    for field, (flag, what) in _FIELDS.items():
        if flag == "link" and not _of_user(name):
            continue  # of the default bridge a link is not the endpoint's but the container's (HostConfig.Links)
        if not flags[flag]:
            continue
        if fields.get(field):
            raise Rejected(f"conflicting options: cannot specify both --{flag} and per-network {what}", 125)
        fields[field] = flags[flag]
    for _, each in found:
        _check_mac(each.get("mac-address", ""))
    bodies = {name: settings(fields) for name, fields in found}
    return bodies if len(bodies) > 1 or bodies[name] else {}


def _check_mac(text: str) -> None:
    digits = text.replace("-", ":").split(":")
    if text and not (len(digits) == 6 and all(len(each) == 2 and not set(each) - _HEX for each in digits)):
        raise Rejected(f"{text} is not a valid mac address", 125)
