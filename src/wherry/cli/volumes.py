"""volume ls, create, inspect, rm and prune."""

from __future__ import annotations

import sys

from wherry.cli import engine
from wherry.cli.failures import ApiError, UsageError
from wherry.cli.flags import Command, Flag, Parsed
from wherry.cli.http import quote
from wherry.cli.listing import filters, show
from wherry.cli.values import pairs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FILTER = Flag("-f --filter", 'Provide filter values (e.g. "dangling=true")', "list")

LS = Command(
    "volume ls",
    "",
    "List volumes",
    "volumes:listing",
    (
        _FILTER,
        Flag("--format", "Format output using a Go template, 'table TEMPLATE' or 'json'", "text"),
        Flag("-q --quiet", "Only display volume names"),
    ),
    (0, 0),
)
CREATE = Command(
    "volume create",
    "[VOLUME]",
    "Create a volume",
    "volumes:create",
    (
        Flag("-d --driver", "Specify volume driver name", "text", "local"),
        Flag("--label", "Set metadata for a volume", "list"),
        Flag("-o --opt", "Set driver specific options", "list"),
        Flag("--name", "Specify volume name", "text"),
    ),
    (0, 1),
)
INSPECT = Command(
    "volume inspect",
    "VOLUME [VOLUME...]",
    "Display detailed information on one or more volumes",
    "volumes:inspect",
    (Flag("-f --format", "Format output using a Go template or 'json'", "text"),),
    (1, -1),
)
RM = Command(
    "volume rm",
    "VOLUME [VOLUME...]",
    "Remove one or more volumes",
    "volumes:remove",
    (Flag("-f --force", "Force the removal of one or more volumes"),),
    (1, -1),
)
PRUNE = Command(
    "volume prune",
    "",
    "Remove unused local volumes",
    "volumes:prune",
    (
        Flag("-a --all", "Remove all unused volumes, not just anonymous ones"),
        Flag("--filter", 'Provide filter values (e.g. "label=<label>")', "list"),
        Flag("-f --force", "Do not prompt for confirmation"),
    ),
    (0, 0),
)

RENAME = Command("volume rename", "VOLUME NEW_NAME", "Rename a volume", "volumes:rename", (), (2, 2))

_TITLES = {
    "Driver": "DRIVER",
    "Name": "VOLUME NAME",
    "Scope": "SCOPE",
    "Mountpoint": "MOUNTPOINT",
    "Labels": "LABELS",
    "Links": "LINKS",
    "Size": "SIZE",
    "Status": "STATUS",
    "Availability": "AVAILABILITY",
    "Group": "GROUP",
}
_TABLE = "table {{.Driver}}\t{{.Name}}"


def _row(item: dict[str, Any]) -> dict[str, Any]:
    labels = item.get("Labels") or {}
    return {
        "Driver": item["Driver"],
        "Name": item["Name"],
        "Scope": item["Scope"],
        "Mountpoint": item["Mountpoint"],
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(labels.items())),
        "Label": lambda name: labels.get(name, ""),
        "Links": "N/A",
        "Size": "N/A",
        "Status": "N/A",
        "Availability": "N/A",
        "Group": "N/A",
    }


def listing(host: str, flags: Parsed) -> int:
    """List volumes."""
    from wherry.cli.tables import listing

    items = engine.client(host).get("/volumes", {"filters": filters(flags["filter"])})["Volumes"] or []
    shape = flags["format"] or ("{{.Name}}" if flags["quiet"] else _TABLE)
    rows = [_row(item) for item in sorted(items, key=lambda item: item["Name"])]
    sys.stdout.write(listing(rows, _TABLE if shape == "table" else shape, _TITLES))
    return 0


def create(host: str, flags: Parsed) -> int:
    """Make a volume and print its name."""
    name = flags["name"]
    if flags.words:
        if name:
            raise UsageError("conflicting options: cannot specify both --name and a name as an argument", 1)
        name = flags.words[0]
    body = {
        "Name": name,
        "Driver": flags["driver"],
        "DriverOpts": pairs(flags["opt"]),
        "Labels": pairs(flags["label"]),
    }
    given = {key: value for key, value in body.items() if value}
    print(engine.client(host, start=True).post("/volumes/create", None, given)["Name"])
    return 0


def inspect(host: str, flags: Parsed) -> int:
    """Print volumes as JSON, or what a template makes of each."""
    client = engine.client(host)
    found, missing = [], []
    for name in flags.words:
        try:
            found.append(client.get(f"/volumes/{quote(name)}"))
        except ApiError as error:
            missing.append(f"{error.prefix}{error}")
    return show(found, missing, flags["format"])


def remove(host: str, flags: Parsed) -> int:
    """Remove volumes."""
    client = engine.client(host)
    status = 0
    for name in flags.words:
        try:
            client.call("DELETE", f"/volumes/{quote(name)}", {"force": flags["force"] or None})
            print(name)
        except ApiError as error:
            print(f"{error.prefix}{error}", file=sys.stderr)
            status = 1
    return status


def rename(host: str, flags: Parsed) -> int:
    """Give a volume another name; containers that have it, and do not run, follow."""
    name, new = flags.words
    engine.client(host).post(f"/wherry/v1/volumes/{quote(name)}/rename", {"name": new})
    return 0


def prune(host: str, flags: Parsed) -> int:
    """Remove volumes that no container has, after asking."""
    from wherry.cli.tables import size

    kind = "all local volumes" if flags["all"] else "anonymous local volumes"
    if not flags["force"]:
        print(f"WARNING! This will remove {kind} not used by at least one container.")
        print("Are you sure you want to continue? [y/N] ", end="", flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            return 1
    wanted = [*flags["filter"], *(["all=true"] if flags["all"] else [])]
    answer = engine.client(host).post("/volumes/prune", {"filters": filters(wanted)})
    removed = answer.get("VolumesDeleted") or []
    if removed:
        print("Deleted Volumes:", *removed, "", sep="\n")
    print(f"Total reclaimed space: {size(answer.get('SpaceReclaimed') or 0)}")
    return 0
