"""Many starts and ends, in all the ways to use networks: in the end everything is as it was."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.engine import Engine
from tests.reliability.worlds import World, difference, world

pytestmark = [pytest.mark.root, pytest.mark.engine]

PATIENCE = 300.0
"""Seconds for one command: many run at once."""

SETTLED = 90.0
"""Seconds until the stock of sandboxes has its size again (network/stock.py, QUIET) and all links are gone."""


@pytest.fixture
def own_world(own_engine: Engine) -> Iterator[World]:
    with world(own_engine) as found:
        yield found


def cycle(found: World, number: int) -> None:
    """One container from its start to its end."""
    engine, name, port = found.engine, f"c{number}", 20000 + number
    ways = (
        ("--network", "n"),
        ("-p", f"{port}:80"),
        ("--network", "n", "--network", "m", "-p", f"{port}:80/udp"),
        ("--network", "none"),
        (),
        ("--network", "n", "--ip", f"10.167.0.{100 + number % 100}"),
    )
    flags = ways[number % len(ways)]
    engine.docker("run", "-d", "--name", name, *flags, "busybox", "sleep", "1000", timeout=PATIENCE)
    if number % len(ways) == 0:
        engine.docker("network", "connect", "m", name, timeout=PATIENCE)
    shown = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}{{.NetworkSettings.SandboxKey}}"
    *addresses, key = engine.docker("inspect", "-f", shown, name, timeout=PATIENCE).split()
    assert "eth0" in found.run("nsenter", f"--net={key}", "ip", "link") or not addresses
    for address in addresses:
        found.do(lambda address=address: touch(address))
    engine.docker("rm", "-f", name, timeout=PATIENCE)


def touch(address: str) -> None:
    """Send something to a container, so that the host has it among its neighbours."""
    try:
        socket.create_connection((address, 9), timeout=20).close()
    except ConnectionRefusedError:
        return


@pytest.mark.parametrize("cycles", [36, pytest.param(1000, marks=pytest.mark.slow)])
def test_cycles_leave_nothing(own_world: World, cycles: int):
    """Links, addresses, routes, neighbours, rules, mounts, descriptors, files and rows are as before."""
    engine = own_world.engine
    engine.start()
    engine.import_busybox()
    engine.docker("network", "create", "--subnet", "10.167.0.0/24", "n")
    engine.docker("network", "create", "m")
    for number in range(6):  # what there is from the first use on: the name server, threads
        cycle(own_world, number)
    before = await_rest(own_world)
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda number: cycle(own_world, number), range(cycles)))
    await_state(own_world, before)


def await_rest(found: World) -> dict[str, Counter[str]]:
    """Return what there is when nothing changes any more."""
    deadline = time.monotonic() + SETTLED
    last = found.everything()
    while True:
        time.sleep(1)
        now = found.everything()
        changes = difference(last, now)
        if not changes:
            return now
        assert time.monotonic() < deadline, changes
        last = now


def await_state(found: World, wanted: dict[str, Counter[str]]) -> None:
    """Wait until everything is as it was."""
    deadline = time.monotonic() + SETTLED
    while changes := difference(wanted, found.everything()):
        assert time.monotonic() < deadline, "\n".join(changes)
        time.sleep(0.5)
