"""The page of the devices."""

from __future__ import annotations

from wherry.cli.xray.page import Page

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

KINDS = {"a": "device", "b": "block device", "c": "character device"}
LETTERS = {"r": "read", "w": "write", "m": "make"}


def show(page: Page, answer: dict[str, Any]) -> None:
    """The rules of version 1 in words, and the programs of version 2."""
    found = answer["Devices"]
    how = "a list in the kernel" if found["Version"] == 1 else "a program in the kernel decides"
    page.heading("DEVICES", "what of the hardware it can open", how)
    rules = found["Rules"]
    if any(each["Type"] == "a" for each in rules):
        page.prose(
            "Every device of the machine may be read, written and made: this container is privileged.", 2, "yellow"
        )
        return
    whole = [each for each in rules if each["Major"] < 0]
    named = [each for each in rules if each["Major"] >= 0]
    rows = [(_name(each), _numbers(each), _access(each["Access"])) for each in sorted(named, key=_order)]
    if rows:
        page.table(("device", "numbers", "may be"), rows)
        page.gap()
    for each in whole:
        page.line(
            f"any {KINDS[each['Type']]}: {_access(each['Access'])}"
            + (" (the node, not open it)" if each["Access"] == "m" else "")
        )
    for each in found["Programs"]:
        page.line(f"BPF program {each['Id']}, {each['Instructions']} instructions, tag {each['Tag']}")
    if found["Version"] == 1 and not rules:
        page.prose("No device at all.")
    if found["Version"] == 2 and not found["Programs"]:
        page.prose("No program: every device may be used.", 2, "yellow")


def _order(rule: dict[str, Any]) -> tuple[bool, int, int]:
    return not rule["Name"], rule["Major"], rule["Minor"]


def _name(rule: dict[str, Any]) -> str:
    return f"/dev/{rule['Name']}" + ("/*" if rule["Minor"] < 0 else "") if rule["Name"] else KINDS[rule["Type"]]


def _numbers(rule: dict[str, Any]) -> str:
    minor = "*" if rule["Minor"] < 0 else rule["Minor"]
    return f"{rule['Type']} {rule['Major']}:{minor}"


def _access(letters: str) -> str:
    return ", ".join(LETTERS[letter] for letter in letters if letter in LETTERS)
