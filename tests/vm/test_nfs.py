"""Volumes of the type nfs, on a kernel that has the client and the server of NFS."""

from __future__ import annotations

import pytest

from tests.vm import machine

pytestmark = [pytest.mark.root, pytest.mark.slow]


def test_volumes_on_a_server_of_the_kernel() -> None:
    modules = "for each in nfs nfsv4 nfsd bridge veth nf_tables; do modprobe $each; done"
    pytest = ".venv/bin/python -m pytest -q --color=no -p no:cacheprovider -p no:xdist -o faulthandler_timeout=600"
    status, output = machine.run(f"dmesg -n 1; {modules}; {pytest} tests/vm/guest_nfs.py", 1500)
    assert (status, " passed" in output) == (0, True), output[-6000:]
