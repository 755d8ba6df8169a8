"""The profile docker-default on a kernel with AppArmor: run by test_apparmor.py in an emulated machine.

Each denial is seen twice: with the profile, and that the same call works without it, so that nothing else denies it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine import Engine

pytestmark = [pytest.mark.root, pytest.mark.engine, pytest.mark.slow]

PROFILES = Path("/sys/kernel/security/apparmor/profiles")
CURRENT = ("cat", "/proc/self/attr/current")
CONFINED = "docker-default (enforce)"
OPEN = ("--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined", "--security-opt", "systempaths=unconfined")
WITHOUT = ("--security-opt", "apparmor=unconfined")


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = Engine()
    engine.start()
    engine.import_busybox()
    yield engine
    engine.destroy()


def in_busybox(engine: Engine, *words: str, flags: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return engine.run("run", "--rm", "--network", "none", *flags, "busybox", *words)


def test_it_is_loaded_when_the_engine_has_started(engine: Engine):
    assert CONFINED in PROFILES.read_text().splitlines()
    assert "name=apparmor" in engine.docker("info", "-f", "{{.SecurityOptions}}")


def test_who_is_confined(engine: Engine):
    assert in_busybox(engine, *CURRENT).stdout.strip("\n\0") == CONFINED
    for flags in (WITHOUT, ("--privileged",)):
        assert in_busybox(engine, *CURRENT, flags=flags).stdout.strip("\n\0") == "unconfined"
    named = ("--privileged", "--security-opt", "apparmor=docker-default")
    assert in_busybox(engine, *CURRENT, flags=named).stdout.strip("\n\0") == CONFINED


def test_an_exec_is_confined_as_well(engine: Engine):
    engine.docker("run", "-d", "--name", "aa", "busybox", "sleep", "1000")
    for flags in ((), ("--privileged",), ("-u", "web")):
        assert engine.docker("exec", *flags, "aa", *CURRENT).strip("\0") == CONFINED
    pid = engine.docker("inspect", "-f", "{{.State.Pid}}", "aa")
    assert Path(f"/proc/{pid}/attr/current").read_text().strip("\n\0") == CONFINED
    engine.docker("stop", "-t", "0", "aa")  # a signal from outside is let in
    assert engine.docker("inspect", "-f", "{{.State.ExitCode}}", "aa") == "137"
    engine.docker("rm", "aa")


def test_what_inspect_says(engine: Engine):
    shown = []
    for name, flags in (("aa", ()), ("bb", WITHOUT), ("cc", ("--privileged",))):
        engine.docker("create", "--name", name, *flags, "busybox", "true")
        shown.append(engine.docker("inspect", "-f", "{{.AppArmorProfile}}", name))
        engine.docker("start", "-a", name)
        shown.append(engine.docker("inspect", "-f", "{{.AppArmorProfile}}", name))
    assert shown == ["", "docker-default", "unconfined", "unconfined", "", "unconfined"]
    engine.remove_all()


@pytest.mark.parametrize(
    "script",
    [
        "echo h > /proc/sysrq-trigger",
        "head -c 1 /proc/kcore > /dev/null",
        "echo 1 > /proc/sys/vm/drop_caches",
        "cat /proc/sys/kernel/printk > /proc/sys/kernel/printk",
        "echo 1000 > /sys/kernel/mm/ksm/sleep_millisecs",
        "cat /sys/kernel/security/lsm",
        "mount -t tmpfs none /tmp",
        "mount -o bind /bin /tmp",
    ],
)
def test_what_is_denied(engine: Engine, script: str):
    flags = (*OPEN, "--cap-add", "SYS_RAWIO")
    for folder in ("/sys/kernel/mm", "/sys/kernel/security"):
        flags += ("-v", f"{folder}:{folder}")
    denied = in_busybox(engine, "sh", "-c", script, flags=flags)
    assert denied.returncode != 0, script
    assert "ermission denied" in denied.stderr
    allowed = in_busybox(engine, "sh", "-c", script, flags=(*flags, *WITHOUT))
    assert (allowed.returncode, allowed.stderr) == (0, "")


def test_what_stays_allowed(engine: Engine):
    script = """set -e
        echo 1 > /proc/self/oom_score_adj
        cat /proc/sys/kernel/shm_rmid_forced > /proc/sys/kernel/shm_rmid_forced
        mkdir /sys/fs/cgroup/below
        echo x > /tmp/x; chmod 700 /tmp/x; chown 1000 /tmp/x; mv /tmp/x /tmp/y; ln /tmp/y /tmp/z
        sleep 100 & kill -9 $!
        ip addr >/dev/null; umount /tmp/below 2>/dev/null || :
        ps >/dev/null; cat /proc/1/status >/dev/null; ls -l /proc/1/exe >/dev/null"""
    flags = ("--security-opt", "systempaths=unconfined", "--security-opt", "writable-cgroups=true")
    ran = in_busybox(engine, "sh", "-c", script, flags=flags)
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stderr


@pytest.mark.parametrize("runtime", ["/usr/sbin/runc", "/usr/bin/crun"])
def test_other_runtimes_apply_it_too(runtime: str):
    other = Engine("--add-runtime", f"other={runtime}")
    other.start()
    try:
        other.import_busybox()
        ran = in_busybox(other, *CURRENT, flags=("--runtime", "other"))
        assert ran.stdout.strip("\n\0") == CONFINED, ran.stderr
    finally:
        other.destroy()


def test_it_is_loaded_again_when_it_has_gone(engine: Engine):
    subprocess.run(["apparmor_parser", "-R"], input="profile docker-default {}", text=True, check=True)
    assert CONFINED not in PROFILES.read_text()
    assert in_busybox(engine, *CURRENT).stdout.strip("\n\0") == CONFINED


def test_a_profile_that_is_not_loaded_is_told(engine: Engine):
    ran = in_busybox(engine, "true", flags=("--security-opt", "apparmor=nobody-has-it"))
    assert ran.returncode == 127  # as runc's "no such file or directory" makes it
    assert "apply the label nobody-has-it" in ran.stderr


def without_parser(engine: Engine, stand_in: str) -> Iterator[None]:
    """Start the engine anew with another program in the place of the parser; then as it was."""
    place = Path("/usr/sbin/apparmor_parser")
    original = place.with_name("apparmor_parser.kept")
    os.rename(place, original)
    if stand_in:
        place.write_text(stand_in)
        place.chmod(0o755)
    engine.stop()
    engine.start()
    yield
    place.unlink(missing_ok=True)
    os.rename(original, place)
    engine.stop()
    engine.start()


@pytest.fixture
def no_parser(engine: Engine) -> Iterator[None]:
    yield from without_parser(engine, "")


@pytest.fixture
def broken_parser(engine: Engine) -> Iterator[None]:
    subprocess.run(["apparmor_parser", "-R"], input="profile docker-default {}", text=True, check=True)
    yield from without_parser(engine, "#!/bin/sh\necho 'the grammar is out' >&2; exit 3\n")


@pytest.mark.usefixtures("no_parser")
def test_without_a_parser_the_engine_says_so(engine: Engine):
    text = "AppArmor is enabled, but apparmor_parser is not installed"
    assert text in engine.tail()
    assert text in engine.docker("info", "-f", "{{.Warnings}}")
    assert "name=apparmor" not in engine.docker("info", "-f", "{{.SecurityOptions}}")
    assert in_busybox(engine, *CURRENT).stdout.strip("\n\0") == "unconfined"


@pytest.mark.usefixtures("broken_parser")
def test_a_parser_that_fails_keeps_containers_from_starting(engine: Engine):
    ran = in_busybox(engine, "true")
    text = "AppArmor enabled on system but the docker-default profile could not be loaded: running "
    assert (ran.returncode, text in ran.stderr, "the grammar is out" in ran.stderr) == (125, True, True), ran.stderr
    assert in_busybox(engine, *CURRENT, flags=WITHOUT).stdout.strip("\n\0") == "unconfined"
