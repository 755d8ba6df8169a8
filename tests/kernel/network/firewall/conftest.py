"""The suite runs against every backend: what is promised of the network does not depend on how it is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.kernel.network.firewall.world import World

BACKENDS = ("nftables", "iptables")


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """The backend's name."""
    return str(request.param)


@pytest.fixture
def world(engine: Callable, backend: str) -> Iterator[Callable[..., World]]:
    """Make a host with an engine and a neighbour; call it inside of the test's namespace."""
    with ExitStack() as stack:
        yield lambda **config: World(engine(firewall=backend, **config), stack)
