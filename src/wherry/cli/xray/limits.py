"""The page of the control group."""

from __future__ import annotations

from wherry.cli.xray.page import Page, bar, count, plain, shorten, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

BAR = 12
WIDE = 96


def show(page: Page, answer: dict[str, Any]) -> None:
    """Where it is, what limits it there, what has no limit, and how often limits were felt."""
    found = answer["ControlGroup"]
    state = "frozen: nothing in it runs" if found["Frozen"] else ""
    page.heading("CONTROL GROUP", "what it can use", state or f"limits by cgroup version {found['Version']}")
    _paths(page, found["Paths"])
    limits = found["Limits"]
    page.gap()
    if not any(each["Set"] for each in limits):
        page.prose("No limit is set: it may use all that the machine has.")
        page.gap()
    columns = 5 if page.width >= WIDE else 4  # a narrow page has no room for the files' names
    rows = [_row(each)[:columns] for each in limits if each["Set"] or each["Used"] > 0]
    if rows:
        page.table(("what", "limit", "used", "", "file")[:columns], rows)
    page.gap()
    unset = [each["Name"] for each in limits if not each["Set"] and each["Used"] <= 0]
    if unset:
        page.field("as usual", ", ".join(dict.fromkeys(unset)), column=14)
    felt = [f"{each['Name']} {_times(each['Count'])}" for each in found["Events"] if each["Count"]]
    if felt:
        page.field("reached", ", ".join(felt), column=14, style="yellow")
    else:
        page.field("reached", "no limit, so far", column=14)


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number:,} times")


def _paths(page: Page, paths: list[dict[str, Any]]) -> None:
    groups: dict[tuple[int, str], list[str]] = {}
    for each in paths:
        groups.setdefault((each["Version"], each["Path"]), []).append(",".join(each["Controllers"]))
    for (version, path), controllers in groups.items():
        shown = shorten(plain(path, 4096), page.width - 2)
        if version == 2:
            if path == "/":
                names = f" ({' '.join(controllers)})" if any(controllers) else ""
                page.field("version 2", f"in the root group{names}, which limits nothing", column=14)
            else:
                page.field("version 2", f"{shown} ({' '.join(controllers) or 'no controllers'})", column=14)
            continue
        page.line(page.paint(shown, "bold"))
        page.field("in each of", " ".join(controllers), column=14)


def _row(limit: dict[str, Any]) -> tuple[str, str, str, str, str]:
    share = ""
    if limit["Value"] > 0 and limit["Used"] >= 0:
        part = limit["Used"] / limit["Value"]
        share = f"▕{bar(part, BAR)}▏{part * 100:4.0f} %"
    return limit["Name"], _value(limit), _used(limit), share, limit["File"].rpartition("/")[2]


def _used(limit: dict[str, Any]) -> str:
    if limit["Used"] < 0:
        return ""
    return size(limit["Used"]) if limit["Unit"] == "bytes" else f"{limit['Used']:,}"


def _value(limit: dict[str, Any]) -> str:
    unit, value = limit["Unit"], limit["Value"]
    if not limit["Set"]:
        return "none"
    if unit == "bytes" and value >= 0:
        return size(value)
    if unit == "percent" and value >= 0:
        return processors(value)
    if unit == "processes" and value >= 0:
        return f"{value:,}"
    if unit in ("shares", "weight") and value >= 0:
        return f"{value:,} {'shares' if unit == 'shares' else ''}".rstrip()
    return plain(limit["Text"].replace("\n", "; "), 60)


def processors(percent: int) -> str:
    """Percent of one processor in words."""
    if percent == 100:
        return "1 processor"
    return f"{percent / 100:g} processors" if percent > 100 else f"{percent} % of one"


def in_words(answer: dict[str, Any]) -> str:
    """The limits in one sentence, for the summary."""
    limits = {(each["Controller"], each["Name"]): each for each in answer["ControlGroup"]["Limits"] if each["Set"]}
    words = []
    for (_, name), each in limits.items():
        if name == "memory" and each["Value"] >= 0:
            words.append(f"{size(each['Value'])} of memory")
        elif name == "processor time":
            words.append(processors(each["Value"]) + (" processor" if each["Value"] < 100 else ""))
        elif name == "processes and threads":
            words.append(count(each["Value"], "process", "processes"))
    return ", ".join(words) if words else "all that the machine has: no limit is set"
