"""Volumes of a size, on a kernel that has project quotas, on ext4 and on xfs."""

from __future__ import annotations

import pytest

from tests.vm import machine

pytestmark = [pytest.mark.root, pytest.mark.slow]


def test_sizes_on_ext4_and_xfs() -> None:
    modules = "for each in ext4 xfs quota_v2 bridge veth nf_tables; do modprobe $each; done"
    pytest = ".venv/bin/python -m pytest -q --color=no -p no:cacheprovider -p no:xdist -o faulthandler_timeout=600"
    status, output = machine.run(f"dmesg -n 1; {modules}; {pytest} tests/vm/guest_quotas.py", 1500)
    assert (status, " passed" in output) == (0, True), output[-6000:]
