"""Control groups that systemd makes, where systemd is the first process: an emulated machine with Debian's."""

from __future__ import annotations

import pytest

from tests.vm import machine

pytestmark = [pytest.mark.root, pytest.mark.slow]

PYTEST = ".venv/bin/python -m pytest -q --color=no -p no:cacheprovider -p no:xdist -o faulthandler_timeout=600"
DRIVER = "export WHERRY_TEST_CGROUP_DRIVER=systemd;"


@pytest.mark.parametrize("kind", ["systemd", "legacy"])
def test_scopes(kind: str) -> None:
    status, output = machine.run(f"{DRIVER} {PYTEST} tests/vm/guest_systemd.py", 2500, kind)
    assert (status, " passed" in output) == (0, True), output[-6000:]


def test_resource_flags_and_updates() -> None:
    """Those of the cgroupfs driver once more."""
    files = "tests/e2e/test_run_flags_resources.py tests/e2e/test_update.py"
    status, output = machine.run(f"{DRIVER} {PYTEST} {files}", 2500, "systemd")
    assert (status, " passed" in output) == (0, True), output[-6000:]
