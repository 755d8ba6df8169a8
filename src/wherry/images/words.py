"""The words of a Dockerfile instruction: quotes, escapes and variables, as Docker's shell lexer takes them.

    'text'            as it is                  "text"       \\ escapes " $ and \\; variables are replaced
    \\c                c                         $NAME ${NAME} ${NAME:-word} ${NAME:+word}
"""

from __future__ import annotations

from collections.abc import Mapping

from wherry.errors import InvalidArgument

_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")


def logical_lines(text: str) -> list[str]:
    """Join lines that end in a backslash; drop comments and empty lines."""
    lines: list[str] = []
    pending = ""
    for line in text.splitlines():
        if line.lstrip().startswith("#") or (not line.strip() and pending):
            continue
        stripped = line.rstrip() if pending else line.strip()
        if stripped.endswith("\\"):
            pending += stripped[:-1]
            continue
        if pending or stripped:
            lines.append((pending + stripped).strip())
        pending = ""
    if pending.strip():
        lines.append(pending.strip())
    return lines


def split(text: str) -> list[str]:
    """Split at blanks outside of quotes; quotes and escapes stay in the words."""
    words: list[str] = []
    word = quote = ""
    index = 0
    while index < len(text):
        char = text[index]
        if char == "\\" and quote != "'":
            word += text[index : index + 2]
            index += 2
            continue
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in " \t":
            if word:
                words.append(word)
            word = ""
            index += 1
            continue
        word += char
        index += 1
    return [*words, word] if word else words


class _Expansion:
    """One word being expanded."""

    def __init__(self, word: str, variables: Mapping[str, str]) -> None:
        self._word = word
        self._variables = variables
        self._at = 0

    def run(self, stop: str = "") -> str:
        """Expand up to an unquoted `stop`, or the end."""
        result = ""
        while self._at < len(self._word):
            char = self._word[self._at]
            if stop and char == stop:
                return result
            self._at += 1
            if char == "'":
                result += self._single()
            elif char == '"':
                result += self._double()
            elif char == "$":
                result += self._variable()
            elif char == "\\":
                result += self._word[self._at : self._at + 1]
                self._at += 1
            else:
                result += char
        if stop:
            raise InvalidArgument(f"syntax error: missing '{stop}' in {self._word!r}")
        return result

    def _single(self) -> str:
        end = self._word.find("'", self._at)
        if end < 0:
            raise InvalidArgument(f"unexpected end of statement while looking for matching single-quote: {self._word}")
        text = self._word[self._at : end]
        self._at = end + 1
        return text

    def _double(self) -> str:
        result = ""
        while self._at < len(self._word):
            char = self._word[self._at]
            self._at += 1
            if char == '"':
                return result
            if char == "$":
                result += self._variable()
            elif char == "\\" and self._word[self._at : self._at + 1] in ('"', "$", "\\"):
                result += self._word[self._at]
                self._at += 1
            else:
                result += char
        raise InvalidArgument(f"unexpected end of statement while looking for matching double-quote: {self._word}")

    def _variable(self) -> str:
        if self._word[self._at : self._at + 1] != "{":
            name = self._name()
            return self._variables.get(name, "") if name else "$"
        self._at += 1
        name = self._name()
        value = self._variables.get(name, "")
        if self._word[self._at : self._at + 1] == "}":
            self._at += 1
            return value
        operator = self._word[self._at : self._at + 2]
        if not name or operator not in (":-", ":+"):
            raise InvalidArgument(f"unsupported modifier in substitution: {self._word}")
        self._at += 2
        alternative = self.run("}")
        self._at += 1
        if operator == ":-":
            return value or alternative
        return alternative if value else ""

    def _name(self) -> str:
        start = self._at
        while self._at < len(self._word) and self._word[self._at] in _NAME:
            self._at += 1
        return self._word[start : self._at]


def expand(word: str, variables: Mapping[str, str]) -> str:
    """Take quotes and escapes out of a word and replace its variables. Raises InvalidArgument."""
    return _Expansion(word, variables).run()
