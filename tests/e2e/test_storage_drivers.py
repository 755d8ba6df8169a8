"""Containers on every storage driver, and what is left of layers when processes are killed."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine import Engine

pytestmark = [pytest.mark.root, pytest.mark.engine]

DRIVERS = ["erofs", "overlay2", "vfs"]


@pytest.fixture(params=DRIVERS)
def driven(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """An engine with a driver that is asked for."""
    engine = Engine("--storage-driver", request.param)
    try:
        engine.start()
        engine.import_busybox()
        yield engine
    finally:
        engine.destroy()


def driver(engine: Engine) -> str:
    return engine.docker("info", "--format", "{{.Driver}}")


def layers(engine: Engine) -> list[str]:
    return sorted(os.listdir(engine.data_root / "snapshots" / driver(engine) / "layers"))


def mounted_layers() -> list[str]:
    """Mounts of EROFS in the mount table that this machine's programs see."""
    table = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in table if " - erofs " in line]


def supervisor_of(engine: Engine, name: str) -> int:
    pid = engine.docker("inspect", "-f", "{{.State.Pid}}", name)
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_the_life_of_an_image_and_its_containers(driven: Engine, tmp_path: Path) -> None:
    """Run, write, diff, cp, export, commit, save, load, volumes filled from the image, and nothing left at the end."""
    status = dict(json.loads(driven.docker("info", "--format", "{{json .DriverStatus}}")))
    assert status["Chosen because"] == "set by storage-driver"
    driven.docker("run", "--name", "aa", "busybox", "sh", "-c", "rm /etc/group; echo new > /etc/passwd; mkdir /made")
    assert driven.docker("diff", "aa").splitlines() == ["C /etc", "D /etc/group", "C /etc/passwd", "A /made"]
    driven.docker("cp", "aa:/bin/busybox", str(tmp_path))
    assert (tmp_path / "busybox").read_bytes() == Path("/usr/bin/busybox").resolve().read_bytes()
    driven.docker("commit", "aa", "changed")
    ran = driven.docker("run", "--rm", "changed", "sh", "-c", "cat /etc/passwd; ls /etc /")
    assert "group" not in ran
    assert ran.startswith("new\n")
    export = subprocess.run(["docker", "export", "aa"], capture_output=True, check=True, env=driven.environment).stdout
    names = subprocess.run(["tar", "-t"], input=export, capture_output=True, check=True).stdout.decode().split()
    assert "bin/busybox" in names
    assert "etc/group" not in names
    driven.docker("run", "--rm", "-v", "filled:/etc", "changed", "true")
    assert driven.docker("run", "--rm", "-v", "filled:/x", "busybox", "cat", "/x/passwd") == "new"
    driven.docker("save", "-o", str(tmp_path / "saved.tar"), "changed")
    driven.docker("rm", "aa")
    driven.docker("rmi", "changed")
    driven.docker("load", "-i", str(tmp_path / "saved.tar"))
    assert driven.docker("run", "--rm", "changed", "cat", "/etc/passwd") == "new"
    driven.docker("volume", "rm", "filled")
    driven.docker("rmi", "changed", "busybox")
    assert layers(driven) == []
    assert mounted_layers() == []


def test_containers_go_on_after_the_engine_was_killed(driven: Engine) -> None:
    driven.docker("run", "-d", "--name", "aa", "busybox", "sleep", "1000")
    driven.docker("create", "--name", "bb", "busybox", "sh", "-c", "echo b; cat /etc/passwd")
    driven.crash()
    assert mounted_layers() == []
    driven.start()
    assert "root" in driven.docker("exec", "aa", "cat", "/etc/passwd")
    assert "root" in driven.docker("start", "-a", "bb")
    os.kill(driven.zygote(), signal.SIGKILL)
    time.sleep(0.3)
    assert driven.docker("run", "--rm", "busybox", "echo", "after") == "after"
    os.kill(supervisor_of(driven, "aa"), signal.SIGKILL)
    driven.docker("wait", "aa")
    driven.docker("rm", "-f", "aa", "bb")
    driven.docker("rmi", "busybox")
    assert layers(driven) == []


