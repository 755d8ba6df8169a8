"""Search with a regular expression in time that is linear in the text, as Go's library promises.

Python's own matcher goes back and tries again, which takes `(a+)+b` centuries for a text of sixty letters: in the
engine, which has one thread for all requests, that is an outage. Here all ways are gone at once (Thompson 1968).

A program is a tuple of steps, numbered by place:

    ("char", N, TEST)   goes on at N after a character that TEST, an expression for one, fits
    ("fork", N, M)      goes on at both
    ("at", N, PLACE)    goes on at N when it stands at "^", "\\Z", "\\b" or "\\B"
    ("found",)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

Step = tuple[Any, ...]
MOST: Final = 5000
"""Steps of a program: more than the thousand repeats that Go allows need."""
_REMEMBERED: Final = 4000
_FOUND: Final = -1
_PLACES: Final = frozenset(("^", r"\A", r"\Z", r"\b", r"\B"))
_REPEAT: Final = re.compile(r"(?:\{(\d+)(,?)(\d*)\}|([*+?]))\??")


class TooLarge(Exception):
    """The program of an expression would have more than `MOST` steps."""


class Automaton:
    """An expression ready to search with."""

    def __init__(self, steps: tuple[Step, ...], start: int) -> None:
        self._steps = steps
        self._start = start
        self._moves: dict[tuple[frozenset[int], str, str], frozenset[int]] = {}

    def search(self, text: str) -> bool:
        """Whether a part of the text fits."""
        before = ""
        current: frozenset[int] = frozenset()
        for after in (*text, ""):
            key = current, before, after
            moved = self._moves.get(key)
            if moved is None:
                if len(self._moves) >= _REMEMBERED:
                    self._moves.clear()
                moved = self._moves[key] = self._move(*key)
            if _FOUND in moved:
                return True
            current, before = moved, after
        return False

    def _move(self, current: frozenset[int], before: str, after: str) -> frozenset[int]:
        """Follow all ways from between two characters, "" for an end of the text, over the second of them."""
        waiting = [*current, self._start]
        seen = set(waiting)
        reached: set[int] = set()
        while waiting:
            kind, *rest = self._steps[waiting.pop()]
            following: list[int] = []
            if kind == "found":
                return frozenset((_FOUND,))
            if kind == "fork":
                following = rest
            elif kind == "at":
                following = rest[:1] if _stands(rest[1], before, after) else []
            elif after and rest[1].fullmatch(after):
                reached.add(rest[0])
            waiting += [each for each in following if each not in seen]
            seen.update(following)
        return frozenset(reached)


def _stands(place: str, before: str, after: str) -> bool:
    if place in ("^", r"\A"):
        return not before
    if place == r"\Z":
        return not after
    border = _is_word(before) != _is_word(after)
    return border == (place == r"\b")


def _is_word(character: str) -> bool:
    return character == "_" or (character.isascii() and character.isalnum())


# From an expression's parts to a program


@dataclass(frozen=True, slots=True)
class _Node:
    """kind: "char" or "at" with `what`, "all" or "one" of `inside`, "repeat" of inside[0]. most: None for no limit."""

    kind: str
    inside: tuple[_Node, ...] = ()
    what: Any = None
    least: int = 0
    most: int | None = 0


def build(parts: list[str]) -> Automaton:
    """Return what searches for an expression, given in parts: characters, classes, places, repeats, "(", "|", ")".

    The parts are in Python's syntax, and together an expression that it takes. Raises TooLarge.
    """
    reader = _Reader(parts)
    writer = _Writer()
    start = writer.write(reader.alternatives(""), writer.add(("found",)))
    return Automaton(tuple(writer.steps), start)


class _Reader:
    def __init__(self, parts: list[str]) -> None:
        self._parts = parts
        self._next = 0

    def _peek(self) -> str:
        return self._parts[self._next] if self._next < len(self._parts) else ""

    def _take(self) -> str:
        self._next += 1
        return self._parts[self._next - 1]

    def alternatives(self, flags: str) -> _Node:
        """Read up to the end of a group. flags: of Python's that hold in it, e.g. "i"."""
        if self._peek().startswith("(?") and self._peek().endswith(")"):  # (?i), which is first in the expression
            flags += self._take()[2:-1]
        choices = [self._sequence(flags)]
        while self._peek() == "|":
            self._take()
            choices.append(self._sequence(flags))
        return _Node("one", tuple(choices))

    def _sequence(self, flags: str) -> _Node:
        nodes: list[_Node] = []
        while self._peek() not in ("", "|", ")"):
            part = self._take()
            if part in _PLACES:
                nodes.append(_Node("at", what=part))
            elif part.startswith("("):
                more = part[2:-1] if part.startswith("(?") and part.endswith(":") else ""
                nodes.append(self.alternatives(flags + more))
                self._take()
            elif nodes and (repeat := _REPEAT.fullmatch(part)):
                nodes[-1] = _repeated(nodes[-1], repeat)
            else:
                test = f"(?{flags}:{part})" if flags else part
                nodes.append(_Node("char", what=re.compile(test, re.ASCII)))
        return _Node("all", tuple(nodes))


def _repeated(node: _Node, repeat: re.Match[str]) -> _Node:
    if repeat[4]:
        least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}[repeat[4]]
    else:
        least = int(repeat[1])
        most = int(repeat[3]) if repeat[3] else None if repeat[2] else least
    return _Node("repeat", (node,), least=least, most=most)


class _Writer:
    """Writes a program from its end on: each node is told where to go on after it."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def add(self, step: Step) -> int:
        """Return the place of a new step."""
        if len(self.steps) >= MOST:
            raise TooLarge
        self.steps.append(step)
        return len(self.steps) - 1

    def write(self, node: _Node, after: int) -> int:
        """Return where the node begins that goes on at `after`."""
        if node.kind in ("char", "at"):
            return self.add((node.kind, after, node.what))
        if node.kind == "repeat":
            return self._write_repeat(node, after)
        if node.kind == "all":
            for inside in reversed(node.inside):
                after = self.write(inside, after)
            return after
        first = self.write(node.inside[-1], after)
        for inside in reversed(node.inside[:-1]):
            first = self.add(("fork", self.write(inside, after), first))
        return first

    def _write_repeat(self, node: _Node, after: int) -> int:
        inside = node.inside[0]
        if node.most is None:
            loop = self.add(("fork", after, after))  # its second way is known once the inside is written
            self.steps[loop] = ("fork", after, self.write(inside, loop))
            following = loop
        else:
            following = after
            for _ in range(node.most - node.least):
                following = self.add(("fork", self.write(inside, following), after))
        for _ in range(node.least):
            following = self.write(inside, following)
        return following
