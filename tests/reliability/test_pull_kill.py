"""kill -9 of the engine at any moment of a pull, and a push: nothing is tagged, nothing is left, the next try works."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import tars
from tests.engine import Engine, busybox_tar
from tests.liars import Exchange, Liar, liar
from tests.tars import file

pytestmark = [pytest.mark.root, pytest.mark.engine]

LAYERS = [busybox_tar(), *(tars.archive([file(f"f{number}", os.urandom(300_000))]) for number in range(3))]


@pytest.fixture
def registry() -> Iterator[Liar]:
    with liar() as server:
        server.put_image(LAYERS)
        yield server


def slowly(exchange: Exchange) -> bool:
    """Blobs at a pace at which a pull has moments: 20 pieces, 10 ms apart."""
    name = exchange.path.rpartition("/")[2]
    data = exchange.server.blobs.get(name)
    if data is None or exchange.command != "GET":
        return False
    exchange.send_response(200)
    exchange.send_header("Content-Length", str(len(data)))
    exchange.end_headers()
    step = len(data) // 20 + 1
    try:
        for start in range(0, len(data), step):
            exchange.wfile.write(data[start : start + step])
            time.sleep(0.01)
    except OSError:
        exchange.close_connection = True  # killed, as it should be
    return True


def holdings(engine: Engine) -> dict[str, object]:
    """What a pull could have left on the disk."""
    content = engine.data_root / "content"
    driver = next(path for path in (engine.data_root / "snapshots").iterdir() if path.is_dir())
    return {
        "blobs": sorted(os.listdir(content / "blobs/sha256")),
        "spool": sorted(os.listdir(content / "spool")),
        "tmp": sorted(os.listdir(content / "tmp")),
        "layers": sorted(os.listdir(driver / "layers")),
    }


@pytest.mark.parametrize("moment", [0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7])
def test_at_any_moment(own_engine: Engine, registry: Liar, moment: float) -> None:
    own_engine.start()
    before = holdings(own_engine)
    registry.tricks.append(slowly)
    name = f"{registry.host}/team/killed:1"
    told_to = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    client = subprocess.Popen(["docker", "pull", name], env=own_engine.environment, **told_to)
    deadline = time.monotonic() + 20
    while not registry.seen and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(moment)
    own_engine.crash()
    told = client.communicate(timeout=20)[0].decode()
    own_engine.start()
    tags = own_engine.docker("images", "--format", "{{.Repository}}:{{.Tag}}").split()
    if "Status: Downloaded" in told:
        assert tags == [name]
    elif not tags:
        assert holdings(own_engine) == before
    registry.tricks.clear()
    own_engine.docker("pull", name)
    assert own_engine.docker("run", "--rm", name, "sh", "-c", "wc -c </f2") == "300000"
    own_engine.docker("rmi", "-f", name)
    after = holdings(own_engine)
    deadline = time.monotonic() + 10
    while after != before and time.monotonic() < deadline:
        time.sleep(0.05)
        after = holdings(own_engine)
    assert after == before


def test_of_a_push(own_engine: Engine, registry: Liar) -> None:
    """The image stays whole, and is pushed by the next engine."""
    from tests.registries import Registry

    own_engine.start()
    own_engine.import_busybox()
    with Registry() as target:
        name = f"{target.host}/team/pushed:1"
        own_engine.docker("tag", "busybox", name)
        client = subprocess.Popen(["docker", "push", name], env=own_engine.environment, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)  # fmt: skip
        deadline = time.monotonic() + 20
        while "PATCH" not in Path(target.log).read_text() and time.monotonic() < deadline and client.poll() is None:
            time.sleep(0.002)
        own_engine.crash()
        client.wait(timeout=20)
        own_engine.start()
        own_engine.docker("push", name)
        own_engine.docker("rmi", "-f", name, "busybox")
        own_engine.docker("pull", name)
        assert own_engine.docker("run", "--rm", name, "echo", "hi") == "hi"


def test_a_client_that_goes_away_ends_its_pull(own_engine: Engine, registry: Liar) -> None:
    """Nothing comes any more once the client is gone; what had come goes."""
    own_engine.start()
    before = holdings(own_engine)
    registry.tricks.append(slowly)
    client = subprocess.Popen(["docker", "pull", f"{registry.host}/a/b:1"], env=own_engine.environment,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    deadline = time.monotonic() + 20
    while not any("/blobs/" in path for path in registry.paths()) and time.monotonic() < deadline:
        time.sleep(0.002)
    client.kill()
    client.wait()
    while holdings(own_engine) != before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert holdings(own_engine) == before
    assert own_engine.docker("images", "-q") == ""


def test_the_engine_stops_in_good_time_during_a_pull(own_engine: Engine, registry: Liar) -> None:
    """A registry that has gone silent does not hold it up: its patience of 30 s is more than a stop may take."""
    own_engine.start()
    go_on = threading.Event()

    def hang(exchange: Exchange) -> bool:
        if "/blobs/" not in exchange.path or exchange.path.endswith(config):
            return False
        exchange.send_response(200)
        exchange.send_header("Content-Length", str(len(registry.blobs[exchange.path.rpartition("/")[2]])))
        exchange.end_headers()
        exchange.wfile.write(b"\x1f\x8b")
        go_on.wait(60)
        exchange.close_connection = True
        return True

    config = min(registry.blobs, key=lambda name: len(registry.blobs[name]))
    registry.tricks.append(hang)
    client = subprocess.Popen(["docker", "pull", f"{registry.host}/a/b:1"], env=own_engine.environment,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        deadline = time.monotonic() + 20
        while sum("/blobs/" in path for path in registry.paths()) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        began = time.monotonic()
        assert own_engine.stop() == 0
        assert time.monotonic() - began < 15
    finally:
        go_on.set()
        client.kill()
        client.wait(timeout=20)
