"""Random requests for all that is served: whatever is asked, no 500, no dropped connection, nothing that grows.

    ./test full tests/property                                      twenty minutes
    WHERRY_PROPERTY_SECONDS=60 WHERRY_PROPERTY_SEED=7 ./test full tests/property    another time, the same requests

Answers are compared with Docker's schema in status and form. Clients of several threads share what they make, so
that requests meet in ways that nobody thought of. A failure names the request; the first ones of each kind are shown.
"""

from __future__ import annotations

import faulthandler
import json
import os
import random
import re
import threading
import time
from pathlib import Path

import pytest

from tests.engine import Engine
from tests.property.traffic import NAMES, Client, Pool

pytestmark = [pytest.mark.root, pytest.mark.engine]

CLIENTS = 3
CONTAINERS = 12
SETTLE = 15.0
SECONDS = float(os.environ.get("WHERRY_PROPERTY_SECONDS", "1200"))
GROWTH = 32 << 20
"""Bytes that the engine's memory may grow after its first minute: remembered execs and events have their limits."""
DEFECTS = ("Traceback", "unexpected failure", "answer broken off", "supervisor died")


def _json(engine: Engine, path: str) -> list[dict[str, str]]:
    status, text = engine.api("GET", path)
    assert status == 200, text
    found: list[dict[str, str]] = json.loads(text)
    return found


def refresh(engine: Engine, pool: Pool) -> None:
    """See to it that there is something of everything, but not too much of it, and tell the clients."""
    found = [each["Id"] for each in _json(engine, "/containers/json?all=1")]
    for each in found[CONTAINERS:]:
        engine.api("DELETE", f"/containers/{each}?force=1&v=1")
    found = found[:CONTAINERS]
    for number in range(3 - len(found)):
        body = {"Image": "busybox", "Cmd": ["sleep", "1000"], "OpenStdin": True, "Tty": number == 1}
        status, text = engine.api("POST", "/containers/create", json.dumps(body))
        if status == 404:  # a client has removed the image
            engine.import_busybox()
            continue
        assert status == 201, text
        found.append(json.loads(text)["Id"])
    running = found[0] if found else NAMES[0]
    engine.api("POST", f"/containers/{running}/unpause")
    engine.api("POST", f"/containers/{running}/start")
    execs = []
    for command in (["true"], ["cat"], ["nosuch"]):
        made = {"Cmd": command, "AttachStdout": True, "AttachStdin": command == ["cat"], "Tty": command == ["cat"]}
        status, text = engine.api("POST", f"/containers/{running}/exec", json.dumps(made))
        execs += [json.loads(text)["Id"]] if status == 201 else []
    pool.containers[:] = [*found, *NAMES]
    pool.execs = execs or ["nosuch"]
    pool.images = [*(each["Id"] for each in _json(engine, "/images/json")), "busybox", "made", "made/it:a"][-8:]
    status, text = engine.api("GET", "/volumes")
    volumes = [each["Name"] for each in json.loads(text)["Volumes"] or ()]
    pool.volumes = [*volumes[:8], "vol", "nosuch"]
    networks = _json(engine, "/networks")
    for each in networks[CONTAINERS:]:
        engine.api("DELETE", f"/networks/{each['Id']}")
    pool.networks = [*(each["Name"] for each in networks[:CONTAINERS]), "nosuch"]


def _prune(engine: Engine) -> None:
    """Forget the images and volumes that were made."""
    for each in _json(engine, "/images/json"):
        if "busybox:latest" not in (each["RepoTags"] or ()):
            engine.api("DELETE", f"/images/{each['Id']}?force=1")
    engine.api("POST", "/volumes/prune?filters=%7B%22all%22%3A%5B%22true%22%5D%7D")


class Talk(threading.Thread):
    """One client, until told to stop."""

    def __init__(self, client: Client, wrong: dict[str, str]) -> None:
        super().__init__(daemon=True)
        self.client, self.wrong = client, wrong
        self.turns = 0
        self.stop = False
        self.broken: BaseException | None = None

    def run(self) -> None:
        """Ask, and keep the first complaint of each kind."""
        try:
            while not self.stop:
                self.turns += 1
                said = self.client.turn()
                if said:
                    self.wrong.setdefault(re.sub(r"[0-9a-f]{12,64}|\d+", "N", said.partition("\n")[0])[:150], said)
        except BaseException as error:
            self.broken = error
            raise


