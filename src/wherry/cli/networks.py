"""network ls, create, inspect, rm, prune, connect and disconnect."""

from __future__ import annotations

import sys

from wherry.cli import attaching, engine
from wherry.cli.failures import ApiError, Failure, UsageError
from wherry.cli.flags import Command, Flag, Parsed
from wherry.cli.http import quote
from wherry.cli.listing import filters, show
from wherry.cli.values import pairs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LS = Command(
    "network ls",
    "",
    "List networks",
    "networks:listing",
    (
        Flag("-f --filter", 'Provide filter values (e.g. "driver=bridge")', "list"),
        Flag("--format", "Format output using a Go template, 'table TEMPLATE' or 'json'", "text"),
        Flag("--no-trunc", "Do not truncate the output"),
        Flag("-q --quiet", "Only display network IDs"),
    ),
    (0, 0),
)
CREATE = Command(
    "network create",
    "NETWORK",
    "Create a network",
    "networks:create",
    (
        Flag("--attachable", "Enable manual container attachment"),
        Flag("--aux-address", "Auxiliary IPv4 or IPv6 addresses used by Network driver (NAME=ADDRESS)", "list"),
        Flag("--config-from", "The network from which to copy the configuration", "text"),
        Flag("--config-only", "Create a configuration only network"),
        Flag("-d --driver", "Driver to manage the Network", "text", "bridge"),
        Flag("--gateway", "IPv4 or IPv6 Gateway for the master subnet", "list"),
        Flag("--ingress", "Create swarm routing-mesh network"),
        Flag("--internal", "Restrict external access to the network"),
        Flag("--ip-range", "Allocate container ip from a sub-range", "list"),
        Flag("--ipam-driver", "IP Address Management Driver", "text", "default"),
        Flag("--ipam-opt", "Set IPAM driver specific options", "list"),
        Flag("--ipv4", "Enable or disable IPv4 address assignment"),
        Flag("--ipv6", "Enable or disable IPv6 address assignment"),
        Flag("--label", "Set metadata on a network", "list"),
        Flag("-o --opt", "Set driver specific options", "list"),
        Flag("--scope", "Control the network's scope", "text"),
        Flag("--subnet", "Subnet in CIDR format that represents a network segment", "list"),
    ),
    (1, 1),
)
INSPECT = Command(
    "network inspect",
    "NETWORK [NETWORK...]",
    "Display detailed information on one or more networks",
    "networks:inspect",
    (
        Flag("-f --format", "Format output using a Go template or 'json'", "text"),
        Flag("-v --verbose", "Verbose output for diagnostics"),
    ),
    (1, -1),
)
RM = Command(
    "network rm",
    "NETWORK [NETWORK...]",
    "Remove one or more networks",
    "networks:remove",
    (Flag("-f --force", "Do not error if the network does not exist"),),
    (1, -1),
)
PRUNE = Command(
    "network prune",
    "",
    "Remove all unused networks",
    "networks:prune",
    (
        Flag("--filter", 'Provide filter values (e.g. "until=<timestamp>")', "list"),
        Flag("-f --force", "Do not prompt for confirmation"),
    ),
    (0, 0),
)
CONNECT = Command(
    "network connect",
    "NETWORK CONTAINER",
    "Connect a container to a network",
    "networks:connect",
    (
        Flag("--alias", "Add network-scoped alias for the container", "list"),
        Flag("--driver-opt", "driver options for the network", "list"),
        Flag("--gw-priority", "Highest gw-priority provides the default gateway", "int"),
        Flag("--ip", 'IPv4 address (e.g., "172.30.100.104")', "text"),
        Flag("--ip6", 'IPv6 address (e.g., "2001:db8::33")', "text"),
        Flag("--link", "Add link to another container", "list"),
        Flag("--link-local-ip", "Add a link-local address for the container", "list"),
    ),
    (2, 2),
)
DISCONNECT = Command(
    "network disconnect",
    "NETWORK CONTAINER",
    "Disconnect a container from a network",
    "networks:disconnect",
    (Flag("-f --force", "Force the container to disconnect from a network"),),
    (2, 2),
)

_TITLES = {
    "ID": "NETWORK ID",
    "Name": "NAME",
    "Driver": "DRIVER",
    "Scope": "SCOPE",
    "IPv4": "IPV4",
    "IPv6": "IPV6",
    "Internal": "INTERNAL",
    "Labels": "LABELS",
    "CreatedAt": "CREATED AT",
}
_TABLE = "table {{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}"
_ID = 12


def _yes(value: object) -> str:
    return "true" if value else "false"


def _moment(text: str) -> str:
    """A time of the API in UTC as Go prints one: without zeros at the end of its fraction."""
    whole, _, fraction = text.removesuffix("Z").replace("T", " ").partition(".")
    fraction = fraction.rstrip("0")
    return f"{whole}.{fraction} +0000 UTC" if fraction else f"{whole} +0000 UTC"


