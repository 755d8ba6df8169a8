"""The page of the processes."""

from __future__ import annotations

from wherry.cli.xray.page import Page, count, cut, plain, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

STATES = {
    "R": "running", "S": "sleeping", "D": "waits for disk", "T": "stopped", "t": "traced", "Z": "zombie",
    "I": "idle", "X": "dead",
}  # fmt: skip
ROLES = {
    "supervisor": "the engine's: parent of the container, writer of its log",
    "spare": "the engine's: waits to become the next exec",
    "starter": "the engine's: waits to start the next exec or health check, outside of the pid namespace",
    "first": "the first process: when it ends, the container ends",
    "init": "the engine's init (--init): reaps, and passes signals on",
    "exec": "brought in by exec",
    "member": "",
}
MOST = 40
DEEPEST = 8


def show(page: Page, answer: dict[str, Any]) -> None:
    """The processes as a tree, with their numbers outside and inside."""
    found = answer["Processes"]
    entries = found["Entries"]
    frozen = " (frozen)" if (answer.get("ControlGroup") or {}).get("Frozen") else ""
    page.heading("PROCESSES", "what runs", count(found["Count"], "process", "processes") + frozen)
    rows = _rows(entries)
    page.table(("outside", "inside", "state", "memory", "cpu", "user", "process"), rows[:MOST])
    shown = [each for each in entries if ROLES.get(each["Role"])]
    page.gap()
    seen: set[str] = set()
    for each in shown:
        if each["Role"] not in seen:
            seen.add(each["Role"])
            same = [str(other["Pid"]) for other in shown if other["Role"] == each["Role"]]
            page.field(", ".join(same[:4]), ROLES[each["Role"]], column=14)
    more = found["LeftOut"] + max(0, len(rows) - MOST)
    if more:
        page.prose(f"{count(more, 'more process', 'more processes')} not shown here.", 2, "yellow")
    _unlike(page, entries)


def _unlike(page: Page, entries: list[dict[str, Any]]) -> None:
    """Those with other rights than the first process: an exec --privileged, or what dropped rights."""
    first = next((each for each in entries if each["Role"] in ("first", "init")), None)
    if first is None:
        return
    mask = int(first["Effective"] or "0", 16)
    members = [each for each in entries if each["Role"] in ("exec", "member")]
    for word, chosen in (
        ("more", [each for each in members if int(each["Effective"] or "0", 16) & ~mask]),
        ("fewer", [each for each in members if mask & ~int(each["Effective"] or "0", 16)]),
    ):
        if chosen:
            pids = ", ".join(str(each["Pid"]) for each in chosen[:6])
            page.field(pids, f"has {word} capabilities than the first process", column=14)


def _rows(entries: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Parents before children; a process whose parent is not listed stands at the left."""
    known = {each["Pid"] for each in entries}
    below: dict[int, list[dict[str, Any]]] = {}
    for each in entries:
        below.setdefault(each["Parent"] if each["Parent"] in known else 0, []).append(each)
    rows: list[tuple[str, ...]] = []
    stack = [(each, 0) for each in reversed(below.get(0, []))]
    while stack:
        each, depth = stack.pop()
        rows.append(_row(each, depth))
        stack += [(child, depth + 1) for child in reversed(below.get(each["Pid"], []))]
    return rows


def _row(each: dict[str, Any], depth: int) -> tuple[str, ...]:
    branch = "  " * (min(depth, DEEPEST) - 1) + "└ " if depth else ""
    own = each["Role"] in ("supervisor", "spare", "starter")
    words = (
        plain(each["Name"])
        if own or not each["Arguments"]
        else " ".join(plain(word, 200) for word in each["Arguments"])
    )
    return (
        str(each["Pid"]),
        str(each["Inside"]) if each["Inside"] and not (own and each["Inside"] != each["Pid"]) else "-",
        STATES.get(each["State"], each["State"]),
        size(each["Memory"]) if each["State"] != "Z" else "",
        _time(each["CpuMs"]),
        str(each["Uid"]),
        branch + cut(words, 300),
    )


def _time(milliseconds: int) -> str:
    return f"{milliseconds} ms" if milliseconds < 10_000 else f"{milliseconds // 1000} s"
