"""A fake engine for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.unit.cli.fake import FakeEngine


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    with TemporaryDirectory(prefix="wt-", dir="/tmp") as folder:  # short: a socket's path has 107 bytes
        fake = FakeEngine(Path(folder))
        yield fake
        fake.close()
