"""Containers whose control groups systemd makes: run by test_systemd.py in a machine where systemd is process 1.

Not named test_*: there is nothing to be seen of it anywhere else.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine import Engine, running
from tests.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.engine, pytest.mark.slow]

OLD = Path("/sys/fs/cgroup/memory").exists()
ENDED = "not-found"


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    yield from running()


@pytest.fixture(autouse=True)
def nothing_left(engine: Engine) -> Iterator[None]:
    yield
    engine.remove_all()


def systemctl(*words: str) -> str:
    done = subprocess.run(["systemctl", *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def prop(unit: str, name: str) -> str:
    return systemctl("show", "--value", "-p", name, unit)


def run(engine: Engine, *flags: str, name: str = "aa") -> tuple[str, str]:
    """Start a container; return its scope and its id."""
    full = engine.docker("run", "-d", "--name", name, *flags, "busybox", "sleep", "1000")
    return f"wherry-{full}.scope", full


def read(unit: str, controller: str, old: str, new: str) -> str:
    group = prop(unit, "ControlGroup")
    place = f"/sys/fs/cgroup/{controller}{group}/{old}" if OLD else f"/sys/fs/cgroup{group}/{new}"
    return Path(place).read_text().strip()


def memory(unit: str) -> int:
    return int(read(unit, "memory", "memory.limit_in_bytes", "memory.max"))


def quota(unit: str) -> int:
    return int(read(unit, "cpu", "cpu.cfs_quota_us", "cpu.max").split()[0])


def gone(unit: str) -> bool:
    return prop(unit, "LoadState") == ENDED


def test_a_container_is_a_scope(engine: Engine):
    unit, full = run(engine, "-m", "64m", "--cpus", "0.5", "--pids-limit", "50")
    pid = engine.docker("inspect", "-f", "{{.State.Pid}}", "aa")
    assert prop(unit, "Slice") == engine.cgroup_parent
    assert prop(unit, "Delegate") == "yes"
    assert prop(unit, "DefaultDependencies") == "no"
    assert prop(unit, "ControlGroup") == engine.group(full)
    assert engine.group(full) in Path(f"/proc/{pid}/cgroup").read_text()
    assert (memory(unit), quota(unit)) == (64 << 20, 50000)
    assert read(unit, "pids", "pids.max", "pids.max") == "50"
    assert engine.docker("info", "-f", "{{.CgroupDriver}}") == "systemd"


def test_no_limit_is_no_limit(engine: Engine):
    """systemd gives a scope 15 % of the machine's processes unless it is told otherwise."""
    unit, _ = run(engine)
    assert prop(unit, "TasksMax") == "infinity"
    assert read(unit, "pids", "pids.max", "pids.max") == "max"


def test_a_reload_undoes_no_limit(engine: Engine):
    flags = ("-m", "64m", "--cpus", "0.5", "--pids-limit", "50", "--cpu-shares", "512", "--cpuset-cpus", "0")
    unit, _ = run(engine, *flags)
    files = (
        ("memory", "memory.limit_in_bytes", "memory.max"),
        ("memory", "memory.memsw.limit_in_bytes", "memory.swap.max"),
        ("cpu", "cpu.cfs_quota_us", "cpu.max"),
        ("cpu", "cpu.shares", "cpu.weight"),
        ("pids", "pids.max", "pids.max"),
        ("cpuset", "cpuset.cpus", "cpuset.cpus"),
    )
    before = [read(unit, *each) for each in files if not OLD or "memsw" not in each[1]]
    systemctl("daemon-reload")
    assert [read(unit, *each) for each in files if not OLD or "memsw" not in each[1]] == before


def test_a_reload_undoes_no_update(engine: Engine):
    unit, _ = run(engine, "-m", "64m", "--memory-swap", "128m")
    engine.docker("update", "-m", "96m", "--memory-swap", "192m", "--pids-limit", "20", "--cpus", "0.25", "aa")
    for _ in range(2):
        assert (memory(unit), quota(unit)) == (96 << 20, 25000)
        assert read(unit, "pids", "pids.max", "pids.max") == "20"
        systemctl("daemon-reload")


def test_a_quota_between_two_per_cents(engine: Engine):
    """systemd keeps whole per cents: exact until a reload, then up to one per cent of a CPU more, never less."""
    unit, _ = run(engine, "--cpus", "0.125")
    assert quota(unit) == 12500
    systemctl("daemon-reload")
    assert quota(unit) == 13000


def test_a_reload_opens_no_device(engine: Engine):
    unit, _ = run(engine, "--device-cgroup-rule", "c 1:9 r")
    script = "mknod /tmp/mem c 1 1; mknod /tmp/random c 1 9; head -c1 /tmp/random >/tmp/x && echo random"
    script += "; head -c1 /tmp/mem"
    for _ in range(2):
        ran = engine.run("exec", "aa", "sh", "-c", script)
        assert "random" in ran.stdout
        assert "Operation not permitted" in ran.stderr, ran
        engine.docker("exec", "aa", "sh", "-c", "rm /tmp/*; echo x >/dev/null; tty -s; head -c1 /dev/zero")
        systemctl("daemon-reload")
        systemctl("set-property", "--runtime", unit, "CPUWeight=77" if not OLD else "CPUShares=77")


