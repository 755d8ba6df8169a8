"""`wherry-runtime` on real bundles: life cycle, exec, terminals, hooks, limits, and that nothing is left."""

from __future__ import annotations

import copy
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wherry.kernel.process import set_child_subreaper
from wherry.runtime import cgroups
from wherry.runtime.example import EXAMPLE

pytestmark = pytest.mark.root
SLEEP = ["sh", "-c", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done"]


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


class Runtime:
    """Calls the command line with a root directory of its own; one container, named by the test."""

    def __init__(self, folder: Path, rootfs: Path) -> None:
        self.folder = folder
        self.id = f"t{os.getpid()}-{time.monotonic_ns()}"
        self.spec = copy.deepcopy(EXAMPLE)
        self.spec["root"]["path"] = str(rootfs)
        self.spec["process"]["terminal"] = False
        self.spec["linux"]["cgroupsPath"] = f"/wherry-test/{self.id}"
        self.argv = [sys.executable, "-m", "wherry.runtime.cli", "--root", str(folder / "root")]

    def program(self, *argv: str) -> None:
        self.spec["process"]["args"] = list(argv)

    def __call__(self, *argv: str, **options) -> subprocess.CompletedProcess[str]:
        (self.folder / "config.json").write_text(json.dumps(self.spec))
        given = options.pop("input", None)
        values = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        process = subprocess.Popen([*self.argv, *argv], text=True, cwd=self.folder, **values)
        out, err = communicate(process, given)
        # the text log quotes what it says
        return subprocess.CompletedProcess(argv, process.returncode, out or "", (err or "").replace('\\"', '"'))

    def ok(self, *argv: str, **options) -> str:
        result = self(*argv, **options)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def background(self, command: str = "create", *flags: str, **options) -> Path:
        """Create with output into a file, as pipes would be held open by the container."""
        out = self.folder / "out"
        with out.open("w") as file:
            result = self(command, *flags, self.id, stdout=file, stderr=file, **options)
        assert result.returncode == 0, out.read_text()
        return out

    def state(self) -> dict[str, object]:
        return json.loads(self.ok("state", self.id))

    def stopped(self) -> None:
        until(lambda: self.state()["status"] == "stopped")

    def left(self) -> list[str]:
        """What there is of the container in the file system."""
        directories = cgroups.Cgroup.open(f"/wherry-test/{self.id}").directories
        return [path for path in (*directories, f"{self.folder}/root/{self.id}") if os.path.exists(path)]


def communicate(process: subprocess.Popen[str], given: str | None) -> tuple[str, str]:
    """Wait for the process, and reap meanwhile what it left to us: a container ends when its execs are reaped."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return process.communicate(given, timeout=0.02)
        except subprocess.TimeoutExpired:
            given = None  # taken already
            reap(process.pid)
            if time.monotonic() > deadline:
                process.kill()
                raise


def until(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def reap(spare: int = 0) -> None:
    """Take note of the end of adopted children."""
    with open(f"/proc/self/task/{os.getpid()}/children") as children:
        pids = [int(word) for word in children.read().split()]
    for pid in pids:
        if pid != spare:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                continue


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


# Life cycle


def test_run_gives_the_output_and_the_exit_code(runtime):
    runtime.program("sh", "-c", "echo out; echo err >&2; cat; hostname; exit 7")
    result = runtime("run", runtime.id, stdin=subprocess.PIPE, input="in\n")
    assert (result.returncode, result.stdout, result.stderr) == (7, "out\nin\nwherry\n", "err\n")
    assert runtime.left() == []


def test_run_tells_of_a_signal_and_passes_signals_on(runtime):
    runtime.program("sh", "-c", "kill -9 $$")
    assert runtime("run", runtime.id).returncode in (0, 137)  # the first process of a namespace is spared its own
    runtime.program(*SLEEP)
    process = subprocess.Popen([*runtime.argv, "run", runtime.id], cwd=runtime.folder, stdout=subprocess.PIPE)
    (runtime.folder / "config.json").write_text(json.dumps(runtime.spec))
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 5
    process.stdout.close()
    assert runtime.left() == []


def test_create_start_state_delete(runtime):
    runtime.program("sh", "-c", "echo hi; exit 3")
    pid_file = runtime.folder / "pid"
    out = runtime.background("create", "--pid-file", str(pid_file))
    created = runtime.state()
    assert created["status"] == "created"
    assert created["pid"] == int(pid_file.read_text())
    assert created["bundle"] == str(runtime.folder)
    assert created["ociVersion"].startswith("1.")
    assert out.read_text() == ""
    assert "container with given ID already exists" in runtime("create", runtime.id).stderr
    runtime.ok("start", runtime.id)
    runtime.stopped()
    assert out.read_text() == "hi\n"
    assert runtime.state()["pid"] == 0
    assert "cannot start a container that has stopped" in runtime("start", runtime.id).stderr
    assert "container not running" in runtime("kill", runtime.id).stderr
    runtime.ok("delete", runtime.id)
    assert runtime.left() == []
    assert "container does not exist" in runtime("state", runtime.id).stderr


def test_the_running_one(runtime):
    runtime.program(*SLEEP)
    out = runtime.background("run", "-d")
    until(lambda: out.read_text() == "ready\n")
    assert runtime.state()["status"] == "running"
    assert "cannot start an already running container" in runtime("start", runtime.id).stderr
    assert f"cannot delete container {runtime.id} that is not stopped: running" in runtime("delete", runtime.id).stderr
    assert runtime.id in runtime.ok("list", "-q").split()
    assert json.loads(runtime.ok("list", "-f", "json"))[0]["id"] == runtime.id
    pid = runtime.state()["pid"]
    assert pid in json.loads(runtime.ok("ps", "-f", "json", runtime.id))
    assert str(pid) in runtime.ok("ps", runtime.id)
    assert 'unknown signal "BOGUS"' in runtime("kill", runtime.id, "BOGUS").stderr
    runtime.ok("kill", runtime.id, "TERM")
    runtime.stopped()


def test_delete_kills_a_created_one_and_with_force_a_running_one(runtime):
    runtime.program(*SLEEP)
    runtime.background("create")
    runtime.ok("delete", runtime.id)
    assert runtime.left() == []
    runtime.background("run", "-d")
    runtime.ok("delete", "--force", runtime.id)
    assert runtime.left() == []


def test_a_start_that_dies_half_way_ends_the_container(runtime):
    runtime.program("touch", "/tmp/ran")
    runtime.background("create")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        os.chdir(f"{runtime.folder}/root/{runtime.id}")  # the path may be longer than a socket address
        sock.connect("start.sock")
        os.chdir("/")
    runtime.stopped()
    assert runtime("start", runtime.id).returncode == 1


# What does not work


@pytest.mark.parametrize(
    ("argv", "cwd", "message"),
    [
        (["no-such"], "/", 'exec: "no-such": executable file not found in $PATH'),
        (["/no/such"], "/", 'exec: "/no/such": stat /no/such: no such file or directory'),
        (["/etc"], "/", 'exec: "/etc": is a directory'),
        (["/etc/passwd"], "/", 'exec: "/etc/passwd": permission denied'),
    ],
)
def test_programs_that_cannot_be_run(runtime, argv, cwd, message):
    runtime.program(*argv)
    result = runtime("run", runtime.id)
    assert result.returncode == 1
    assert f"wherry-runtime run failed: unable to start container process: {message}" in result.stderr
    assert runtime.left() == []


def test_a_missing_bind_source_undoes_everything(runtime):
    runtime.spec["mounts"].append(
        {"destination": "/mnt", "type": "bind", "source": "/no/such/source", "options": ["bind"]}
    )
    result = runtime("create", runtime.id)
    assert result.returncode == 1
    assert "/no/such/source" in result.stderr
    assert runtime.left() == []


def test_the_json_log_has_the_reason_and_stderr_too(runtime):
    log = runtime.folder / "log.json"
    result = runtime("--log", str(log), "--log-format", "json", "state", "nope")
    assert (result.returncode, result.stderr) == (1, "container does not exist\n")
    entry = json.loads(log.read_text())
    assert (entry["level"], entry["msg"]) == ("error", "container does not exist")


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["state"], 1, 'wherry-runtime: "state" requires exactly 1 argument(s)'),
        (["frobnicate"], 3, "no such command: frobnicate"),
        (["create", "--bundle", "/no/such", "x"], 1, "wherry-runtime create failed: chdir /no/such: no such file"),
        (["create", "a/b"], 1, "wherry-runtime create failed: invalid container ID format"),
        (["exec", "nope", "true"], 255, "exec failed: container does not exist"),
        (["--systemd-cgroup", "list"], 1, "systemd's cgroup driver belongs to a later version"),
        (["delete", "nope"], 1, "container does not exist"),
        (["pause", "nope"], 1, "container does not exist"),
    ],
)
def test_refusals(runtime, argv, code, message):
    result = runtime(*argv)
    assert result.returncode == code
    assert message in result.stderr


def test_documents(runtime):
    assert json.loads(runtime.ok("features"))["linux"]["cgroup"]["v1"] is True
    assert runtime.ok("--version").startswith("wherry-runtime version ")
    assert "create" in runtime.ok("--help")
    folder = runtime.folder / "fresh"
    folder.mkdir()
    runtime.ok("spec", "-b", str(folder))
    assert json.loads((folder / "config.json").read_text()) == EXAMPLE
    assert "exists. Remove it first" in runtime("spec", "-b", str(folder)).stderr


# Exec


@pytest.fixture
def running(runtime):
    runtime.program(*SLEEP)
    out = runtime.background("run", "-d")
    until(lambda: out.read_text() == "ready\n")
    return runtime


def test_exec_in_the_foreground(running):
    result = running("exec", "-e", "A=b", "--cwd", "/tmp", running.id, "sh", "-c", "pwd; echo $A; cat; exit 9",
                     stdin=subprocess.PIPE, input="in\n")  # fmt: skip
    assert (result.returncode, result.stdout, result.stderr) == (9, "/tmp\nb\nin\n", "")
    inside = "for n in ipc mnt net pid uts cgroup; do ls -l /proc/self/ns/$n; done"
    first = "for n in ipc mnt net pid uts cgroup; do ls -l /proc/1/ns/$n; done"
    links = [
        [line.split("-> ")[1] for line in running.ok("exec", running.id, "sh", "-c", script).splitlines()]
        for script in (inside, first)
    ]
    assert links[0] == links[1]
    assert len(links[0]) == 6


def test_exec_users(running):
    assert running.ok("exec", "-u", "5:6", running.id, "id").split()[:2] == ["uid=5", "gid=6"]
    assert running.ok("exec", "-u", "web", running.id, "id").split()[0] == "uid=33(web)"


def test_exec_by_process_file_detached(running):
    process = {**running.spec["process"], "args": ["sh", "-c", "echo from file >/dev/shm/x; sleep 30"]}
    (running.folder / "process.json").write_text(json.dumps(process))
    pid_file = running.folder / "exec.pid"
    running.ok("exec", "-d", "-p", "process.json", "--pid-file", str(pid_file), running.id, stdout=None, stderr=None)
    until(lambda: running("exec", running.id, "cat", "/dev/shm/x").stdout == "from file\n")
    assert int(pid_file.read_text()) in json.loads(running.ok("ps", "-f", "json", running.id))


def test_exec_failures(running):
    for argv, message in (
        (["no-such"], 'exec: "no-such": executable file not found in $PATH'),
        (["/etc"], "is a directory"),
        ([], "exec args cannot be empty"),
    ):
        result = running("exec", running.id, *argv)
        assert result.returncode == 255
        assert message in result.stderr
    result = running("exec", "--cwd", "/no/such", running.id, "true")
    assert result.returncode == 255
    assert 'chdir to cwd ("/no/such") set in config.json failed: no such file' in result.stderr


# Descriptors and terminals


def test_no_descriptor_of_the_caller_gets_in_unless_asked(runtime):
    read, write = os.pipe()
    runtime.program("sh", "-c", "ls -C /proc/self/fd; echo kept >&3")
    place = {"close_fds": False, "preexec_fn": lambda: os.dup2(write, 3)}
    try:
        plain = runtime("run", runtime.id, **place)
        assert plain.stdout.split() == ["0", "1", "2", "3"]  # 3 is the directory that ls reads
        assert not select.select([read], [], [], 0)[0]
        runtime.ok("run", "--preserve-fds", "1", runtime.id, **place)
        assert os.read(read, 100) == b"kept\n"
    finally:
        os.close(read)
        os.close(write)


def console(folder: Path, call) -> int:
    """Listen on a console socket while `call(path)` runs; return the terminal that came."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        path = folder / (f"console{time.monotonic_ns()}" + "x" * 60)
        os.chdir(folder)
        listener.bind(path.name)
        os.chdir("/")
        listener.listen(1)
        call(str(path))
        with listener.accept()[0] as sock:
            return socket.recv_fds(sock, 100, 1)[1][0]


def read_until(master: int, text: bytes) -> bytes:
    got, deadline = b"", time.monotonic() + 10
    while text not in got and time.monotonic() < deadline:
        if select.select([master], [], [], 0.1)[0]:
            try:
                got += os.read(master, 4096)
            except OSError:
                break
    return got


def test_the_console_socket(runtime):
    runtime.spec["process"].update(terminal=True, consoleSize={"height": 33, "width": 99})
    runtime.program("sh", "-c", "tty; stty size; echo end; sleep 100")
    refused = runtime("create", runtime.id)
    assert "cannot allocate tty if runc will detach without setting console socket" in refused.stderr
    master = console(runtime.folder, lambda path: runtime.background("create", "--console-socket", path))
    try:
        runtime.ok("start", runtime.id)
        assert read_until(master, b"end").split() == [b"/dev/pts/0", b"33", b"99", b"end"]
        terminal = console(
            runtime.folder,
            lambda path: runtime.ok(
                "exec", "-d", "-t", "--console-socket", path, runtime.id, "sh", "-c", "tty; echo end"
            ),
        )
        assert read_until(terminal, b"end").split()[0].startswith(b"/dev/pts/")
        os.close(terminal)
    finally:
        os.close(master)


def test_a_console_socket_without_a_terminal_is_refused(runtime):
    assert "cannot use console socket" in runtime("create", "--console-socket", "/x", runtime.id).stderr


def test_run_in_the_foreground_of_a_terminal(runtime):
    runtime.spec["process"]["terminal"] = True
    runtime.program("sh", "-c", "trap 'echo interrupted; exit 4' INT; echo ready; while :; do sleep 0.05; done")
    (runtime.folder / "config.json").write_text(json.dumps(runtime.spec))
    pid, master = pty.fork()
    if pid == 0:
        os.execv(runtime.argv[0], [*runtime.argv, "run", "-b", str(runtime.folder), runtime.id])
    try:
        assert b"ready" in read_until(master, b"ready")
        os.write(master, b"\x03")
        assert b"interrupted" in read_until(master, b"interrupted")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 4
    finally:
        os.close(master)
    assert runtime.left() == []


# Hooks


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


# Limits


def cgroup_value(runtime, controller: str, v1: str, v2: str) -> str:
    layout = cgroups.detect()
    for hierarchy in layout.hierarchies:
        if layout.version == 2 or controller in hierarchy.controllers:
            path = f"{hierarchy.mount}/wherry-test/{runtime.id}/{v1 if layout.version == 1 else v2}"
            return Path(path).read_text().strip()
    raise AssertionError(controller)


def test_limits_are_set_and_updated(runtime):
    runtime.program(*SLEEP)
    runtime.spec["linux"]["resources"].update(memory={"limit": 64 << 20}, pids={"limit": 50})
    runtime.background("run", "-d")
    assert cgroup_value(runtime, "memory", "memory.limit_in_bytes", "memory.max") == str(64 << 20)
    assert cgroup_value(runtime, "pids", "pids.max", "pids.max") == "50"
    runtime.ok("update", "--memory", str(80 << 20), "--pids-limit", "60", runtime.id)
    assert cgroup_value(runtime, "memory", "memory.limit_in_bytes", "memory.max") == str(80 << 20)
    assert cgroup_value(runtime, "pids", "pids.max", "pids.max") == "60"
    runtime.ok("update", "-r", "-", runtime.id, stdin=subprocess.PIPE, input='{"pids": {"limit": 70}}')
    assert cgroup_value(runtime, "pids", "pids.max", "pids.max") == "70"


def test_pause_and_resume(running):
    running.ok("pause", running.id)
    assert running.state()["status"] == "paused"
    assert "container not running" in running("pause", running.id).stderr
    refused = running("exec", running.id, "true")
    assert (refused.returncode, "cannot exec in a paused container" in refused.stderr) == (255, True)
    running.ok("resume", running.id)
    assert "container not paused" in running("resume", running.id).stderr
    running.ok("exec", running.id, "true")
    running.ok("pause", running.id)
    running.ok("kill", running.id, "KILL")
    running.stopped()


def test_kill_all_reaches_every_process(running):
    running.ok("exec", "-d", running.id, "sleep", "1000", stdout=None, stderr=None)
    assert len(json.loads(running.ok("ps", "-f", "json", running.id))) >= 2
    running.ok("kill", "--all", running.id, "KILL")
    running.stopped()
    until(lambda: json.loads(running.ok("ps", "-f", "json", running.id)) == [])
