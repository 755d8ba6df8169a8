"""A root file system of busybox, a runtime with a root directory of its own, and a container that runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernel.oci.runtimes import SLEEP, Runtime, reap, until
from wherry.kernel.process import set_child_subreaper
from wherry.runtime import cgroups


@pytest.fixture(scope="session")
def rootfs(tmp_path_factory):
    root = tmp_path_factory.mktemp("rootfs")
    root.chmod(0o755)  # for those who are not root inside
    for folder in ("bin", "etc", "proc", "dev", "sys", "tmp"):
        (root / folder).mkdir()
    busybox = root / "bin" / "busybox"
    busybox.write_bytes(Path("/bin/busybox").read_bytes())
    busybox.chmod(0o755)
    for name in ("sh", "cat", "echo", "sleep", "id", "ls", "tty", "stty", "true", "env", "pwd", "touch", "hostname"):
        (root / "bin" / name).symlink_to("busybox")
    (root / "etc" / "passwd").write_text("root:x:0:0::/:/bin/sh\nweb:x:33:44::/:/bin/sh\n")
    return root


@pytest.fixture
def runtime(tmp_path, rootfs):
    set_child_subreaper(True)
    made = Runtime(tmp_path, rootfs)
    yield made
    made.ok("delete", "--force", made.id)
    until(lambda: reap() or not made.left())
    set_child_subreaper(False)
    reap()
    cgroups.remove_empty("/wherry-test")


@pytest.fixture
def running(runtime):
    runtime.program(*SLEEP)
    out = runtime.background("run", "-d")
    until(lambda: out.read_text() == "ready\n")
    return runtime
