"""Containers with a user namespace of their own, and what they could do to the host: FS-13 and others.

The attacker has what a client can give: all capabilities, no seccomp filter, nothing masked.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import engine as engines
from tests import mounttable
from tests.e2e.test_mount_add import done, refused
from tests.engine import Engine
from tests.security.test_data_root import CONTENT, written
from tests.volumes import content_image, remove_volumes
from tests.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.engine]

BASE, COUNT = 730000, 65536
ALL = ("--cap-add", "ALL", "--security-opt", "seccomp=unconfined", "--security-opt", "systempaths=unconfined")


@pytest.fixture(scope="module")
def shared_engine() -> Iterator[Engine]:
    yield from engines.running("--userns-remap", f"uids=0-{BASE}-{COUNT};gids=0-{BASE}-{COUNT}")


@pytest.fixture
def engine(engine: Engine) -> Iterator[Engine]:
    """The module's engine; no volume stays."""
    yield engine
    remove_volumes(engine)


def attempt(engine: Engine, *words: str) -> subprocess.CompletedProcess[str]:
    *flags, line = words
    return engine.run("run", "--rm", *ALL, *flags, "busybox", "sh", "-c", line)


def test_fs13_root_of_a_remapped_container_owns_nothing_of_the_engine(engine: Engine) -> None:
    """FS-13: as its ids on the host, every file of the data root and the run root is tried, past all folders' modes."""
    content_image(engine, "content")
    engine.docker("run", "-d", "--name", "aa", "-v", "vv:/data", "content", "sleep", "1000")
    engine.docker("exec", "aa", "sh", "-c", "touch /f /data/mine; chown 5 /f; chmod 666 /f; mkdir /d; chmod 777 /d")
    folders = [Path(at) for root in (engine.data_root, engine.run_root) for at, _, _ in os.walk(root)]
    found = {str(folder / name): os.lstat(folder / name).st_uid for folder in folders for name in os.listdir(folder)}

    def is_content(folder: Path) -> bool:
        """As open as its owner made it: what everybody may write there, he may."""
        root = engine.data_root
        return folder.is_relative_to(root) and bool(CONTENT.match(str(folder.relative_to(root))))

    assert len(folders) > 20
    closed = [each for each in folders if not is_content(each)]
    for uid in (BASE, BASE + 5):
        assert written(uid, closed) == []
    engine.remove_all()
    engine.docker("rmi", "content")
    assert {place: uid for place, uid in found.items() if BASE <= uid < BASE + COUNT} == {}


def test_fs13_in_its_files_of_etc_it_writes_as_nobody_else(engine: Engine) -> None:
    """FS-13: hosts, hostname and resolv.conf are the engine's own files, shown to the container as its own."""
    line = "chmod 4777 /etc/hosts; chown 7 /etc/hosts; sleep 99"
    engine.docker("run", "-d", "--name", "aa", "busybox", "sh", "-c", line)
    full = engine.docker("inspect", "-f", "{{.Id}}", "aa")
    folder = engine.data_root / "containers" / full
    until(lambda: (folder / "hosts").stat().st_uid == 7)
    ran = engine.run("exec", "aa", "chown", str(COUNT), "/etc/hosts")
    assert "Invalid argument" in ran.stderr
    assert {each.stat().st_uid for each in folder.iterdir()} == {0, 7}
    assert (folder.stat().st_mode & 0o777, folder.stat().st_uid) == (0o710, 0)


def test_all_capabilities_are_none_on_the_host(engine: Engine) -> None:
    """What only root of the host may: devices, clocks, messages and settings of the kernel."""
    name, panic = socket.gethostname(), Path("/proc/sys/kernel/panic").read_text()
    for line, text in (
        ("mknod /x b 8 0", "Operation not permitted"),
        ("date -s 2001-01-01 2>&1 | grep permitted >&2; false", "Operation not permitted"),
        ("echo 7 >/proc/sys/kernel/panic", "denied|Read-only|nonexistent|permitted"),
        ("echo b >/proc/sysrq-trigger", "denied|Read-only|permitted|nonexistent"),
        ("renice -n -5 1", "denied|permitted"),
    ):
        ran = attempt(engine, line)
        assert ran.returncode != 0, line
        assert any(each in ran.stderr for each in text.split("|")), (line, ran.stderr)
    assert attempt(engine, "hostname attacked && hostname").stdout == "attacked\n"
    assert socket.gethostname() == name
    assert Path("/proc/sys/kernel/panic").read_text() == panic