def _descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def _memory(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) << 10


def _talk(engine: Engine, seconds: float, seed: int, folder: str) -> tuple[list[Talk], dict[str, str], int]:
    """Let the clients ask for a time; return them, what was wrong, and the memory after the first part of it."""
    pool, wrong = Pool(), dict[str, str]()
    refresh(engine, pool)
    talks = [Talk(Client(engine, seed + number, pool, folder), wrong) for number in range(CLIENTS)]
    for each in talks:
        each.start()
    assert engine.process
    began, early, round_ = time.monotonic(), 0, 0
    while (passed := time.monotonic() - began) < seconds and all(each.is_alive() for each in talks):
        time.sleep(1)
        round_ += 1
        refresh(engine, pool)
        if round_ % 20 == 0:
            _prune(engine)
        if not early and passed > min(60, seconds / 2):
            early = _memory(engine.process.pid)
    for each in talks:
        each.stop = True
    for each in talks:
        each.join(120)
    return talks, wrong, early


def _check_what_is_left(engine: Engine, before: int, early: int) -> None:
    """Nothing of all that is kept once the containers are gone."""
    assert engine.process
    assert engine.process.poll() is None, engine.tail()
    engine.remove_all()
    deadline = time.monotonic() + SETTLE
    while (after := _descriptors(engine.process.pid)) > before + 5 and time.monotonic() < deadline:
        time.sleep(0.1)  # layers are deleted in the background, through descriptors that come and go
    assert after <= before + 5, f"{before} descriptors before, {after} after"
    grown = _memory(engine.process.pid) - early
    assert grown < GROWTH, f"the engine grew by {grown >> 20} MiB"
    lines = engine.log.read_text(errors="replace").splitlines()
    faults = [line[:3000] for line in lines if any(each in line for each in DEFECTS)]
    assert not faults, "\n".join(faults[:10])


def _run(engine: Engine, seconds: float, folder: Path) -> None:
    faulthandler.cancel_dump_traceback_later()  # pytest's, which takes so long for a hang
    seed = int(os.environ.get("WHERRY_PROPERTY_SEED") or random.randrange(1 << 30))
    engine.start()
    engine.import_busybox()
    engine.docker("run", "--rm", "busybox", "true")
    assert engine.process
    before = _descriptors(engine.process.pid)
    talks, wrong, early = _talk(engine, seconds, seed, str(folder))
    turns = sum(each.turns for each in talks)
    shown = "\n\n".join(list(wrong.values())[:40])
    print(f"seed {seed}: {turns} requests in {seconds:.0f} s, {len(wrong)} kinds of complaint")
    print(_summary(talks), shown, sep="\n\n")
    assert not wrong, f"WHERRY_PROPERTY_SEED={seed}\n{shown}"
    assert not any(each.broken or each.is_alive() for each in talks), [each.broken for each in talks]
    asked = {name for each in talks for name, _ in each.client.statuses}
    answered = {name for each in talks for name, status in each.client.statuses if status < 400}
    assert turns > 20 * seconds, f"only {turns} requests"
    assert len(asked) > 50, sorted(asked)
    assert len(answered) > 30, sorted(answered)
    _check_what_is_left(engine, before, early)


def _summary(talks: list[Talk]) -> str:
    total: dict[tuple[str, int], int] = {}
    for each in talks:
        for key, count in each.client.statuses.items():
            total[key] = total.get(key, 0) + count
    return "\n".join(f"{count:7} {status} {name}" for (name, status), count in sorted(total.items()))


def test_half_a_minute(own_engine: Engine, tmp_path: Path) -> None:
    _run(own_engine, min(SECONDS, 20.0), tmp_path)


@pytest.mark.slow
def test_twenty_minutes(own_engine: Engine, tmp_path: Path) -> None:
    _run(own_engine, SECONDS, tmp_path)
