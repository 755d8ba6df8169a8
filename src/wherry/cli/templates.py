"""The part of Go's text/template that --format is used with: fields, pipes, if, with, range and some functions.

    text      = { chars | "{{" action "}}" }            "{{-" and "-}}" eat the white space beside them
    action    = pipeline | "if" pipeline | "else" ["if" pipeline] | "with" pipeline | "end"
              | "range" [ "$i," ] "$v" ":=" pipeline | "range" pipeline | "$v" ":=" pipeline
    pipeline  = command { "|" command }                 a value is handed on as the last argument
    command   = function { operand } | operand
    operand   = "." | ".A.B" | "$" | "$v" ".A" | "text" | `text` | number | "true" | "false" | "nil"
              | "(" pipeline ")" [ ".A.B" ]
"""

from __future__ import annotations

import re

from wherry.cli.failures import TemplateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

_TOKEN = re.compile(
    r'\s*(?:(?P<string>"(?:\\.|[^"\\])*"|`[^`]*`)|(?P<number>-?\d+)|(?P<field>\$?\w*(?:\.\w+)+|\$\w*|\.)'
    r"|(?P<word>\w+)|(?P<closing>\)(?:\.\w+)*)|(?P<mark>:=|[|(,=]))"
)


class MissingField(TemplateError):
    """A name that the data does not have; operand: where the template asks for it."""

    def __init__(self, message: str, operand: str) -> None:
        super().__init__(message)
        self.operand = operand


class Node:
    """A piece of a template."""

    def render(self, scope: Scope) -> str:
        """The text of this piece."""
        raise NotImplementedError


class Scope:
    """What "." and the variables mean at one place."""

    __slots__ = ("dot", "functions", "variables")

    def __init__(self, dot: Any, variables: dict[str, Any], functions: Mapping[str, Callable[..., Any]]) -> None:
        self.dot = dot
        self.variables = variables
        self.functions = functions


class Text(Node):
    """Literal text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def render(self, scope: Scope) -> str:
        """The text itself."""
        return self.text


class Value(Node):
    """A pipeline whose value is printed, or kept in a variable."""

    def __init__(self, pipeline: Pipeline, variable: str = "") -> None:
        self.pipeline = pipeline
        self.variable = variable

    def render(self, scope: Scope) -> str:
        """The value as Go prints it."""
        value = self.pipeline.value(scope)
        if self.variable:
            scope.variables[self.variable] = value
            return ""
        return show(value)


class Block(Node):
    """A list of pieces."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []

    def render(self, scope: Scope) -> str:
        """All pieces in order."""
        return "".join(node.render(scope) for node in self.nodes)


class Choice(Node):
    """if and with: the second also makes the value the new dot."""

    def __init__(self, word: str, pipeline: Pipeline, body: Block, otherwise: Block) -> None:
        self.word = word
        self.pipeline = pipeline
        self.body = body
        self.otherwise = otherwise

    def render(self, scope: Scope) -> str:
        """One of both branches."""
        value = self.pipeline.value(scope)
        if not truth(value):
            return self.otherwise.render(scope)
        dot = value if self.word == "with" else scope.dot
        return self.body.render(Scope(dot, dict(scope.variables), scope.functions))


class Range(Node):
    """range over a list or, in the order of its keys, a map."""

    def __init__(self, variables: list[str], pipeline: Pipeline, body: Block, otherwise: Block) -> None:
        self.variables = variables
        self.pipeline = pipeline
        self.body = body
        self.otherwise = otherwise

    def render(self, scope: Scope) -> str:
        """The body once for each element."""
        value = self.pipeline.value(scope)
        pairs: list[tuple[Any, Any]] = []
        if isinstance(value, dict):
            pairs = sorted(value.items())
        elif isinstance(value, list):
            pairs = list(enumerate(value))
        elif value is not None:
            raise TemplateError(f"range can't iterate over {show(value)}")
        if not pairs:
            return self.otherwise.render(scope)
        return "".join(self._one(scope, key, item) for key, item in pairs)

    def _one(self, scope: Scope, key: Any, item: Any) -> str:
        variables = scope.variables | dict(zip(reversed(self.variables), (item, key), strict=False))
        return self.body.render(Scope(item, variables, scope.functions))


