"""What wherryd takes from a supervisor's messages."""

from __future__ import annotations

import asyncio
from pathlib import Path

from wherry.supervision.task import Task


def told(**more) -> Task:
    async def scenario() -> Task:
        task = Task("c", Path("/nowhere"), "/wherry/c")
        task.on_message({"type": "state", "pid": 7, "start_time": 8, "at": 9, "execs": {}, **more})
        await task.outcome()
        return task

    return asyncio.run(scenario())


def test_the_phases_of_the_start() -> None:
    assert told(phases=[["spec", 1], ["running", 5]]).phases == (("spec", 1), ("running", 5))


def test_a_supervisor_of_an_older_engine_is_adopted_all_the_same() -> None:
    task = told()
    assert (task.pid, task.phases) == (7, ())
