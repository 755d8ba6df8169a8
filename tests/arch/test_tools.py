"""Lint, types and import contracts are tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.arch.rules import ROOT

BIN = Path(sys.executable).parent


def run(*command: str, cwd: Path = ROOT) -> tuple[int, str]:
    result = subprocess.run(
        [str(BIN / command[0]), *command[1:]], cwd=cwd, capture_output=True, text=True, check=False, timeout=300
    )
    return result.returncode, result.stdout + result.stderr


def test_ruff_finds_nothing() -> None:
    status, text = run("ruff", "check", "--no-cache", "--output-format", "concise", "src", "tests", "bench", "tools")
    assert status == 0, text


def test_ruff_can_fail(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("import os\n")
    status, text = run("ruff", "check", "--no-cache", "--config", str(ROOT / "pyproject.toml"), str(tmp_path))
    assert status == 1
    assert "F401" in text


def test_mypy_strict_finds_nothing(tmp_path: Path) -> None:
    status, text = run("mypy", "--cache-dir", str(ROOT / ".mypy_cache"))
    assert status == 0, text


def test_mypy_strict_can_fail(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("def f(x):\n    return x\n")
    status, text = run("mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(tmp_path / "bad.py"))
    assert status == 1
    assert "no-untyped-def" in text


def test_import_contracts_hold() -> None:
    status, text = run("lint-imports", "--no-cache")
    assert status == 0, text
    assert "0 broken" in text


def test_an_import_contract_can_fail(tmp_path: Path) -> None:
    """The contracts of the tree, pointed at a copy of it in which the kernel imports the models."""
    package = tmp_path / "wherry"
    for name in ("kernel", "models", "cli", "api"):
        (package / name).mkdir(parents=True)
        (package / name / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "models" / "base.py").touch()
    (package / "kernel" / "wrong.py").write_text("from wherry.models import base\n")
    (tmp_path / ".importlinter").write_text(
        "[importlinter]\nroot_packages =\n    wherry\n[importlinter:contract:kernel]\n"
        "name = kernel\ntype = forbidden\nsource_modules =\n    wherry.kernel\nforbidden_modules =\n    wherry.models\n"
    )
    # lint-imports puts the working directory first on its path: the copy shadows the installed package.
    status, text = run("lint-imports", "--no-cache", cwd=tmp_path)
    assert status == 1, text
    assert "kernel BROKEN" in text


def test_lock_files_name_no_registry() -> None:
    for path in (ROOT / "requirements").glob("*.txt"):
        lines = path.read_text().splitlines()
        assert not [line for line in lines if "://" in line or line.startswith("-")]
        pins = [line for line in lines if "==" in line]
        assert pins
        assert text_has_hash_for_each(lines)


def text_has_hash_for_each(lines: list[str]) -> bool:
    return all("--hash=" in lines[number + 1] for number, line in enumerate(lines) if "==" in line)
