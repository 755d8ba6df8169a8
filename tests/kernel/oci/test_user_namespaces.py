"""Containers with a user namespace under `wherry-runtime`: its root file system belongs to the mapped ids already."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.kernel.oci.runtimes import SLEEP, until

pytestmark = pytest.mark.root

BASE = 640000


@pytest.fixture
def mapped(runtime, rootfs, tmp_path):
    own = tmp_path / "mapped"
    shutil.copytree(rootfs, own, symlinks=True)
    for folder, names, files in os.walk(own):
        for name in (".", *names, *files):
            os.chown(Path(folder, name), BASE, BASE, follow_symlinks=False)
    ids = [{"containerID": 0, "hostID": BASE, "size": 65536}]
    runtime.spec["root"]["path"] = str(own)
    runtime.spec["linux"]["namespaces"].append({"type": "user"})
    runtime.spec["linux"].update(uidMappings=ids, gidMappings=ids)
    runtime.spec["root"]["readonly"] = False
    return runtime, own


def test_run_and_exec(mapped):
    runtime, root = mapped
    runtime.program(*SLEEP)
    out = runtime.background("run", "-d")
    until(lambda: out.read_text() == "ready\n")
    pid = int(runtime.state()["pid"])
    assert Path(f"/proc/{pid}/uid_map").read_text().split() == ["0", str(BASE), "65536"]
    assert runtime.ok("exec", runtime.id, "id").startswith("uid=0(root) gid=0")
    assert runtime.ok("exec", "-u", "web", runtime.id, "sh", "-c", "touch /tmp/f; id").startswith("uid=33(web)")
    runtime.ok("exec", runtime.id, "touch", "/made")
    assert (root / "made").stat().st_uid == BASE
    assert not (root / "tmp" / "f").exists()


def test_namespaces_of_another_container_are_joined_with_its_user_namespace(mapped):
    runtime, _ = mapped
    runtime.program(*SLEEP)
    out = runtime.background("run", "-d")
    until(lambda: out.read_text() == "ready\n")
    pid = int(runtime.state()["pid"])
    kinds = {"user": "user", "network": "net", "ipc": "ipc"}
    for entry in runtime.spec["linux"]["namespaces"]:
        if entry["type"] in kinds:
            entry["path"] = f"/proc/{pid}/ns/{kinds[entry['type']]}"
    runtime.spec["linux"]["cgroupsPath"] += "-other"
    runtime.program("sh", "-c", "ls -l /proc/self/ns/user /proc/self/ns/net; id -u")
    told = runtime.ok("run", "other")
    for kind in ("user", "net"):
        assert os.readlink(f"/proc/{pid}/ns/{kind}") in told
    assert told.endswith("\n0\n")
