"""The house rules as functions: source text in, complaints out, so that each can be shown to fail.

A complaint is "PATH: what" or "PATH: NAME: what"; sizes come as "PATH:NAME" -> number, for the ratchet.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "wherry"

FUNCTION_LINES = 50
FILE_LINES = 500
RUNTIME_FILE_LINES = 400
PARAMETERS = 6

RUNTIME_STDLIB = {
    "__future__", "array", "base64", "binascii", "codecs", "collections", "contextlib", "dataclasses",
    "errno", "fcntl", "functools", "gc", "hashlib", "heapq", "io", "itertools", "json", "marshal", "math",
    "mmap", "os", "random", "resource", "select", "signal", "socket", "stat", "string", "struct", "sys", "termios",
    "time", "tty", "types", "typing",
}
"""What runtime/ may import: all of it is loaded once in the zygote and is paid for by every start of it."""

RUNTIME_EXCEPTIONS = {
    ("src/wherry/runtime/lean.py", "inspect"),  # the stand-in that spares everyone else this import
    ("src/wherry/runtime/exits.py", "traceback"),  # imported when a supervisor fails, before it has a container
}

FORBIDDEN_MODULES = {"utils", "helpers", "helper", "manager", "handler", "misc", "common"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def python_files(*folders: str) -> Iterator[tuple[str, str]]:
    """Every Python file below the given folders of the repository, as (relative path, text)."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield str(path.relative_to(ROOT)), path.read_text()


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function]]:
    """Every function of a module with its dotted name, nested ones too."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Function):
            yield prefix + node.name, node
            yield from functions(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.ClassDef):
            yield from functions(node, f"{prefix}{node.name}.")
        else:
            yield from functions(node, prefix)


def sizes(path: str, text: str) -> dict[str, int]:
    """What is larger than the rules allow."""
    found: dict[str, int] = {}
    limit = RUNTIME_FILE_LINES if path.startswith("src/wherry/runtime/") else FILE_LINES
    lines = text.count("\n")
    if lines > limit:
        found[path] = lines
    for name, node in functions(ast.parse(text)):
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        if length > FUNCTION_LINES:
            found[f"{path}:{name}"] = length
    return found


def parameters(path: str, text: str) -> Iterator[str]:
    """Functions with more parameters than a caller can keep in mind."""
    for name, node in functions(ast.parse(text)):
        arguments = node.args
        count = len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)
        if "." in name and arguments.args and arguments.args[0].arg in ("self", "cls"):
            count -= 1
        if count > PARAMETERS:
            yield f"{path}: {name}: {count} parameters"


def docstrings(path: str, text: str) -> Iterator[str]:
    """Public names without a sentence that says what they are."""
    tree = ast.parse(text)
    if tree.body and not ast.get_docstring(tree):
        yield f"{path}: no module docstring"
    for node in tree.body:
        if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
            continue
        if not ast.get_docstring(node):
            yield f"{path}: {node.name}: no docstring"
        if isinstance(node, ast.ClassDef):
            yield from _method_docstrings(path, node)


@cache
def documented_methods() -> dict[str, set[str]]:
    """Class name to its methods that have a docstring, in the whole package: an override need not repeat it."""
    found: dict[str, set[str]] = {}
    for _, text in python_files("src"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef):
                methods = {item.name for item in node.body if isinstance(item, Function) and ast.get_docstring(item)}
                found[node.name] = found.get(node.name, set()) | methods
    return found


def _method_docstrings(path: str, owner: ast.ClassDef) -> Iterator[str]:
    bases = [base.id if isinstance(base, ast.Name) else getattr(base, "attr", "") for base in owner.bases]
    inherited = set().union(*(documented_methods().get(base, set()) for base in bases))
    for node in owner.body:
        if not isinstance(node, Function) or node.name.startswith("_") or ast.get_docstring(node):
            continue
        if node.name in inherited:
            continue
        lines = (node.end_lineno or node.lineno) - node.body[0].lineno + 1
        if lines > 3:  # what a three-line method does is its name and its body
            yield f"{path}: {owner.name}.{node.name}: no docstring"


def imported(text: str) -> set[str]:
    """Full names of all modules imported anywhere in a file, lazily or not."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return names


def runtime_imports(path: str, text: str) -> Iterator[str]:
    """The runtime knows a fixed part of the standard library, itself and the kernel package."""
    for name in sorted(imported(text)):
        top = name.split(".")[0]
        ours = name.startswith(("wherry.runtime", "wherry.kernel"))
        if ours or (path, name) in RUNTIME_EXCEPTIONS:
            continue
        if top == "wherry" or top not in RUNTIME_STDLIB:
            yield f"{path}: imports {name}, which is not on the runtime's list"


def kernel_imports(path: str, text: str) -> Iterator[str]:
    """The kernel package stands on the standard library alone."""
    for name in sorted(imported(text)):
        top = name.split(".")[0]
        if top == "wherry" and not name.startswith("wherry.kernel"):
            yield f"{path}: imports {name}"
        elif top != "wherry" and top not in sys.stdlib_module_names:
            yield f"{path}: imports {name}, which is not the standard library"


def kernel_boundary(path: str, text: str) -> Iterator[str]:
    """ctypes, ioctl and netlink sockets exist in kernel/ only."""
    if "ctypes" in {name.split(".")[0] for name in imported(text)}:
        yield f"{path}: imports ctypes outside kernel/"
    for node in ast.walk(ast.parse(text)):
        name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
        if name in ("ioctl", "AF_NETLINK"):
            yield f"{path}:{getattr(node, 'lineno', 0)}: {name} outside kernel/"


def bare_tasks(path: str, text: str) -> Iterator[str]:
    """A task that nobody awaits loses its exception; the guarded helper is the one place that makes them."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and node.attr in ("create_task", "ensure_future"):
            yield f"{path}:{node.lineno}: {node.attr} outside the guarded helper"


def todos(path: str, text: str) -> Iterator[str]:
    """A thing to do later is an issue, not a comment."""
    for number, line in enumerate(text.splitlines(), 1):
        if re.search(r"\b(TO" r"DO|FIX" r"ME|X" r"XX|HA" r"CK)\b", line):
            yield f"{path}:{number}: {line.strip()}"


def swallowed(path: str, text: str) -> Iterator[str]:
    """`except Exception: pass` hides what went wrong from everyone."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.ExceptHandler):
            continue
        name = node.type.id if isinstance(node.type, ast.Name) else ""
        broad = node.type is None or name in ("Exception", "BaseException")
        if broad and all(isinstance(step, ast.Pass | ast.Continue) for step in node.body):
            yield f"{path}:{node.lineno}: swallows every exception"


def package_inits(path: str, text: str) -> Iterator[str]:
    """An __init__.py holds a docstring at most: importing a package must cost nothing."""
    if path.endswith("__init__.py"):
        code = [node for node in ast.parse(text).body if not _is_docstring(node)]
        if code:
            yield f"{path}: code in __init__.py"


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def names(path: str, text: str) -> Iterator[str]:
    """File names that say nothing about what is inside."""
    if Path(path).stem in FORBIDDEN_MODULES:
        yield f"{path}: a name that says nothing"
