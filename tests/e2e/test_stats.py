"""docker stats: figures of work that is really done."""

import itertools
import json
import socket
import subprocess
import time

import pytest

from tests.engine import Engine

pytestmark = [pytest.mark.root, pytest.mark.engine]


def once(engine: Engine, name: str, *flags: str):
    status, body = engine.api("GET", f"/containers/{name}/stats?stream=false{''.join(flags)}")
    assert status == 200, body
    return json.loads(body)


def load(stats) -> float:
    """Percent of one CPU, as the docker command computes it."""
    now, before = stats["cpu_stats"], stats["precpu_stats"]
    used = now["cpu_usage"]["total_usage"] - before["cpu_usage"]["total_usage"]
    return used / (now["system_cpu_usage"] - before["system_cpu_usage"]) * now["online_cpus"] * 100


def test_the_load_of_a_busy_and_of_an_idle_container(engine: Engine):
    engine.docker("run", "-d", "--name", "busy", "--cpus", "0.5", "busybox", "sh", "-c", "while :; do :; done")
    engine.docker("run", "-d", "--name", "idle", "busybox", "sleep", "1000")
    time.sleep(1)
    assert load(once(engine, "idle")) < 3
    taken = sorted(load(once(engine, "busy")) for _ in range(9))
    assert 15 < taken[4] < 90, taken  # of 50: a sample of 40 ms is less than a period of 100 ms
    throttled = once(engine, "busy", "&one-shot=true")["cpu_stats"]["throttling_data"]
    assert throttled["throttled_periods"] > 0


def test_memory_pids_and_network_are_the_kernels(engine: Engine):
    engine.docker("run", "-d", "--name", "aa", "-m", "64m", "--pids-limit", "20", "busybox", "sh", "-c",
                  "dd if=/dev/zero of=/dev/shm/x bs=1M count=20; sleep 1000 & sleep 1001 & wait")  # fmt: skip
    deadline = time.monotonic() + 10
    while once(engine, "aa")["memory_stats"]["usage"] < 20 << 20:
        assert time.monotonic() < deadline, once(engine, "aa")
    found = once(engine, "aa")
    assert found["memory_stats"]["limit"] == 64 << 20
    assert found["pids_stats"] == {"current": 3, "limit": 20}
    before = found["networks"]["eth0"]["tx_packets"]
    gateway = engine.docker("inspect", "-f", "{{.NetworkSettings.Gateway}}", "aa")
    engine.docker("exec", "aa", "ping", "-c", "5", "-i", "0.1", gateway)
    assert once(engine, "aa")["networks"]["eth0"]["tx_packets"] >= before + 5
    engine.docker("run", "-d", "--name", "bb", "--network", "none", "busybox", "sleep", "1000")
    assert "networks" not in once(engine, "bb")


def test_a_network_whose_name_begins_as_hosts_does(engine: Engine):
    engine.docker("network", "create", "hosting")
    engine.docker("run", "-d", "--name", "aa", "--network", "hosting", "busybox", "sleep", "1000")
    assert "eth0" in once(engine, "aa")["networks"]
    engine.docker("rm", "-f", "aa")
    engine.docker("network", "rm", "hosting")


def test_one_answer_does_not_wait_a_second(engine: Engine):
    engine.docker("run", "-d", "--name", "aa", "busybox", "sleep", "1000")
    begin = time.monotonic()
    for _ in range(5):
        assert once(engine, "aa")["preread"] > "2000"
    assert time.monotonic() - begin < 2
    assert once(engine, "aa", "&one-shot=true")["preread"].startswith("0001")


def test_the_command(engine: Engine):
    engine.docker("run", "-d", "--name", "aa", "-m", "64m", "busybox", "sleep", "1000")
    engine.docker("create", "--name", "resting", "busybox", "true")
    line = engine.docker("stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}} {{.MemUsage}}", "aa")
    assert line.startswith("aa 1 ")
    assert line.endswith("/ 64MiB")
    resting = engine.docker("stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}", "resting")
    assert resting.split()[-1] in ("0", "--")
    assert "No such container: nosuch" in engine.run("stats", "--no-stream", "nosuch").stderr
    assert engine.api("GET", "/containers/aa/stats?stream=1&one-shot=1")[0] == 400


def test_a_stream_has_an_answer_a_second_for_each_client_and_ends_with_the_container(engine: Engine):
    engine.docker("run", "-d", "--name", "aa", "busybox", "sh", "-c", "while :; do :; done")
    watchers = []
    for _ in range(2):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(20)
        sock.connect(str(engine.socket))
        sock.sendall(b"GET /containers/aa/stats HTTP/1.1\r\nHost: x\r\n\r\n")
        watchers.append(sock)
    time.sleep(3.5)
    engine.docker("rm", "-f", "aa")
    for sock in watchers:
        data = b""
        while not data.endswith(b"\r\n0\r\n\r\n"):
            data += sock.recv(65536)
        lines = [json.loads(line) for line in data.split(b"\r\n") if line.startswith(b"{")]
        assert 2 <= len(lines) <= 5
        for earlier, later in itertools.pairwise(lines):
            assert later["preread"] == earlier["read"]
            assert load(later) > 20
        sock.close()


def test_nobody_watches_and_nothing_runs(engine: Engine):
    engine.docker("run", "-d", "--name", "aa", "busybox", "sleep", "1000")
    watching = subprocess.Popen(engine_command(engine, "stats"), stdout=subprocess.DEVNULL)
    time.sleep(2)
    watching.terminate()
    watching.wait()
    time.sleep(1.5)
    assert engine.process is not None

    def ticks() -> int:
        with open(f"/proc/{engine.process.pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])

    before = ticks()
    time.sleep(2)
    assert ticks() - before <= 2


def engine_command(engine: Engine, *words: str) -> list[str]:
    return ["docker", "-H", engine.host, *words]
