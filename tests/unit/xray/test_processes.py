"""Processes of this test in place of a container's."""

from __future__ import annotations

import os
import subprocess

import pytest

from wherry.xray import processes


def test_a_bounded_number_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "MOST", 3)
    children = [subprocess.Popen(["sleep", "100"]) for _ in range(5)]
    pids = [child.pid for child in children]
    try:
        found = processes.read(pids[0], pids, {pids[1]: "cafe"}, has_init=False)
        assert (found.count, found.left_out) == (5, 2)
        roles = {each.pid: each.role for each in found.entries}
        assert roles[os.getpid()] == "supervisor"
        assert roles[pids[0]] == "first"
        assert roles[pids[1]] == "exec"
        assert len([each for each in found.entries if each.role in ("first", "exec", "member")]) == 3
        assert next(each for each in found.entries if each.pid == pids[1]).exec_id == "cafe"
    finally:
        for child in children:
            child.kill()
            child.wait()


def test_one_that_ends_meanwhile_is_left_out() -> None:
    child = subprocess.Popen(["sleep", "100"])
    gone = subprocess.Popen(["true"])
    gone.wait()
    try:
        found = processes.read(child.pid, [child.pid, gone.pid], {}, has_init=True)
        assert gone.pid not in [each.pid for each in found.entries]
        assert "init" in [each.role for each in found.entries]
    finally:
        child.kill()
        child.wait()
