"""The tests of control groups and resource flags once more, on a kernel with version 2 alone."""

from __future__ import annotations

import pytest

from tests.vm import machine

pytestmark = [pytest.mark.root, pytest.mark.slow]

PYTEST = ".venv/bin/python -m pytest -q --color=no -p no:cacheprovider -p no:xdist -o faulthandler_timeout=600"


def test_control_groups_of_version_2() -> None:
    """Those that only version 1 can have are skipped; the one that measures time would measure the emulator."""
    status, output = machine.run(f"{PYTEST} tests/kernel/test_cgroups.py -k 'not cost'", 400)
    assert (status, " passed" in output) == (0, True), output[-6000:]
    assert "failed" not in output


def test_resource_flags_of_version_2() -> None:
    status, output = machine.run(f"{PYTEST} tests/e2e/test_run_flags_resources.py", 1500)
    assert (status, " passed" in output) == (0, True), output[-6000:]


def test_what_version_2_alone_shows() -> None:
    status, output = machine.run(f"{PYTEST} tests/vm/guest_cgroup2.py", 600)
    assert (status, " passed" in output) == (0, True), output[-6000:]


def test_updates_statistics_and_other_runtimes_of_version_2() -> None:
    """What measures the machine's speed is left out: it would measure the emulator."""
    files = "tests/e2e/test_update.py tests/e2e/test_run_flags_runtimes.py tests/e2e/test_stats.py"
    status, output = machine.run(f"{PYTEST} {files} -k 'not load and not second and not nobody'", 2500)
    assert (status, " passed" in output) == (0, True), output[-6000:]
