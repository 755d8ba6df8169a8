"""Patterns for names, as Go's path.Match has them: docker images --filter reference=PATTERN.

    *  any characters but a slash    ?  one of them    [a-c] [^x]  one of a class    \\c  the character c

https://pkg.go.dev/path#Match
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from wherry.errors import InvalidArgument

_BROKEN = "syntax error in pattern"
_LONGEST = 1024


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern, as the pieces between its stars; each piece fits texts of one length."""

    pieces: tuple[tuple[re.Pattern[str], int], ...]

    def fits(self, text: str) -> bool:
        """Return whether a whole text fits: leftmost first for each piece, so that the cost stays small."""
        (first, length), *rest = self.pieces
        if not first.match(text):
            return False
        if not rest:
            return length == len(text)
        at = length
        *middle, (last, last_length) = rest
        for piece, length in middle:
            at = _find(piece, text, at)
            if at < 0:
                return False
            at += length
        end = len(text) - last_length
        return end >= at and "/" not in text[at:end] and bool(last.match(text, end))


def _find(piece: re.Pattern[str], text: str, at: int) -> int:
    """Return the first place from `at` on where a piece fits, with no slash before it; -1 for none."""
    stop = text.find("/", at)
    found = piece.search(text, at)
    return -1 if found is None or 0 <= stop < found.start() else found.start()


def compiled(pattern: str) -> Pattern:
    """Return a pattern, parsed. Raises InvalidArgument, with Go's text, for a broken one."""
    if len(pattern) > _LONGEST:
        raise InvalidArgument(_BROKEN)
    pieces: list[list[str]] = [[]]
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if char == "*":
            pieces.append([])
            at += 1
        elif char == "?":
            pieces[-1].append("[^/]")
            at += 1
        elif char == "[":
            at, text = _class(pattern, at + 1)
            pieces[-1].append(text)
        else:
            at, text = _literal(pattern, at)
            pieces[-1].append(re.escape(text))
    return Pattern(tuple((re.compile("".join(each), re.DOTALL), len(each)) for each in pieces))


def _literal(pattern: str, at: int) -> tuple[int, str]:
    """Return where it goes on, and the character at `at`, which may be escaped."""
    char = pattern[at : at + 1]
    if char == "\\":
        at += 1
        char = pattern[at : at + 1]
    if not char:
        raise InvalidArgument(_BROKEN)
    return at + 1, char


def _class(pattern: str, at: int) -> tuple[int, str]:
    """Return where it goes on behind the class that starts at `at`, and its regular expression."""
    negated = pattern[at : at + 1] == "^"
    at += negated
    ranges: list[tuple[str, str]] = []
    while pattern[at : at + 1] != "]" or not ranges:
        if pattern[at : at + 1] in ("-", "]"):
            raise InvalidArgument(_BROKEN)
        at, low = _literal(pattern, at)
        high = low
        if pattern[at : at + 1] == "-":
            if pattern[at + 1 : at + 2] in ("-", "]"):
                raise InvalidArgument(_BROKEN)
            at, high = _literal(pattern, at + 1)
        ranges.append((low, high))
    texts = [f"{re.escape(low)}-{re.escape(high)}" for low, high in ranges if low <= high]
    if not texts:
        return at + 1, "(?s:.)" if negated else "(?!)"
    return at + 1, f"[{'^' if negated else ''}{''.join(texts)}]"
