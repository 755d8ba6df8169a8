"""A server over fake backends, on asyncio's own loop and on uvloop."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

from .fakes import serving

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=LOOPS)
def api(request):
    """The server, once per event loop."""
    with serving(LOOPS[request.param]()) as fixture:
        yield fixture
