"""The page of what the kernel has otherwise than it was asked for."""

from __future__ import annotations

from wherry.cli.xray.page import Page, count, plain, shorten, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def show(page: Page, answer: dict[str, Any]) -> None:
    """Each with both sides, and where it can be looked up."""
    found = answer["Differences"]
    page.heading("DIFFERENCES", "where the kernel has something else", count(len(found), "difference"))
    for each in found:
        what = plain(each["What"], 40)
        page.field(what, sentence(each), column=max(18, len(what) + 2), style="yellow")
        if each["Where"]:
            page.line(page.paint(shorten(plain(each["Where"], 4096), page.width - 4), "dim"), 4)


def sentence(difference: dict[str, Any]) -> str:
    """Both sides of one."""
    asked, found = (_amount(difference[side], difference["Where"]) for side in ("Asked", "Found"))
    return f"asked for {asked}, the kernel has {found}"


def _amount(text: str, where: str) -> str:
    """Bytes in words; the files of the memory controllers hold bytes."""
    if text.isdigit() and where.rpartition("/")[2].startswith(("memory.", "hugetlb.")):
        return "no limit" if int(text) > 1 << 60 else size(int(text))
    return plain(text, 200)
