"""No field of a container's request is accepted and then ignored: docs/request-fields.md tells what becomes of each."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import msgspec
import pytest

from wherry.models import container as models

ROOT = Path(__file__).resolve().parents[3]
TABLE = ROOT / "docs" / "request-fields.md"
SCHEMA = Path(__file__).with_name("schema-fields.txt")
ROW = re.compile(r"\| (\w+)\.(\w+) \| (.+) \|")
TEST = re.compile(r"`([^`]+)::(\w+)`")
CLASSES = {"Mount": "MountPoint"}
"""The schema's name of a type and ours, where they differ."""
OF_MOUNTS = frozenset({"BindOptions", "VolumeOptions", "DriverConfig", "ImageOptions", "TmpfsOptions"})


def schema() -> set[tuple[str, str]]:
    """Return the schema's fields, (type, field)."""
    lines = [line for line in SCHEMA.read_text().splitlines() if not line.startswith("#")]
    return {(line.partition(".")[0], line.partition(".")[2]) for line in lines}


def rows() -> dict[tuple[str, str], str]:
    """Return what the table says, by field."""
    lines = [line for line in TABLE.read_text().splitlines() if re.match(r"\| \w+\.", line)]
    found = [match for line in lines if (match := ROW.fullmatch(line))]
    assert len(found) == len(lines)
    return {(match[1], match[2]): match[3] for match in found}


def names_in(path: Path) -> set[str]:
    """Return the names of the tests of a file."""
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}


def test_every_field_of_the_schema_is_in_the_table() -> None:
    assert len(schema()) > 140
    assert set(rows()) == schema()


def test_every_field_names_a_test_or_a_reason() -> None:
    for field, text in rows().items():
        tests = TEST.findall(text)
        assert tests or len(text.split()) > 1, field
        for file, name in tests:
            assert name in names_in(ROOT / "tests" / file), (field, file, name)


def test_every_field_that_has_an_effect_is_read_from_the_request() -> None:
    """A name that the models do not have would be dropped when the body is decoded."""
    missing = set()
    for kind, field in schema():
        model = getattr(models, CLASSES.get(kind, kind))
        if field not in {each.encode_name for each in msgspec.structs.fields(model)}:
            missing.add((kind, field))
    assert missing == set()


@pytest.mark.parametrize("kind", sorted(OF_MOUNTS))
def test_options_of_mounts_are_read_by_their_names(kind: str) -> None:
    text = "".join(path.read_text() for path in (ROOT / "src/wherry/services").rglob("*.py"))
    names = {each.encode_name: each.name for each in msgspec.structs.fields(getattr(models, kind))}
    unread = {field for each, field in schema() if each == kind and f".{names[field]}" not in text}
    excused = {field for (each, field), reason in rows().items() if each == kind and "`" not in reason}
    assert unread <= excused
