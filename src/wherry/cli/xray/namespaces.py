"""The page of the namespaces."""

from __future__ import annotations

from wherry.cli.xray.page import Page, plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MEANING = {
    "mnt": "its own tree of files",
    "pid": "its own process numbers, from 1",
    "net": "its own links, addresses, routes and ports",
    "ipc": "its own shared memory and message queues",
    "uts": "its own host name",
    "time": "its own monotonic and boot clocks",
    "cgroup": "its own control group as the root of them",
    "user": "its own user ids and capabilities",
}
SHARED = {
    "mnt": "sees the same tree of files",
    "pid": "sees the same processes",
    "net": "has the same links, addresses and ports",
    "ipc": "reaches the same shared memory",
    "uts": "has the same host name, and may change it",
    "time": "has the same clocks",
    "cgroup": "sees control groups under their real paths",
    "user": "a user id means the same user as outside",
}


def show(page: Page, answer: dict[str, Any]) -> None:
    """Each namespace, whose it is, and what that means; then ids and clocks."""
    found = answer["Namespaces"]
    page.heading("NAMESPACES", "what it can see")
    rows = [_row(each) for each in sorted(found["Entries"], key=_order)]
    page.table(("kind", "inode", "whose", "so the container has"), rows)
    owners = {each["Owner"] for each in found["Entries"] if each["Owner"]}
    user = next((each for each in found["Entries"] if each["Kind"] == "user"), None)
    page.gap()
    page.field("user ids", _ids(found["UidMap"], "users"))
    if found["GidMap"] != found["UidMap"]:
        page.field("group ids", _ids(found["GidMap"], "groups"))
    if user and owners:
        whose = "the host's" if user["SharedWithHost"] else "the container's"
        inodes = ", ".join(str(each) for each in sorted(owners))
        same = owners == {user["Inode"]}
        page.field("capabilities", f"count in user namespace {inodes}" + (f", {whose} own" if same else ""))
    page.field("clocks", _clocks(found["ClockOffsets"]))


def _order(namespace: dict[str, Any]) -> int:
    return list(MEANING).index(namespace["Kind"]) if namespace["Kind"] in MEANING else len(MEANING)


def _row(each: dict[str, Any]) -> tuple[str, str, str, str]:
    kind = each["Kind"]
    if each["SharedWithHost"]:
        return kind, str(each["Inode"]), "the host's", SHARED.get(kind, "")
    if each["SharedWith"]:
        names = ", ".join(plain(name, 40) for name in each["SharedWith"][:3])
        more = len(each["SharedWith"]) - 3
        return (
            kind,
            str(each["Inode"]),
            f"shared with {names}" + (f" and {more} more" if more > 0 else ""),
            SHARED[kind],
        )
    return kind, str(each["Inode"]), "its own", MEANING.get(kind, "")


def _ids(ranges: list[dict[str, Any]], what: str) -> str:
    if len(ranges) == 1 and ranges[0]["Inside"] == ranges[0]["Outside"] == 0 and ranges[0]["Count"] > 4_000_000_000:
        return f"the same {what} inside and outside: an id in here is that id on the host"
    shown = [
        f"{each['Inside']} to {each['Inside'] + each['Count'] - 1} are {each['Outside']} and on" for each in ranges
    ]
    return "; ".join(shown) or "no map: every id is the overflow id"


def _clocks(offsets: list[dict[str, Any]]) -> str:
    moved = [f"{each['Clock']} is {each['Nanoseconds'] / 1e9:+g} s from the machine's" for each in offsets]
    if not offsets:
        return "this kernel has no time namespaces"
    return (
        "; ".join(moved) if any(each["Nanoseconds"] for each in offsets) else "tell the machine's time, without offset"
    )
