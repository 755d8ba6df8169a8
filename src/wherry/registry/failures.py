"""What goes wrong between us and a registry, and how it is told: dockerd's texts where it has some."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from wherry.errors import EngineError, Forbidden, NotFound, SystemFailure, Unauthorized, Unavailable

_TEXT_LIMIT = 500
_CODES = {"TOOMANYREQUESTS": "toomanyrequests", "MANIFEST_UNKNOWN": "manifest unknown", "NAME_UNKNOWN": "name unknown"}


class Broken(Exception):
    """The connection failed or ended early; another attempt may do better. kind: "connect" when none was made."""

    def __init__(self, text: str, *, connecting: bool = False) -> None:
        super().__init__(text)
        self.connecting = connecting


@dataclass
class Answered(Exception):
    """A registry answered with an error. texts: what its body says. pause: Retry-After in seconds, None without."""

    method: str
    url: str
    status: int
    texts: tuple[str, ...] = ()
    pause: float | None = None

    def __str__(self) -> str:
        if self.texts:
            return "\n".join(self.texts)
        return f"received unexpected HTTP status: {self.status} from {self.method} {self.url}"

    @property
    def passing(self) -> bool:
        """Whether the same request may go better later."""
        return self.status in (408, 429, 500, 502, 503, 504)

    def told(self) -> EngineError:
        """Return the error for the user."""
        kinds: dict[int, type[EngineError]] = {401: Unauthorized, 403: Forbidden, 404: NotFound}
        kind = kinds.get(self.status, Unavailable if self.passing else SystemFailure)
        return kind(str(self))


class _Entry(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Body(msgspec.Struct):
    """{"errors": [...]} of the distribution spec, or {"details": ...} of others."""

    errors: list[_Entry] = []
    message: str = ""
    details: str = ""


def texts_of(body: bytes) -> tuple[str, ...]:
    """Return what the body of an error says, shortened and without control characters: it ends on a terminal."""
    try:
        told = msgspec.json.decode(body, type=_Body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return ()
    lines = [_line(entry) for entry in told.errors[:10]] or [told.details or told.message]
    return tuple(_clean(line) for line in lines if line)


def _line(entry: _Entry) -> str:
    code = _CODES.get(entry.code, entry.code.replace("_", " ").lower())
    return f"{code}: {entry.message}" if entry.message else code


def _clean(text: str) -> str:
    return "".join(each if each.isprintable() else " " for each in text[:_TEXT_LIMIT])