class Pipeline:
    """Commands joined by "|"; each is a list of operands, of which the first may be a function.

    members: ".A.B" that stood behind the parenthesis of it.
    """

    def __init__(self, commands: list[list[Any]]) -> None:
        self.commands = commands
        self.members = ""

    def value(self, scope: Scope) -> Any:
        """The value of the last command."""
        result: Any = None
        for position, command in enumerate(self.commands):
            extra = [result] if position else []
            result = self._call(command, extra, scope)
        for name in filter(None, self.members.split(".")):
            result = _member(result, name, self.members)
        return result

    def _call(self, command: list[Any], extra: list[Any], scope: Scope) -> Any:
        first = command[0]
        if isinstance(first, str) and first.startswith("word:") and first[5:] not in _CONSTANTS:
            name = first[5:]
            if name not in scope.functions:
                raise TemplateError(f'function "{name}" not defined')
            return scope.functions[name](*[_operand(item, scope) for item in command[1:]], *extra)
        method = _operand(first, scope)
        if callable(method):
            return method(*[_operand(item, scope) for item in command[1:]], *extra)
        if len(command) > 1 or extra:
            raise TemplateError("can't give argument to non-function")
        return method


_CONSTANTS = {"true": True, "false": False, "nil": None}


def _operand(item: Any, scope: Scope) -> Any:
    if isinstance(item, Pipeline):
        return item.value(scope)
    if isinstance(item, tuple):
        return item[0]
    if item.startswith("word:"):
        return _word(item[5:], scope)
    name, _, rest = item.partition(".")
    if name.startswith("$"):
        if name != "$" and name not in scope.variables:
            raise TemplateError(f'undefined variable "{name}"')
        value = scope.variables[name]
    else:
        value = scope.dot
    for part in filter(None, rest.split(".")):
        value = _member(value, part, item)
    return value


def _word(name: str, scope: Scope) -> Any:
    if name in _CONSTANTS:
        return _CONSTANTS[name]
    if name not in scope.functions:
        raise TemplateError(f'function "{name}" not defined')
    return scope.functions[name]()


def _member(value: Any, name: str, operand: str) -> Any:
    if isinstance(value, dict):
        if name in value:
            return value[name]
        raise MissingField(f'map has no entry for key "{name}"', operand)
    if value is None:
        return None
    raise MissingField(f"can't evaluate field {name} in {show(value)}", operand)


def truth(value: Any) -> bool:
    """Whether Go calls it true: not nil, false, 0 or empty."""
    return bool(value)


