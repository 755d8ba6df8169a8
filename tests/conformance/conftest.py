"""Each test of this folder runs once per storage driver."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.drivers import DRIVERS, Bench
from tests.trash import settle


@pytest.fixture(params=list(DRIVERS))
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(request.param, tmp_path / "driver")
    yield made
    made.close()
    made.driver.close()
    settle()
