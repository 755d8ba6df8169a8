"""The functions of --format templates: Go's own, and those that docker adds."""

from __future__ import annotations

from wherry.cli.failures import TemplateError
from wherry.cli.templates import show, truth

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def _json(value: Any) -> str:
    import json

    text = json.dumps(_plain(value), separators=(",", ":"), ensure_ascii=False)
    # Go escapes these three even inside strings, so that the text can stand in HTML.
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if not _takes_arguments(item)}
    return value() if callable(value) else value


def _takes_arguments(value: Any) -> bool:
    return callable(value) and value.__code__.co_argcount > 0


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, list):
            if not isinstance(key, int) or not 0 <= key < len(value):
                raise TemplateError(f"error calling index: index out of range: {show(key)}")
            value = value[key]
        elif isinstance(value, dict):
            value = value.get(key)
        else:
            raise TemplateError("error calling index: index of untyped nil")
    return value


def _and(*values: Any) -> Any:
    return next((value for value in values if not truth(value)), values[-1])


def _or(*values: Any) -> Any:
    return next((value for value in values if truth(value)), values[-1])


def _printf(layout: str, *values: Any) -> str:
    import re

    shown = [value if type(value) in (int, float) else show(value) for value in values]
    layout = re.sub(r"%(-?\d*)v", r"%\1s", layout).replace("%q", '"%s"').replace("%t", "%s")
    try:
        return layout % tuple(shown)
    except (TypeError, ValueError) as error:
        raise TemplateError(f"error calling printf: {error}") from error


def _length(value: Any) -> int:
    if value is None:
        raise TemplateError("error calling len: len of untyped nil")
    return len(value)


def _truncate(text: str, length: int) -> str:
    return text[:length]


def _pad(text: str, before: int, after: int) -> str:
    return " " * before + text + " " * after if text else ""


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": _json,
    "index": _index,
    "len": _length,
    "join": lambda items, separator: separator.join(show(item) for item in items or []),
    "split": lambda text, separator: text.split(separator),
    "upper": lambda text: show(text).upper(),
    "lower": lambda text: show(text).lower(),
    "title": lambda text: show(text).title(),
    "truncate": _truncate,
    "pad": _pad,
    "println": lambda *values: " ".join(map(show, values)) + "\n",
    "print": lambda *values: "".join(map(show, values)),
    "printf": _printf,
    "eq": lambda first, *others: first in others,
    "ne": lambda first, second: first != second,
    "lt": lambda first, second: first < second,
    "le": lambda first, second: first <= second,
    "gt": lambda first, second: first > second,
    "ge": lambda first, second: first >= second,
    "not": lambda value: not truth(value),
    "and": _and,
    "or": _or,
}
