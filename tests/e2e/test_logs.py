"""docker logs with every driver: what a container wrote is there, in the form asked for, and on the wire."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.engine import Engine
from tests.receivers import Datagrams, Stream, receiving, wait_for

pytestmark = [pytest.mark.root]

EVERYTHING = r"""printf '\0\001\377\376a\tb\r\nsecond \342\202\n'
head -c 40000 /dev/zero | tr '\0' x; echo; printf end"""
"""Binary output, invalid UTF-8, a line of 40000 bytes, and an end without a newline."""


def make(engine: Engine, name: str, *words: str) -> str:
    """Run a container to its end and return its id."""
    engine.run("run", "--name", name, "--network", "none", *words)
    return engine.docker("inspect", "-f", "{{.Id}}", name)


def log_options(*options: str) -> list[str]:
    return [word for option in options for word in ("--log-opt", option)]


def raw_logs(engine: Engine, name: str, *words: str) -> bytes:
    return subprocess.run(
        ["docker", "logs", *words, name], env=engine.environment, capture_output=True, check=True
    ).stdout


def folder(engine: Engine, container: str) -> Path:
    return engine.data_root / "containers" / container


def test_attributes_details_and_the_bytes_of_the_file(engine: Engine):
    options = log_options("labels=a", "env=FOO", "env-regex=^B", "tag={{.Name}}")
    container = make(
        engine, "aa", *options, "-l", "a=1", "-l", "z=9", "-e", "FOO=<x>", "-e", "BAR=b", "busybox", "echo", "hi"
    )
    path = Path(engine.docker("inspect", "-f", "{{.LogPath}}", "aa"))
    assert path == folder(engine, container) / f"{container}-json.log"
    text = path.read_text()
    assert text.startswith(
        '{"log":"hi\\n","stream":"stdout","attrs":{"BAR":"b","FOO":"\\u003cx\\u003e","a":"1","tag":"aa"},"time":"'
    )
    assert engine.docker("logs", "--details", "aa") == "BAR=b,FOO=%3Cx%3E,a=1,tag=aa hi"


@pytest.mark.parametrize("driver", ["json-file", "local", "gelf"])
def test_output_comes_back(engine: Engine, driver):
    """The driver gelf stands for those that send, and keep a copy: over UDP it needs nobody who listens."""
    options = log_options("gelf-address=udp://127.0.0.1:9") if driver == "gelf" else []
    make(engine, "aa", "--log-driver", driver, *options, "busybox", "sh", "-c", EVERYTHING)
    expected = b"\0\x01\xff\xfea\tb\r\nsecond \xe2\x82\n" + b"x" * 40000 + b"\nend"
    if driver == "json-file":  # its format has no place for what is not UTF-8, as dockerd's
        expected = expected.replace(b"\xff\xfe", "\ufffd\ufffd".encode()).replace(b"\xe2\x82", "\ufffd\ufffd".encode())
    assert raw_logs(engine, "aa") == expected


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_tail_since_until_timestamps_and_streams(engine: Engine, driver):
    script = "for i in 1 2 3 4; do echo $i; sleep 0.05; done; echo e >&2"
    make(engine, "aa", "--log-driver", driver, "busybox", "sh", "-c", script)
    lines = engine.docker("logs", "-t", "aa").splitlines()
    stamps = [line.split()[0] for line in lines]
    assert all(len(stamp) == len("2026-01-01T00:00:00.000000000Z") for stamp in stamps)
    assert engine.docker("logs", "--tail", "2", "aa") == "4"  # and e, on the other stream
    assert engine.run("logs", "--tail", "1", "aa").stderr == "e\n"
    assert engine.docker("logs", "--tail", "0", "aa") == ""
    assert engine.docker("logs", "--tail", "all", "aa") == "1\n2\n3\n4"
    assert engine.docker("logs", "--since", stamps[2], "aa") == "3\n4"
    assert engine.docker("logs", "--until", stamps[1], "aa") == "1\n2"
    assert engine.docker("logs", "--since", stamps[1], "--until", stamps[2], "aa") == "2\n3"
    assert engine.docker("logs", "--since", "10m", "-f", "aa") == "1\n2\n3\n4"
    assert engine.docker("logs", "--until", "10m", "aa") == ""
    assert engine.docker("logs", "--details", "--tail", "2", "aa") == " 4"


def test_a_terminal_is_logged_without_frames(engine: Engine):
    make(engine, "aa", "-t", "busybox", "echo", "hi")
    assert raw_logs(engine, "aa") == b"hi\r\n"


def test_follow_ends_at_a_time_and_with_the_container(engine: Engine):
    engine.docker("run", "-d", "--name", "aa", "busybox", "sh", "-c", "echo one; sleep 0.4; echo two; sleep 1000")
    begin = time.monotonic()
    assert engine.docker("logs", "-f", "--until", str(time.time() + 1), "aa") == "one\ntwo"
    assert 0.5 < time.monotonic() - begin < 10
    with subprocess.Popen(["docker", "logs", "-f", "aa"], env=engine.environment, stdout=subprocess.PIPE) as follower:
        engine.docker("kill", "aa")
        assert follower.communicate(timeout=20)[0] == b"one\ntwo\n"


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_compressed_files_are_read_across(engine: Engine, driver):
    words = ("--log-driver", driver, *log_options("max-size=20k", "max-file=9", "compress=true"))
    container = make(engine, "aa", *words, "busybox", "seq", "1", "9999" if driver == "local" else "999")
    files = list(folder(engine, container).rglob("*.gz"))
    assert len(files) >= 2
    assert b"5" in gzip.decompress(files[0].read_bytes())
    last = 9999 if driver == "local" else 999
    assert engine.docker("logs", "aa").split() == [str(number) for number in range(1, last + 1)]
    for count in (3, 500, last - 1, last + 5):
        kept = engine.docker("logs", "--tail", str(count), "aa").split()
        assert kept == [str(number) for number in range(max(1, last - count + 1), last + 1)]


def test_an_old_file_is_begun_anew(engine: Engine):
    script = "for i in 1 2 3; do echo $i; sleep 1.1; done"
    container = make(engine, "aa", "--log-opt", "max-age=1s", "--log-opt", "max-file=2", "busybox", "sh", "-c", script)
    assert len(list(folder(engine, container).glob("*-json.log*"))) == 2
    assert engine.docker("logs", "aa") == "2\n3"


def test_a_follower_over_a_hundred_rotations_sees_every_line_once(engine: Engine):
    """As fast as the shell writes them, some 250 files of 20 kB, of which two are kept."""
    script = "echo ready; while [ ! -e /go ]; do sleep 0.05; done; seq 0 59999"
    words = ("--log-opt", "max-size=20k", "--log-opt", "max-file=3")
    engine.docker("run", "-d", "--name", "aa", *words, "busybox", "sh", "-c", script)
    with subprocess.Popen(["docker", "logs", "-f", "aa"], env=engine.environment, stdout=subprocess.PIPE) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == b"ready\n"
        engine.docker("exec", "aa", "touch", "/go")
        seen, _ = follower.communicate(timeout=60)
    written = b"".join(b"%d\n" % number for number in range(60_000))
    assert hashlib.sha256(seen).hexdigest() == hashlib.sha256(written).hexdigest()


def test_the_end_of_a_large_log_is_there_at_once(engine: Engine):
    """Of 2 GB, which took seconds to read, three lines."""
    container = make(engine, "aa", "--log-opt", "max-size=-1", "busybox", "echo", "last")
    path = folder(engine, container) / f"{container}-json.log"
    last = path.read_bytes()
    line = b'{"log":"' + b"x" * 71 + b'\\n","stream":"stdout","time":"2026-01-01T00:00:00.123456789Z"}\n'
    block = line * 8192
    with path.open("wb") as file:
        file.write(block)
        with path.open("rb") as source:
            for _ in range(11):  # doubles; a reflink where the file system can
                size = file.tell()
                os.copy_file_range(source.fileno(), file.fileno(), size, 0, size) if size < 1 << 20 else None
                while file.tell() < 2 * size and size >= 1 << 20:
                    os.copy_file_range(source.fileno(), file.fileno(), 2 * size - file.tell(), file.tell() - size)
                if file.tell() > 2 << 30:
                    break
        file.write(last)
    assert path.stat().st_size > 1 << 30
    begin = time.monotonic()
    assert engine.docker("logs", "--tail", "3", "aa").endswith("x\nlast")
    assert time.monotonic() - begin < 1.5
    path.unlink()


def test_none_and_a_driver_without_a_copy_cannot_be_read(engine: Engine):
    with receiving(Datagrams()) as receiver:
        make(engine, "aa", "--log-driver", "none", "busybox", "echo", "hi")
        address = f"syslog-address=udp://127.0.0.1:{receiver.port}"
        words = ("--log-driver", "syslog", "--log-opt", address, "--log-opt", "cache-disabled=true")
        make(engine, "bb", *words, "busybox", "echo", "hi")
        for name in ("aa", "bb"):
            assert "configured logging driver does not support reading" in engine.run("logs", name).stderr
            assert engine.api("GET", f"/containers/{name}/logs?stdout=1")[0] == 501
        assert receiver.receive(1)[0].endswith(b": hi\n")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--log-driver", "nope"), 'error looking up logging plugin nope: plugin "nope" not found'),
        (("--log-opt", "max-file=0"), "failed to initialize logging driver: max-file cannot be less than 1"),
        (("--log-opt", "max-size=10q"), "failed to initialize logging driver: invalid suffix: 'q'"),
        (("--log-opt", "compress=true", "--log-opt", "max-file=1"), "compress cannot be true when max-file is less"),
        (("--log-opt", "mode=x"), "logger: logging mode not supported: x"),
        (("--log-opt", "max-buffer-size=1m"), "max-buffer-size option is only supported with 'mode=non-blocking'"),
        (("--log-opt", "tag={{.Nope}}"), "at <.Nope>: can't evaluate field Nope in type *logger.Info"),
        (("--log-driver", "gelf"), "gelf-address is a required parameter"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_left(engine: Engine, words, text):
    ran = engine.run("run", *words, "busybox", "true")
    assert ran.returncode == 125
    assert text in ran.stderr
    assert engine.docker("ps", "-aq") == ""


@pytest.mark.parametrize("driver", ["syslog", "gelf", "fluentd"])
def test_a_receiver_that_is_not_there_fails_the_start(engine: Engine, driver):
    address = "127.0.0.1:1" if driver == "fluentd" else "tcp://127.0.0.1:1"
    words = ("--log-driver", driver, "--log-opt", f"{driver}-address={address}")
    engine.docker("create", "--name", "aa", *words, "busybox", "true")
    status, text = engine.api("POST", "/containers/aa/start")
    assert status == 500
    message = json.loads(text)["message"]
    assert message.startswith("failed to create task for container: failed to initialize logging driver: ")
    assert message.endswith("dial tcp 127.0.0.1:1: connect: connection refused")
    assert engine.docker("inspect", "-f", "{{.State.Status}}", "aa") == "created"


def test_what_is_sent_can_be_read_too_and_survives_the_engine(own_engine: Engine):
    own_engine.start()
    own_engine.import_busybox()
    with receiving(Stream()) as receiver:
        address = f"syslog-address=tcp://127.0.0.1:{receiver.port}"
        script = "echo one; while [ ! -e /go ]; do sleep 0.05; done; echo two; sleep 1000"
        own_engine.docker(
            "run", "-d", "--name", "aa", "--log-driver", "syslog", "--log-opt", address, "busybox", "sh", "-c", script
        )
        receiver.wait_for(b": one\n")
        assert own_engine.docker("logs", "aa") == "one"
        own_engine.docker("exec", "-d", "aa", "sh", "-c", "sleep 0.5; touch /go")
        own_engine.crash()
        receiver.wait_for(b": two\n")  # nobody but the supervisor and its log process is there
        own_engine.start()
        assert own_engine.docker("logs", "aa") == "one\ntwo"
        assert own_engine.docker("logs", "--tail", "1", "-t", "aa").endswith("Z two")


def test_a_receiver_that_comes_back_gets_what_follows(engine: Engine):
    first = Stream()
    port = first.port
    address = f"syslog-address=tcp://127.0.0.1:{first.port}"
    script = "echo one; while [ ! -e /go ]; do sleep 0.05; done; echo two; sleep 1000"
    engine.docker(
        "run", "-d", "--name", "aa", "--log-driver", "syslog", "--log-opt", address, "busybox", "sh", "-c", script
    )
    first.wait_for(b": one\n")
    first.close()
    with receiving(Stream(port=port)) as again:
        engine.docker("exec", "aa", "touch", "/go")
        again.wait_for(b": two\n")


def log_process(engine: Engine, name: str) -> int:
    """Return the pid of a container's log process: a child of its supervisor."""
    pid = engine.docker("inspect", "-f", "{{.State.Pid}}", name)
    parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    found = [int(child) for child in children if Path(f"/proc/{child}/comm").read_text() == "wherry-log\n"]
    assert len(found) == 1, children
    return found[0]