@pytest.mark.parametrize("end", ["stop", "rm", "exit", "oom"])
def test_the_end_of_the_scope(engine: Engine, end: str):
    unit, full = run(engine, "-m", "16m")
    if end == "stop":
        engine.docker("stop", "-t", "0", "aa")
    elif end == "rm":
        engine.docker("rm", "-f", "aa")
    elif end == "exit":
        os.kill(int(engine.docker("inspect", "-f", "{{.State.Pid}}", "aa")), 9)
    else:
        engine.run("exec", "aa", "sh", "-c", "echo 0 >/proc/self/oom_score_adj; dd if=/dev/zero of=/dev/shm/x bs=1M")
        engine.docker("kill", "aa")
    until(lambda: gone(unit), seconds=30)
    assert not list(Path("/sys/fs/cgroup").glob(f"**/wherry-{full}.scope"))


def test_who_was_killed_for_want_of_memory(engine: Engine):
    """Though systemd removes the group that counts them before the supervisor hears of the end."""
    for _ in range(3):
        words = ("-m", "16m", "busybox", "dd", "if=/dev/zero", "of=/dev/shm/x", "bs=1M")
        hungry = engine.run("run", "--name", "aa", *words)
        assert hungry.returncode == 137
        assert engine.docker("inspect", "-f", "{{.State.OOMKilled}}", "aa") == "true"
        engine.docker("rm", "aa")
    run(engine, "-m", "16m")
    engine.docker("kill", "aa")
    assert engine.docker("inspect", "-f", "{{.State.OOMKilled}}", "aa") == "false"


def test_the_name_is_free_at_once(engine: Engine):
    unit, _ = run(engine)
    for _ in range(5):
        engine.docker("restart", "-t", "0", "aa")
        assert prop(unit, "ActiveState") == "active"


def test_parents(engine: Engine):
    unit, full = run(engine, "--cgroup-parent", "wherrya-b.slice")
    assert prop(unit, "ControlGroup") == f"/wherrya.slice/wherrya-b.slice/wherry-{full}.scope"
    for parent in ("/a", "a", ".slice", "a/b.slice", "a--b.slice"):
        ran = engine.run("create", "--cgroup-parent", parent, "busybox", "true")
        text = 'cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice"'
        assert (ran.returncode, text in ran.stderr) == (1, True), (parent, ran.stderr)


def test_pause_top_stats_exec(engine: Engine):
    unit, full = run(engine, "-m", "64m")
    engine.docker("pause", "aa")
    state = read(unit, "freezer", "freezer.state", "cgroup.events")
    assert state == "FROZEN" if OLD else "frozen 1" in state
    engine.docker("unpause", "aa")
    assert "sleep 1000" in engine.docker("top", "aa")
    stats = json.loads(engine.docker("stats", "--no-stream", "--format", "{{json .}}", "aa"))
    assert stats["MemUsage"].endswith("/ 64MiB")
    inside = engine.docker("exec", "aa", "cat", "/proc/self/cgroup")
    assert engine.group(full) in inside if OLD else inside == "0::/"


def test_without_an_engine(engine: Engine):
    """Killed: the container goes on and ends without it, and is taken up by the next one."""
    unit, _ = run(engine)
    other, _ = run(engine, name="bb")
    engine.crash()
    pid = int(Path(f"/sys/fs/cgroup{'/pids' if OLD else ''}{prop(other, 'ControlGroup')}/cgroup.procs").read_text())
    os.kill(pid, 9)
    until(lambda: gone(other), seconds=30)
    assert prop(unit, "ActiveState") == "active"
    engine.start()
    assert engine.docker("inspect", "-f", "{{.State.Status}}", "aa", "bb") == "running\nexited"
    engine.docker("update", "-m", "64m", "--memory-swap", "64m", "aa")
    assert memory(unit) == 64 << 20


def test_a_supervisor_that_dies_leaves_no_scope(engine: Engine):
    unit, _ = run(engine)
    pid = engine.docker("inspect", "-f", "{{.State.Pid}}", "aa")
    parent = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1]
    os.kill(int(parent), 9)
    until(lambda: gone(unit), seconds=30)
    assert engine.docker("inspect", "-f", "{{.State.ExitCode}}", "aa") == "137"


@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_other_runtimes(engine: Engine, runtime: str):
    others = Engine("--add-runtime", f"other={'/usr/sbin/' if runtime == 'runc' else '/usr/bin/'}{runtime}")
    others.start()
    try:
        others.import_busybox()
        unit, full = run(others, "--runtime", "other", "-m", "64m")
        assert prop(unit, "ControlGroup") == others.group(full)
        assert memory(unit) == 64 << 20
        others.docker("update", "-m", "96m", "--memory-swap", "96m", "aa")
        systemctl("daemon-reload")
        assert memory(unit) == 96 << 20
        others.docker("rm", "-f", "aa")
        assert gone(unit)
    finally:
        others.destroy()


