"""The AppArmor profile of containers, on Debian's kernel, which has that security module."""

from __future__ import annotations

import pytest

from tests.vm import machine

pytestmark = [pytest.mark.root, pytest.mark.slow]


def test_the_profile() -> None:
    pytest = ".venv/bin/python -m pytest -q --color=no -p no:cacheprovider -p no:xdist -o faulthandler_timeout=600"
    status, output = machine.run(f"{pytest} tests/vm/guest_apparmor.py", 1500)
    assert (status, " passed" in output) == (0, True), output[-6000:]
