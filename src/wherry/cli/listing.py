"""ps, images and inspect: what there is, as a table, as a template says, or as JSON."""

from __future__ import annotations

import sys

from wherry.cli import engine
from wherry.cli.failures import ApiError, Failure, TemplateError, UsageError
from wherry.cli.flags import Command, Flag, Parsed
from wherry.cli.http import Client, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FILTER = Flag("-f --filter", "Filter output based on conditions provided", "list")
_FORMAT = Flag("--format", "Format output using a Go template, 'table TEMPLATE' or 'json'", "text")

PS = Command(
    "ps",
    "",
    "List containers",
    "listing:containers",
    (
        Flag("-a --all", "Show all containers (default shows just running)"),
        _FILTER,
        _FORMAT,
        Flag("-n --last", "Show n last created containers (includes all states)", "int"),
        Flag("-l --latest", "Show the latest created container (includes all states)"),
        Flag("--no-trunc", "Don't truncate output"),
        Flag("-q --quiet", "Only display container IDs"),
        Flag("-s --size", "Display total file sizes"),
    ),
    (0, 0),
)
IMAGES = Command(
    "images",
    "[REPOSITORY[:TAG]]",
    "List images",
    "listing:images",
    (
        Flag("-a --all", "Show all images (default hides intermediate images)"),
        Flag("--digests", "Show digests"),
        _FILTER,
        _FORMAT,
        Flag("--no-trunc", "Don't truncate output"),
        Flag("-q --quiet", "Only show image IDs"),
    ),
    (0, 1),
)
INSPECT = Command(
    "inspect",
    "NAME|ID [NAME|ID...]",
    "Return low-level information on objects",
    "listing:inspect",
    (
        Flag("-f --format", "Format output using a Go template or 'json'", "text"),
        Flag("-s --size", "Display total file sizes if the type is container"),
        Flag("--type", "Only inspect objects of the given type (container, image, network, volume)", "text"),
    ),
    (1, -1),
)

_CONTAINER_TITLES = {
    "ID": "CONTAINER ID",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "CreatedAt": "CREATED AT",
    "RunningFor": "CREATED",
    "Ports": "PORTS",
    "State": "STATE",
    "Status": "STATUS",
    "Size": "SIZE",
    "Names": "NAMES",
    "Labels": "LABELS",
    "Mounts": "MOUNTS",
    "LocalVolumes": "LOCAL VOLUMES",
    "Networks": "NETWORKS",
}
_CONTAINER_COLUMNS = ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names")
_IMAGE_TITLES = {
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "Digest": "DIGEST",
    "ID": "IMAGE ID",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "Size": "SIZE",
}


def filters(entries: list[str]) -> str | None:
    """--filter KEY=VALUE entries as the API wants them."""
    import json

    found: dict[str, dict[str, bool]] = {}
    for entry in entries:
        key, equals, value = entry.partition("=")
        if not equals:
            reason = "bad format of filter (expected name=value)"
            raise UsageError(f'invalid argument "{entry}" for "-f, --filter" flag: {reason}')
        found.setdefault(key.strip().lower(), {})[value.strip()] = True
    return json.dumps(found) if found else None


def _table(columns: tuple[str, ...]) -> str:
    return "table " + "\t".join(f"{{{{.{name}}}}}" for name in columns)


def _ports(ports: list[dict[str, Any]] | None) -> str:
    shown = []
    for port in ports or []:
        private = f"{port['PrivatePort']}/{port['Type']}"
        public = port.get("PublicPort")
        ip = port.get("IP", "")
        host = f"[{ip}]" if ":" in ip else ip
        shown.append(f"{host}:{public}->{private}" if public else private)
    return ", ".join(shown)


def _sizes(item: dict[str, Any]) -> str:
    from wherry.cli.tables import size

    own, total = item.get("SizeRw") or 0, item.get("SizeRootFs") or 0
    return f"{size(own)} (virtual {size(total)})" if total else size(own)


def _image_name(image: str, *, whole: bool) -> str:
    """An image that lost its name is known by its id, cut as ids are."""
    if image.startswith("sha256:") and not whole:
        return image.removeprefix("sha256:")[:12]
    return image or "<no image>"


def _container_row(item: dict[str, Any], *, whole: bool) -> dict[str, Any]:
    from wherry.cli.tables import ago, local_time

    labels = item.get("Labels") or {}
    mounts = [mount.get("Name") or mount.get("Source", "") for mount in item.get("Mounts") or []]
    command = item["Command"]
    if not whole:
        command = command if len(command) <= 20 else command[:19] + "…"
        mounts = [mount if len(mount) <= 15 else mount[:14] + "…" for mount in mounts]
    names = [name.removeprefix("/") for name in item.get("Names") or []]
    return {
        "ID": item["Id"] if whole else item["Id"][:12],
        "Image": _image_name(item["Image"], whole=whole),
        "Command": f'"{command}"',
        "CreatedAt": local_time(item["Created"]),
        "RunningFor": ago(item["Created"]),
        "Ports": _ports(item.get("Ports")),
        "State": item["State"],
        "Status": item["Status"],
        "Size": _sizes(item),
        "Names": ",".join(names if whole else [name for name in names if "/" not in name]),
        "Labels": ",".join(f"{key}={value}" for key, value in labels.items()),
        "Label": lambda name: labels.get(name, ""),
        "Mounts": ",".join(mounts),
        "LocalVolumes": str(sum(1 for mount in item.get("Mounts") or [] if mount.get("Driver") == "local")),
        "Platform": None,
        "Networks": ",".join((item.get("NetworkSettings") or {}).get("Networks") or {}),
    }