def test_a_secret_of_the_host_stays_one(engine: Engine, tmp_path: Path) -> None:
    """A folder of the host is mounted: root inside reads and changes what everybody may, and no more."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "secret").chmod(0o600)
    line = "cat /x/secret; chmod 777 /x/secret; chown 0 /x/secret; rm -f /x/secret"
    ran = attempt(engine, "-v", f"{tmp_path}:/x", line)
    assert ran.stdout == ""
    assert (tmp_path / "secret").read_text() == "secret"
    tmp_path.chmod(0o777)
    attempt(engine, "-v", f"{tmp_path}:/x", "cp /bin/busybox /x/sh; chown 0:0 /x/sh; chmod 6777 /x/sh")
    made = (tmp_path / "sh").stat()
    assert (made.st_uid, made.st_gid) == (BASE, BASE), "a setuid program of its own root, not of the host's"


def test_what_the_host_mounted_read_only_stays_so(engine: Engine, tmp_path: Path) -> None:
    """With CAP_SYS_ADMIN in its namespace: flags of mounts of the host are locked, and no mount gets out to it."""
    place = tmp_path / "host"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=777", "attacked", place], check=True)
    try:
        (place / "f").touch()
        (place / "f").chmod(0o666)
        (place / "dir").mkdir()
        subprocess.run(["mount", "-o", "remount,bind,ro,nosuid,nodev", place], check=True)
        line = "mount -o remount,bind,rw /x && echo a >/x/f; mount -o remount,bind,ro,suid,dev /x && echo changed"
        ran = attempt(engine, "-v", f"{place}:/x", line)
        assert ran.stdout == ""
        assert (place / "f").read_text() == ""
        subprocess.run(["mount", "--make-rshared", place], check=True)
        before = mounttable.lines()
        line = "mount -t tmpfs x /x/dir && grep ' /x/dir ' /proc/self/mountinfo"
        ran = attempt(engine, "-v", f"{place}:/x:rshared", line)
        assert " /x/dir " in ran.stdout, ran.stderr
        assert mounttable.lines() == before
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.parametrize("words", ["bind-propagation=rshared", "bind-idmap", ""])
def test_a_mount_that_is_added_does_not_loosen_the_hosts(engine: Engine, tmp_path: Path, words: str) -> None:
    """wherry mount add: as at a start, no mount gets out; what the host restricts is not given to who could undo it."""
    place = tmp_path / "host"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=777", "attacked", place], check=True)
    try:
        (place / "dir").mkdir()
        subprocess.run(["mount", "--make-rshared", place], check=True)
        engine.docker("run", "-d", "--name", "aa", *ALL, "busybox", "sleep", "1000")
        before = mounttable.lines()
        done(engine, "mount", "add", "aa", f"type=bind,src={place},dst=/x{',' if words else ''}{words}")
        line = "mount -t tmpfs x /x/dir && grep -c ' /x/dir ' /proc/self/mountinfo"
        assert engine.docker("exec", "aa", "sh", "-c", line) == "1"
        assert mounttable.lines() == before
        subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
        spec = f"type=bind,src={place}/dir,dst=/y{',' if words else ''}{words}"
        assert "could undo" in refused(engine, "mount", "add", "aa", spec)
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_a_folder_that_is_closed_to_its_root_stays_closed(engine: Engine, tmp_path: Path) -> None:
    """Working directories and mount points are no way past it, neither to read nor to make something."""
    closed = tmp_path / "closed"
    (closed / "sub").mkdir(parents=True)
    (closed / "sub" / "key").write_text("secret")
    closed.chmod(0o700)
    bind = ("-v", f"{closed}:/data")
    for words in (("-w", "/data/sub"), ("-w", "/data/new"), ("--tmpfs", "/data/t"), ("-v", "vv:/data/v")):
        ran = engine.run("run", "--rm", *bind, *words, "busybox", "cat", "key")
        assert ran.stdout == ""
        assert "ermission denied" in ran.stderr, (words, ran.stderr)
    engine.docker("run", "-d", "--name", "aa", *bind, "busybox", "sleep", "1000")
    ran = engine.run("exec", "-w", "/data/sub", "aa", "cat", "key")
    assert "secret" not in ran.stdout
    assert 'chdir to cwd ("/data/sub") set in config.json failed: permission denied' in ran.stdout + ran.stderr
    assert sorted(os.listdir(closed)) == ["sub"]
    engine.docker("exec", "aa", "sh", "-c", "mkdir -m 700 /home/web/own && chown web /home/web/own /home/web")
    assert engine.docker("exec", "-u", "web", "-w", "/home/web/own", "aa", "pwd") == "/home/web/own"
    assert engine.docker("exec", "-w", "/home/web/own", "aa", "pwd") == "/home/web/own", "root inside may go there"
    engine.docker("commit", "aa", "own")
    line = "stat -c %u:%g /home/web/own/v /home/web/own/t"
    words = ("-v", "vv:/home/web/own/v", "--tmpfs", "/home/web/own/t")
    told = engine.docker("run", "--rm", *words, "own", "sh", "-c", line)
    engine.docker("rmi", "own")
    assert told.split() == ["0:0", "0:0"], "and what is missing there is made"


def test_processes_of_the_host_are_out_of_reach(engine: Engine) -> None:
    """Not even those that have its ids: they are in another pid namespace."""
    victim = subprocess.Popen(["sleep", "100"], user=BASE, group=BASE, extra_groups=[])
    try:
        attempt(engine, "kill -9 -1; kill -9 2 3 4 5; for p in /proc/[0-9]*; do kill -9 ${p#/proc/}; done; true")
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.wait()


def test_two_containers_with_the_same_ids_are_apart(engine: Engine) -> None:
    """Their root is the same user of the host; it has no rights in the other's namespaces, and no sight of them."""
    engine.docker("run", "-d", "--name", "victim", "busybox", "sleep", "1000")
    pid = engine.docker("inspect", "-f", "{{.State.Pid}}", "victim")
    engine.docker("run", "-d", "--name", "aa", *ALL, "busybox", "sleep", "1000")
    attacker = int(engine.docker("inspect", "-f", "{{.State.Pid}}", "aa"))
    argv = ["nsenter", "-t", str(attacker), "-U", "--preserve-credentials", "nsenter", "-t", pid, "-n", "-m", "id"]
    ran = subprocess.run(argv, capture_output=True, text=True)  # with the host's /proc, which the attacker has not
    assert ran.returncode != 0
    assert "Permission denied" in ran.stderr or "Operation not permitted" in ran.stderr
    own = ["nsenter", "-t", str(attacker), "-U", "-n", "true"]
    assert subprocess.run(own, check=False).returncode == 0, "its own it may enter: the attempt was a good one"


def test_a_container_in_a_user_namespace_of_its_own_making_is_not_looked_into(engine: Engine) -> None:
    """One that goes on to a further user namespace may mount there what it likes: docker cp and mount add refuse."""
    line = "unshare -Urm sleep 1000"
    engine.docker("run", "-d", "--name", "aa", *ALL, "busybox", "sh", "-c", f"exec {line}")
    pid = int(engine.docker("inspect", "-f", "{{.State.Pid}}", "aa"))
    until(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n")
    for words in (("cp", "aa:/etc/passwd", "-"), ("export", "aa")):
        ran = engine.run(*words)
        assert "user namespace of its own" in ran.stderr, ran.stderr