def test_a_receiver_that_hangs_does_not_hold_up_a_non_blocking_container(engine: Engine):
    """The log process is stopped, as if its receiver or its disk had hung."""
    words = ("--log-opt", "mode=non-blocking", "--log-opt", "max-buffer-size=64k")
    script = "while [ ! -e /go ]; do sleep 0.05; done; seq 1 300000; echo done > /out; sleep 1000"
    engine.docker("run", "-d", "--name", "aa", *words, "busybox", "sh", "-c", script)
    helper = log_process(engine, "aa")
    os.kill(helper, signal.SIGSTOP)
    try:
        engine.docker("exec", "aa", "touch", "/go")
        wait_for(lambda: engine.run("exec", "aa", "cat", "/out").stdout == "done\n")
    finally:
        os.kill(helper, signal.SIGCONT)
    lines = wait_for(lambda: engine.docker("logs", "aa").split())
    assert lines == [str(number) for number in range(1, len(lines) + 1)]  # the first ones, whole; the rest is dropped
    assert 1000 < len(lines) < 200_000
    engine.docker("kill", "aa")
    wait_for(lambda: "dropped" in engine.log.read_text())


def test_a_receiver_that_hangs_holds_up_a_blocking_container_and_nothing_is_lost(engine: Engine):
    words = ("--log-driver", "local", "--log-opt", "max-size=19m")  # compressed by default: there is a log process
    script = "while [ ! -e /go ]; do sleep 0.05; done; seq 1 900000; echo done > /out"
    engine.docker("run", "-d", "--name", "aa", *words, "busybox", "sh", "-c", script)
    helper = log_process(engine, "aa")
    os.kill(helper, signal.SIGSTOP)
    try:
        engine.docker("exec", "aa", "touch", "/go")
        time.sleep(0.7)
        assert engine.run("exec", "aa", "cat", "/out").stdout == ""  # it waits, and takes execs meanwhile
    finally:
        os.kill(helper, signal.SIGCONT)
    engine.docker("wait", "aa")
    assert engine.docker("logs", "aa").split() == [str(number) for number in range(1, 900_001)]


