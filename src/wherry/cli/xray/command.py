"""xray: what of a container is in the kernel, as pages to be read aloud, or as JSON."""

from __future__ import annotations

import os
import sys

from wherry.cli import engine
from wherry.cli.failures import UsageError
from wherry.cli.flags import Command, Flag, Parsed
from wherry.cli.http import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Section -> the key of the answer, and the module of this package that shows it.
SECTIONS = {
    "summary": ("", "summary"),
    "namespaces": ("Namespaces", "namespaces"),
    "cgroup": ("ControlGroup", "limits"),
    "mounts": ("Mounts", "files"),
    "devices": ("Devices", "devices"),
    "security": ("Security", "rights"),
    "network": ("Network", "network"),
    "processes": ("Processes", "processes"),
    "start": ("Start", "start"),
    "remains": ("Remains", "remains"),
    "differences": ("Differences", "differences"),
}

XRAY = Command(
    "xray",
    "CONTAINER [CONTAINER...]",
    "Show what of a container is in the kernel",
    "xray.command:xray",
    (
        Flag("-f --format", "Format output using a Go template or 'json'", "text"),
        Flag("--json", "Print the answer as indented JSON"),
        Flag("-s --section", f"Show only these sections ({', '.join(SECTIONS)})", "list"),
    ),
    (1, -1),
)


def chosen(asked: list[str]) -> list[str]:
    """The sections to show, in their order: all, or those asked for, one by one or with commas between."""
    names = [name.strip() for each in asked for name in each.split(",") if name.strip()]
    for name in names:
        if name not in SECTIONS:
            raise UsageError(f"no section is called '{name}': choose of {', '.join(SECTIONS)}", 1)
    return [name for name in SECTIONS if name in names] if names else list(SECTIONS)


def xray(host: str, flags: Parsed) -> int:
    """Ask for each container and show it."""
    names = chosen(flags["section"])
    client = engine.client(host)
    for number, ref in enumerate(flags.words):
        answer = client.get(f"/wherry/v1/containers/{quote(ref)}/xray")
        if flags["json"] or flags["format"]:
            print_data(_selected(answer, names) if flags["section"] else answer, flags["format"])
        else:
            print(("\n" if number else "") + text(answer, names, width(), colour=colours()))
    return 0


def _selected(answer: dict[str, Any], names: list[str]) -> dict[str, Any]:
    return {key: answer[key] for name in names for key in SECTIONS[name][:1] if key}


def print_data(value: Any, shape: str) -> None:
    """Print an answer as a template says, or as indented JSON."""
    if shape:
        from wherry.cli.templates import Template

        print(Template("{{json .}}" if shape == "json" else shape).render(value))
        return
    import json

    print(json.dumps(value, indent=2))


def width() -> int:
    """Columns to fill: those of the terminal between 72 and 120, or COLUMNS, or 80."""
    try:
        found = int(os.environ.get("COLUMNS", "")) if "COLUMNS" in os.environ else os.get_terminal_size(1).columns
    except (OSError, ValueError):
        found = 80
    return max(72, min(found, 120))


def colours() -> bool:
    """Whether stdout is a terminal that wants them."""
    return os.isatty(1) and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def text(answer: dict[str, Any], names: list[str], width: int, *, colour: bool = False) -> str:
    """The pages of a container, one after the other."""
    from wherry.cli.xray.page import Page

    pages = []
    for name in names:
        key, module = SECTIONS[name]
        if key and not answer.get(key):
            continue
        page = Page(width, colour=colour)
        show = sys.modules.get(f"wherry.cli.xray.{module}") or __import__(
            f"wherry.cli.xray.{module}", fromlist=["show"]
        )
        show.show(page, answer)
        pages.append(page.text())
    return "\n\n".join(pages)