def test_a_container_reads_its_image_when_that_is_gone(driven: Engine) -> None:
    """Its files were never read before: they come from what the kernel has open, not from a name."""
    driven.docker("run", "-d", "--name", "aa", "busybox", "sleep", "1000")
    driven.docker("rmi", "-f", "busybox")
    assert "web" in driven.docker("exec", "aa", "cat", "/etc/group")
    driven.docker("restart", "-t", "0", "aa")
    assert "web" in driven.docker("exec", "aa", "cat", "/etc/group")


def test_images_of_several_drivers_lie_side_by_side(own_engine: Engine) -> None:
    def restart(name: str) -> None:
        own_engine.stop()
        own_engine.flags = ("--storage-driver", name)
        own_engine.start()

    own_engine.start()
    assert driver(own_engine) == "erofs"
    own_engine.import_busybox()
    restart("overlay2")
    assert own_engine.docker("images", "-q") == ""
    own_engine.docker("image", "prune", "-a", "-f")
    own_engine.import_busybox()
    own_engine.docker("tag", "busybox", "second")
    restart("erofs")
    assert own_engine.docker("run", "--rm", own_engine.docker("images", "-q").split()[0], "echo", "whole") == "whole"
    restart("overlay2")
    assert own_engine.docker("run", "--rm", "second", "echo", "too") == "too"


def test_a_container_of_another_driver_is_explained_and_comes_back(own_engine: Engine) -> None:
    own_engine.flags = ("--storage-driver", "overlay2")
    own_engine.start()
    own_engine.import_busybox()
    own_engine.docker("run", "--name", "other", "busybox", "sh", "-c", "cat /mine 2>/dev/null || echo kept > /mine")
    own_engine.stop()
    own_engine.flags = ("--storage-driver", "erofs")
    own_engine.start()
    refused = own_engine.run("start", "other").stderr
    assert "it is one of the storage driver overlay2: start wherryd with that" in refused
    status, found = own_engine.api("GET", "/wherry/v1/system/check")
    assert status == 200
    assert "start wherryd with --storage-driver overlay2" in found
    assert "docker rm" not in found
    own_engine.stop()
    own_engine.flags = ("--storage-driver", "overlay2")
    own_engine.start()
    assert own_engine.docker("start", "-a", "other") == "kept"


def namespaces_of(pid: int) -> dict[str, Path]:
    """The mount namespaces, but that of the host, that a process has descriptors of."""
    host = os.readlink("/proc/self/ns/mnt")
    found: dict[str, Path] = {}
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(fd)
        except FileNotFoundError:
            continue  # closed meanwhile
        if target.startswith("mnt:") and target != host:
            found[target] = fd
    return found


def mounted_for(engine: Engine) -> list[str]:
    """Mounts of EROFS in the namespace that the engine has for them."""
    assert engine.process is not None
    found: list[str] = []
    for fd in namespaces_of(engine.process.pid).values():
        command = ["nsenter", f"--mount={fd}", "cat", "/proc/self/mountinfo"]
        table = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        found += [line for line in table if " - erofs " in line]
    return found


def test_a_layer_is_mounted_once_for_all_containers(own_engine: Engine) -> None:
    own_engine.start()
    own_engine.import_busybox()
    for name in ("aa", "bb"):
        own_engine.docker("run", "-d", "--name", name, "busybox", "sleep", "1000")
        pid = own_engine.docker("inspect", "-f", "{{.State.Pid}}", name)
        assert " - erofs " not in Path(f"/proc/{pid}/mountinfo").read_text()
        # or all layers of this engine stayed on the disk for as long as the container runs
        assert namespaces_of(supervisor_of(own_engine, name)) == {}
    assert len(mounted_for(own_engine)) == 1
    own_engine.docker("run", "--rm", "busybox", "true")
    assert len(mounted_for(own_engine)) == 1
    assert mounted_layers() == []
    own_engine.remove_all()
    own_engine.docker("rmi", "busybox")
    assert mounted_for(own_engine) == []
