"""Health checks: what is run, when, and what follows from how it ends. PURE; rules and times are dockerd's.

    starting --exit 0--> healthy <--exit 0-- unhealthy
        |                   |                    ^
        +-------------------+--N failures in turn+        N: retries; while starting none counts in the start period
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from wherry.models.container import ContainerConfig, HealthConfig
from wherry.models.times import rfc3339

SECOND = 1_000_000_000
INTERVAL, TIMEOUT, START_PERIOD, START_INTERVAL = 30 * SECOND, 30 * SECOND, 0, 5 * SECOND
RETRIES = 3
REMEMBERED = 5
OUTPUT = 4096
"""Bytes of a check's output that are kept."""
_SHELL = ("/bin/sh", "-c")


@dataclass(frozen=True, slots=True)
class Plan:
    """command: what to execute. The times are seconds."""

    command: tuple[str, ...]
    interval: float
    timeout: float
    start_period: float
    start_interval: float
    retries: int


@dataclass(frozen=True, slots=True)
class Result:
    """One check. begin, end: Unix ns. code: -1 when it took too long, or could not be run at all."""

    begin: int
    end: int
    code: int
    output: str


@dataclass(slots=True)
class Health:
    """Where a container stands: what docker inspect shows as State.Health."""

    status: str = "starting"
    streak: int = 0
    results: deque[Result] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    def take(self, result: Result, plan: Plan, *, started_at: int) -> bool:
        """Count a check in; return whether the status is another one."""
        before = self.status
        self.results.append(result)
        if result.code == 0:
            self.status, self.streak = "healthy", 0
        elif not self.in_start_period(plan, result.begin - started_at):
            self.streak += 1
            if self.streak >= plan.retries:
                self.status = "unhealthy"
        return self.status != before

    def in_start_period(self, plan: Plan, age: int) -> bool:
        """Whether failures do not count yet in a container that has run for `age` ns."""
        return self.status == "starting" and age < plan.start_period * SECOND

    def pause(self, plan: Plan, age: int) -> float:
        """Return the seconds until the next check."""
        return plan.start_interval if self.in_start_period(plan, age) else plan.interval

    def to_wire(self) -> Any:
        """Return the object of docker inspect."""
        log = [
            {"Start": rfc3339(each.begin), "End": rfc3339(each.end), "ExitCode": each.code, "Output": each.output}
            for each in self.results
        ]
        return {"Status": self.status, "FailingStreak": self.streak, "Log": log}


def plan(config: ContainerConfig) -> Plan | None:
    """Return what a container's configuration asks for; None without a check."""
    check = config.healthcheck
    if check is None or not check.test or check.test[0] == "NONE":
        return None
    command = _command(check.test, config.shell or _SHELL)
    if command is None:
        return None
    return Plan(
        command=command,
        interval=(check.interval or INTERVAL) / SECOND,
        timeout=(check.timeout or TIMEOUT) / SECOND,
        start_period=(check.start_period or START_PERIOD) / SECOND,
        start_interval=(check.start_interval or START_INTERVAL) / SECOND,
        retries=check.retries or RETRIES,
    )


def _command(test: Sequence[str], shell: Sequence[str]) -> tuple[str, ...] | None:
    kind, *words = test
    if kind == "CMD" and words:
        return tuple(words)
    if kind == "CMD-SHELL" and words:
        return (*shell, words[0])
    return None


def merge(asked: HealthConfig | None, image: HealthConfig | None) -> HealthConfig | None:
    """Fill what a container leaves open with what its image says."""
    if asked is None or image is None:
        return asked or image
    return HealthConfig(
        **{name: getattr(asked, name) or getattr(image, name) for name in HealthConfig.__struct_fields__}
    )
