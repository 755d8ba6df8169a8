"""The table of operations says what is so."""

from __future__ import annotations

import ast
import json

import pytest

from tests.e2e import operations
from tests.e2e.operations import REFUSED, ROOT, SERVED
from tests.engine import Engine

pytestmark = [pytest.mark.root, pytest.mark.engine]


def test_the_page_is_up_to_date() -> None:
    page = (ROOT / "docs/compat.md").read_text()
    assert operations.table() in page, "run: python -m tests.e2e.operations"


def test_every_operation_of_the_schema_is_in_it() -> None:
    assert not SERVED.keys() & REFUSED.keys()
    assert len(SERVED) + len(REFUSED) == 108  # of the schema 1.55


@pytest.mark.parametrize("test", sorted(set(SERVED.values())))
def test_the_tests_it_names_exist(test: str) -> None:
    path, _, name = test.partition("::")
    tree = ast.parse((ROOT / path).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("operation", REFUSED)
def test_refusals(engine: Engine, operation: str) -> None:
    status, _ = REFUSED[operation]
    method, path = operation.split(" ")
    got, text = engine.api(method, "/v1.51" + path.replace("{name}", "x").replace("{id}", "x"))
    assert got == status, text
    assert json.loads(text)["message"]


def test_lists_that_are_empty(engine: Engine) -> None:
    assert engine.docker("plugin", "ls", "-q") == ""
    assert engine.docker("volume", "ls", "-q") == ""


def test_the_networks_there_are(engine: Engine) -> None:
    assert engine.docker("network", "ls", "--format", "{{.Name}} {{.Driver}}").splitlines() == [
        "bridge bridge",
        "host host",
        "none null",
    ]
    bridge = engine.docker("network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}} {{.Options}}", "bridge")
    assert f"com.docker.network.bridge.name:{engine.bridge}" in bridge
