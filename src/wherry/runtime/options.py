"""Read a command line as runc's is read; argparse, and dataclasses too, would take longer to import than that.

A flag is declared in one word: "force,f" is a switch, "bundle,b=" takes a value, "env,e=*" may be repeated. Long
and short names take one dash or two, the value follows as the next word or after "=".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wherry.runtime.faults import Refused


class Flag:
    """One declared flag: its full name, whether it takes a value and whether it may be repeated."""

    __slots__ = ("name", "repeated", "takes_value")

    def __init__(self, name: str, takes_value: bool, repeated: bool) -> None:
        self.name = name
        self.takes_value = takes_value
        self.repeated = repeated


class Options:
    """What was given: flags by their full name, and the words that are none."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.words: list[str] = []

    def text(self, name: str, default: str = "") -> str:
        """Return the value of a flag."""
        value: str = self.values.get(name, default)
        return value

    def given(self, name: str) -> bool:
        """Whether a switch is on."""
        return bool(self.values.get(name))

    def every(self, name: str) -> list[str]:
        """Return all values of a flag that may be repeated."""
        found: list[str] = self.values.get(name, [])
        return found

    def number(self, name: str, default: int = 0) -> int:
        """Return the value of a flag as a whole number."""
        text = self.text(name, str(default))
        try:
            return int(text, 0)
        except ValueError:
            raise Refused(f'invalid value "{text}" for flag -{name}: it must be a whole number') from None


def parse(arguments: Sequence[str], declared: Sequence[str], *, mixed: bool = True) -> Options:
    """Read the arguments. mixed: flags may stand after other words; without it the first such word ends them."""
    flags = _flags(declared)
    options = Options()
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--":
            break
        if len(word) < 2 or not word.startswith("-"):
            options.words.append(word)
            if mixed:
                continue
            break
        _take(word, rest, flags, options)
    options.words += rest
    return options


def _flags(declared: Sequence[str]) -> dict[str, Flag]:
    flags = {}
    for entry in declared:
        names, equals, star = entry.partition("=")
        full = names.partition(",")[0]
        for name in names.split(","):
            flags[name] = Flag(full, bool(equals), bool(star))
    return flags


def _take(word: str, rest: list[str], flags: dict[str, Flag], options: Options) -> None:
    name, equals, value = word.lstrip("-").partition("=")
    flag = flags.get(name)
    if flag is None:
        raise Refused(f"flag provided but not defined: -{name}")
    if not flag.takes_value:
        if equals and value not in ("true", "false"):
            raise Refused(f'invalid boolean value "{value}" for -{name}')
        options.values[flag.name] = value != "false"
        return
    if not equals:
        if not rest:
            raise Refused(f"flag needs an argument: -{name}")
        value = rest.pop(0)
    if flag.repeated:
        options.values.setdefault(flag.name, []).append(value)
    else:
        options.values[flag.name] = value
