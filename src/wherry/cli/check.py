"""system check: what the engine keeps, compared with what it should keep."""

from __future__ import annotations

from wherry.cli import engine
from wherry.cli.flags import Command, Flag, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CHECK = Command(
    "system check",
    "",
    "Look for unaccounted, missing or damaged content",
    "check:check",
    (
        Flag("--deep", "Read every blob and compute its digest"),
        Flag("--format", "Format output: 'json', or a Go template", "text"),
        Flag("--repair", "Mend what can be mended without losing data"),
    ),
    (0, 0),
)
_PATH = "/wherry/v1/system/check"
_PARTS = ("blobs", "layers", "containers", "volumes", "database", "work", "other")


def check(host: str, flags: Parsed) -> int:
    """Print what is wrong and where the bytes are; 1 when something is wrong still."""
    client, query = engine.client(host), {"deep": flags["deep"] or None}
    found: dict[str, Any] = client.post(_PATH, query) if flags["repair"] else client.get(_PATH, query)
    findings = found["Findings"]
    if flags["format"]:
        from wherry.cli.templates import Template

        print(Template("{{json .}}" if flags["format"] == "json" else flags["format"]).render(found))
    else:
        _print(findings, found["Bytes"])
    return 0 if all(finding["Mended"] for finding in findings) else 1


def _print(findings: list[dict[str, Any]], places: dict[str, int]) -> None:
    from wherry.cli.tables import size

    for finding in findings:
        takes = f" ({size(finding['Bytes'])})" if finding["Bytes"] else ""
        print(f"{finding['Kind']}: {finding['Subject']}{takes}\n  {finding['Problem']}\n  {_outlook(finding)}")
    if findings:
        mended = sum(finding["Mended"] for finding in findings)
        able = sum(finding["Mendable"] for finding in findings) - mended
        tail = f"; {able} can be mended with --repair" if able else ""
        print(f"\n{len(findings)} found, {mended} mended{tail}\n")
    shown = ", ".join(f"{part} {size(places[part])}" for part in _PARTS if places.get(part))
    print(f"{'' if findings else 'everything is accounted for: '}{size(places['total'])} in all ({shown})")


def _outlook(finding: dict[str, Any]) -> str:
    if finding["Mended"]:
        return f"mended: {finding['Remedy']}"
    return f"--repair: {finding['Remedy']}" if finding["Mendable"] else f"what to do: {finding['Remedy']}"
