"""The machine's own package sources: /etc/apt/sources.list and sources.list.d, both forms (sources.list(5)).

For the machine's own suite they are taken as they are, with security and updates. For another one the first archive
of theirs is asked: the same mirror, keyring and components, and nothing else.
"""

from __future__ import annotations

import os
import re

from wherry.cli.failures import Failure

SUITE = re.compile(r"[a-z][a-z0-9-]{0,40}\Z")
_LINE = re.compile(r"deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s+(.+)\Z")


class Source:
    """One archive: where it is, which suites and components of it, and the options of its entry."""

    def __init__(self, uri: str, suites: list[str], components: list[str], options: dict[str, str]) -> None:
        self.uri = uri
        self.suites = suites
        self.components = components
        self.options = options

    def line(self, suite: str) -> str:
        """The entry for one suite in the form of one line."""
        shown = " ".join(f"{key.lower()}={value}" for key, value in sorted(self.options.items()))
        return f"deb {f'[{shown}] ' if shown else ''}{self.uri} {suite} {' '.join(self.components)}"


def read(root: str = "/etc/apt") -> list[Source]:
    """All entries for packages, in the order in which apt reads them."""
    folder = os.path.join(root, "sources.list.d")
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    found = []
    for path in (os.path.join(root, "sources.list"), *(os.path.join(folder, name) for name in names)):
        if os.path.isfile(path) and path.endswith((".list", ".sources")):
            with open(path, encoding="utf-8", errors="replace") as file:
                text = file.read()
            found += _stanzas(text) if path.endswith(".sources") else _lines(text)
    return found


def _lines(text: str) -> list[Source]:
    found = []
    for line in text.splitlines():
        match = _LINE.match(line.partition("#")[0].strip())
        if match:
            options = dict(each.partition("=")[::2] for each in (match[1] or "").split() if "=" in each)
            found.append(Source(match[2], [match[3]], match[4].split(), _kept(options)))
    return found


def _stanzas(text: str) -> list[Source]:
    found = []
    for stanza in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        key = ""
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if line[:1].isspace():
                fields[key] = f"{fields.get(key, '')} {line.strip()}"
            elif ":" in line:
                key = line.partition(":")[0].strip().lower()
                fields[key] = line.partition(":")[2].strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in ("no", "false"):
            continue
        suites, components = fields.get("suites", "").split(), fields.get("components", "").split()
        found += [Source(uri, suites, components, _kept(fields)) for uri in fields.get("uris", "").split()]
    return found


def _kept(options: dict[str, str]) -> dict[str, str]:
    """A keyring in the machine's files, and what lowers the demands; a key within the entry has no place in a line."""
    lower = {key.lower(): value for key, value in options.items()}
    keyring = lower.get("signed-by", "")
    kept = {"signed-by": keyring} if keyring.startswith("/") and " " not in keyring else {}
    return kept | {key: lower[key] for key in ("trusted", "check-valid-until") if key in lower}


def entries(suite: str, sources: list[Source]) -> list[str]:
    """The lines from which a suite is made. Raises Failure when the machine knows no archive."""
    if not SUITE.match(suite):
        raise Failure(f"{suite!r} is no name of a Debian suite")
    own = [source for source in sources if suite in source.suites]
    if own:
        wanted = {suite, f"{suite}-updates", f"{suite}-security", f"{suite}/updates"}
        keyring = own[0].options.get("signed-by", "")
        same = [source for source in sources if source.options.get("signed-by", "") == keyring]
        return [source.line(each) for source in same for each in source.suites if each in wanted]
    debian = [source for source in sources if "main" in source.components and "security" not in source.uri]
    if not debian:
        raise Failure("no Debian archive in /etc/apt/sources.list or /etc/apt/sources.list.d: name one there")
    return [Source(debian[0].uri, [suite], ["main"], debian[0].options).line(suite)]