def _row(item: dict[str, Any], *, whole: bool) -> dict[str, Any]:
    labels = item.get("Labels") or {}
    return {
        "CreatedAt": _moment(item["Created"]),
        "Driver": item["Driver"],
        "ID": item["Id"] if whole else item["Id"][:_ID],
        "IPv4": _yes(item.get("EnableIPv4")),
        "IPv6": _yes(item.get("EnableIPv6")),
        "Internal": _yes(item.get("Internal")),
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(labels.items())),
        "Label": lambda name: labels.get(name, ""),
        "Name": item["Name"],
        "Scope": item["Scope"],
    }


def listing(host: str, flags: Parsed) -> int:
    """List networks."""
    from wherry.cli.tables import listing

    items = engine.client(host).get("/networks", {"filters": filters(flags["filter"])}) or []
    shape = flags["format"] or ("{{.ID}}" if flags["quiet"] else _TABLE)
    rows = [_row(item, whole=flags["no-trunc"]) for item in sorted(items, key=lambda item: item["Name"])]
    sys.stdout.write(listing(rows, _TABLE if shape == "table" else shape, _TITLES))
    return 0


def create(host: str, flags: Parsed) -> int:
    """Make a network and print its id."""
    from wherry.cli.subnets import pools

    body = {
        "Name": flags.words[0],
        "Driver": flags["driver"],
        "Scope": flags["scope"],
        "EnableIPv4": flags["ipv4"] if "ipv4" in flags.given else None,
        "EnableIPv6": flags["ipv6"] if "ipv6" in flags.given else None,
        "Internal": flags["internal"],
        "Attachable": flags["attachable"],
        "Ingress": flags["ingress"],
        "ConfigOnly": flags["config-only"],
        "ConfigFrom": {"Network": flags["config-from"]} if flags["config-from"] else None,
        "Options": pairs(flags["opt"]),
        "Labels": pairs(flags["label"]),
    }
    given = {key: value for key, value in body.items() if value or value is False}
    given["IPAM"] = {"Driver": flags["ipam-driver"], "Options": pairs(flags["ipam-opt"]), "Config": pools(flags)}
    answer = engine.client(host, start=True).post("/networks/create", None, given)
    print(answer["Id"])
    if answer.get("Warning"):
        print(f"WARNING: {answer['Warning']}", file=sys.stderr)
    return 0


def inspect(host: str, flags: Parsed) -> int:
    """Print networks as JSON, or what a template makes of each."""
    client = engine.client(host)
    found, missing = [], []
    for name in flags.words:
        try:
            found.append(client.get(f"/networks/{quote(name)}", {"verbose": flags["verbose"] or None}))
        except ApiError as error:
            missing.append(f"{error.prefix}{error}")
    return show(found, missing, flags["format"])


def remove(host: str, flags: Parsed) -> int:
    """Remove networks; with --force one that does not exist is no error."""
    client = engine.client(host)
    status = 0
    for name in flags.words:
        try:
            client.call("DELETE", f"/networks/{quote(name)}")
            print(name)
        except ApiError as error:
            if flags["force"] and error.http == 404:
                continue
            print(f"{error.prefix}{error}", file=sys.stderr)
            status = 1
    return status


def prune(host: str, flags: Parsed) -> int:
    """Remove networks that no container is in, after asking."""
    if not flags["force"]:
        print("WARNING! This will remove all custom networks not used by at least one container.")
        print("Are you sure you want to continue? [y/N] ", end="", flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            return 0
    answer = engine.client(host).post("/networks/prune", {"filters": filters(flags["filter"])})
    if removed := answer.get("NetworksDeleted"):
        print("Deleted Networks:", *removed, "", sep="\n")
    return 0


def connect(host: str, flags: Parsed) -> int:
    """Bring a container into a network, at once when it runs."""
    network, container = flags.words
    try:
        attaching.options(flags["driver-opt"])
    except ValueError:
        raise Failure("invalid key/value pair format in driver options") from None
    for each in flags["link"]:
        try:
            attaching.link(each)
        except ValueError as error:
            raise UsageError(f'invalid argument "{each}" for "--link" flag: {error}') from error
    names = ("alias", "driver-opt", "gw-priority", "ip", "ip6", "link", "link-local-ip")
    body = {"Container": container, "EndpointConfig": attaching.settings({name: flags[name] for name in names})}
    engine.client(host).post(f"/networks/{quote(network)}/connect", None, body)
    return 0


def disconnect(host: str, flags: Parsed) -> int:
    """Take a container out of a network."""
    network, container = flags.words
    body = {"Container": container, "Force": flags["force"]}
    engine.client(host).post(f"/networks/{quote(network)}/disconnect", None, body)
    return 0
