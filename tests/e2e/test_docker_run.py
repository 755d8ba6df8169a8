"""docker run through the unmodified CLI: output, exit codes, streams, identity, isolation, limits."""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.engine import Engine

pytestmark = [pytest.mark.root, pytest.mark.engine]


def test_output_and_removal(engine: Engine):
    assert engine.docker("run", "--rm", "busybox", "echo", "hi") == "hi"
    assert engine.docker("ps", "-aq") == ""


def test_a_layer_that_goes_at_the_end_is_never_synced(engine: Engine):
    """Every end waited for whatever anybody had written to the disk: overlayfs syncs all of it (ovl_sync_fs)."""
    for flags, volatile in ((("--rm",), True), ((), False)):
        options = engine.docker("run", *flags, "busybox", "grep", " / overlay ", "/proc/mounts").split()[3]
        assert ("volatile" in options) == volatile


@pytest.mark.parametrize(
    ("command", "code", "text"),
    [
        (("sh", "-c", "exit 7"), 7, ""),
        (("nosuch",), 127, "executable file not found in $PATH"),
        (("/nosuch",), 127, "no such file or directory"),
        (("/etc",), 126, "permission denied"),
        (("sh", "-c", "sh -c 'kill -9 $$'; exit $?"), 137, ""),
        (("sh", "-c", "kill -TERM $$; sleep 5"), 0, ""),
    ],
)
def test_exit_codes(engine: Engine, command, code, text):
    ran = engine.run("run", "--rm", "busybox", *command)
    if command[-1].startswith("kill -TERM"):  # PID 1 ignores signals that it does not handle, pid_namespaces(7)
        assert ran.returncode == 0
        return
    assert (ran.returncode, text in ran.stderr) == (code, True), ran.stderr
    assert engine.docker("ps", "-aq") == ""


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("run", "nosuch-image", "true"), "No such image: nosuch-image:latest"),
        (("run", "--name", "a b", "busybox", "true"), "Invalid container name (a b)"),
        (("run", "--network", "nosuch", "busybox", "true"), "network nosuch not found"),
        (("run", "-m", "1k", "busybox", "true"), "Minimum memory limit allowed is 6MB"),
        (("run", "--cpus", "1000", "busybox", "true"), "range of CPUs is from 0.01"),
        (("run", "--cap-add", "NOSUCH", "busybox", "true"), "unknown capability"),
        (("run", "-v", "/a:b", "busybox", "true"), "must be absolute"),
        (("run", "-e", "=x", "busybox", "true"), "invalid environment variable"),
        (("run", "--stop-signal", "BOGUS", "busybox", "true"), "invalid signal: BOGUS"),
        (("run", "--log-opt", "bogus=1", "busybox", "true"), "unknown log opt 'bogus' for json-file log driver"),
        (("run", "--network", "container:nosuch", "busybox", "true"), "No such container: nosuch"),
        (("run", "--network", "none", "--ip", "1.2.3.4", "busybox", "true"), "user specified IP address is supported"),
    ],
)
def test_bad_requests_end_with_125_and_leave_nothing(engine: Engine, words, text):
    ran = engine.run(words[0], "--pull=never", *words[1:])
    assert ran.returncode == 125
    assert text in ran.stderr, ran.stderr
    assert engine.docker("ps", "-aq") == ""


def test_stdin_reaches_the_container_and_its_end_too(engine: Engine):
    assert engine.docker("run", "-i", "--rm", "busybox", "cat", input="hi\n") == "hi"
    assert engine.docker("run", "-i", "--rm", "busybox", "wc", "-c", input="x" * 1_000_000) == "1000000"


def test_stdout_and_stderr_stay_apart(engine: Engine):
    ran = engine.run("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2")
    assert (ran.stdout, ran.stderr) == ("out\n", "err\n")


def test_large_output_is_complete(engine: Engine):
    ran = engine.run("run", "--rm", "busybox", "sh", "-c", "yes 0123456789 | head -c 20000000; exit 5")
    assert (len(ran.stdout), ran.returncode) == (20_000_000, 5)


def test_environment_workdir_user_hostname_entrypoint(engine: Engine):
    out = engine.docker(
        *("run", "--rm", "-e", "A=1", "-w", "/made/here", "-u", "web", "--hostname", "h1", "--entrypoint", "sh"),
        *("busybox", "-c", 'echo "$A $PWD $(id -u):$(id -g) $(hostname) $HOME"'),
    )
    assert out == "1 /made/here 1000:1000 h1 /home/web"


