"""The house rules hold for the whole tree, and each rule can fail."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests.arch import rules

RATCHET = Path(__file__).with_name("ratchet.json")
GUARDED_TASKS = "src/wherry/events.py"

Rule = Callable[[str, str], Iterable[str]]


def complaints(rule: Rule, *folders: str) -> list[str]:
    return [complaint for path, text in rules.python_files(*folders) for complaint in rule(path, text)]


EVERYWHERE = [rules.parameters, rules.todos, rules.swallowed, rules.package_inits, rules.names]


@pytest.mark.parametrize("rule", EVERYWHERE, ids=lambda rule: rule.__name__)
def test_rule_holds_in_the_package(rule: Rule) -> None:
    assert complaints(rule, "src") == []


@pytest.mark.parametrize("rule", [rules.todos, rules.swallowed], ids=lambda rule: rule.__name__)
def test_rule_holds_in_tests_and_bench(rule: Rule) -> None:
    assert complaints(rule, "tests", "bench") == []


def test_public_names_are_documented() -> None:
    assert complaints(rules.docstrings, "src") == []


def test_the_runtime_imports_only_what_is_on_its_list() -> None:
    assert complaints(rules.runtime_imports, "src/wherry/runtime") == []


def test_the_kernel_package_imports_only_the_standard_library() -> None:
    assert complaints(rules.kernel_imports, "src/wherry/kernel") == []


def test_ctypes_ioctl_and_netlink_stay_in_the_kernel_package() -> None:
    outside = [c for c in complaints(rules.kernel_boundary, "src") if not c.startswith("src/wherry/kernel/")]
    assert outside == []


def test_sizes_only_shrink() -> None:
    """The ratchet lists what was too large when the rule came; an entry may shrink or go, never grow or come."""
    allowed: dict[str, int] = json.loads(RATCHET.read_text())
    found: dict[str, int] = {}
    for path, text in rules.python_files("src", "tests", "bench"):
        found |= rules.sizes(path, text)
    assert {name: size for name, size in found.items() if size > allowed.get(name, 0)} == {}
    assert {name: size for name, size in allowed.items() if found.get(name, 0) < size} == {}, "lower the ratchet"


def test_the_architecture_page_stays_short() -> None:
    assert len((rules.ROOT / "docs" / "ARCHITECTURE.md").read_text().splitlines()) <= 200


SAMPLES: list[tuple[Rule, str, str]] = [
    (rules.parameters, "src/a.py", "def f(a, b, c, *, d, e, f, g): ...\n"),
    (rules.todos, "src/a.py", "x = 1  # TO" "DO: later\n"),
    (rules.swallowed, "src/a.py", "try:\n    f()\nexcept Exception:\n    pass\n"),
    (rules.swallowed, "src/a.py", "try:\n    f()\nexcept:\n    pass\n"),
    (rules.package_inits, "src/a/__init__.py", "from a import b\n"),
    (rules.names, "src/utils.py", ""),
    (rules.docstrings, "src/a.py", "x = 1\n"),
    (rules.docstrings, "src/a.py", '"""Doc."""\n\ndef public(): ...\n'),
    (rules.docstrings, "src/a.py", '"""D."""\nclass A:\n    """D."""\n    def m(self):\n' + "        a\n" * 4),
    (rules.runtime_imports, "src/wherry/runtime/a.py", "import asyncio\n"),
    (rules.runtime_imports, "src/wherry/runtime/a.py", "def f():\n    import subprocess\n"),
    (rules.runtime_imports, "src/wherry/runtime/a.py", "from wherry.models import base\n"),
    (rules.kernel_imports, "src/wherry/kernel/a.py", "from wherry.runtime import wire\n"),
    (rules.kernel_imports, "src/wherry/kernel/a.py", "import msgspec\n"),
    (rules.kernel_boundary, "src/wherry/api/a.py", "import ctypes\n"),
    (rules.kernel_boundary, "src/wherry/api/a.py", "import fcntl\nfcntl.ioctl(0, 1)\n"),
    (rules.kernel_boundary, "src/wherry/api/a.py", "import socket\nsocket.socket(socket.AF_NETLINK)\n"),
]


@pytest.mark.parametrize(("rule", "path", "text"), SAMPLES)
def test_each_rule_can_fail(rule: Rule, path: str, text: str) -> None:
    assert list(rule(path, text))


@pytest.mark.parametrize("path", ["src/wherry/runtime/a.py", "src/wherry/api/a.py"])
def test_the_size_rule_can_fail(path: str) -> None:
    function = "def f():\n" + "    x = 1\n" * 50
    assert rules.sizes(path, function) == {f"{path}:f": 51}
    limit = 400 if "runtime" in path else 500
    assert rules.sizes(path, "x = 1\n" * limit) == {}
    assert rules.sizes(path, "x = 1\n" * (limit + 1)) == {path: limit + 1}
