"""Tag templates: {{.Name}}/{{.ID}}, a small and strict part of Go's text/template.

    {{.Field}}   {{index .ContainerLabels "key"}}   {{lower .Name}}   {{truncate .FullID 20}}   {{.Name | upper}}
    {{printf "%s-%s" .Name .ID}}

What is not understood is an error at create, never a guess. Errors begin as Go's do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from wherry.errors import InvalidArgument

Value = str | Mapping[str, str]

_TOKEN = re.compile(r'\s*(?:(\|)|(\.[A-Za-z]\w*)|("(?:[^"\\]|\\.)*")|(\d+)|([A-Za-z]\w*))', re.ASCII)
_LONGEST = 4096


def _index(values: Sequence[Value]) -> str:
    found, key = values
    return found.get(str(key), "") if isinstance(found, Mapping) else ""


def _truncate(values: Sequence[Value]) -> str:
    return str(values[0])[: int(str(values[1]))]


def _printf(values: Sequence[Value]) -> str:
    form, *words = map(str, values)
    if form.replace("%%", "").count("%") != len(words) or re.search(r"%[^sv%]|%$", form.replace("%%", "")):
        raise _wrong(":1", "printf: only %s, %v and %%, each with its value")
    return re.sub(r"%([sv%])", lambda verb: "%" if verb[1] == "%" else words.pop(0), form)


FUNCTIONS: Mapping[str, tuple[int, Callable[[Sequence[Value]], str]]] = {
    "index": (2, _index),
    "lower": (1, lambda values: str(values[0]).lower()),
    "upper": (1, lambda values: str(values[0]).upper()),
    "title": (1, lambda values: str(values[0]).title()),
    "truncate": (2, _truncate),
    "printf": (0, _printf),
}


def render(template: str, fields: Mapping[str, Value]) -> str:
    """Return the template filled in; raises InvalidArgument. PURE."""
    if len(template) > _LONGEST:
        raise _wrong("", f"longer than {_LONGEST} characters")
    parts, rest = [], template
    while rest:
        text, braces, rest = rest.partition("{{")
        parts.append(text)
        if braces:
            action, end, rest = rest.partition("}}")
            if not end:
                raise _wrong(":1", "unclosed action")
            parts.append(_evaluate(action, fields))
    return "".join(parts)


def _wrong(place: str, text: str) -> InvalidArgument:
    return InvalidArgument(f"template: log-tag{place}: {text}")


def _evaluate(action: str, fields: Mapping[str, Value]) -> str:
    value: list[Value] = []
    for command in _commands(action):
        head, *words = command
        if head.startswith((".", '"')):
            if words or value:
                raise _wrong(":1", f"can't give argument to non-function {head}")
            value = [_operand(head, fields)]
            continue
        if head not in FUNCTIONS:
            raise _wrong(":1", f'function "{head}" not defined')
        count, function = FUNCTIONS[head]
        operands = [*(_operand(word, fields) for word in words), *value]
        if (len(operands) != count and count) or not operands:
            raise _wrong(":1", f"wrong number of args for {head}: want {count} got {len(operands)}")
        if head == "truncate" and not str(operands[1]).isdecimal():
            raise _wrong(":1", "truncate: the second argument must be a number")
        value = [function(operands)]
    if not isinstance(value[0], str):
        raise _wrong(":1", f'{action.strip()} is a table; name one entry: {{{{index {action.strip()} "key"}}}}')
    return value[0]


def _commands(action: str) -> list[list[str]]:
    commands: list[list[str]] = [[]]
    position = 0
    text = action.rstrip()
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            raise _wrong(":1", f"unexpected {text[position:].strip()!r} in operand")
        position = token.end()
        if token[1]:
            commands.append([])
        else:
            commands[-1].append(token[0].strip())
    if not all(commands):
        raise _wrong(":1", "missing value for command")
    return commands


def _operand(word: str, fields: Mapping[str, Value]) -> Value:
    if word.startswith('"'):
        return re.sub(r"\\(.)", r"\1", word[1:-1])
    if word.isdecimal():
        return word
    if not word.startswith("."):
        raise _wrong(":1", f'function "{word}" not defined')
    if word[1:] not in fields:
        raise _wrong(":1:2", f'executing "log-tag" at <{word}>: can\'t evaluate field {word[1:]} in type *logger.Info')
    return fields[word[1:]]
