"""Going through a start without effect, in a process of its own."""

import os

import pytest

from tests import mounttable
from tests.forked import forked
from wherry.runtime import rehearsal

pytestmark = pytest.mark.root


def look():
    names = sorted(os.listdir("/proc/self/fd"))
    with open("/proc/self/oom_score_adj") as score:
        return names, mounttable.lines(), score.read(), os.readlink("/proc/self/ns/mnt"), os.umask(0o22), os.getcwd()


def test_a_rehearsal_of_a_container_leaves_nothing_and_fails_nowhere(monkeypatch):
    """It may fail on a kernel that lacks something; on one where the other tests pass it may not."""

    class NotCaught(Exception):
        pass

    monkeypatch.setattr(rehearsal, "SetupError", NotCaught)
    monkeypatch.setattr(rehearsal, "OSError", NotCaught, raising=False)

    def work():
        os.chdir("/")
        before = look()
        rehearsal.container()
        return "same" if look() == before else f"{before} became {look()}"

    assert forked(work) == "same"
