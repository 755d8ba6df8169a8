"""What is wrong with an answer: its status, or its form as the schema has it."""

from __future__ import annotations

import json
import re
from http.client import HTTPResponse
from typing import Any

from tests.property.schema import Operation, Type, types

ALWAYS = {301, 304, 400, 404, 405, 409, 413, 501}
"""An unnormal path, nothing to do, bad input, no such thing, a state that forbids it, what is not there yet."""
SWARM = "This node is not a swarm manager."
"""Beginning of the answer to what needs a cluster, as of dockerd."""
BESIDES = {("POST", "/images/{name}/tag"): (200,)}
"""What dockerd answers too: a tag without a repo does nothing, and says so by not having created anything."""
UNREACHABLE = re.compile(r'Get \\"https://[^ ]+\\": dial tcp: lookup: ')
"""What a pull says where there is no network, as in the tests: the registry is unavailable, the engine is not."""
PYTHON = {"string": str, "integer": int, "number": int | float, "boolean": bool}


def complaint(operation: Operation, answer: HTTPResponse, text: bytes) -> str:
    """Return a sentence, "" when all is well."""
    said = text[:500].decode(errors="replace")
    foreseen = answer.status == 503 and (SWARM in said or UNREACHABLE.search(said))
    if answer.status >= 500 and answer.status != 501 and not foreseen:
        return f"{answer.status} {said}"
    known = (*ALWAYS, 503, *BESIDES.get((operation.method, operation.path), ()))
    if answer.status not in known and str(answer.status) not in operation.answers:
        return f"undocumented status {answer.status} {said}"
    if operation.method == "HEAD" or answer.status in (204, 304, 301):
        return f"a body with {answer.status}: {said}" if text else ""
    if answer.status >= 400:
        return _error(said, text)
    kind = operation.answers.get(str(answer.status))
    if kind in (None, "string", "binary") or not answer.headers.get("Content-Type", "").startswith("application/json"):
        return ""
    try:
        value = json.loads(text)
    except ValueError:  # a stream of JSON documents
        return ""
    wrong = misfit(value, kind)
    return f"answer is not of the schema: {wrong}" if wrong else ""


def _error(said: str, text: bytes) -> str:
    try:
        message = json.loads(text)["message"]
    except (ValueError, KeyError, TypeError):
        return f"error without a message: {said}"
    if not message or not isinstance(message, str):
        return f"error without a message: {said}"
    return f"a Python error got out: {said}" if "Traceback" in message or "object has no attribute" in message else ""


def misfit(value: Any, kind: Type, where: str = "") -> str:
    """Return where a value is not of a type, "" when it is; null stands for anything, as in Go."""
    if value is None or kind == "any":
        return ""
    if isinstance(kind, str):
        if kind.startswith("#"):
            return misfit(value, types()[kind[1:]], where)
        fits = isinstance(value, PYTHON.get(kind, object)) and (kind == "boolean" or not isinstance(value, bool))
        return "" if fits else f"{where}: {value!r:.80} is no {kind}"
    return _SHAPES[kind[0]](value, kind[1:], where)


def _enum(value: Any, words: list[Any], where: str) -> str:
    return "" if value in words or value == "" else f"{where}: {value!r:.80} is not among {words}"


def _list(value: Any, inner: list[Type], where: str) -> str:
    if not isinstance(value, list):
        return f"{where}: {value!r:.80} is no list"
    return next(filter(None, (misfit(each, inner[0], f"{where}[]") for each in value)), "")


def _map(value: Any, inner: list[Type], where: str) -> str:
    if not isinstance(value, dict):
        return f"{where}: {value!r:.80} is no object"
    return next(filter(None, (misfit(each, inner[0], f"{where}.{name}") for name, each in value.items())), "")


def _object(value: Any, fields: list[dict[str, Type]], where: str) -> str:
    if not isinstance(value, dict):
        return f"{where}: {value!r:.80} is no object"
    known = ((value[name], kind, name) for name, kind in fields[0].items() if name in value)
    return next(filter(None, (misfit(each, kind, f"{where}.{name}") for each, kind, name in known)), "")


def _all(value: Any, parts: list[Type], where: str) -> str:
    return next(filter(None, (misfit(value, each, where) for each in parts)), "")


_SHAPES = {"enum": _enum, "list": _list, "map": _map, "object": _object, "all": _all}
