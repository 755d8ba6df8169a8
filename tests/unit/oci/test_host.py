"""Device nodes and facts of the machine that the test runs on."""

from __future__ import annotations

import os

import pytest

from wherry.oci.host import read_host_facts, stat_device, walk_devices
from wherry.oci.validate import parse_set


def test_a_node():
    device = stat_device("/dev/null")
    assert (device.kind, device.major, device.minor, device.mode) == ("c", 1, 3, 0o666)


def test_links_are_followed(tmp_path):
    os.symlink("/dev/zero", tmp_path / "z")
    assert stat_device(str(tmp_path / "z")).minor == 5


def test_what_is_no_device(tmp_path):
    assert stat_device("/etc/passwd") is None
    assert list(walk_devices("/etc/passwd")) == []
    assert list(walk_devices(str(tmp_path / "none"))) == []
    with pytest.raises(FileNotFoundError):
        stat_device(str(tmp_path / "none"))


def test_all_devices():
    found = {device.path: device for device in walk_devices("/dev")}
    assert {"/dev/null", "/dev/zero", "/dev/urandom"} <= set(found)
    assert not any(path.startswith(("/dev/pts/", "/dev/shm/", "/dev/mqueue/")) for path in found)
    assert "/dev/console" not in found
    assert not any(os.path.islink(path) for path in found)


def test_facts():
    facts = read_host_facts()
    assert facts.cgroup_version in (1, 2)
    assert facts.cpu_count >= 1
    assert 0 in parse_set(facts.mems)
    assert os.sched_getaffinity(0) <= parse_set(facts.cpus)
    assert "CAP_CHOWN" in facts.capabilities or os.geteuid() != 0
    assert facts.seccomp
    assert facts.kernel == os.uname().release
