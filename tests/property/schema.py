"""The part of Docker's schema that is served here, in operations.json, a form that needs no library to read.

    python -m tests.property.schema SCHEMA     make operations.json from Docker's swagger file; needs PyYAML

A type is one of "string", "integer", "number", "boolean", "binary", "any", a name in "types" ("#Name"), or a list that
begins with its kind: ["enum", word...], ["list", type], ["map", type], ["object", {field: type}], ["all", type...].
"""

from __future__ import annotations

import functools
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.operations import SERVED

FILE = Path(__file__).with_name("operations.json")
ORIGIN = (
    "Names and types out of api/swagger.yaml of github.com/moby/moby, version 1.55, made by tests/property/schema.py. "
    "Copyright the Docker / Moby authors, Apache License 2.0."
)
PLAIN = ("string", "integer", "number", "boolean")
Type = Any


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation. parameters: (place, name, type). body: None when there is none. answers: status to type."""

    name: str
    parameters: list[tuple[str, str, Type]]
    body: Type | None
    answers: dict[str, Type | None]

    @property
    def method(self) -> str:
        """The request's method."""
        return self.name.split(" ")[0]

    @property
    def path(self) -> str:
        """The pattern of its path."""
        return self.name.split(" ")[1]


@functools.cache
def types() -> dict[str, Type]:
    """Return the named types."""
    found: dict[str, Type] = json.loads(FILE.read_text())["types"]
    return found


@functools.cache
def operations() -> tuple[Operation, ...]:
    """Return the served operations of the schema."""
    found = json.loads(FILE.read_text())["operations"]
    return tuple(
        Operation(name, [tuple(each) for each in one["parameters"]], one.get("body"), one["answers"])
        for name, one in found.items()
    )


def short(schema: dict[str, Any]) -> Type:
    """Return a swagger schema in our form."""
    if "$ref" in schema:
        return "#" + schema["$ref"].rpartition("/")[2]
    if "allOf" in schema:
        return ["all", *(short(each) for each in schema["allOf"])]
    if "enum" in schema:
        return ["enum", *schema["enum"]]
    kind = schema.get("type", "object" if "properties" in schema else "any")
    if kind == "array":
        return ["list", short(schema.get("items", {}))]
    if kind == "object" and "properties" in schema:
        return ["object", {name: short(each) for name, each in schema["properties"].items()}]
    if kind == "object":
        more = schema.get("additionalProperties")
        return ["map", short(more) if isinstance(more, dict) else "any"]
    if schema.get("format") == "binary":
        return "binary"
    return kind if kind in PLAIN else "any"


def _operation(shared: list[Any], found: dict[str, Any]) -> dict[str, Any]:
    parameters, body = [], None
    for each in [*shared, *found.get("parameters", [])]:
        if each["in"] == "body":
            body = short(each["schema"])
        else:
            parameters.append([each["in"], each["name"], short(each)])
    answers = {
        str(status): short(each["schema"]) if "schema" in each else None for status, each in found["responses"].items()
    }
    return {"parameters": parameters, **({"body": body} if body is not None else {}), "answers": answers}


def _names(kind: Type) -> set[str]:
    if isinstance(kind, str):
        return {kind[1:]} if kind.startswith("#") else set()
    if isinstance(kind, dict):
        return set().union(*map(_names, kind.values()))
    return set().union(*map(_names, kind[1:])) if isinstance(kind, list) and kind[:1] != ["enum"] else set()


def compact(swagger: dict[str, Any]) -> dict[str, Any]:
    """Return what operations.json holds."""
    chosen = {
        name: _operation(methods.get("parameters", []), methods[method])
        for path, methods in swagger["paths"].items()
        for method in methods
        if (name := f"{method.upper()} {path}") in SERVED
    }
    needed: dict[str, Type] = {}
    waiting = set()
    for each in chosen.values():
        waiting |= _names([None, each.get("body"), *each["answers"].values(), *(one[2] for one in each["parameters"])])
    while waiting:
        name = waiting.pop()
        needed[name] = short(swagger["definitions"][name])
        waiting |= _names(needed[name]) - needed.keys()
    return {"origin": ORIGIN, "operations": chosen, "types": dict(sorted(needed.items()))}


def _written(made: dict[str, Any]) -> str:
    """Return JSON with one operation and one type a line, so that a change can be read."""
    parts = [f' "origin": {json.dumps(made["origin"])}']
    for part in ("operations", "types"):
        lines = [f"  {json.dumps(name)}: {json.dumps(each)}" for name, each in made[part].items()]
        parts.append(f' "{part}": {{\n' + ",\n".join(lines) + "\n }")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main() -> int:
    """Make the file."""
    import yaml  # here only: nobody who runs the tests needs it

    FILE.write_text(_written(compact(yaml.safe_load(Path(sys.argv[1]).read_text()))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