def test_user_forms(engine: Engine):
    assert engine.docker("run", "--rm", "-u", "1000:29", "busybox", "id", "-u", "-n") == "web"
    assert "29" in engine.docker("run", "--rm", "-u", "web", "busybox", "id", "-G").split()
    ran = engine.run("run", "--rm", "-u", "nosuch", "busybox", "id")
    assert ran.returncode != 0
    assert "unable to find user nosuch: no matching entries in passwd file" in ran.stderr


def test_detached_named_stopped_with_137(engine: Engine):
    engine.docker("run", "-d", "--name", "aa", "busybox", "sleep", "1000")
    assert "sleep 1000" in engine.docker("exec", "aa", "ps")
    started = time.monotonic()
    engine.docker("stop", "-t", "1", "aa")
    assert 0.9 < time.monotonic() - started < 5
    assert engine.docker("inspect", "-f", "{{.State.ExitCode}}", "aa") == "137"


def test_a_handler_of_sigterm_ends_it_at_once(engine: Engine):
    engine.docker("run", "-d", "--name", "aa", "busybox", "sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.1; done")
    time.sleep(0.3)
    started = time.monotonic()
    engine.docker("stop", "aa")
    assert time.monotonic() - started < 3
    assert engine.docker("inspect", "-f", "{{.State.ExitCode}}", "aa") == "3"


def test_stop_signal_is_used(engine: Engine):
    script = "trap 'exit 4' USR1; while :; do sleep 0.1; done"
    engine.docker("run", "-d", "--name", "aa", "--stop-signal", "USR1", "busybox", "sh", "-c", script)
    time.sleep(0.3)
    engine.docker("stop", "aa")
    assert engine.docker("wait", "aa") == "4"


def test_init_reaps_and_forwards(engine: Engine):
    engine.docker("run", "-d", "--init", "--name", "aa", "busybox", "sleep", "1000")
    out = engine.docker("exec", "aa", "ps", "-o", "pid,args")
    assert "1 /sbin/docker-init -- sleep 1000" in " ".join(out.split())
    engine.docker("stop", "aa")
    assert engine.docker("inspect", "-f", "{{.State.ExitCode}}", "aa") == "143"


def test_descriptors_capabilities_and_seccomp(engine: Engine):
    assert engine.docker("run", "--rm", "busybox", "ls", "-C", "/proc/self/fd").split() == ["0", "1", "2", "3"]
    out = engine.docker("run", "--rm", "busybox", "grep", "-E", "Cap|Seccomp:|NoNewPrivs", "/proc/self/status")
    status = dict(line.split(":\t") for line in out.splitlines())
    assert status["CapBnd"] == status["CapEff"] == status["CapPrm"] == "00000000a80425fb"
    assert status["CapInh"] == status["CapAmb"] == "0" * 16
    assert (status["Seccomp"], status["NoNewPrivs"]) == ("2", "0")
    out = engine.docker("run", "--rm", "-u", "1000", "busybox", "grep", "CapEff", "/proc/self/status")
    assert out.split()[1] == "0" * 16


def test_cap_add_and_drop(engine: Engine):
    out = engine.docker(
        "run", "--rm", "--cap-drop", "ALL", "--cap-add", "NET_ADMIN", "busybox", "grep", "CapBnd", "/proc/self/status"
    )
    assert int(out.split()[1], 16) == 1 << 12


def test_every_namespace_is_its_own(engine: Engine):
    out = engine.docker(
        "run",
        "--rm",
        "--cgroupns",
        "private",
        "busybox",
        "sh",
        "-c",
        "for each in /proc/self/ns/*; do readlink $each; done",
    )
    inside = set(out.split())
    outside = {
        str(Path(f"/proc/self/ns/{name}").readlink()) for name in ("mnt", "uts", "ipc", "pid", "net", "cgroup", "time")
    }
    assert not inside & outside


def _limit(engine: Engine, container: str, controller: str, name: str) -> str:
    full = engine.docker("inspect", "-f", "{{.Id}}", container)
    for folder in (f"/sys/fs/cgroup/{controller}", "/sys/fs/cgroup"):
        path = Path(f"{folder}{engine.cgroup_parent}/{full}/{name}")
        if path.exists():
            return path.read_text().strip()
    raise AssertionError(f"no {name} for {container}")