def test_the_stand_alone_runtime(engine: Engine, tmp_path: Path):
    run(engine)
    rootfs = tmp_path / "rootfs"
    rootfs.mkdir()
    engine.docker("export", "-o", str(tmp_path / "tar"), "aa")
    subprocess.run(["tar", "-xf", tmp_path / "tar", "-C", rootfs], check=True)
    runtime = ["wherry-runtime", "--systemd-cgroup", "--root", str(tmp_path / "state")]
    subprocess.run([*runtime, "spec"], cwd=tmp_path, check=True)
    spec = json.loads((tmp_path / "config.json").read_text())
    spec["process"] |= {"terminal": False, "args": ["sleep", "1000"]}
    spec["linux"]["resources"]["memory"] = {"limit": 32 << 20}
    (tmp_path / "config.json").write_text(json.dumps(spec))
    subprocess.run([*runtime, "run", "--detach", "--bundle", tmp_path, "c1"], check=True, stdin=subprocess.DEVNULL)
    unit = "wherry-c1.scope"
    try:
        assert prop(unit, "ControlGroup") == "/system.slice/wherry-c1.scope"
        assert memory(unit) == 32 << 20
    finally:
        subprocess.run([*runtime, "delete", "--force", "c1"], check=True)
    assert gone(unit)


def test_what_is_chosen_without_a_word():
    chosen = Engine()
    argv = ["wherryd", "--data-root", str(chosen.data_root), "--run-root", str(chosen.run_root), "-H", chosen.host]
    with chosen.log.open("ab") as log:
        chosen.process = subprocess.Popen([*argv, "--bridge", "none"], stdout=log, stderr=log)
    try:
        until(chosen.answers, seconds=120)
        assert chosen.docker("info", "-f", "{{.CgroupDriver}}") == ("cgroupfs" if OLD else "systemd")
        chosen.import_busybox()
        unit, full = run(chosen, "--network", "none")
        if not OLD:
            assert prop(unit, "ControlGroup") == f"/system.slice/wherry-{full}.scope"
        chosen.docker("rm", "-f", "aa")
    finally:
        chosen.stop()


def start_without(tmp_path: Path, *hidden: str) -> subprocess.CompletedProcess[str]:
    """Try to start an engine where these folders are empty."""
    hide = "; ".join(f"mount -t tmpfs none {each}" for each in hidden)
    places = f"--data-root {tmp_path}/d --run-root {tmp_path}/r --bridge none -H unix://{tmp_path}/sock"
    shell = f"{hide}; exec wherryd --exec-opt native.cgroupdriver=systemd {places}"
    return subprocess.run(["unshare", "-m", "timeout", "300", "sh", "-c", shell], capture_output=True, text=True)


def test_the_start_is_refused_without_systemd(tmp_path: Path):
    ran = start_without(tmp_path, "/run/systemd")
    assert ran.returncode == 1
    assert "systemd does not run on this machine, there is no /run/systemd/system" in ran.stderr + ran.stdout


def test_the_start_is_refused_without_a_bus(tmp_path: Path):
    ran = start_without(tmp_path, "/run/dbus", "/run/systemd; mkdir /run/systemd/system")
    assert ran.returncode == 1
    assert "systemd does not answer over D-Bus" in ran.stderr + ran.stdout


def test_systemds_own_socket_will_do(engine: Engine):
    """A machine without a message bus."""
    subprocess.run(["mount", "-t", "tmpfs", "none", "/run/dbus"], check=True)
    try:
        other = Engine()
        other.start()
        other.import_busybox()
        unit, full = run(other, "-m", "64m")
        assert memory(unit) == 64 << 20
        other.docker("update", "-m", "32m", "--memory-swap", "32m", "aa")
        assert memory(unit) == 32 << 20
    finally:
        subprocess.run(["umount", "/run/dbus"], check=True)
    other.destroy()
    assert not list(Path("/sys/fs/cgroup").glob(f"**/wherry-{full}.scope"))


def test_how_long_a_start_takes(engine: Engine):
    """Told, not judged: the machine is emulated. The scope's part has all that systemd does for it."""
    shares = []
    for number in range(7):
        engine.docker("run", "-d", "--name", f"c{number}", "busybox", "sleep", "1000")
        phases = json.loads(engine.api("GET", f"/wherry/v1/containers/c{number}/xray")[1])["Start"]["Phases"]
        group = sum(each["Lasted"] for each in phases if each["Name"] == "cgroup")
        shares.append((group / 1e6, sum(each["Lasted"] for each in phases) / 1e6))
    group, whole = sorted(shares)[3]
    print(f"a start with a scope: {whole:.0f} ms, of which the scope {group:.0f} ms")
    assert all(group > 0 for group, _ in shares)
