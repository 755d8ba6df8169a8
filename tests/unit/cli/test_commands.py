"""The command as a process against an engine that answers by script."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading

import pexpect
import pytest

from tests.unit.cli.fake import ID, UPGRADED, FakeEngine, Request, chunked, frame, refuse, reply

CONTAINER = {
    "Id": ID,
    "Names": ["/web"],
    "Image": "busybox",
    "Command": "sleep 100000000000000000",
    "Created": 1_700_000_000,
    "State": "running",
    "Status": "Up 5 minutes",
    "Ports": [{"PrivatePort": 80, "Type": "tcp"}],
    "Labels": {"a": "b"},
    "Mounts": [],
    "NetworkSettings": {"Networks": {"bridge": {}}},
}


def ready_to_run(engine: FakeEngine, output: bytes, code: int = 0) -> None:
    """A container that writes `output` once it is started and its stdin has ended, and exits with `code`."""
    started = threading.Event()

    def attach(request: Request) -> None:
        request.sock.sendall(UPGRADED)
        assert started.wait(10)
        received = b""
        if request.query.get("stdin"):
            while piece := request.sock.recv(4096):
                received += piece
        request.sock.sendall(output + (frame(1, received) if received else b""))

    def start(request: Request) -> bytes:
        started.set()
        return b"HTTP/1.1 204 No Content\r\n\r\n"

    def wait(request: Request) -> bytes:
        request.sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert started.wait(10)
        body = json.dumps({"StatusCode": code}).encode()
        return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)

    engine.answers["POST /containers/create"] = reply({"Id": ID, "Warnings": ["mind the gap"]}, 201)
    engine.answers[f"POST /containers/{ID}/attach"] = attach
    engine.answers[f"POST /containers/{ID}/wait"] = wait
    engine.answers[f"POST /containers/{ID}/start"] = start


def test_run_attaches_and_waits_before_it_starts(engine: FakeEngine) -> None:
    ready_to_run(engine, frame(1, b"out\n") + frame(2, b"err\n"), code=7)
    ran = engine.wherry("run", "--rm", "busybox", "sh", "-c", "x", "--rm")
    assert (ran.returncode, ran.stdout, ran.stderr) == (7, b"out\n", b"WARNING: mind the gap\nerr\n")
    verbs = [name.rpartition("/")[2] for name in engine.seen if name]
    assert verbs == ["create", "attach", "wait", "start"]
    body = engine.body("POST /containers/create")
    assert body["Cmd"] == ["sh", "-c", "x", "--rm"]
    assert body["HostConfig"]["AutoRemove"] is True  # type: ignore[index]
    assert engine.requests[2].query == {"condition": "removed"}
    assert engine.requests[1].query == {"stream": "1", "stdout": "1", "stderr": "1"}


def test_the_end_of_stdin_is_a_half_close_and_output_goes_on(engine: FakeEngine) -> None:
    ready_to_run(engine, b"")
    ran = engine.wherry("run", "-i", "busybox", "cat", data=b"x" * 300_000)
    assert ran.stdout == b"x" * 300_000
    body = engine.body("POST /containers/create")
    assert (body["OpenStdin"], body["StdinOnce"], body["AttachStdin"], body["Tty"]) == (True, True, True, False)


def test_run_detached_prints_the_id(engine: FakeEngine) -> None:
    ready_to_run(engine, b"")
    ran = engine.wherry("run", "-d", "--name", "web", "busybox")
    assert ran.stdout.decode() == f"{ID}\n"
    assert engine.requests[0].query == {"name": "web"}
    assert not any("attach" in name for name in engine.seen)


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ('exec: "x": executable file not found in $PATH', 127),
        ('exec: "/x": stat /x: no such file or directory', 127),
        ('exec: "/etc": is a directory: permission denied', 126),
        ("the bridge is full", 125),
    ],
)
def test_run_exits_as_docker_does_when_the_start_fails(engine: FakeEngine, message: str, status: int) -> None:
    ready_to_run(engine, b"")
    engine.answers[f"POST /containers/{ID}/start"] = refuse(400, message)
    ran = engine.wherry("run", "-d", "busybox", "x")
    assert ran.returncode == status
    expected = f"wherry: Error response from daemon: {message}\n\nRun 'wherry run --help' for more information\n"
    assert ran.stderr.decode().endswith(expected)


def test_a_missing_image_is_pulled_once(engine: FakeEngine) -> None:
    engine.answers["POST /containers/create"] = refuse(404, "No such image: new:latest")
    engine.answers["POST /images/create"] = refuse(501, "pulling is not there yet")
    ran = engine.wherry("run", "new")
    assert ran.returncode == 125
    assert ran.stderr.decode().startswith("Unable to find image 'new:latest' locally\n")
    assert "pulling is not there yet" in ran.stderr.decode()
    assert engine.requests[1].query == {"fromImage": "new", "tag": "latest"}
    never = engine.wherry("run", "--pull", "never", "new")
    assert never.stderr.startswith(b"wherry: Error response from daemon: No such image")


def test_every_flag_arrives_in_its_place(engine: FakeEngine) -> None:
    ready_to_run(engine, b"")
    words = "-d -e A=1 -w /w -u 1:2 --entrypoint /e --hostname h -v /a:/b:ro -m 64m --memory-swap -1 --cpus 0.5"
    words += " --cpu-shares 512 --cpuset-cpus 0 --pids-limit 100 --network none --init --read-only --privileged"
    words += " --cap-add NET_ADMIN --cap-drop ALL --device /dev/fuse --ulimit nofile=10:20 --stop-signal INT -l x=y"
    words += " --shm-size 1m --tmpfs /t:size=1m --security-opt no-new-privileges --sysctl a.b=c --cgroupns private"
    assert engine.wherry("run", *words.split(), "img", "c").returncode == 0
    body = engine.body("POST /containers/create")
    host = body.pop("HostConfig")
    for key, value in {
        "Env": ["A=1"],
        "WorkingDir": "/w",
        "User": "1:2",
        "Entrypoint": ["/e"],
        "Hostname": "h",
        "StopSignal": "INT",
        "Labels": {"x": "y"},
        "Image": "img",
        "Cmd": ["c"],
    }.items():
        assert body[key] == value
    assert isinstance(host, dict)
    for key, value in {
        "Binds": ["/a:/b:ro"],
        "Memory": 64 << 20,
        "MemorySwap": -1,
        "NanoCpus": 500_000_000,
        "CpuShares": 512,
        "CpusetCpus": "0",
        "PidsLimit": 100,
        "NetworkMode": "none",
        "Init": True,
        "ReadonlyRootfs": True,
        "Privileged": True,
        "CapAdd": ["NET_ADMIN"],
        "CapDrop": ["ALL"],
        "Devices": [{"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/fuse", "CgroupPermissions": "rwm"}],
        "Ulimits": [{"Name": "nofile", "Soft": 10, "Hard": 20}],
        "ShmSize": 1 << 20,
        "Tmpfs": {"/t": "size=1m"},
        "SecurityOpt": ["no-new-privileges"],
        "Sysctls": {"a.b": "c"},
        "CgroupnsMode": "private",
    }.items():
        assert host[key] == value, key


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["run", "-p", "80-81:80-82", "busybox"], "invalid ranges specified for container and host Ports"),
        (["run", "-p", "80:99999", "busybox"], "invalid port in 80:99999: 99999"),
        (["run", "-p", "80:80/icmp", "busybox"], "invalid proto: icmp"),
        (["run", "-m", "1x", "busybox"], 'invalid argument "1x" for "-m, --memory" flag: invalid suffix: \'x\''),
        (["run", "--rm", "--restart", "always", "busybox"], "cannot specify both --restart and --rm"),
        (["ps", "--nope"], "unknown flag: --nope"),
        (["run", "--cidfile", "/dev/null", "busybox"], "container ID file found"),
    ],
)
def test_what_cannot_be_is_refused_before_the_engine_is_asked(engine: FakeEngine, words: list[str], text: str) -> None:
    ran = engine.wherry(*words)
    assert ran.returncode == 125
    assert text in ran.stderr.decode()
    assert engine.requests == []


def test_a_terminal_without_a_terminal_is_refused(engine: FakeEngine) -> None:
    ran = engine.wherry("run", "-it", "busybox")
    assert (ran.returncode, ran.stderr) == (1, b"the input device is not a TTY\n")


def test_signals_reach_the_container(engine: FakeEngine) -> None:
    killed = threading.Event()

    def attach(request: Request) -> bytes:
        request.sock.sendall(UPGRADED + frame(1, b"ready\n"))
        assert killed.wait(10)
        return b""

    def kill(request: Request) -> bytes:
        killed.set()
        return b"HTTP/1.1 204 No Content\r\n\r\n"

    ready_to_run(engine, b"", code=143)
    engine.answers[f"POST /containers/{ID}/attach"] = attach
    engine.answers[f"POST /containers/{ID}/kill"] = kill
    command = [sys.executable, "-I", "-m", "wherry.cli.main", "-H", engine.host, "run", "busybox"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 143
    assert next(r for r in engine.requests if r.path.endswith("/kill")).query == {"signal": "TERM"}


def test_a_terminal_is_raw_gets_its_size_and_is_given_back(engine: FakeEngine) -> None:
    typed: list[bytes] = []
    resized = threading.Event()

    def attach(request: Request) -> bytes:
        request.sock.sendall(UPGRADED)
        request.sock.sendall(b"prompt> ")
        while b"q" not in b"".join(typed):
            typed.append(request.sock.recv(100))
        assert resized.wait(10)
        return b"bye\r\n"

    def resize(request: Request) -> bytes:
        if request.query == {"h": "40", "w": "100"}:
            resized.set()
        return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

    ready_to_run(engine, b"")
    engine.answers[f"POST /containers/{ID}/attach"] = attach
    engine.answers[f"POST /containers/{ID}/resize"] = resize
    argv = ["-I", "-m", "wherry.cli.main", "-H", engine.host, "run", "-it", "busybox"]
    child = pexpect.spawn(sys.executable, argv, dimensions=(24, 80), timeout=10)
    child.expect("prompt> ")
    child.setwinsize(40, 100)
    child.send("\x03q")  # ctrl-c is a key for the container, not a signal for us
    child.expect("bye")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert b"".join(typed) == b"\x03q"
    body = engine.body("POST /containers/create")
    assert body["Tty"] is True
    assert body["HostConfig"]["ConsoleSize"] == [24, 80]  # type: ignore[index]


def test_exec_exits_with_the_code_of_its_process(engine: FakeEngine) -> None:
    engine.answers["POST /containers/web/exec"] = reply({"Id": "e1"}, 201)
    engine.answers["POST /exec/e1/start"] = UPGRADED + frame(1, b"hi\n")
    engine.answers["GET /exec/e1/json"] = reply({"ExitCode": 3, "Running": False})
    ran = engine.wherry("exec", "-e", "A=1", "-w", "/x", "-u", "web", "web", "sh", "-c", "exit 3")
    assert (ran.returncode, ran.stdout) == (3, b"hi\n")
    body = engine.body("POST /containers/web/exec")
    assert (body["Cmd"], body["Env"]) == (["sh", "-c", "exit 3"], ["A=1"])
    assert (body["WorkingDir"], body["User"]) == ("/x", "web")
    assert engine.body("POST /exec/e1/start") == {"Detach": False, "Tty": False}


def test_ps_as_a_table_as_ids_and_by_template(engine: FakeEngine) -> None:
    engine.answers["GET /containers/json"] = reply([CONTAINER])
    lines = engine.wherry("ps", "-a").stdout.decode().splitlines()
    assert lines[0].split() == ["CONTAINER", "ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]
    assert '"sleep 1000000000000…"' in lines[1]
    assert lines[1].endswith("Up 5 minutes   80/tcp    web")
    assert engine.requests[0].query == {"all": "1"}
    assert engine.wherry("ps", "-q").stdout == b"cccccccccccc\n"
    assert engine.wherry("ps", "--format", '{{.Names}} {{.Label "a"}}').stdout == b"web b\n"
    engine.wherry("ps", "-f", "status=exited", "-f", "name=x", "-n", "2")
    last = engine.requests[-1].query
    assert json.loads(last["filters"]) == {"status": {"exited": True}, "name": {"x": True}}
    assert (last["limit"], last["all"]) == ("2", "1")


def test_inspect_looks_for_every_kind_and_reports_what_is_missing(engine: FakeEngine) -> None:
    engine.answers["GET /images/busybox/json"] = reply({"Id": "sha256:1", "Os": "linux"})
    ran = engine.wherry("inspect", "busybox", "nope")
    assert ran.returncode == 1
    assert json.loads(ran.stdout) == [{"Id": "sha256:1", "Os": "linux"}]
    assert ran.stderr == b"Error: No such object: nope\n"
    assert engine.wherry("inspect", "-f", "{{.Os}}", "busybox").stdout == b"linux\n"


def test_several_names_are_all_tried(engine: FakeEngine) -> None:
    engine.answers["POST /containers/b/stop"] = b"HTTP/1.1 204 No Content\r\n\r\n"
    engine.answers["POST /containers/a/stop"] = refuse(404, "No such container: a")
    ran = engine.wherry("stop", "-t", "3", "a", "b")
    assert (ran.returncode, ran.stdout) == (1, b"b\n")
    assert ran.stderr == b"Error response from daemon: No such container: a\n"
    assert engine.requests[0].query == {"t": "3"}


def test_logs_are_taken_apart(engine: FakeEngine) -> None:
    engine.answers["GET /containers/web/json"] = reply({"Config": {"Tty": False}})
    engine.answers["GET /containers/web/logs"] = chunked(frame(1, b"out\n"), frame(2, b"err\n"))
    ran = engine.wherry("logs", "-f", "--tail", "5", "--since", "10m", "web")
    assert (ran.stdout, ran.stderr) == (b"out\n", b"err\n")
    query = engine.requests[1].query
    assert (query["follow"], query["tail"]) == ("1", "5")
    assert float(query["since"]) > 1_700_000_000


def test_import_sends_the_archive_in_chunks(engine: FakeEngine) -> None:
    engine.answers["POST /images/create"] = chunked(b'{"status":"sha256:abc"}\r\n')
    ran = engine.wherry("import", "-c", "CMD x", "-", "reg:5000/a:t", data=b"z" * 600_000)
    assert ran.stdout == b"sha256:abc\n"
    request = engine.requests[0]
    assert request.body == b"z" * 600_000
    assert request.query == {"fromSrc": "-", "repo": "reg:5000/a", "tag": "t", "changes": "CMD x"}


def test_an_error_in_the_progress_is_the_end(engine: FakeEngine) -> None:
    engine.answers["POST /images/load"] = chunked(b'{"stream":"Loading"}\r\n{"error":"broken"}\r\n')
    ran = engine.wherry("load", data=b"x")
    assert (ran.returncode, ran.stderr) == (1, b"Error response from daemon: broken\n")


def test_rmi_says_what_went(engine: FakeEngine) -> None:
    engine.answers["DELETE /images/a"] = reply([{"Untagged": "a:latest"}, {"Deleted": "sha256:1"}])
    assert engine.wherry("rmi", "a").stdout == b"Untagged: a:latest\nDeleted: sha256:1\n"


def test_events_are_printed_as_docker_does(engine: FakeEngine) -> None:
    event = {
        "Type": "container",
        "Action": "die",
        "Actor": {"ID": "abc", "Attributes": {"name": "web", "exitCode": "0"}},
        "timeNano": 1795540133388992105,
    }
    engine.answers["GET /events"] = chunked(json.dumps(event).encode() + b"\n")
    line = engine.wherry("events", "--since", "1").stdout.decode()
    assert ".388992105" in line
    assert line.endswith(" container die abc (exitCode=0, name=web)\n")


def test_dial_stdio_closes_each_direction_by_itself(engine: FakeEngine) -> None:
    engine.answers["GET /_ping"] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK"
    ran = engine.wherry("system", "dial-stdio", data=b"GET /v1.51/_ping HTTP/1.1\r\n\r\n")
    assert ran.stdout.endswith(b"OK")


def test_no_engine_says_what_to_do(engine: FakeEngine) -> None:
    command = [sys.executable, "-I", "-m", "wherry.cli.main", "-H", "unix:///nonexistent/s", "ps"]
    ran = subprocess.run(command, capture_output=True, check=False)
    assert ran.returncode == 1
    assert b"Cannot connect to the Wherry daemon at unix:///nonexistent/s" in ran.stderr
    assert b"wherry daemon" in ran.stderr


@pytest.mark.parametrize(("words", "status"), [([], 0), (["--help"], 0), (["-v"], 0), (["nope"], 1), (["--nope"], 125)])
def test_the_bare_command(engine: FakeEngine, words: list[str], status: int) -> None:
    command = [sys.executable, "-I", "-m", "wherry.cli.main", *words]
    assert subprocess.run(command, capture_output=True, check=False).returncode == status


@pytest.mark.parametrize("words", [["run", "--help"], ["ps", "-h"], ["container", "ls", "--help"], ["exec", "--help"]])
def test_help_names_the_flags(engine: FakeEngine, words: list[str]) -> None:
    ran = engine.wherry(*words)
    assert ran.returncode == 0
    assert b"Usage:  wherry " in ran.stdout
    assert b"--" in ran.stdout


def test_a_command_imports_nothing_heavy(engine: FakeEngine) -> None:
    """35 ms for a whole command leaves no room for these."""
    engine.answers["GET /containers/json"] = reply([CONTAINER])
    code = f"""
import sys
from wherry.cli.main import main
assert main(["-H", {engine.host!r}, "ps"]) == 0
heavy = {{"argparse", "asyncio", "dataclasses", "http", "inspect", "ssl", "subprocess", "typing", "urllib", "msgspec"}}
print(sorted(heavy & set(sys.modules)), file=sys.stderr)
"""
    ran = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, check=True)
    assert ran.stderr == b"[]\n"
