"""docker run flags about the process: who and where it is, environment, streams, signals, PID 1, health, restarts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import pexpect
import pytest

from tests import waiting
from tests.engine import Engine

pytestmark = [
    pytest.mark.root,
    pytest.mark.engine,
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),
]

TRAP = "trap 'echo got TERM; exit 7' TERM; echo ready; while :; do sleep 0.05; done"


until = partial(waiting.until, seconds=10.0)


def ready(engine: Engine, name: str) -> None:
    """Wait until a container has said "ready"."""
    until(lambda: "ready" in engine.docker("logs", name))


# ---- identity, place, environment


@pytest.mark.parametrize(
    ("user", "wanted"),
    [
        ("web", "1000 1000 29 1000"),  # by name: with the groups of /etc/group
        ("1000", "1000 1000 29 1000"),
        ("1000:29", "1000 29 29"),
        ("web:audio", "1000 29 29"),
        ("4321", "4321 0 0"),
        ("4321:1234", "4321 1234 1234"),
        (":29", "0 29 29"),
    ],
)
def test_user_forms(engine: Engine, user: str, wanted: str):
    script = "grep -E '^(Uid|Gid|Groups)' /proc/self/status"
    out = engine.docker("run", "--rm", "-u", user, "busybox", "sh", "-c", script)
    lines = {line.split(":")[0]: line.split(":")[1].split() for line in out.splitlines()}
    uid, gid, *groups = wanted.split()
    assert (set(lines["Uid"]), set(lines["Gid"])) == ({uid}, {gid})
    assert set(lines["Groups"]) | {gid} == {*groups, gid}


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("-u", "nosuch"), "unable to find user nosuch: no matching entries in passwd file"),
        (("-u", "0:nosuch"), "unable to find group nosuch: no matching entries in group file"),
        (("-u", "99999999999"), "uids and gids must be in range 0-2147483647"),
        (("--group-add", "nosuch"), "unable to find group nosuch: no matching entries in group file"),
        (("-w", "relative"), "the working directory 'relative' is invalid, it needs to be an absolute path"),
        (("--stop-signal", "BOGUS"), "invalid signal: BOGUS"),
        (("--restart", "bogus"), "unknown policy 'bogus'"),
        (("--restart", "always:3"), "maximum retry count can only be used with 'on-failure'"),
        (("--restart", "on-failure:-1"), "maximum retry count cannot be negative"),
        (("--health-cmd", "x", "--health-interval", "1us"), "Interval in Healthcheck cannot be less than 1ms"),
        (("--health-cmd", "x", "--no-healthcheck"), "--no-healthcheck conflicts with --health-* options"),
        (("--annotation", "=x"), "the empty string is not permitted as an annotation key"),
        (("--runtime", "nosuch"), "unknown or invalid runtime name: nosuch"),
        (("--name", "a/b"), "Invalid container name (a/b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"),
        (("--attach", "bogus"), "valid streams are STDIN, STDOUT and STDERR"),
        (("--detach-keys", "foo"), "400"),
    ],
)
def test_what_cannot_be(engine: Engine, flags: tuple[str, ...], text: str):
    ran = engine.run("run", *(() if flags[0] == "--restart" else ("--rm",)), *flags, "busybox", "true")
    assert (ran.returncode in (1, 125), text in ran.stderr) == (True, True), ran


@pytest.mark.parametrize(("asked", "spelled"), [("linux/arm64", "linux/arm64"), ("windows", "windows/amd64")])
def test_an_image_of_another_platform_is_looked_for_elsewhere(engine: Engine, asked: str, spelled: str):
    """The 404 is what makes clients pull; nobody has an image of that name to give."""
    ran = engine.run("create", "--pull", "never", "--platform", asked, "busybox", "true")
    assert f"does not match the specified platform ({spelled})" in ran.stderr
    ran = engine.run("create", "--platform", asked, "busybox", "true")
    assert (ran.returncode, "Unable to find image 'busybox:latest' locally" in ran.stderr) == (1, True)


def test_group_add_by_number_and_name(engine: Engine):
    out = engine.docker("run", "--rm", "--group-add", "1234", "--group-add", "audio", "busybox", "id", "-G")
    assert set(out.split()) == {"0", "29", "1234"}


def test_workdir_is_made_and_entered(engine: Engine):
    out = engine.docker("run", "--rm", "-w", "/made/../here/deep", "busybox", "readlink", "/proc/self/cwd")
    assert out == "/here/deep"


def test_environment_and_files_of_it(engine: Engine, tmp_path: Path):
    (tmp_path / "env").write_text("# a comment\nFROM_FILE=1 and more\nBOTH=file\nFROM_OUTSIDE\n")
    flags = ("-e", "A=x=y", "-e", "BOTH=flag", "--env-file", str(tmp_path / "env"))
    ran = subprocess.run(
        ["docker", "run", "--rm", *flags, "busybox", "sh", "-c", "cat /proc/1/environ | tr '\\0' '\\n'"],
        env={**engine.environment, "FROM_OUTSIDE": "taken along"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = set(ran.stdout.splitlines())
    assert {"A=x=y", "BOTH=flag", "FROM_FILE=1 and more", "FROM_OUTSIDE=taken along"} <= found


def test_entrypoint_replaces_what_is_run(engine: Engine):
    assert engine.docker("run", "--rm", "--entrypoint", "/bin/echo", "busybox", "a", "b") == "a b"
    ran = engine.run("run", "--rm", "--entrypoint", "", "busybox")
    assert (ran.returncode, "no command specified" in ran.stderr) == (125, True)


def test_name_labels_and_annotations(engine: Engine, tmp_path: Path):
    """They are records; their effect is that a container is found by them, and that a hook of a runtime sees them."""
    (tmp_path / "labels").write_text("from-file=1\nboth=file\n")
    flags = ("--name", "aa", "-l", "both=flag", "--label-file", str(tmp_path / "labels"), "--annotation", "a.b/c=d")
    engine.docker("create", *flags, "busybox", "true")
    for query in ("label=both=flag", "label=from-file=1", "name=aa"):
        assert engine.docker("ps", "-aq", "--filter", query) != ""
    assert engine.docker("ps", "-aq", "--filter", "label=both=file") == ""
    again = engine.run("create", "--name", "aa", "busybox", "true")
    assert 'The container name "/aa" is already in use' in again.stderr


def test_cidfile_holds_the_id_and_is_never_overwritten(engine: Engine, tmp_path: Path):
    place = tmp_path / "cid"
    engine.docker("run", "-d", "--cidfile", str(place), "--name", "aa", "busybox", "sleep", "1000")
    assert place.read_text() == engine.docker("inspect", "-f", "{{.Id}}", "aa")
    again = engine.run("run", "--cidfile", str(place), "busybox", "true")
    assert (again.returncode, "container ID file found" in again.stderr) != (0, False)


def test_platform_of_the_image(engine: Engine):
    assert engine.docker("run", "--rm", "--platform", "linux", "busybox", "echo", "ran") == "ran"


@pytest.mark.parametrize("policy", ["missing", "never"])
def test_pull_is_not_needed_for_an_image_that_is_there(engine: Engine, policy: str):
    assert engine.docker("run", "--rm", "-q", "--pull", policy, "busybox", "echo", "ran") == "ran"


def test_pull_never_and_always(engine: Engine):
    ran = engine.run("run", "--rm", "--pull", "never", "nosuch", "true")
    assert (ran.returncode, "No such image: nosuch:latest" in ran.stderr) == (125, True)
    ran = engine.run("run", "--rm", "--pull", "always", "busybox", "true")
    assert ran.returncode == 125  # nobody has an image of that name to give


def test_content_trust_is_the_clients(engine: Engine):
    assert engine.docker("run", "--rm", "--disable-content-trust", "busybox", "echo", "ran") == "ran"


def test_rm_leaves_nothing_on_the_disk(engine: Engine):
    engine.docker("run", "--rm", "--name", "aa", "busybox", "touch", "/file")
    until(lambda: not os.listdir(engine.data_root / "containers"))
    assert engine.docker("ps", "-aq") == ""


# ---- streams


def test_attach_chooses_streams(engine: Engine):
    words = ("busybox", "sh", "-c", "echo out; echo err >&2")
    ran = engine.run("run", "--rm", "-a", "stderr", *words)
    assert (ran.stdout, ran.stderr) == ("", "err\n")
    ran = engine.run("run", "--rm", "-a", "stdout", *words)
    assert (ran.stdout, ran.stderr) == ("out\n", "")
    assert engine.docker("run", "--rm", "-i", "-a", "stdin", "-a", "stdout", "busybox", "cat", input="in") == "in"


def test_detach_leaves_it_running_without_us(engine: Engine):
    shown = engine.docker("run", "-d", "busybox", "sh", "-c", "echo ready; sleep 1000")
    assert len(shown) == 64
    ready(engine, shown)


def test_interactive_keeps_stdin_open_without_a_client(engine: Engine):
    engine.docker("run", "-d", "-i", "--name", "open", "busybox", "cat")
    engine.docker("run", "--name", "closed", "busybox", "cat")
    assert engine.docker("wait", "closed") == "0"
    assert engine.docker("inspect", "-f", "{{.State.Running}}", "open") == "true"


def test_tty_is_a_terminal_of_the_kernel(engine: Engine):
    script = "tty; test -t 0 && test -t 1 && echo yes; readlink /proc/self/fd/0; ls -l /dev/console"
    shell = pexpect.spawn(
        "docker", ["run", "--rm", "-it", "busybox", "sh", "-c", script], env=engine.environment, encoding="utf-8"
    )
    shell.expect(pexpect.EOF, timeout=20)
    lines = shell.before.split()
    assert lines[:3] == ["/dev/pts/0", "yes", "/dev/pts/0"]
    assert lines[3].startswith("crw")


def test_detach_keys_are_those_that_were_asked_for(engine: Engine):
    shell = pexpect.spawn(
        "docker", ["run", "-it", "--name", "aa", "--detach-keys", "ctrl-x,d", "busybox", "sh"],
        env=engine.environment, encoding="utf-8", timeout=20,
    )  # fmt: skip
    shell.expect("/ # ")
    shell.send("\x18d")
    shell.expect(pexpect.EOF)
    assert engine.docker("inspect", "-f", "{{.State.Running}}", "aa") == "true"


@pytest.mark.parametrize("proxy", [True, False])
def test_sig_proxy(engine: Engine, proxy: bool):
    """A signal to the client reaches the program, or does not."""
    client = subprocess.Popen(
        ["docker", "run", "--name", "aa", f"--sig-proxy={str(proxy).lower()}", "busybox", "sh", "-c", TRAP],
        env=engine.environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert client.stdout is not None
        assert client.stdout.readline() == "ready\n"
        client.send_signal(signal.SIGTERM)
        if proxy:
            assert client.wait(timeout=20) == 7
        time.sleep(0.3)
    finally:
        client.kill()
        client.communicate()
    assert engine.docker("inspect", "-f", "{{.State.Running}}", "aa") == ("false" if proxy else "true")
    assert ("got TERM" in engine.docker("logs", "aa")) == proxy


# ---- process 1


def test_a_program_in_exec_form_is_process_1_and_is_asked_to_stop(engine: Engine):
    script = f"echo pid $$; {TRAP}"
    engine.docker("run", "-d", "--name", "aa", "busybox", "sh", "-c", script)
    ready(engine, "aa")
    started = time.monotonic()
    engine.docker("stop", "aa")
    assert time.monotonic() - started < 5
    assert engine.docker("logs", "aa").splitlines() == ["pid 1", "ready", "got TERM"]
    assert engine.docker("inspect", "-f", "{{.State.ExitCode}}", "aa") == "7"


def test_a_program_that_drops_its_privileges_stays_process_1(engine: Engine):
    """What gosu, su-exec and setpriv do in an entrypoint: become somebody, then execve the command."""
    script = f"echo pid $$ uid $(id -u); {TRAP}"
    entrypoint = 'exec su web -c "$1"'
    engine.docker("run", "-d", "--name", "aa", "--entrypoint", "sh", "busybox", "-c", entrypoint, "--", script)
    ready(engine, "aa")
    engine.docker("stop", "aa")
    assert engine.docker("logs", "aa").splitlines() == ["pid 1 uid 1000", "ready", "got TERM"]
    assert engine.docker("inspect", "-f", "{{.State.ExitCode}}", "aa") == "7"


def test_process_1_without_a_handler_ignores_the_signal_and_is_killed_after_the_timeout(engine: Engine):
    engine.docker("run", "-d", "--name", "aa", "--stop-timeout", "1", "busybox", "sleep", "1000")
    started = time.monotonic()
    engine.docker("stop", "aa")
    assert 0.9 < time.monotonic() - started < 6
    assert engine.docker("inspect", "-f", "{{.State.ExitCode}}", "aa") == "137"


def test_stop_signal_is_the_one_that_is_sent(engine: Engine):
    script = "trap 'echo got USR1; exit 9' USR1; echo ready; while :; do sleep 0.05; done"
    engine.docker("run", "-d", "--name", "aa", "--stop-signal", "SIGUSR1", "busybox", "sh", "-c", script)
    ready(engine, "aa")
    engine.docker("stop", "aa")
    assert engine.docker("logs", "aa").splitlines() == ["ready", "got USR1"]
    assert engine.docker("wait", "aa") == "9"


def test_init_hands_signals_on_and_reaps_orphans(engine: Engine):
    """An orphan that ends under --init is gone; without, process 1 is a program that never waits for it."""
    orphan = 'sh -c "sleep 0.1 & exec true"; exec sleep 1000'
    for name, flags in (("with", ("--init",)), ("without", ())):
        engine.docker("run", "-d", "--name", name, *flags, "busybox", "sh", "-c", orphan)
    until(lambda: "Z" in engine.docker("exec", "without", "ps", "-o", "stat"))
    until(lambda: engine.docker("exec", "with", "ps", "-o", "comm").count("sleep") == 1)
    assert "Z" not in engine.docker("exec", "with", "ps", "-o", "stat")
    engine.docker("run", "-d", "--init", "--name", "aa", "busybox", "sh", "-c", TRAP)
    ready(engine, "aa")
    engine.docker("stop", "aa")
    assert engine.docker("wait", "aa") == "7"


# ---- health, restarts


def test_every_health_flag_has_its_effect(engine: Engine):
    """Unhealthy after two failures 100 ms apart; the period without failures first; a slow check is killed."""
    flags = (
        *("--health-cmd", "date +%s.%N >> /log; test -e /good", "--health-interval", "100ms"),
        *("--health-retries", "2", "--health-timeout", "5s", "--health-start-period", "400ms"),
        *("--health-start-interval", "50ms"),
    )
    engine.docker("run", "-d", "--name", "aa", *flags, "busybox", "sleep", "1000")

    def status() -> str:
        return engine.docker("inspect", "-f", "{{.State.Health.Status}}", "aa")

    assert status() == "starting"
    until(lambda: status() == "unhealthy")
    found = json.loads(engine.docker("inspect", "-f", "{{json .State.Health}}", "aa"))
    assert found["FailingStreak"] >= 2
    assert int(engine.docker("exec", "aa", "wc", "-l", "/log").split()[0]) > 3  # more often in the start period
    engine.docker("exec", "aa", "touch", "/good")
    until(lambda: status() == "healthy")


def test_no_healthcheck_takes_the_images_away(engine: Engine):
    engine.docker("run", "-d", "--name", "aa", "--no-healthcheck", "busybox", "sleep", "1000")
    assert engine.docker("inspect", "-f", "{{if .State.Health}}has{{else}}none{{end}}", "aa") == "none"


def test_restart_starts_another_process(engine: Engine):
    script = "echo run >> /runs; test $(wc -l < /runs) -ge 3 && exec sleep 1000; exit 3"
    engine.docker("run", "-d", "--name", "aa", "--restart", "on-failure:5", "busybox", "sh", "-c", script)
    until(lambda: engine.run("exec", "aa", "grep", "-c", "run", "/runs").stdout.strip() == "3")
    assert engine.docker("inspect", "-f", "{{.RestartCount}}", "aa") == "2"
