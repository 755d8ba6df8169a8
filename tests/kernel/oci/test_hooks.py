"""The hooks of a container under `wherry-runtime`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

pytestmark = pytest.mark.root


def hook(out: Path, name: str, script: str = "") -> dict[str, object]:
    return {"path": "/bin/sh", "args": ["sh", "-c", f"echo {name} $(cat) >>{out}; {script}"]}


def test_hooks_run_in_order_and_in_their_namespaces(runtime, rootfs):
    out = runtime.folder / "hooks"
    note = f"readlink /proc/self/ns/pid >>{out}"
    runtime.program("sh", "-c", "echo program; sleep 0.2")
    runtime.spec["root"]["readonly"] = False
    runtime.spec["mounts"].append(
        {"destination": "/out", "type": "bind", "source": str(runtime.folder), "options": ["rbind", "rw"]}
    )
    runtime.spec["hooks"] = {
        "prestart": [hook(out, "prestart", note)],
        "createRuntime": [hook(out, "createRuntime")],
        "createContainer": [hook(out, "createContainer")],
        "startContainer": [hook(Path("/out/hooks"), "startContainer")],
        "poststart": [hook(out, "poststart")],
        "poststop": [hook(out, "poststop")],
    }
    runtime.background("create")
    lines = out.read_text().splitlines()
    assert [line.split()[0] for line in lines if "{" in line] == ["prestart", "createRuntime", "createContainer"]
    assert lines[1] == os.readlink("/proc/self/ns/pid")
    state = json.loads(lines[0].split(" ", 1)[1])
    assert (state["id"], state["status"], state["pid"]) == (runtime.id, "creating", runtime.state()["pid"])
    runtime.ok("start", runtime.id)
    runtime.stopped()
    runtime.ok("delete", runtime.id)
    lines = [line for line in out.read_text().splitlines() if "{" in line]
    assert [line.split()[0] for line in lines[3:]] == ["startContainer", "poststart", "poststop"]
    assert json.loads(lines[-1].split(" ", 1)[1])["status"] == "stopped"


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer", "startContainer"])
def test_a_failing_hook_undoes_everything(runtime, kind):
    out = runtime.folder / "hooks"
    runtime.program("touch", "/dev/shm/ran")
    runtime.spec["hooks"] = {
        kind: [{"path": "/bin/sh", "args": ["sh", "-c", "echo no luck; exit 2"]}],
        "poststop": [hook(out, "poststop")],
    }
    result = runtime("run", runtime.id)
    assert result.returncode == 1
    assert f"error running {kind} hook #0: exit status 2, output: no luck" in result.stderr
    assert runtime.left() == []
    assert out.read_text().startswith("poststop")
