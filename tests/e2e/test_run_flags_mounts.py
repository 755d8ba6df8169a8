"""docker run flags that mount, for what host directories and memory can give."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine import Engine

pytestmark = [pytest.mark.root, pytest.mark.engine]


def test_volume_flag_with_a_directory(engine: Engine, tmp_path: Path):
    missing = tmp_path / "made"
    engine.docker("run", "--rm", "-v", f"{missing}:/data", "busybox", "sh", "-c", "echo in > /data/file")
    assert (missing / "file").read_text() == "in\n"
    ran = engine.run("run", "--rm", "-v", f"{missing}:/data:ro", "busybox", "touch", "/data/other")
    assert "Read-only file system" in ran.stderr


def test_mount_flag_with_a_directory(engine: Engine, tmp_path: Path):
    (tmp_path / "file").write_text("x")
    flag = f"type=bind,source={tmp_path},target=/data,readonly"
    ran = engine.run("run", "--rm", "--mount", flag, "busybox", "sh", "-c", "cat /data/file; touch /data/file")
    assert (ran.stdout, "Read-only file system" in ran.stderr) == ("x", True)
    ran = engine.run("run", "--rm", "--mount", f"type=bind,source={tmp_path}/none,target=/d", "busybox", "true")
    assert (ran.returncode, "bind source path does not exist" in ran.stderr) == (125, True)


def test_tmpfs_flag(engine: Engine):
    script = "grep ' /t tmpfs ' /proc/mounts; dd if=/dev/zero of=/t/x bs=1M count=2 2>&1; stat -c %a /t"
    out = engine.docker("run", "--rm", "--tmpfs", "/t:size=1m,mode=700,noexec", "busybox", "sh", "-c", script)
    assert "noexec" in out.splitlines()[0]
    assert "No space left on device" in out
    assert out.splitlines()[-1] == "700"
    ran = engine.run("run", "--rm", "--tmpfs", "/t:bogus", "busybox", "true")
    assert (ran.returncode, 'invalid tmpfs option "bogus"' in ran.stderr) == (125, True)


def test_options_of_a_tmpfs_mount(engine: Engine):
    """What the API has for a mount of type tmpfs, and the flag for a few of it only."""
    options = '{"SizeBytes":1048576,"Mode":448,"Options":[["exec"]]}'
    mount = f'{{"Type":"tmpfs","Target":"/t","TmpfsOptions":{options}}}'
    words = '["sh","-c","stat -c %a /t; grep \' /t \' /proc/mounts"]'
    body = f'{{"Image":"busybox","Cmd":{words},"HostConfig":{{"Mounts":[{mount}]}}}}'
    assert engine.api("POST", "/containers/create?name=aa", body)[0] == 201
    shown = engine.docker("start", "-a", "aa").splitlines()
    assert shown[0] == "700"
    assert "noexec" not in shown[1]
    assert "size=1024k" in shown[1]
    bad = body.replace('["exec"]', '["bogus"]')
    status, text = engine.api("POST", "/containers/create", bad)
    assert (status, "invalid option: bogus" in text) == (400, True), text
