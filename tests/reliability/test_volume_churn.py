"""Containers with three volumes each, made, run and removed again and again: nothing is left of them anywhere."""

from __future__ import annotations

import json
import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from tests.engine import Engine
from tests.reliability.test_failpoints import holdings
from tests.volumes import Requests
from tests.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.engine]
AT_ONCE = 4


def remains(engine: Engine) -> dict[str, object]:
    """What is held on disk, in the kernel, in the store and by the engine itself."""
    assert engine.process is not None
    with closing(sqlite3.connect(engine.data_root / "meta.db")) as store:
        tables = ("containers", "volumes", "endpoints")
        rows = {table: store.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}
    return {
        **holdings(engine),
        "volumes": sorted(os.listdir(engine.data_root / "volumes")),
        "rows": rows,
        "descriptors above": max(0, len(os.listdir(f"/proc/{engine.process.pid}/fd")) - 120),
    }


def round_of(engine: Engine, number: int) -> None:
    """Make three volumes, run a container that writes to them, remove all."""
    ask = Requests(engine)
    try:
        names = [f"churn-{number}-{each}" for each in "ab"]
        status, _ = ask("POST", "/volumes/create", {"Name": names[0]})
        assert status == 201
        script = "echo x >/a/f && echo x >/b/f && echo x >/c/f"
        host = {"Binds": [f"{names[0]}:/a", f"{names[1]}:/b", "/c"], "NetworkMode": "none"}
        body = {"Image": "busybox", "Cmd": ["sh", "-c", script], "HostConfig": host}
        status, text = ask("POST", "/containers/create", body)
        assert status == 201, text
        container = json.loads(text)["Id"]
        assert ask("POST", f"/containers/{container}/start")[0] == 204
        status, text = ask("POST", f"/containers/{container}/wait")
        assert json.loads(text)["StatusCode"] == 0
        for name in names:
            place = engine.data_root / "volumes" / name / "_data" / "f"
            assert Path(place).read_text() == "x\n"
        assert ask("DELETE", f"/containers/{container}?v=1")[0] == 204
        for name in names:
            assert ask("DELETE", f"/volumes/{name}")[0] == 204
    finally:
        ask.close()


@pytest.mark.parametrize("rounds", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_rounds_leave_nothing(own_engine: Engine, rounds: int) -> None:
    own_engine.start()
    own_engine.import_busybox()
    round_of(own_engine, rounds)
    until(lambda: not holdings(own_engine)["running"])
    before = remains(own_engine)
    assert before["volumes"] == []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda number: round_of(own_engine, number), range(rounds)))
    until(lambda: remains(own_engine) == before)
