"""The page of what the first process may do."""

from __future__ import annotations

from wherry.cli.xray.page import Page, count, plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SETS = ("Bounding", "Permitted", "Effective", "Inheritable", "Ambient")
STRONG = frozenset(
    {"CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_DAC_READ_SEARCH", "CAP_NET_ADMIN"}
    | {"CAP_BPF", "CAP_SYS_BOOT", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_PERFMON"}
)
"""With which a container has got out, or reaches what is outside."""
COLUMN = 15


def show(page: Page, answer: dict[str, Any]) -> None:
    """Who it is, its capabilities, its system calls, its limits."""
    found = answer["Security"]
    page.heading("SECURITY", "what it can do")
    uids, gids = found["Uids"], found["Gids"]
    page.field("user", _ids(uids) + (" (root)" if uids[1] == 0 else "") + f", group {_ids(gids)}", column=COLUMN)
    if found["Groups"]:
        page.field("further groups", " ".join(map(str, found["Groups"])), column=COLUMN)
    _capabilities(page, found["Capabilities"])
    _seccomp(page, found["Seccomp"])
    nnp = "set-user-ID programs and file capabilities add no rights" if found["NoNewPrivileges"] else (
        "not set: a set-user-ID program gains rights"
    )  # fmt: skip
    page.field("no_new_privs", nnp, column=COLUMN)
    page.field("label", plain(found["Label"]) or "none: no security module of the kernel labels it", column=COLUMN)
    adjust = found["OomScoreAdjust"]
    page.field(
        "out of memory", f"score {found['OomScore']}, adjusted by {adjust}: the highest score dies first", column=COLUMN
    )
    page.gap()
    limits = [each for each in found["ResourceLimits"] if each["Soft"] != "unlimited" or each["Hard"] != "unlimited"]
    shown = [f"{each['Name']} {_amount(each)}" for each in limits]
    page.field("limits", "; ".join(shown) or "none", column=COLUMN)


def _amount(limit: dict[str, Any]) -> str:
    soft, hard = limit["Soft"], limit["Hard"]
    return soft if soft == hard else f"{soft} (up to {hard})"


def _ids(ids: list[int]) -> str:
    real, effective = ids[0], ids[1]
    return str(effective) if real == effective else f"{effective} (started by {real})"


def short(name: str) -> str:
    """CAP_SYS_ADMIN as sys_admin."""
    return name.removeprefix("CAP_").lower()


def _capabilities(page: Page, found: dict[str, Any]) -> None:
    page.gap()
    groups: dict[tuple[str, ...], list[str]] = {}
    for name in SETS:
        groups.setdefault(tuple(found[name]), []).append(name.lower())
    first = True
    for names, sets in groups.items():
        page.field(
            "capabilities" if first else "", ", ".join(sets) + ": " + _names(names, found["Known"]), column=COLUMN
        )
        first = False
    strong = sorted(short(each) for each in set(found["Effective"]) & STRONG)
    if strong:
        page.field("", "reaching beyond the container: " + " ".join(strong), column=COLUMN, style="yellow")
    page.gap()


def _names(names: tuple[str, ...], known: int) -> str:
    if not names:
        return "none"
    if len(names) == known:
        return f"all {known}"
    return f"{len(names)} of {known}: " + " ".join(short(each) for each in names)


def _seccomp(page: Page, found: dict[str, Any]) -> None:
    if found["Mode"] == "disabled":
        page.field("seccomp", "off: every system call of the kernel may be tried", column=COLUMN, style="yellow")
        page.gap()
        return
    own = f", {count(found['Filters'] - 1, 'of them its own', 'of them its own')}" if found["Filters"] > 1 else ""
    page.field(
        "seccomp",
        f"{count(found['Filters'], 'filter')}{own}: {found['Allowed']} system calls pass, "
        f"{len(found['Blocked'])} are refused, of {len(found['Conditional'])} the arguments decide",
        column=COLUMN,
    )
    if found["Blocked"]:
        page.field("refused", " ".join(found["Blocked"]), column=COLUMN)
    if found["Conditional"]:
        page.field("it depends", " ".join(found["Conditional"]), column=COLUMN)
    page.gap()
