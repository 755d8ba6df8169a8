"""Debian's kernel 6.1, which knows fewer ways to make an overlay, and has no driver erofs for us."""

from __future__ import annotations

import pytest

from tests.vm import machine

pytestmark = [pytest.mark.root, pytest.mark.slow]


def test_containers_and_user_namespaces_on_6_1() -> None:
    modules = "for each in ext4 bridge veth nf_tables; do modprobe $each; done"
    pytest = ".venv/bin/python -m pytest -q --color=no -p no:cacheprovider -p no:xdist -o faulthandler_timeout=600"
    status, output = machine.run(f"dmesg -n 1; {modules}; {pytest} tests/vm/guest_old_kernel.py", 1500)
    assert (status, " passed" in output) == (0, True), output[-6000:]
