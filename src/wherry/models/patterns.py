"""Regular expressions of users, in Go's syntax (RE2): in filters of lists, and in options of logs.

What Go and Python write differently is rewritten into what Python's parser takes, and what only Python has
(look-around, references, possessive and atomic groups) is an error with Go's text. Not there: \\p{...}, (?U), and flags
in the middle of an expression. The search itself is not Python's, see `automaton`.
"""

from __future__ import annotations

import re
from functools import lru_cache

from wherry.errors import InvalidArgument
from wherry.models.automaton import Automaton, TooLarge, build

_TOKEN = re.compile(
    r"(?P<literal>\\Q(?P<inside>.*?)(?:\\E|\Z))|(?P<escape>\\(?:x\{[0-9A-Fa-f]{1,6}\}|x[0-9A-Fa-f]{2}|0[0-7]{0,2}|.?))"
    r"|(?P<group>\(\?(?:P?<(?P<name>[A-Za-z_]\w*)>|(?P<flags>-?[a-zA-Z]+|[a-zA-Z]+-[a-zA-Z]+)?[:)]|.?.?))"
    r"|(?P<set>\[\^?\]?(?:\[:\^?\w*:\]|\\.|[^\]\\])*\]?)"
    r"|(?P<repeat>(?:[*+?]|\{(?P<least>\d+)(?:,(?P<most>\d*))?\})\??)|(?P<other>.)",
    re.DOTALL | re.ASCII,
)
_CLASSES = {
    "alnum": "0-9A-Za-z", "alpha": "A-Za-z", "ascii": r"\x00-\x7f", "blank": r"\t ", "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9", "graph": "!-~", "lower": "a-z", "print": " -~", "punct": r"!-/:-@\[-`{-~", "space": r"\t-\r ",
    "upper": "A-Z", "word": "0-9A-Za-z_", "xdigit": "0-9A-Fa-f",
}  # fmt: skip
_ESCAPES = frozenset("afnrtvdDsSwWbBAx01234567") | frozenset(r"""!"#$%&'()*+,-./:;<=>?@[\]^_`{|}~""")
_MOST = 1000


@lru_cache(maxsize=64)
def compile_pattern(text: str) -> Automaton:
    """Return the expression to search with; raises InvalidArgument."""
    parts: list[str] = []
    repeated = ""
    for token in _TOKEN.finditer(text):
        word = token[0]
        if token["repeat"]:
            parts.append(_repeat(token, parts, repeated))
            repeated = word
            continue
        repeated = ""
        if token["literal"]:
            parts += map(re.escape, token["inside"])
        elif token["escape"]:
            parts.append(_escape(word))
        elif token["group"]:
            parts.append(_group(token, first=not parts))
        elif token["set"]:
            parts.append(_set(word, text[token.start() :]))
        else:
            parts.append(r"\Z" if word == "$" else word)
    try:
        re.compile("".join(parts), re.ASCII)  # says what is wrong with it
        return build([part for part in parts if part])
    except (re.error, OverflowError, RecursionError, TooLarge) as error:
        raise _wrong(_reason(text, error), text) from error


def _wrong(reason: str, part: str) -> InvalidArgument:
    return InvalidArgument(f"error parsing regexp: {reason}: `{part}`")


def _reason(text: str, error: Exception) -> str:
    if isinstance(error, TooLarge | RecursionError):
        return "expression too large" if isinstance(error, TooLarge) else "expression nests too deeply"
    if "unterminated subpattern" in str(error):
        return "missing closing )"
    return "unexpected )" if "unbalanced parenthesis" in str(error) else str(error)


def _repeat(token: re.Match[str], parts: list[str], before: str) -> str:
    word = token[0]
    if before:
        raise _wrong("invalid nested repetition operator", before + word)
    if not parts or parts[-1] in ("(", "|"):
        raise _wrong("missing argument to repetition operator", word)
    counts = [int(count) for count in (token["least"], token["most"]) if count]
    if any(count > _MOST for count in counts) or counts != sorted(counts):
        raise _wrong("invalid repeat count", word)
    return word


def _escape(word: str) -> str:
    if word == "\\":
        raise _wrong("trailing backslash at end of expression", "")
    if word == r"\z":
        return r"\Z"
    if word.startswith(r"\x{"):
        if int(word[3:-1], 16) > 0x10FFFF:
            raise _wrong("invalid escape sequence", word)
        return re.escape(chr(int(word[3:-1], 16)))
    if word in (r"\p", r"\P"):
        raise _wrong("classes of Unicode are not supported by this engine", word)
    if word[1] not in _ESCAPES or word[1] in "1234567":
        raise _wrong("invalid escape sequence", word)
    return word


def _group(token: re.Match[str], *, first: bool) -> str:
    word, flags = token[0], token["flags"] or ""
    if token["name"]:
        return f"(?P<{token['name']}>"
    if word in ("(?:", "(?)"):
        return "(?:" if word == "(?:" else ""
    if not flags or not set(flags) <= set("imsU-"):
        raise _wrong("invalid or unsupported Perl syntax", word[:3])
    if set(flags) & set("mU-") or (word.endswith(")") and not first):
        raise _wrong("flags like these are not supported by this engine", word)
    return word


def _set(word: str, rest: str) -> str:
    if not word.endswith("]") or word in ("[]", "[^]"):
        raise _wrong("missing closing ]", rest)
    inside = re.sub(r"\[:(\^?)(\w*):\]", _named, word[1:-1])
    return "[" + re.sub(r"(?<!\\)(\[|&&|\|\||~~|--)", lambda found: re.escape(found[0]), inside) + "]"


def _named(found: re.Match[str]) -> str:
    if found[2] not in _CLASSES or found[1]:
        raise _wrong("invalid character class range", found[0])
    return _CLASSES[found[2]]
