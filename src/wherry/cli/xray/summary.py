"""The first page: what the container is, in a few lines."""

from __future__ import annotations

from wherry.cli.xray import limits
from wherry.cli.xray.differences import sentence
from wherry.cli.xray.page import Page, count, plain
from wherry.cli.xray.remains import ending

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

WHAT = (
    "The kernel knows no containers. It knows processes, what they see (namespaces, mounts), "
    "what they may use (a control group) and what they may do (capabilities, system calls)."
)
COLUMN = 16


def show(page: Page, answer: dict[str, Any]) -> None:
    """One line for each side of it."""
    page.heading(
        plain(answer["Name"], 60), f"{plain(answer['Image'], 60)}, {answer['Status']}", f"Linux {answer['Kernel']}"
    )
    page.prose(WHAT)
    page.gap()
    if answer["Remains"]:
        page.field(
            "is over" if answer["Remains"]["StartedAt"][:4] > "0001" else "is new",
            ending(answer["Remains"]),
            column=COLUMN,
        )
    if answer["Processes"]:
        page.field("runs", _runs(answer["Processes"]), column=COLUMN)
    if answer["Namespaces"]:
        page.field("sees", _sees(answer["Namespaces"]), column=COLUMN)
    if answer["ControlGroup"]:
        page.field("may use", limits.in_words(answer), column=COLUMN)
        if answer["ControlGroup"]["Frozen"]:
            page.field("is frozen", "none of its processes gets to run until unpause", column=COLUMN, style="yellow")
    if answer["Security"]:
        page.field("may do", _may_do(answer["Security"]), column=COLUMN)
    if answer["Network"]:
        page.field("is reached at", _reached(answer["Network"]), column=COLUMN)
    if answer["Start"]:
        page.field("took to start", f"{answer['Start']['Lasted'] / 1e6:.1f} ms", column=COLUMN)
    if answer["Pid"]:
        _differences(page, answer["Differences"])
    for note in answer["Notes"]:
        page.field("note", plain(note), column=COLUMN, style="yellow")


def _runs(processes: dict[str, Any]) -> str:
    first = next((each for each in processes["Entries"] if each["Role"] in ("first", "init")), None)
    total = count(processes["Count"], "process", "processes")
    if first is None:
        return total
    words = " ".join(plain(word, 60) for word in first["Arguments"][:8]) or plain(first["Name"])
    return f"{total}; the first is {first['Pid']} outside and {first['Inside']} inside: {plain(words, 120)}"


def _sees(namespaces: dict[str, Any]) -> str:
    entries = namespaces["Entries"]
    kinds = {
        "its own": [each["Kind"] for each in entries if not each["SharedWithHost"] and not each["SharedWith"]],
        "shared with another container": [each["Kind"] for each in entries if each["SharedWith"]],
        "the host's": [each["Kind"] for each in entries if each["SharedWithHost"]],
    }
    return "; ".join(f"{whose}: {' '.join(names)}" for whose, names in kinds.items() if names)


def _may_do(security: dict[str, Any]) -> str:
    capabilities, seccomp = security["Capabilities"], security["Seccomp"]
    rights = f"{len(capabilities['Effective'])} of {capabilities['Known']} capabilities"
    if seccomp["Mode"] == "disabled":
        return f"{rights}; no seccomp filter: any system call"
    return f"{rights}; {len(seccomp['Blocked'])} system calls are refused"


def _reached(network: dict[str, Any]) -> str:
    if network["Mode"] == "host":
        return "every address of the host: it shares the host's network"
    places = []
    for link in network["Links"]:
        if link["Kind"] == "loopback" or not link["Addresses"]:
            continue
        way = f" over {link['Peer']} and bridge {link['Bridge']}" if link["Bridge"] else ""
        places.append(f"{', '.join(each.partition('/')[0] for each in link['Addresses'])}{way}")
    return "; ".join(places) or "no address: it has only a loopback"


def _differences(page: Page, differences: list[dict[str, Any]]) -> None:
    if not differences:
        page.field("as asked for", "yes: what the kernel has is what was asked for", column=COLUMN, style="green")
        return
    for number, each in enumerate(differences[:5]):
        label = "" if number else "as asked for"
        text = f"{plain(each['What'], 60)}: {sentence(each)}"
        page.field(label, text, column=COLUMN, style="yellow")
    if len(differences) > 5:
        page.field("", f"and {len(differences) - 5} more differences", column=COLUMN, style="yellow")
