"""The benchmarks' own arithmetic: a wrong table is worse than none."""

from __future__ import annotations

import tarfile
from io import BytesIO

import pytest

from bench import everything, harness, memory


def test_a_line_has_both_figures_their_ratio_and_the_budget() -> None:
    kept = str(harness.Line("run", 20.0, 200.0, "dockerd", 24.0))
    assert kept.split() == ["run", "20.0", "ms", "200.0", "ms", "dockerd", "1/10.0", "24", "ms", "kept"]
    missed = str(harness.Line("run", 30.0, 200.0, "dockerd", 24.0))
    assert missed.endswith("missed")


def test_without_a_peer_there_is_no_ratio() -> None:
    alone = str(harness.Line("run", 20.0, None, "", None))
    assert alone.split() == ["run", "20.0", "ms", "-", "-", "-"]


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


def test_every_script_of_the_table_exists() -> None:
    from importlib import import_module

    for name in everything.SCRIPTS:
        assert callable(import_module(f"bench.{name}").measure)
