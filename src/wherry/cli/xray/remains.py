"""The page of a container that does not run: how it ended, what is left."""

from __future__ import annotations

from wherry.cli.xray.page import Page, plain, shorten, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NEVER = "0001-01-01T00:00:00Z"
COLUMN = 14


def show(page: Page, answer: dict[str, Any]) -> None:
    """The end first; then layers, log and files; last what should not be there any more."""
    found = answer["Remains"]
    page.heading("REMAINS", "what is left of it", plain(answer["Status"]))
    page.prose(ending(found))
    if found["Error"]:
        page.field("error", plain(found["Error"]), column=COLUMN, style="red")
    page.gap()
    room = page.width - 2 - COLUMN
    if found["Upper"]:
        written = f"{size(found['Size'])} of its own, in" if found["Size"] >= 0 else "its own files, in"
        page.field("written", written, column=COLUMN)
        page.line(shorten(plain(found["Upper"], 4096), room), 2 + COLUMN)
    for layer in found["Layers"]:
        name = layer["Name"].partition(":")[0] or "a layer"
        page.field("above", f"{name}  {layer['Digest'][:19]}", column=COLUMN)
    log = f"{size(found['LogSize'])} in {shorten(plain(found['Log'], 4096), room - 14)}" if found["Log"] else "none"
    page.field("log", log, column=COLUMN)
    page.field("files", " ".join(each.rpartition("/")[2] for each in found["Files"]) or "none", column=COLUMN)
    page.gap()
    if found["LeftBehind"]:
        page.field("left behind", " ".join(found["LeftBehind"]), column=COLUMN, style="yellow")
    else:
        page.prose("Of the kernel's things nothing is left: no process, no control group; namespaces, mounts and links "
                   "went with the last process.")  # fmt: skip


def ending(found: dict[str, Any]) -> str:
    """How it ended, in a sentence."""
    if found["FinishedAt"] == NEVER:
        return "It never ran." if found["StartedAt"] == NEVER else "It has not ended."
    code, lasted = found["ExitCode"], found["Lasted"]
    if found["OomKilled"]:
        how = f"the kernel killed it for want of memory (exit code {code})"
    elif found["Signal"]:
        how = f"ended by signal {found['Signal']} (exit code {code})"
    elif code == 255:
        how = "ended while nobody looked, its exit code is not known (255)"
    else:
        how = f"ended by itself with exit code {code}" + (", which means success" if code == 0 else "")
    time = found["FinishedAt"].partition(".")[0].replace("T", " ").rstrip("Z")
    span = f"{lasted:,} s" if lasted else "less than a second"
    return f"It ran for {span} and {how}, at {time} UTC."