@pytest.mark.skipif(not Path("/sys/fs/cgroup/memory").exists(), reason="cgroup v1 file names")
def test_limits_are_in_the_kernel(engine: Engine):
    engine.docker(
        *("run", "-d", "--name", "aa", "-m", "64m", "--memory-swap", "128m", "--cpus", "0.5", "--cpu-shares", "512"),
        *("--cpuset-cpus", "0", "--pids-limit", "50", "busybox", "sleep", "1000"),
    )
    assert _limit(engine, "aa", "memory", "memory.limit_in_bytes") == str(64 << 20)
    assert _limit(engine, "aa", "memory", "memory.memsw.limit_in_bytes") == str(128 << 20)
    assert _limit(engine, "aa", "cpu", "cpu.cfs_quota_us") == "50000"
    assert _limit(engine, "aa", "cpu", "cpu.shares") == "512"
    assert _limit(engine, "aa", "cpuset", "cpuset.cpus") == "0"
    assert _limit(engine, "aa", "pids", "pids.max") == "50"
    inside = engine.docker("exec", "aa", "cat", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
    assert inside == str(64 << 20)


def test_a_container_over_its_memory_is_killed_and_says_so(engine: Engine):
    ran = engine.run(
        "run", "--name", "aa", "-m", "16m", "--memory-swap", "16m", "busybox", "sh", "-c", "tail /dev/zero; exit $?"
    )
    assert ran.returncode == 137
    assert engine.docker("inspect", "-f", "{{.State.OOMKilled}}", "aa") == "true"


def test_read_only_root_and_bind_mounts(engine: Engine, tmp_path):
    (tmp_path / "file").write_text("from outside")
    out = engine.docker(
        *("run", "--rm", "--read-only", "-v", f"{tmp_path}:/data", "-v", f"{tmp_path}:/ro:ro", "busybox", "sh", "-c"),
        "cat /data/file; echo; echo new > /data/new; (echo x > /x) 2>&1; (echo x > /ro/x) 2>&1; :",
    )
    assert "from outside" in out
    assert (tmp_path / "new").read_text() == "new\n"
    assert out.count("Read-only file system") == 2


def test_privileged_and_device(engine: Engine):
    out = engine.docker("run", "--rm", "--privileged", "busybox", "sh", "-c", "mount -t tmpfs x /tmp && echo mounted")
    assert out == "mounted"
    out = engine.docker(
        "run",
        "--rm",
        "--device",
        "/dev/loop0:/dev/mine:r",
        "busybox",
        "sh",
        "-c",
        "head -c 0 /dev/mine && ls -l /dev/mine",
    )
    assert out.startswith("b")
    ran = engine.run("run", "--rm", "busybox", "sh", "-c", "mknod /l b 7 0 && head -c 1 /l")
    assert ran.returncode != 0
    assert "Operation not permitted" in ran.stderr


def test_ulimit(engine: Engine):
    assert engine.docker(
        "run", "--rm", "--ulimit", "nofile=100:200", "busybox", "sh", "-c", "ulimit -n; ulimit -Hn"
    ).split() == ["100", "200"]


def test_network_modes(engine: Engine):
    none = engine.docker("run", "--rm", "--network", "none", "busybox", "ls", "/sys/class/net")
    assert none.split() == ["lo"]
    host = engine.docker("run", "--rm", "--network", "host", "busybox", "readlink", "/proc/self/ns/net")
    assert host == str(Path("/proc/self/ns/net").readlink())
    engine.docker("run", "-d", "--name", "aa", "busybox", "sleep", "1000")
    address = engine.docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "aa")
    shared = engine.docker("run", "--rm", "--network", "container:aa", "busybox", "ip", "-4", "addr", "show", "eth0")
    assert f"inet {address}/" in shared


def test_two_containers_reach_each_other_and_the_bridge(engine: Engine):
    engine.docker("run", "-d", "--name", "aa", "busybox", "sleep", "1000")
    address = engine.docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "aa")
    gateway = engine.docker("inspect", "-f", "{{.NetworkSettings.Gateway}}", "aa")
    for target in (address, gateway):
        assert "0% packet loss" in engine.docker("run", "--rm", "busybox", "ping", "-c", "1", "-W", "2", target)


def test_etc_files(engine: Engine):
    engine.docker("run", "-d", "--name", "aa", "--hostname", "h1", "busybox", "sleep", "1000")
    address = engine.docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "aa")
    assert engine.docker("exec", "aa", "cat", "/etc/hostname") == "h1"
    assert f"{address}\th1" in engine.docker("exec", "aa", "cat", "/etc/hosts")
    assert "nameserver" in engine.docker("exec", "aa", "cat", "/etc/resolv.conf")


