"""Command line flags as docker's users write them: -it, -e A=1, --env=A=1, --rm=false, and none after the image.

argparse would cost 8 ms at every start, and cannot stop at the first word that is not a flag, which `run IMAGE
COMMAND --with-flags` needs.
"""

from __future__ import annotations

from wherry.cli.failures import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing, collections.abc and dataclasses would add a third to the time that a command takes
    from collections.abc import Sequence
    from typing import Any


class Flag:
    """One flag. names: "-e --env". kind: "bool", "text", "list" or "int"; default by kind unless given."""

    __slots__ = ("default", "help", "kind", "names")

    def __init__(self, names: str, help: str, kind: str = "bool", default: Any = None) -> None:
        self.names = names
        self.help = help
        self.kind = kind
        self.default = default

    @property
    def key(self) -> str:
        """The long name, by which commands ask for the value."""
        return self.names.split()[-1].lstrip("-")

    def start(self) -> Any:
        """The value when the flag is not given."""
        if self.default is not None:
            return self.default
        return {"bool": False, "text": "", "list": [], "int": None}[self.kind]


class Command:
    """One command. words: its positional part in the usage line. target: MODULE:FUNCTION that does it.

    count: how many words at least and at most, -1 = any number. interspersed: flags may follow words; not for run,
    create and exec, whose tail belongs to the container.
    """

    __slots__ = ("count", "flags", "help", "interspersed", "name", "target", "words")

    def __init__(
        self,
        name: str,
        words: str,
        help: str,
        target: str,
        flags: tuple[Flag, ...] = (),
        count: tuple[int, int] = (0, 0),
    ) -> None:
        self.name = name
        self.words = words
        self.help = help
        self.target = target
        self.flags = flags
        self.count = count
        self.interspersed = True

    def ends_at_first_word(self) -> Command:
        """This command, with its flags only before the first word."""
        self.interspersed = False
        return self


class Parsed:
    """The flags' values by long name, the words that are left, and which flags were given."""

    __slots__ = ("given", "values", "words")

    def __init__(self, values: dict[str, Any], words: list[str]) -> None:
        self.values = values
        self.words = words
        self.given: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        return self.values[key]


_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")


def _convert(flag: Flag, name: str, text: str) -> Any:
    if flag.kind == "bool":
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        raise UsageError(_invalid(flag, text, f'strconv.ParseBool: parsing "{text}": invalid syntax'))
    if flag.kind == "int":
        try:
            return int(text, 10)
        except ValueError:
            raise UsageError(_invalid(flag, text, f'strconv.ParseInt: parsing "{text}": invalid syntax')) from None
    return text


def _invalid(flag: Flag, text: str, reason: str) -> str:
    names = ", ".join(flag.names.split())
    return f'invalid argument "{text}" for "{names}" flag: {reason}'


class _Parser:
    def __init__(self, flags: Sequence[Flag]) -> None:
        self.by_name = {name: flag for flag in flags for name in flag.names.split()}
        self.parsed = Parsed({flag.key: flag.start() for flag in flags}, [])

    def store(self, flag: Flag, name: str, text: str) -> None:
        value = _convert(flag, name, text)
        first = flag.key not in self.parsed.given
        self.parsed.given.add(flag.key)
        if flag.kind != "list":
            self.parsed.values[flag.key] = value
        elif first:
            self.parsed.values[flag.key] = [value]
        else:
            self.parsed.values[flag.key].append(value)

    def long(self, argument: str, rest: list[str]) -> None:
        name, equals, text = argument.partition("=")
        flag = self.by_name.get(name)
        if flag is None:
            raise UsageError(f"unknown flag: {name}")
        if not equals and flag.kind == "bool":
            text = "true"
        elif not equals:
            if not rest:
                raise UsageError(f"flag needs an argument: {name}")
            text = rest.pop(0)
        self.store(flag, name, text)

    def short(self, argument: str, rest: list[str]) -> None:
        letters = argument[1:]
        while letters:
            name, letters = f"-{letters[0]}", letters[1:]
            flag = self.by_name.get(name)
            if flag is None:
                raise UsageError(f"unknown shorthand flag: '{name[1]}' in {argument}")
            if flag.kind == "bool" and not letters.startswith("="):
                self.store(flag, name, "true")
                continue
            if not letters and not rest:
                raise UsageError(f"flag needs an argument: '{name[1]}' in {argument}")
            self.store(flag, name, letters.removeprefix("=") if letters else rest.pop(0))
            return


def parse(flags: Sequence[Flag], argv: Sequence[str], *, interspersed: bool = True) -> Parsed:
    """Split a command line into flags and words; raises UsageError in the words that docker's users know."""
    parser = _Parser(flags)
    rest = list(argv)
    while rest:
        argument = rest.pop(0)
        if argument == "--":
            parser.parsed.words += rest
            break
        if argument.startswith("--"):
            parser.long(argument, rest)
        elif argument.startswith("-") and argument != "-":
            parser.short(argument, rest)
        else:
            parser.parsed.words.append(argument)
            if not interspersed:
                parser.parsed.words += rest
                break
    return parser.parsed


def _plural(number: int) -> str:
    return f"{number} argument" + ("" if number == 1 else "s")


def check_count(command: Command, words: Sequence[str]) -> None:
    """Refuse too few or too many words, as docker does, with status 1."""
    count, (least, most) = len(words), command.count
    if count >= least and (most < 0 or count <= most):
        return
    name = f"'wherry {command.name}'"
    if most == least:
        wanted = f"requires {_plural(least)}" if least else "accepts no arguments"
    elif count < least:
        wanted = f"requires at least {_plural(least)}"
    else:
        wanted = f"requires at most {_plural(most)}"
    raise UsageError(f"{name} {wanted}", 1)


def usage(command: Command) -> str:
    """The usage line."""
    options = "[OPTIONS]" if command.flags else ""
    return "  ".join(["Usage:", " ".join(filter(None, ["wherry", command.name, options, command.words]))])


def help_text(command: Command) -> str:
    """What --help prints."""
    lines = [usage(command), "", command.help]
    if command.flags:
        lines += ["", "Options:"]
    for flag in sorted(command.flags, key=lambda flag: flag.key):
        names = flag.names.split()
        left = ", ".join(names) if len(names) > 1 or len(names[0]) == 2 else f"    {names[0]}"
        left += {"text": " string", "list": " list", "int": " int"}.get(flag.kind, "")
        lines.append(f"  {left:<32} {flag.help}")
    return "\n".join(lines)
