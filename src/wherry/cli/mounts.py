"""mount ls, add and rm: the mounts of a container that exists, running or not."""

from __future__ import annotations

from wherry.cli import engine
from wherry.cli.failures import UsageError
from wherry.cli.flags import Command, Flag, Parsed
from wherry.cli.http import quote
from wherry.cli.values import bind, mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LS = Command("mount ls", "CONTAINER", "List what is mounted in a container", "mounts:show", (), (1, 1))
ADD = Command(
    "mount add",
    "CONTAINER SPEC [SPEC...]",
    "Mount volumes or folders in a container, as -v or --mount of run would",
    "mounts:add",
    (),
    (2, -1),
)
REMOVE = Command(
    "mount rm",
    "CONTAINER DESTINATION [DESTINATION...]",
    "Take mounts away from a container",
    "mounts:remove",
    (Flag("-f --force", "Also when it is in use: for who uses it, it stays until they let go"),),
    (2, -1),
)


def _path(ref: str) -> str:
    return f"/wherry/v1/containers/{quote(ref)}/mounts"


def _is_long(spec: str) -> bool:
    """Whether a word is in the form of --mount: its first field is KEY=VALUE, or a word that stands alone there."""
    first = spec.partition(",")[0]
    return "=" in first and not first.startswith(("/", ".", "~"))


def body(specs: list[str]) -> dict[str, Any]:
    """SPECs as Binds and Mounts of a HostConfig. Raises ValueError."""
    return {
        "Binds": [bind(each) for each in specs if not _is_long(each)],
        "Mounts": [mount(each) for each in specs if _is_long(each)],
    }


def _print(answer: dict[str, Any]) -> None:
    for each in answer["Mounts"]:
        source = each.get("Name") or each["Source"] or each["Type"]
        print(f"{source} -> {each['Destination']}" + ("" if each["RW"] else " (ro)"))


def show(host: str, flags: Parsed) -> int:
    """List what is mounted."""
    _print(engine.client(host).get(_path(flags.words[0])))
    return 0


def add(host: str, flags: Parsed) -> int:
    """Mount more, now when the container runs, and at each start from now on."""
    ref, *specs = flags.words
    try:
        asked = body(specs)
    except ValueError as error:
        raise UsageError(str(error)) from error
    _print(engine.client(host).post(_path(ref), body=asked))
    return 0


def remove(host: str, flags: Parsed) -> int:
    """Take mounts away."""
    ref, *places = flags.words
    client = engine.client(host)
    for place in places:
        client.call("DELETE", _path(ref), {"target": place, "force": flags["force"] or None})
        print(place)
    return 0
