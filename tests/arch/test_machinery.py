"""The checks that guard the suite itself can fail."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import features, machine
from tests.arch.rules import ROOT


def test_a_missing_feature_is_named_with_the_reason() -> None:
    lines = features.missing({"good": lambda: "", "bad": lambda: "no such device"})
    assert lines == ["bad: no such device"]


def test_a_difference_names_what_came_and_what_went() -> None:
    lines = machine.difference({"links": {"lo", "eth0"}}, {"links": {"lo", "veth1"}})
    assert lines == ["links: left behind: veth1", "links: gone: eth0"]


@pytest.mark.root
def test_a_mount_and_a_link_left_behind_are_seen(tmp_path: Path) -> None:
    """In namespaces of its own, so that this test leaves nothing."""
    script = (
        "import subprocess as s; from tests import machine as m; b = m.snapshot();"
        f"s.run(['mount', '-t', 'tmpfs', 'tmpfs', '{tmp_path}'], check=True);"
        "s.run(['ip', 'link', 'add', 'left0', 'type', 'bridge'], check=True);"
        "s.run(['nft', 'add table ip left'], check=True);"
        "print('\\n'.join(m.difference(b, m.snapshot())))"
    )
    command = ["unshare", "--mount", "--net", sys.executable, "-c", script]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f"mounts: left behind: {tmp_path} tmpfs tmpfs" in found
    assert "links: left behind: left0" in found
    assert "firewall: left behind: table ip left" in found


def test_a_process_left_behind_is_adopted_named_and_ended() -> None:
    script = (
        "import os, subprocess; from tests import machine as m;"
        "subprocess.run(['sh', '-c', 'setsid sleep 1000 & exit 0'], check=True);"
        "print(m.orphans(os.getppid(), seconds=0.2)); print(m.orphans(os.getppid(), seconds=5)); os._exit(3)"
    )
    command = [sys.executable, "-m", "tests.machine", sys.executable, "-c", script]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 3, ran.stderr
    first, second = ran.stdout.splitlines()
    assert "sleep 1000" in first
    assert second == "[]"


def test_a_skip_fails_where_nothing_may_be_skipped(tmp_path: Path) -> None:
    (tmp_path / "test_skips.py").write_text("import pytest\ndef test_it():\n    pytest.skip('no such kernel')\n")
    environment = os.environ | {"WHERRY_TEST_STRICT": "1"}
    for name in ("PYTEST_XDIST_WORKER", machine.REAPER):
        environment.pop(name, None)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-p", "no:xdist", str(tmp_path)]
    command += ["--rootdir", str(tmp_path), "-c", "/dev/null"]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 1, result.stdout
    assert "every test must run" in result.stdout
    assert "no such kernel" in result.stdout
