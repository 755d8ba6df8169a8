"""Limits, the freezer and signals to all under `wherry-runtime`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.kernel.oci.runtimes import SLEEP, until
from wherry.runtime import cgroups

pytestmark = pytest.mark.root


def cgroup_value(runtime, controller: str, v1: str, v2: str) -> str:
    layout = cgroups.detect()
    for hierarchy in layout.hierarchies:
        if layout.version == 2 or controller in hierarchy.controllers:
            path = f"{hierarchy.mount}/wherry-test/{runtime.id}/{v1 if layout.version == 1 else v2}"
            return Path(path).read_text().strip()
    raise AssertionError(controller)


def test_limits_are_set_and_updated(runtime):
    runtime.program(*SLEEP)
    runtime.spec["linux"]["resources"].update(memory={"limit": 64 << 20}, pids={"limit": 50})
    runtime.background("run", "-d")
    assert cgroup_value(runtime, "memory", "memory.limit_in_bytes", "memory.max") == str(64 << 20)
    assert cgroup_value(runtime, "pids", "pids.max", "pids.max") == "50"
    runtime.ok("update", "--memory", str(80 << 20), "--pids-limit", "60", runtime.id)
    assert cgroup_value(runtime, "memory", "memory.limit_in_bytes", "memory.max") == str(80 << 20)
    assert cgroup_value(runtime, "pids", "pids.max", "pids.max") == "60"
    runtime.ok("update", "-r", "-", runtime.id, stdin=subprocess.PIPE, input='{"pids": {"limit": 70}}')
    assert cgroup_value(runtime, "pids", "pids.max", "pids.max") == "70"


def test_pause_and_resume(running):
    running.ok("pause", running.id)
    assert running.state()["status"] == "paused"
    assert "container not running" in running("pause", running.id).stderr
    refused = running("exec", running.id, "true")
    assert (refused.returncode, "cannot exec in a paused container" in refused.stderr) == (255, True)
    running.ok("resume", running.id)
    assert "container not paused" in running("resume", running.id).stderr
    running.ok("exec", running.id, "true")
    running.ok("pause", running.id)
    running.ok("kill", running.id, "KILL")
    running.stopped()


def test_kill_all_reaches_every_process(running):
    running.ok("exec", "-d", running.id, "sleep", "1000", stdout=None, stderr=None)
    assert len(json.loads(running.ok("ps", "-f", "json", running.id))) >= 2
    running.ok("kill", "--all", running.id, "KILL")
    running.stopped()
    until(lambda: json.loads(running.ok("ps", "-f", "json", running.id)) == [])
