"""JSON bodies to models, with Go's manners, because that is what clients are written against.

Field names match without regard to case, unknown fields are ignored, null leaves a field at its default, and a
value of a wrong type is refused with the text of Go's encoding/json. A reader is compiled once per type.
"""

from __future__ import annotations

import functools
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import structs

from wherry.errors import InvalidArgument

T = TypeVar("T")
Read = Callable[[Any], Any]

BODY_LIMIT = 4 << 20
INT64 = range(-(1 << 63), 1 << 63)
GO_NAMES = {str: "string", int: "int64", float: "float64", bool: "bool"}
KINDS = {str: "string", int: "number", float: "number", bool: "bool", list: "array", dict: "object", type(None): "null"}


class Mismatch(Exception):
    """A value of a wrong type; fields are added on the way out, so that the good case pays nothing for them."""

    def __init__(self, value: Any, wanted: str) -> None:
        super().__init__()
        self.kind = KINDS.get(type(value), "object")
        if wanted == "int64" and self.kind == "number":
            self.kind = f"number {value}"
        self.wanted = wanted
        self.fields: list[str] = []
        self.bare = False

    def __str__(self) -> str:
        where = f"Go struct field .{'.'.join(reversed(self.fields))}" if self.fields and not self.bare else "Go value"
        return f"json: cannot unmarshal {self.kind} into {where} of type {self.wanted}"


def parse(data: bytes) -> Any:
    """Return the JSON value; raises InvalidArgument with the texts of dockerd."""
    if not data.strip():
        raise InvalidArgument("invalid JSON: got EOF while reading request body")
    try:
        return msgspec.json.decode(data)
    except RecursionError:
        raise InvalidArgument("invalid JSON: exceeded max depth") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(_syntax(str(error), data)) from None


def _syntax(text: str, data: bytes) -> str:
    if "truncated" in text:
        return "invalid JSON: unexpected EOF"
    if "trailing characters" in text:
        return "unexpected content after JSON"
    place = re.search(r"\(byte (\d+)\)", text)
    if place and int(place[1]) < len(data):
        return f"invalid JSON: invalid character {chr(data[int(place[1])])!r} looking for beginning of value"
    return f"invalid JSON: {text}"


def decode(data: bytes, kind: type[T]) -> T:
    """Return the model in a JSON body; raises InvalidArgument."""
    return convert(parse(data), kind)


def convert(value: Any, kind: type[T]) -> T:
    """Return a parsed JSON value as a model; raises InvalidArgument. null is the empty object."""
    try:
        return typing.cast(T, reader(typing.cast(Any, kind))({} if value is None else value))
    except Mismatch as error:
        raise InvalidArgument(f"invalid JSON: {error}") from None


@functools.cache
def reader(kind: Any) -> Read:
    """Return the function that reads a JSON value, not null, as the given type."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _struct_reader(kind)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _union_reader(tuple(each for each in arguments if each is not type(None)))
    if origin is list:
        return _list_reader(arguments[0])
    if origin in (dict, Mapping):
        return _map_reader(arguments[1])
    if kind is Any:
        return lambda value: value
    return functools.partial(_leaf, kind)


def _leaf(kind: type, value: Any) -> Any:
    if type(value) is kind and (kind is not int or value in INT64):
        return value
    raise Mismatch(value, GO_NAMES[kind])


def _union_reader(options: tuple[Any, ...]) -> Read:
    if len(options) == 1:
        return reader(options[0])
    words = reader(list[str])

    def read(value: Any) -> Any:
        """A command: words, or one text for the shell."""
        if isinstance(value, str):
            return value
        try:
            return words(value)
        except Mismatch as error:
            failure = Mismatch(value, "string")
            failure.bare = True
            raise failure from error

    return read


def nullable(kind: Any) -> bool:
    """Return whether null has a meaning of its own for a type."""
    return kind is Any or type(None) in typing.get_args(kind)


def _zero(kind: Any) -> Any:
    """Return Go's zero value of a type, which null inside a list or a map stands for."""
    if nullable(kind):
        return None
    origin = typing.get_origin(kind) or kind
    return origin()


def _list_reader(item: Any) -> Read:
    inner = reader(item)

    def read(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise Mismatch(value, f"[]{GO_NAMES.get(item, 'object')}")
        return [_zero(item) if each is None else inner(each) for each in value]

    return read


def _map_reader(item: Any) -> Read:
    inner = reader(item)

    def read(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise Mismatch(value, f"map[string]{GO_NAMES.get(item, 'object')}")
        return {key: _zero(item) if each is None else inner(each) for key, each in value.items()}

    return read


def _struct_reader(kind: type[msgspec.Struct]) -> Read:
    fields: dict[str, tuple[str, Read]] = {}

    def fill() -> None:
        for each in structs.fields(kind):
            fields[each.encode_name] = fields[each.encode_name.lower()] = (each.name, reader(each.type))

    def read(value: Any) -> Any:
        if not isinstance(value, dict):
            raise Mismatch(value, GO_STRUCTS.get(kind.__name__, kind.__name__))
        if not fields:
            fill()
        found = {}
        for key, each in value.items():
            field = fields.get(key) or fields.get(key.lower())
            if field is None or each is None:
                continue
            try:
                found[field[0]] = field[1](each)
            except Mismatch as error:
                error.fields.append(key)
                raise
        return kind(**found)

    return read


GO_STRUCTS = {
    "ContainerConfig": "container.CreateRequest",
    "HostConfig": "container.HostConfig",
    "ExecConfig": "container.ExecOptions",
    "ExecStart": "container.ExecStartOptions",
    "BindOptions": "mount.BindOptions",
    "DriverConfig": "mount.Driver",
    "VolumeOptions": "mount.VolumeOptions",
    "ImageOptions": "mount.ImageOptions",
    "TmpfsOptions": "mount.TmpfsOptions",
    "CreateVolume": "volume.CreateOptions",
    "CreateNetwork": "network.CreateRequest",
    "Connect": "network.ConnectOptions",
    "Disconnect": "network.DisconnectOptions",
}
"""The types that dockerd names in its texts."""