def test_logs_and_follow(engine: Engine):
    engine.docker(
        "run", "-d", "--name", "aa", "busybox", "sh", "-c", "echo one; sleep 1; echo two >&2; sleep 1; echo three"
    )
    ran = engine.run("logs", "-f", "aa")
    assert (ran.stdout, ran.stderr) == ("one\nthree\n", "two\n")
    assert engine.docker("logs", "--tail", "1", "aa") == "three"
    assert engine.docker("logs", "-t", "aa").split()[0].endswith("Z")


def test_lifecycle_commands(engine: Engine):
    engine.docker("create", "--name", "aa", "busybox", "sleep", "1000")
    assert engine.docker("ps", "-a", "--format", "{{.Status}}") == "Created"
    engine.docker("start", "aa")
    engine.docker("rename", "aa", "bb")
    assert "sleep 1000" in engine.docker("top", "bb")
    first = engine.docker("inspect", "-f", "{{.State.Pid}}", "bb")
    engine.docker("restart", "-t", "0", "bb")
    assert engine.docker("inspect", "-f", "{{.State.Pid}}", "bb") != first
    engine.docker("pause", "bb")
    assert engine.docker("ps", "--format", "{{.Status}}").endswith("(Paused)")
    engine.docker("unpause", "bb")
    engine.docker("kill", "bb")
    assert engine.docker("wait", "bb") == "137"
    engine.docker("start", "bb")
    ran = engine.run("rm", "bb")
    assert ran.returncode == 1
    assert "container is running: stop the container before removing or force remove" in ran.stderr
    engine.docker("rm", "-f", "bb")
    assert "No such container: bb" in engine.run("start", "bb").stderr


def test_changes_survive_a_restart_of_the_container(engine: Engine):
    engine.docker("run", "--name", "aa", "busybox", "sh", "-c", "echo kept >> /kept; cat /kept")
    assert engine.docker("start", "-a", "aa") == "kept\nkept"


def test_exec(engine: Engine):
    engine.docker("run", "-d", "--name", "aa", "-e", "BASE=1", "busybox", "sleep", "1000")
    assert (
        engine.docker("exec", "-e", "A=2", "-w", "/tmp", "-u", "web", "aa", "sh", "-c", 'echo "$BASE $A $PWD $(id -u)"')
        == "1 2 /tmp 1000"
    )
    assert engine.docker("exec", "-i", "aa", "cat", input="through\n") == "through"
    assert engine.run("exec", "aa", "sh", "-c", "exit 9").returncode == 9
    missing = engine.run("exec", "aa", "nosuch")
    assert (missing.returncode, "executable file not found in $PATH" in missing.stdout + missing.stderr) == (127, True)
    engine.docker("exec", "-d", "aa", "touch", "/tmp/detached")
    deadline = time.monotonic() + 5
    while engine.run("exec", "aa", "test", "-e", "/tmp/detached").returncode and time.monotonic() < deadline:
        time.sleep(0.05)
    assert engine.docker("exec", "aa", "ls", "/tmp") == "detached"
    status = engine.docker("exec", "aa", "grep", "-E", "CapBnd|CapInh|Seccomp:", "/proc/self/status")
    assert "00000000a80425fb" in status
    assert "Seccomp:\t2" in status


def test_a_user_who_is_not_there_is_an_error_of_the_request(engine: Engine):
    ran = engine.run("run", "--rm", "-u", "nosuch", "busybox", "true")
    words = "Error response from daemon: unable to find user nosuch: no matching entries in passwd file"
    assert (ran.returncode, words in ran.stderr) == (126 if "permission" in ran.stderr else 125, True), ran.stderr
    engine.docker("run", "-d", "--name", "aa", "busybox", "sleep", "1000")
    for user, text in (("nosuch", words), ("0:nogroup-here", "unable to find group nogroup-here")):
        ran = engine.run("exec", "-u", user, "aa", "true")
        assert (ran.returncode, ran.stdout, text in ran.stderr) == (1, "", True), ran.stderr


def test_keys_that_nobody_can_press_are_refused(engine: Engine):
    engine.docker("run", "-d", "--name", "aa", "busybox", "sleep", "1000")
    ran = engine.run("exec", "--detach-keys", "foo", "aa", "true")
    assert (ran.returncode, "(foo) provided" in ran.stderr) == (1, True), ran.stderr
    assert engine.api("POST", "/containers/aa/attach?stream=1&detachKeys=foo")[0] == 400


def test_the_mark_of_a_container_is_in_its_root(engine: Engine):
    shown = engine.docker("run", "--rm", "busybox", "stat", "-c", "%a %u:%g %s %F", "/.dockerenv")
    assert shown == "755 0:0 0 regular empty file"


