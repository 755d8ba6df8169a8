"""The page of the start: what it took, phase by phase, on one scale of time."""

from __future__ import annotations

from wherry.cli.xray.page import Page

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NAMES = {
    "resolve": "find it and take its turn",
    "prepare": "run directory, bind sources",
    "sandbox": "network: namespace, link",
    "files": "hosts, hostname, resolv.conf",
    "spec": "what is to be made",
    "snapshot": "which layers to mount",
    "hand-over": "zygote wakes a supervisor",
    "supervisor": "supervisor: streams, log",
    "fork": "fork the child",
    "stem": "wake the child that waited",
    "cgroup": "control group",
    "namespaces": "namespaces",
    "rootfs": "root, mounts, devices",
    "process": "limits, user, rights, seccomp",
    "exec": "execve, until it is known",
}
BELONGS = {"user": "process"}
LABEL = 30
NUMBER = 9


def rows(phases: list[dict[str, Any]]) -> list[tuple[str, int, list[tuple[int, int]]]]:
    """Name, time in all, and when: one row for a phase that was come back to. The search for the program is no exec."""
    last = len(phases) - 1
    found: dict[str, list[tuple[int, int]]] = {}
    for number, each in enumerate(phases):
        name = BELONGS.get(each["Name"], each["Name"])
        if name == "exec" and number != last:
            name = "process"
        found.setdefault(name, []).append((each["Began"], each["Began"] + each["Lasted"]))
    order = {name: number for number, name in enumerate(NAMES)}
    listed = [(name, sum(end - begin for begin, end in spans), spans) for name, spans in found.items()]
    return sorted(listed, key=lambda row: (row[2][0][0], order.get(row[0], 99)))


def show(page: Page, answer: dict[str, Any]) -> None:
    """A bar for each phase, placed where it was in time."""
    found = answer["Start"]
    total = max(1, found["Lasted"])
    page.heading("START", "how it came to be", f"{total / 1e6:.1f} ms from the request to the program")
    room = page.width - 2 - LABEL - NUMBER - 4
    for name, lasted, spans in rows(found["Phases"]):
        label = NAMES.get(name, name).ljust(LABEL)
        page.line(f"{page.paint(label, 'dim')}{_shown(lasted)}  {page.paint(strip(spans, total, room), 'cyan')}")
    page.gap()
    page.line(f"{'':<{LABEL}}{'':>{NUMBER}}  {'0 ms':<{room // 2}}{f'{total / 1e6:.1f} ms':>{room - room // 2}}")


def _shown(nanoseconds: int) -> str:
    return f"{nanoseconds / 1e6:.2f} ms".rjust(NUMBER)


def strip(spans: list[tuple[int, int]], total: int, room: int) -> str:
    """One line of the chart: every span is seen, if only as a thin stroke."""
    cells = [" "] * room
    for begin, end in spans:
        first, last = begin * room // total, end * room // total
        if last <= first:
            at = min(first, room - 1)
            cells[at] = "▏" if cells[at] == " " else cells[at]
        for at in range(first, min(last, room)):
            cells[at] = "█"
    return "".join(cells).rstrip()
