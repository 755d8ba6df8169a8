"""Rules for the whole suite.

- Root tests skip for an ordinary user; with WHERRY_TEST_STRICT=1 (./test, CI) every skip is a failure, so that
  nothing passes by not running.
- A root test leaves no descriptor and no zombie in the test process.
- Under ``python -m tests.machine`` (./test) the machine is compared before the first and after the last test, and
  a difference fails the run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests import machine, preloaded

STRICT = os.environ.get("WHERRY_TEST_STRICT") == "1"
WORKER = "PYTEST_XDIST_WORKER" in os.environ

pytest_plugins = ["tests.engine"]


class Leaks:
    """The comparison of the machine before and after the run, in the one process that outlives all others."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.before = machine.snapshot()

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """After xdist has ended its workers."""
        self.lines = machine.orphans(int(os.environ[machine.REAPER])) + machine.settled_difference(self.before)
        if self.lines and session.exitstatus in (0, pytest.ExitCode.OK):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.lines:
            terminalreporter.section("FAILED: the machine is not as it was found", red=True)
            for line in self.lines:
                terminalreporter.line(line)
        else:
            terminalreporter.line("machine: as it was found")


def pytest_configure(config: pytest.Config) -> None:
    if machine.REAPER in os.environ and not WORKER:
        config.pluginmanager.register(Leaks(), "leaks")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        needs_root = item.get_closest_marker("root") or item.get_closest_marker("engine")
        if needs_root and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Turn a skip into a failure where nothing may be skipped."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if STRICT and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid}: not run, and here every test must run: {reason}"


def _descriptors() -> dict[str, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the one that listed the folder
    return found


@pytest.fixture(autouse=True)
def _nothing_left_in_the_process(request: pytest.FixtureRequest) -> Iterator[None]:
    """A root test closes what it opened and waits for what it started."""
    if not request.node.get_closest_marker("root"):
        yield
        return
    if request.node.get_closest_marker("engine"):
        preloaded.source()  # stays
    before = _descriptors()
    yield
    leaked = {name: target for name, target in _descriptors().items() if before.get(name) != target}
    zombies = [line for line in machine.children(os.getpid()).values() if line.startswith("(")]
    assert not leaked, f"descriptors left open: {leaked}"
    assert not zombies, f"children not waited for: {zombies}"