def test_nothing_but_a_procfs_is_mounted_at_proc(engine: Engine):
    ran = engine.run("run", "--rm", "-v", "/etc:/proc", "busybox", "true")
    assert (ran.returncode, "because it is not of type proc" in ran.stderr) == (125, True), ran.stderr
    ran = engine.run("run", "--rm", "--tmpfs", "/proc", "busybox", "true")
    assert (ran.returncode, "because it is not of type proc" in ran.stderr) == (125, True), ran.stderr
    assert "Linux" in engine.docker("run", "--rm", "-v", "/proc:/proc", "busybox", "cat", "/proc/version")


def test_events_of_no_time_are_refused(engine: Engine):
    ran = engine.run("events", "--since", "2", "--until", "1")
    assert "`since` time (2) cannot be after `until` time (1)" in ran.stderr


def test_layers_of_an_image_removed_by_force_go_with_its_last_container(engine: Engine):
    tar = subprocess.run(["tar", "-C", "/etc", "-c", "hostname"], capture_output=True, check=True).stdout
    engine.docker("import", "-", "passing", input=tar)
    layers = engine.data_root / "snapshots" / engine.docker("info", "--format", "{{.Driver}}") / "layers"
    before = set(os.listdir(layers))
    engine.docker("create", "--name", "aa", "passing", "true")
    engine.docker("rmi", "-f", "passing")
    assert set(os.listdir(layers)) == before
    engine.docker("rm", "aa")
    assert len(before - set(os.listdir(layers))) == 1


def test_exec_needs_nobody_but_its_container(engine: Engine):
    engine.docker("run", "-d", "--name", "aa", "busybox", "sleep", "1000")
    engine.docker("run", "-d", "--name", "bb", "--network", "container:aa", "busybox", "sleep", "1000")
    engine.docker("rm", "-f", "aa")
    assert engine.docker("exec", "bb", "echo", "still") == "still"


def test_events_tell_the_story_in_order(engine: Engine):
    since = str(time.time())
    engine.docker("run", "--rm", "--name", "aa", "busybox", "true")
    out = engine.docker(
        "events", "--since", since, "--until", str(time.time()), "--filter", "type=container", "--format", "{{.Action}}"
    )
    assert out.split() == ["create", "attach", "start", "die", "destroy"]


def test_info_version_and_ping(engine: Engine):
    info = json.loads(engine.docker("info", "--format", "{{json .}}"))
    assert info["DockerRootDir"] == str(engine.data_root)
    version = json.loads(engine.docker("version", "--format", "{{json .Server}}"))
    assert version["ApiVersion"] == "1.51"
    assert engine.api("GET", "/_ping") == (200, "OK")


def test_images(engine: Engine):
    engine.docker("tag", "busybox", "other:1")
    assert "other" in engine.docker("images", "--format", "{{.Repository}}").split()
    assert engine.docker("image", "inspect", "-f", "{{.Os}}", "busybox") == "linux"
    engine.docker("create", "--name", "aa", "other:1", "true")
    engine.docker("rmi", "other:1")
    ran = engine.run("rmi", "busybox")
    assert "conflict" in ran.stderr.lower()


def test_a_slow_reader_blocks_nobody(engine: Engine):
    reader = subprocess.Popen(
        ["docker", "run", "--rm", "--name", "slow", "busybox", "sh", "-c", "yes | head -c 30000000"],
        stdout=subprocess.PIPE,
        env=engine.environment,
    )
    time.sleep(1)
    started = time.monotonic()
    engine.docker("ps")
    assert time.monotonic() - started < 1
    reader.kill()
    reader.communicate()


def test_diff(engine: Engine):
    script = "mkdir -p /n/m; echo x > /n/f; rm /bin/wget; mkdir /opt2; chmod 700 /bin; sleep 1000"
    engine.docker("run", "-d", "--name", "aa", "-v", "/tmp:/data", "busybox", "sh", "-c", script)
    wanted = ["A /data", "A /n", "A /n/f", "A /n/m", "A /opt2", "C /bin", "D /bin/wget"]
    deadline = time.monotonic() + 5
    while sorted(engine.docker("diff", "aa").splitlines()) != wanted:
        assert time.monotonic() < deadline, engine.docker("diff", "aa")
    engine.docker("rm", "-f", "aa")
    engine.docker("create", "--name", "bb", "busybox", "true")
    assert engine.api("GET", "/containers/bb/changes") == (200, "null\n")
    assert engine.api("GET", "/containers/nosuch/changes")[0] == 404