def show(value: Any) -> str:
    """A value as Go's fmt prints it with %v."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{_inner(item)}" for key, item in sorted(value.items())) + "]"
    if isinstance(value, list):
        return "[" + " ".join(_inner(item) for item in value) + "]"
    if callable(value):
        return show(value())
    return str(value)


def _inner(value: Any) -> str:
    return "<nil>" if value is None else show(value)


class _Parser:
    """Cuts a template into pieces and nests them."""

    def __init__(self, source: str) -> None:
        self.parts = self._split(source)

    @staticmethod
    def _split(source: str) -> list[tuple[str, str]]:
        """("text", ...) and ("action", ...) in order, with the white space eaten that "-" eats."""
        parts: list[tuple[str, str]] = []
        trim = False
        while source:
            text, opening, rest = source.partition("{{")
            if trim:
                text = text.lstrip()
            if opening and rest.startswith("- "):
                text, rest = text.rstrip(), rest[1:]
            parts.append(("text", text))
            if not opening:
                break
            action, closing, source = rest.partition("}}")
            if not closing:
                raise TemplateError("unclosed action")
            trim = action.endswith(" -")
            action = action[:-1] if trim else action
            if not action.strip().startswith("/*"):
                parts.append(("action", action.strip()))
        return parts

    def block(self, stops: tuple[str, ...]) -> tuple[Block, str]:
        """Pieces up to one of the words in stops, and the action that stopped it."""
        block = Block()
        while self.parts:
            kind, text = self.parts.pop(0)
            if kind == "text":
                block.nodes.append(Text(text))
                continue
            word = text.split(" ", 1)[0]
            if word in stops:
                return block, text
            block.nodes.append(self.action(word, text))
        if stops:
            raise TemplateError("unexpected EOF")
        return block, ""

    def action(self, word: str, text: str) -> Node:
        if word in ("if", "with"):
            return self.choice(word, text[len(word) :])
        if word == "range":
            return self.range(text[5:])
        if word in ("end", "else"):
            raise TemplateError(f"unexpected {{{{{word}}}}}")
        tokens = tokenize(text)
        if len(tokens) > 1 and tokens[1] == ("mark", ":="):
            return Value(parse_pipeline(tokens[2:]), tokens[0][1])
        return Value(parse_pipeline(tokens))

    def choice(self, word: str, condition: str) -> Node:
        pipeline = parse_pipeline(tokenize(condition))
        body, stop = self.block(("else", "end"))
        otherwise = Block()
        if stop.startswith("else"):
            rest = stop[4:].strip()
            if rest.startswith(("if ", "with ")):
                following = rest.split(" ", 1)
                otherwise.nodes.append(self.choice(following[0], following[1]))
            else:
                otherwise, _ = self.block(("end",))
        return Choice(word, pipeline, body, otherwise)

    def range(self, text: str) -> Node:
        tokens = tokenize(text)
        variables: list[str] = []
        if ("mark", ":=") in tokens:
            at = tokens.index(("mark", ":="))
            variables = [value for kind, value in tokens[:at] if kind == "field"]
            tokens = tokens[at + 1 :]
        body, stop = self.block(("else", "end"))
        otherwise = self.block(("end",))[0] if stop == "else" else Block()
        return Range(variables, parse_pipeline(tokens), body, otherwise)


def tokenize(text: str) -> list[tuple[str, str]]:
    """Cut an action into tokens."""
    tokens = []
    position = 0
    text = text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if not match or match.end() == position:
            raise TemplateError(f"unexpected {text[position:].strip()[:1]!r} in operand")
        tokens.append((match.lastgroup or "", match.group(match.lastgroup or 0)))
        position = match.end()
    return tokens


def parse_pipeline(tokens: list[tuple[str, str]]) -> Pipeline:
    """Tokens to commands."""
    rest = list(tokens)
    pipeline = _pipeline(rest)
    if rest:
        raise TemplateError(f"unexpected {rest[0][1]!r}")
    return pipeline


def _pipeline(rest: list[tuple[str, str]]) -> Pipeline:
    commands: list[list[Any]] = [[]]
    while rest and rest[0][0] != "closing":
        kind, text = rest.pop(0)
        if (kind, text) == ("mark", "|"):
            commands.append([])
        elif (kind, text) == ("mark", "("):
            inner = _pipeline(rest)
            if not rest:
                raise TemplateError("unclosed left paren")
            inner.members = rest.pop(0)[1].removeprefix(")")
            commands[-1].append(inner)
        else:
            commands[-1].append(_literal(kind, text))
    if not all(commands):
        raise TemplateError("missing value for command")
    return Pipeline(commands)


def _literal(kind: str, text: str) -> Any:
    if kind == "string":
        if text.startswith("`"):
            return (text[1:-1],)
        import json

        return (json.loads(text),)
    if kind == "number":
        return (int(text),)
    if kind == "word":
        return f"word:{text}"
    if kind == "field":
        return text
    raise TemplateError(f"unexpected {text!r} in operand")


class Template:
    """A parsed template."""

    def __init__(self, source: str) -> None:
        from wherry.cli.functions import FUNCTIONS

        self._source = source
        self._functions = FUNCTIONS
        self._root, _ = _Parser(source).block(())

    def render(self, data: Any) -> str:
        """The text for one value of "."."""
        try:
            return self._root.render(Scope(data, {"$": data}, self._functions))
        except MissingField as error:
            column = self._source.find(error.operand)
            text = f'template: :1:{column}: executing "" at <{error.operand}>: {error}'
            raise TemplateError(text) from error
