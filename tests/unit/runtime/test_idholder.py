"""The program that lives in a user namespace: what it makes, on this machine; that it is made, for others."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from wherry.kernel import const, idmap, namespaces
from wherry.runtime import idholder

RANGES = ((0, 300000, 10),)


@pytest.fixture(scope="module", autouse=True)
def _programs() -> Iterator[None]:
    """A process keeps these for good; this one does not."""
    kept = [idholder._program(flags) for flags in (0, const.CLONE_NEWNET)]
    yield
    idholder._program.cache_clear()
    for fd in kept:
        os.close(fd)


@pytest.mark.root
@pytest.mark.parametrize("start", [idholder.spawned, idmap.spawned, idmap.forked])
def test_a_network_namespace_belongs_to_a_user_namespace_with_these_ids(start):
    fd = idmap.namespace(RANGES, RANGES, start, "net")
    try:
        owner = namespaces.owner(fd)
        try:
            assert os.fstat(owner).st_ino != os.stat("/proc/self/ns/user").st_ino
            assert os.fstat(fd).st_ino != os.stat("/proc/self/ns/net").st_ino
            above = namespaces.parent(owner)
            assert os.path.samestat(os.fstat(above), os.stat("/proc/self/ns/user"))
            os.close(above)
        finally:
            os.close(owner)
    finally:
        os.close(fd)


@pytest.mark.root
def test_it_ends_when_it_may_not(monkeypatch):
    monkeypatch.setattr(idholder, "_program", lambda flags: made)
    made = idholder.sealed.keep("t", idholder.image(os.uname().machine, 1))  # no flag of unshare(2): EINVAL
    try:
        with pytest.raises(OSError, match="no user namespace can be made"):
            idmap.namespace(RANGES, RANGES, idholder.spawned)
    finally:
        os.close(made)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_it_is_small(machine):
    assert len(idholder.image(machine, 0)) < 512
