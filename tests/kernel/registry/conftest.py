"""Every test of this folder gets an image store and a client of registries that is not patient."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.registry.desk import Desk
from tests.liars import Liar, liar


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with Desk(tmp_path) as made:
        yield made


@pytest.fixture
def registry() -> Iterator[Liar]:
    with liar() as server:
        yield server
