"""The benchmarks' own arithmetic: a wrong table is worse than none."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from bench import account, everything, harness, memory, volumes


def test_a_line_has_both_figures_their_ratio_and_the_budget() -> None:
    kept = str(harness.Line("run", 20.0, 200.0, "dockerd", 24.0))
    assert kept.split() == ["run", "20.0", "ms", "200.0", "ms", "dockerd", "1/10.0", "24", "ms", "kept"]
    missed = str(harness.Line("run", 30.0, 200.0, "dockerd", 24.0))
    assert missed.endswith("missed")


def test_without_a_peer_there_is_no_ratio() -> None:
    alone = str(harness.Line("run", 20.0, None, "", None))
    assert alone.split() == ["run", "20.0", "ms", "-", "-", "-"]


def test_a_median_among_values_that_differ_more_than_the_budget_decides_nothing() -> None:
    peer = harness.Side("dockerd", "")
    steady = harness.Line.spread("run", [[1.0, 1.1, 1.2] * 20, [-1.0, 0.0, 3.0]], peer, 2.0)
    assert "1.1 ms       0.0 ms dockerd" in str(steady)
    assert str(steady).endswith("-       2 ms kept  [1.0..1.2, -1.0..3.0]")
    near = harness.Line.spread("run", [[1.8, 1.9, 2.4] * 20], None, 2.0)
    assert " 2 ms unclear, +-0.1  [" in str(near)
    wild = harness.Line.spread("run", [[-90.0, -80.0, 40.0] * 3], None, 2.0)
    assert " 2 ms unclear, +-" in str(wild)
    over = harness.Line.spread("run", [[3.0, 3.1, 3.2] * 20], None, 2.0)
    assert " 2 ms missed  [" in str(over)


def test_what_a_volume_adds_is_compared_within_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(volumes, "ASIDE", 0.0)

    def kind(name: str, takes: float) -> volumes.Kind:
        def start(side: harness.Side) -> volumes.Start:
            order.append(f"{name}{side.name}")
            return {"time": takes + 100 * ((len(order) - 1) // 6)}  # the machine is slower in each round

        return start

    kinds = [kind("bare", 5.0), kind("there", 6.0), kind("new", 8.0)]
    found = volumes.differences([harness.Side("1", ""), harness.Side("2", "")], kinds, rounds=2)
    assert found == [[[{"time": 1.0}] * 2] * 2, [[{"time": 3.0}] * 2] * 2]
    first, second = ["bare1", "there1", "new1", "bare2"], ["there1", "new1", "bare1", "there2"]
    assert (order[:4], order[6:10], len(order)) == (first, second, 18)


def test_sides_are_measured_in_turns_and_the_warm_up_does_not_count() -> None:
    order: list[str] = []
    figures = {"a": iter([99.0, 99.0, 1.0, 5.0, 3.0]), "b": iter([99.0, 99.0, 2.0, 2.0, 8.0])}

    def measure(name: str) -> float:
        order.append(name)
        return next(figures[name])

    medians = harness.in_turns([lambda: measure("a"), lambda: measure("b")], rounds=3)
    assert medians == [3.0, 2.0]
    assert order == ["a", "b"] * 5


def test_a_command_that_fails_ends_the_benchmark() -> None:
    assert harness.timed(["sleep", "0.02"]) >= 20
    with pytest.raises(SystemExit, match="false"):
        harness.timed(["false"])


def test_the_image_is_one_busybox_and_links() -> None:
    with tarfile.open(fileobj=BytesIO(harness.busybox_tar())) as tar:
        entries = {entry.name: entry for entry in tar}
    assert entries["bin/busybox"].isreg()
    assert entries["bin/sh"].linkname == "busybox"


def test_memory_is_that_of_this_process() -> None:
    import os

    own = memory.pss(os.getpid())
    assert 1 < own < 1000
    assert os.getpid() in memory.processes()
    assert memory.pss(2**22 + 1) == 0


SERVER = """
import socket, subprocess, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print(flush=True)
for _ in sys.stdin:
    subprocess.run([sys.executable, "-S", "-c", "import time\\nwhile time.process_time() < 0.05: pass"])
    print(flush=True)
"""


def test_the_account_of_an_engine_has_what_processes_of_it_used_that_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account, "ENGINE", f"{tmp_path.name}-engine")
    monkeypatch.setattr(account, "PARENT", f"{tmp_path.name}-containers")
    command, address = [sys.executable, "-S", "-c", SERVER, str(tmp_path / "sock")], f"unix://{tmp_path}/sock"
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdout.readline()
        assert account.engine(address) is None
        account.enter(server.pid)
        daemon, engine = account.daemon(address), account.engine(address)
        assert engine is not None
        server.stdin.write(b"burn\n")
        server.stdin.flush()
        server.stdout.readline()
        now = account.engine(address)
        assert now is not None
        assert 50 <= now - engine < 1000
        assert 0 < account.daemon(address) - daemon < 50
    account.leave()
    assert not [tree for tree in account.trees() if (tree / account.ENGINE).exists()]


def test_every_script_of_the_table_exists() -> None:
    from importlib import import_module

    for name in everything.SCRIPTS:
        assert callable(import_module(f"bench.{name}").measure)
