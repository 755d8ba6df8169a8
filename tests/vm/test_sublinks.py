"""macvlan and ipvlan networks on a kernel that has all kinds of links."""

from __future__ import annotations

import pytest

from tests.vm import machine

pytestmark = [pytest.mark.root, pytest.mark.slow]

PYTEST = ".venv/bin/python -m pytest -q --color=no -p no:cacheprovider -p no:xdist -o faulthandler_timeout=600"


def test_all_kinds_of_links() -> None:
    modules = "for each in ipvlan macvlan 8021q dummy veth bridge nf_tables; do modprobe $each; done"
    status, output = machine.run(f"{modules}; {PYTEST} tests/vm/guest_sublinks.py", 1500)
    assert (status, " passed" in output) == (0, True), output[-6000:]