def test_a_log_process_that_is_killed_harms_no_container(engine: Engine):
    script = "while [ ! -e /go ]; do sleep 0.05; done; seq 1 100000; echo done > /out; sleep 1000"
    engine.docker("run", "-d", "--name", "aa", "--log-driver", "local", "busybox", "sh", "-c", script)
    os.kill(log_process(engine, "aa"), signal.SIGKILL)
    engine.docker("exec", "aa", "touch", "/go")
    wait_for(lambda: engine.run("exec", "aa", "cat", "/out").stdout == "done\n")
    assert "the log process was killed" in engine.log.read_text()


def test_a_log_process_is_none_of_the_container(engine: Engine):
    engine.docker("run", "-d", "--name", "aa", "--log-driver", "local", "busybox", "sleep", "1000")
    helper = log_process(engine, "aa")
    assert "wherry" not in engine.docker("exec", "aa", "ps")
    assert os.readlink(f"/proc/{helper}/ns/pid") == os.readlink("/proc/self/ns/pid")
    assert engine.cgroup_parent not in Path(f"/proc/{helper}/cgroup").read_text()


def test_defaults_come_from_the_engine_and_are_not_reloaded(own_engine: Engine):
    config = own_engine.root / "daemon.json"
    config.write_text(json.dumps({"log-driver": "local", "log-opts": {"max-size": "5m", "max-file": "3"}}))
    own_engine.start()
    own_engine.import_busybox()
    assert own_engine.docker("info", "-f", "{{.LoggingDriver}}") == "local"
    assert own_engine.docker("info", "-f", "{{json .Plugins.Log}}") == json.dumps(
        ["fluentd", "gelf", "journald", "json-file", "local", "syslog"], separators=(",", ":")
    )
    config.write_text(json.dumps({"log-driver": "none"}))
    assert own_engine.process is not None
    own_engine.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "configuration reloaded" in own_engine.log.read_text())
    make(own_engine, "aa", "--log-opt", "max-file=2", "busybox", "echo", "hi")
    make(own_engine, "bb", "--log-driver", "json-file", "busybox", "echo", "hi")
    shown = "{{json .HostConfig.LogConfig}}"
    assert json.loads(own_engine.docker("inspect", "-f", shown, "aa")) == {
        "Type": "local",
        "Config": {"max-size": "5m", "max-file": "2"},
    }
    assert json.loads(own_engine.docker("inspect", "-f", shown, "bb")) == {"Type": "json-file", "Config": {}}
    assert own_engine.docker("logs", "aa") == "hi"


def test_an_engine_does_not_start_with_options_that_no_container_could_have(own_engine: Engine):
    (own_engine.root / "daemon.json").write_text(json.dumps({"log-opts": {"colour": "red"}}))
    text = "failed to set log opts: unknown log opt 'colour' for json-file log driver"
    with pytest.raises(AssertionError, match=text):
        own_engine.start()
    (own_engine.root / "daemon.json").write_text("{}")
