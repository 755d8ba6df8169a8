"""The kernel surface of a container of a whole engine: devices (RT-16), user namespaces (KS-03), filters (KS-04)."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.root, pytest.mark.engine]

PROBE = """
for node in 'null c 1 3' 'mem c 1 1' 'kmsg c 1 11' 'fuse c 10 229' 'disk b 7 0'; do
    set -- $node
    mknod /tmp/$1 $2 $3 $4 || echo "$1: no mknod"
    if head -c 0 /tmp/$1 2>/dev/null && : < /tmp/$1; then echo "$1 opens"; else echo "$1 denied"; fi
    rm -f /tmp/$1
done 2>/dev/null
"""
DENIED = ["null opens", "mem denied", "kmsg denied", "fuse denied", "disk denied"]
STATUS = ["grep", "-E", "^(Seccomp|NoNewPrivs|CapBnd):", "/proc/self/status"]


def test_nodes_can_be_made_but_not_opened(engine):
    """In the container's own process, in an exec, and after a pause."""
    assert engine.docker("run", "--rm", "busybox", "sh", "-c", PROBE).split("\n") == DENIED
    engine.docker("run", "-d", "--name", "d", "busybox", "sleep", "100")
    assert engine.docker("exec", "d", "sh", "-c", PROBE).split("\n") == DENIED
    engine.docker("pause", "d")
    engine.docker("unpause", "d")
    assert engine.docker("exec", "d", "sh", "-c", PROBE).split("\n") == DENIED


def test_an_exec_with_more_capabilities_has_no_more_devices(engine):
    engine.docker("run", "-d", "--name", "d", "busybox", "sleep", "100")
    assert engine.docker("exec", "--privileged", "d", "sh", "-c", PROBE).split("\n") == DENIED


def test_a_device_that_was_given_is_there_and_no_other(engine):
    seen = engine.docker("run", "--rm", "--device", "/dev/fuse", "busybox", "sh", "-c", PROBE).split("\n")
    assert seen == ["null opens", "mem denied", "kmsg denied", "fuse opens", "disk denied"]


def test_the_filter_holds_for_the_first_process_and_for_execs(engine):
    plain = "CapBnd:\t00000000a80425fb\nNoNewPrivs:\t0\nSeccomp:\t2"
    assert engine.docker("run", "--rm", "busybox", *STATUS) == plain
    engine.docker("run", "-d", "--name", "s", "--security-opt", "no-new-privileges", "busybox", "sleep", "100")
    assert engine.docker("exec", "s", *STATUS) == plain.replace("Privs:\t0", "Privs:\t1")


def test_unconfined(engine):
    seen = engine.docker("run", "--rm", "--security-opt", "seccomp=unconfined", "busybox", *STATUS)
    assert seen.endswith("Seccomp:\t0")


@pytest.mark.parametrize("flags", ["-Ur", "-m", "-p", "-n", "-u", "-i"])
def test_no_new_namespaces(engine, flags):
    ran = engine.run("run", "--rm", "busybox", "unshare", flags, "true")
    assert ran.returncode != 0
    assert "Operation not permitted" in ran.stderr


def test_a_profile_of_the_user(engine, tmp_path):
    profile = tmp_path / "profile.json"
    rule = '{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}'
    profile.write_text('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [' + rule + "]}")
    ran = engine.run("run", "--rm", "--security-opt", f"seccomp={profile}", "busybox", "mkdir", "/x")
    assert ran.stderr.strip() == "mkdir: can't create directory '/x': No space left on device"


def test_a_profile_that_cannot_be_kept_is_refused(engine, tmp_path):
    profile = tmp_path / "profile.json"
    profile.write_text('{"defaultAction": "SCMP_ACT_NOTIFY"}')
    ran = engine.run("run", "--rm", "--security-opt", f"seccomp={profile}", "busybox", "true")
    assert ran.returncode == 125
    assert "SCMP_ACT_NOTIFY needs a seccomp agent" in ran.stderr