def containers(host: str, flags: Parsed) -> int:
    """List containers."""
    from wherry.cli.tables import listing

    limit = 1 if flags["latest"] else flags["last"]
    wants_size = flags["size"] or ".Size" in flags["format"]
    query = {
        "all": flags["all"] or bool(limit and limit > 0) or None,
        "limit": limit if limit and limit > 0 else None,
        "size": wants_size or None,
        "filters": filters(flags["filter"]),
    }
    items = engine.client(host).get("/containers/json", query)
    columns = _CONTAINER_COLUMNS + (("Size",) if flags["size"] else ())
    shape = flags["format"] or ("{{.ID}}" if flags["quiet"] else _table(columns))
    rows = [_container_row(item, whole=flags["no-trunc"]) for item in items]
    sys.stdout.write(listing(rows, _column_shape(shape, columns), _CONTAINER_TITLES))
    return 0


def _column_shape(shape: str, columns: tuple[str, ...]) -> str:
    return _table(columns) if shape == "table" else shape


def _image_rows(item: dict[str, Any], *, whole: bool, digests: bool) -> list[dict[str, Any]]:
    from wherry.cli.tables import ago, local_time, size

    names = item.get("RepoTags") or ["<none>:<none>"]
    by_repository = dict(name.split("@", 1) for name in item.get("RepoDigests") or [] if "@" in name)
    identity = item["Id"] if whole else item["Id"].removeprefix("sha256:")[:12]
    rows = []
    for name in names:
        repository, _, tag = name.rpartition(":")
        rows.append(
            {
                "Repository": repository,
                "Tag": tag,
                "Digest": by_repository.get(repository, "<none>"),
                "ID": identity,
                "CreatedSince": ago(item["Created"]) if item["Created"] > 0 else "N/A",
                "CreatedAt": local_time(item["Created"]),
                "Size": size(item["Size"]),
                "VirtualSize": size(item["Size"], 4),
                "Containers": "N/A",
                "SharedSize": "N/A",
                "UniqueSize": "N/A",
            }
        )
    return rows


def images(host: str, flags: Parsed) -> int:
    """List images, each with every name that it has."""
    from wherry.cli.tables import listing

    wanted = list(flags["filter"])
    if flags.words:
        wanted.append(f"reference={flags.words[0]}")
    query = {"all": flags["all"] or None, "filters": filters(wanted), "digests": flags["digests"] or None}
    items = engine.client(host).get("/images/json", query)
    columns: tuple[str, ...] = ("Repository", "Tag", "ID", "CreatedSince", "Size")
    if flags["digests"]:
        columns = ("Repository", "Tag", "Digest", "ID", "CreatedSince", "Size")
    shape = flags["format"] or ("{{.ID}}" if flags["quiet"] else _table(columns))
    rows = [row for item in items for row in _image_rows(item, whole=flags["no-trunc"], digests=flags["digests"])]
    text = listing(rows, _column_shape(shape, columns), _IMAGE_TITLES)
    if flags["quiet"]:
        text = "".join(dict.fromkeys(text.splitlines(keepends=True)))
    sys.stdout.write(text)
    return 0


_KINDS = {
    "container": "/containers/{}/json",
    "image": "/images/{}/json",
    "network": "/networks/{}",
    "volume": "/volumes/{}",
}


def find(client: Client, name: str, kinds: list[str], *, size: bool = False) -> Any:
    """The object of that name, looked for as each kind in turn."""
    for kind in kinds:
        try:
            query = {"size": True} if size and kind == "container" else None
            return client.get(_KINDS[kind].format(quote(name)), query)
        except ApiError as error:
            if error.http != 404 or len(kinds) == 1:
                raise
    raise Failure(f"No such object: {name}")


def inspect(host: str, flags: Parsed) -> int:
    """Print objects as JSON, or what a template makes of each; those that exist are printed, whatever else."""
    client = engine.client(host)
    kind = flags["type"]
    if kind and kind not in _KINDS:
        names = ", ".join(f'"{name}"' for name in sorted(_KINDS))
        raise Failure(f'unknown type: "{kind}": must be one of {names}')
    found, missing = [], []
    for name in flags.words:
        try:
            found.append(find(client, name, [kind] if kind else list(_KINDS), size=flags["size"]))
        except ApiError as error:
            missing.append(f"{error.prefix}{error}")
        except Failure as error:
            missing.append(f"Error: {error}")
    return show(found, missing, flags["format"])


def show(found: list[Any], missing: list[str], shape: str) -> int:
    """Print objects in the shape that --format asks for, then what is missing; returns the exit status."""
    import json

    from wherry.cli.templates import Template

    template = Template(shape) if shape and shape != "json" else None
    try:
        if template:
            sys.stdout.write("".join(template.render(item) + "\n" for item in found) or "\n")
        elif shape == "json":
            print(json.dumps(found, separators=(",", ":"), ensure_ascii=False))
        else:
            print(json.dumps(found, indent=4, ensure_ascii=False))
    except TemplateError as error:
        print()
        raise TemplateError(f"template parsing error: {error}") from error
    for line in missing:
        print(line, file=sys.stderr)
    return 1 if missing else 0
