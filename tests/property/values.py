"""Values for a schema's types: what a client would send, what is just at an edge, and what is plainly wrong."""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Mapping
from typing import Any

from tests.property.schema import Type, types

DEPTH = 6
NUMBERS = (0, 1, -1, 2, 7, 80, 100, 1023, 65535, 65536, 1 << 20, 1 << 26, (1 << 31) - 1, 1 << 31, 1 << 32)
EDGES = (*NUMBERS, (1 << 63) - 1, 1 << 63, -(1 << 63), -(1 << 63) - 1, 1 << 64, 10**30)
ODD = (
    "", " ", ".", "..", "/", "//", "/..", "../../etc", "a/../b", "/a/./b/", "\u0000", "a\u0000b", "\n", "a\nb", "\r\n",
    "\u202e", "\ufeff", "é", "名", "\U0001f6a2", "%00", "%2e%2e", "%", "-", "--help", "a b", "'", '"', "\\", "$(x)",
    "{{.x}}", "null", "true", "1e400", "NaN", "-1", "0x10", "1.5", "1:2", "a=b", "=", "a=", ":", "::", ":ro", "a:b:c:d",
    "*", "[", "(", "x" * 64, "x" * 255, "x" * 256, "x" * 4096, "0" * 64, "sha256:" + "a" * 64, "\ud7ff", "\uffff",
)  # fmt: skip
WRONG = (None, True, False, 0, -1, 1.5, "", "x", [], {}, [None], [[]], {"": None}, [{}], {"a": {"b": {"c": []}}})


class Values:
    """Makes values from a seed. likely: a field's or a parameter's name to values that make sense."""

    def __init__(self, seed: random.Random, likely: Mapping[str, Callable[[], Any]]) -> None:
        self.seed = seed
        self._likely = likely
        self.wild = 0.1

    def text(self) -> str:
        """Return a text: odd, or of random characters."""
        if self.seed.random() < 0.6:
            return self.seed.choice(ODD)
        letters = string.printable if self.seed.random() < 0.5 else string.ascii_letters + string.digits + "._-/:"
        return "".join(self.seed.choices(letters, k=self.seed.randrange(1, 20)))

    def named(self, name: str, kind: Type, depth: int = 0) -> Any:
        """Return a value for a field or a parameter."""
        if name in self._likely and self.seed.random() > self.wild:
            return self._likely[name]()
        return self.of(kind, depth)

    def of(self, kind: Type, depth: int = 0) -> Any:
        """Return a value of a type, now and then of another one."""
        if self.seed.random() < self.wild / 4 or depth > DEPTH:
            return self.seed.choice(WRONG)
        if isinstance(kind, str):
            return self._plain(kind, depth)
        return getattr(self, f"_{kind[0]}")(kind[1:], depth)

    def _plain(self, kind: str, depth: int) -> Any:
        if kind.startswith("#"):
            return self.of(types()[kind[1:]], depth)
        if kind == "integer":
            return self.seed.choice(NUMBERS if self.seed.random() > self.wild else EDGES)
        if kind == "number":
            return self.seed.choice((*NUMBERS, 0.5, 1e300))
        if kind == "boolean":
            return self.seed.random() < 0.5
        return self.text() if kind == "string" else self.seed.choice(WRONG)

    def _enum(self, words: list[Any], depth: int) -> Any:
        return self.text() if self.seed.random() < self.wild else self.seed.choice(words)

    def _list(self, inner: list[Type], depth: int) -> Any:
        return [self.of(inner[0], depth + 1) for _ in range(self.seed.choice((0, 1, 1, 2, 3)))]

    def _map(self, inner: list[Type], depth: int) -> Any:
        return {self.text(): self.of(inner[0], depth + 1) for _ in range(self.seed.choice((0, 1, 1, 2)))}

    def _object(self, fields: list[dict[str, Type]], depth: int) -> Any:
        share = self.seed.choice((0.02, 0.1, 0.3))
        made = {}
        for name, kind in fields[0].items():
            if name in self._likely or self.seed.random() < share:
                spelled = name.lower() if self.seed.random() < self.wild / 10 else name
                made[spelled] = self.named(name, kind, depth + 1)
        return made

    def _all(self, parts: list[Type], depth: int) -> Any:
        made: dict[str, Any] = {}
        for each in parts:
            one = self.of(each, depth)
            if not isinstance(one, dict):
                return one
            made |= one
        return made
