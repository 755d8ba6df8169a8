"""Which devices a container may use: OCI rules made into one list of permissions. Pure.

Rules are applied in order to a state with the meaning they have for the version 1 devices controller, whose
exceptions are removed only by an equal entry; the outcome serves both versions, so that a group behaves alike on
either. A rule that would make a hole in a wildcard is refused rather than dropped: version 1 cannot express it.
Without any rule nothing is allowed: a missing list once meant "everything" (GHSA-g54h-m393-cpwq).
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

WILDCARD = -1
PERMISSIONS = "rwm"

DEFAULT_RULES: tuple[dict[str, Any], ...] = (
    {"allow": True, "type": "c", "access": "m"},
    {"allow": True, "type": "b", "access": "m"},
    *(
        {"allow": True, "type": "c", "major": major, "minor": minor, "access": "rwm"}
        for major, minor in ((1, 3), (1, 8), (1, 7), (5, 0), (1, 5), (1, 9), (136, WILDCARD), (5, 2), (10, 200))
    ),
)
"""Appended to the rules of every container: making any node, and the nodes every container has."""

Key = tuple[str, int, int]


@dataclass(slots=True)
class Permissions:
    """allow_all: what holds for a device without an entry. entries: device -> accesses that are the other way round."""

    allow_all: bool = False
    entries: dict[Key, str] = field(default_factory=dict)

    def apply(self, rule: Mapping[str, Any]) -> None:
        """Apply one OCI rule; raises OSError EINVAL for one that is malformed or would make a hole."""
        kind, access = rule.get("type") or "a", rule.get("access") or PERMISSIONS
        allow = bool(rule.get("allow"))
        if kind not in ("a", "b", "c") or access.strip(PERMISSIONS):
            raise OSError(errno.EINVAL, f"device rule {dict(rule)}: type is a, b or c, access out of rwm", "devices")
        if kind == "a":
            self.allow_all, self.entries = allow, {}
            return
        key = (kind, _number(rule, "major"), _number(rule, "minor"))
        if allow == self.allow_all:
            self._remove(key, access)
        elif access == PERMISSIONS:
            self.entries[key] = access
        else:
            self.entries[key] = _ordered(self.entries.get(key, "") + access)

    def _remove(self, key: Key, access: str) -> None:
        for other, held in self.entries.items():
            if other != key and _covers(other, key) and set(held) & set(access):
                words = f"device rule {_text(key, access)} makes a hole in {_text(other, held)}"
                raise OSError(errno.EINVAL, words, "devices")
        for other in [each for each in self.entries if _covers(key, each)]:
            left = "".join(letter for letter in self.entries[other] if letter not in access)
            if left:
                self.entries[other] = left
            else:
                del self.entries[other]

    def allows(self, kind: str, major: int, minor: int, access: str) -> bool:
        """Return whether all of access is allowed, as the kernel decides it."""
        for key, held in self.entries.items():
            if _covers(key, (kind, major, minor)):
                if self.allow_all and set(held) & set(access):
                    return False
                if not self.allow_all and set(access) <= set(held):
                    return True
        return self.allow_all

    def texts(self) -> tuple[str, tuple[str, ...]]:
        """Return the version 1 form: the file, of devices.allow and devices.deny, to write "a" to; then the entries.

        The entries go to the other file.
        """
        return ("devices.allow" if self.allow_all else "devices.deny"), tuple(
            _text(key, held) for key, held in self.entries.items()
        )


def _number(rule: Mapping[str, Any], name: str) -> int:
    value = rule.get(name)
    return WILDCARD if value is None or value < 0 else int(value)


def _covers(wide: Key, narrow: Key) -> bool:
    return (
        wide[0] == narrow[0]
        and (wide[1] == narrow[1] or wide[1] == WILDCARD)
        and (wide[2] == narrow[2] or wide[2] == WILDCARD)
    )


def _ordered(access: str) -> str:
    return "".join(letter for letter in PERMISSIONS if letter in access)


def _text(key: Key, access: str) -> str:
    kind, major, minor = key
    return f"{kind} {'*' if major < 0 else major}:{'*' if minor < 0 else minor} {access}"


def permissions(rules: Iterable[Mapping[str, Any]], *, defaults: bool = True) -> Permissions:
    """Return what the rules amount to, with the default ones appended unless told not to."""
    state = Permissions()
    for rule in rules:
        state.apply(rule)
    if defaults:
        for rule in DEFAULT_RULES:
            state.apply(rule)
    return state
