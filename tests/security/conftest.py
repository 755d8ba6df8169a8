"""What the attacks share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.security.attackers import canary_of


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    with canary_of(tmp_path) as made:
        yield made
