"""Which cgroup driver an engine has, and where its groups go."""

from __future__ import annotations

import pytest

from wherry.cmd import groupdriver
from wherry.cmd.config import parse
from wherry.cmd.groupdriver import GroupDriver, choose
from wherry.errors import InvalidArgument, SystemFailure

SYSTEMD = ("--exec-opt", "native.cgroupdriver=systemd")
CGROUPFS = ("--exec-opt", "native.cgroupdriver=cgroupfs")


@pytest.fixture
def systemd(monkeypatch):
    monkeypatch.setattr(groupdriver, "booted", lambda: True)
    monkeypatch.setattr(groupdriver.systemd, "version", lambda: "252")


@pytest.mark.usefixtures("systemd")
@pytest.mark.parametrize(
    ("words", "version", "driver"),
    [
        ((), 2, GroupDriver("systemd", "system.slice")),
        ((), 1, GroupDriver("cgroupfs", "/wherry")),
        (("--cgroup-parent", "/a"), 2, GroupDriver("cgroupfs", "/a")),
        (("--cgroup-parent", "a-b.slice"), 2, GroupDriver("systemd", "a-b.slice")),
        (SYSTEMD, 1, GroupDriver("systemd", "system.slice")),
        (CGROUPFS, 2, GroupDriver("cgroupfs", "/wherry")),
        ((*CGROUPFS, "--cgroup-parent", "/a.slice"), 2, GroupDriver("cgroupfs", "/a.slice")),
    ],
)
def test_where_systemd_runs(words, version, driver):
    assert choose(parse([*words]), version) == driver


@pytest.mark.usefixtures("systemd")
@pytest.mark.parametrize("parent", ["/a", "a", ".slice", "a/b.slice"])
def test_parents_that_are_no_slices(parent):
    with pytest.raises(InvalidArgument, match=r'should be a valid slice named as "xxx\.slice"'):
        choose(parse([*SYSTEMD, "--cgroup-parent", parent]), 2)


def test_where_it_does_not_run(monkeypatch):
    monkeypatch.setattr(groupdriver, "booted", lambda: False)
    assert choose(parse([]), 2) == GroupDriver("cgroupfs", "/wherry")
    with pytest.raises(SystemFailure, match="systemd does not run on this machine, there is no /run/systemd/system"):
        choose(parse([*SYSTEMD]), 2)


def test_where_it_does_not_answer(monkeypatch, systemd):
    def version():
        raise OSError(111, "connect: Connection refused", "/run/dbus/system_bus_socket")

    monkeypatch.setattr(groupdriver.systemd, "version", version)
    with pytest.raises(SystemFailure, match=r"does not answer over D-Bus .*refused.*native\.cgroupdriver=cgroupfs"):
        choose(parse([*SYSTEMD]), 2)


@pytest.mark.parametrize("parent", ["a", "/a/../b"])
def test_paths_that_are_none(parent):
    with pytest.raises(InvalidArgument, match="must be an absolute path"):
        choose(parse([*CGROUPFS, "--cgroup-parent", parent]), 1)
