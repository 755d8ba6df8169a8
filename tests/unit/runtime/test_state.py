"""The records of the stand-alone runtime."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from wherry.runtime import exits
from wherry.runtime.faults import Refused
from wherry.runtime.state import Record, Store, now, process_runs


def record(**changes):
    values = {"id": "c1", "bundle": "/b", "rootfs": "/b/rootfs", "created": now(), "cgroup": "/wherry-test/c1"}
    return Record(**{**values, **changes})


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "root"))


def test_what_is_written_is_read_back(store):
    made = store.create(record(annotations={"a": "b"}), {"ociVersion": "1.0.0"})
    assert store.ids() == ["c1"]
    found = store.load("c1")
    assert found.record == made.record
    assert found.spec() == {"ociVersion": "1.0.0"}
    assert os.stat(found.directory).st_mode & 0o777 == 0o700
    found.forget()
    assert store.ids() == []
    assert os.listdir(store.root) == []


def test_an_id_is_taken_once(store):
    store.create(record(), {})
    with pytest.raises(Refused, match="container with given ID already exists"):
        store.create(record(), {})


@pytest.mark.parametrize("bad", ["", ".", "..", "a/b", "../x", "a b", "a\0", "ä", "a\n"])
def test_ids_that_are_no_names(store, bad):
    for attempt in (lambda: store.create(record(id=bad), {}), lambda: store.load(bad)):
        with pytest.raises(Refused, match="invalid container ID format"):
            attempt()
    assert not os.path.exists(store.root)


def test_what_does_not_exist(store, tmp_path):
    with pytest.raises(Refused, match="container does not exist"):
        store.load("c1")
    os.makedirs(store.root)
    with open(f"{store.root}/file", "w"):
        pass
    with pytest.raises(Refused, match="container does not exist"):
        store.load("file")
    assert store.ids() == []


def test_a_process_is_known_by_its_start_time():
    child = subprocess.Popen(["sleep", "20"])
    started = exits.start_time(child.pid)
    assert process_runs(child.pid, started)
    assert not process_runs(child.pid, started + 1)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not process_runs(child.pid, started)  # a zombie
    child.wait()
    assert not process_runs(child.pid, started)


def test_status_and_oci_state(store):
    container = store.create(record(annotations={"a": "b"}), {})
    assert container.oci()["status"] == "creating"
    container.record.pid, container.record.start_time = os.getpid(), exits.start_time(os.getpid())
    container.save()
    with open(container.socket_path, "w"):
        pass
    assert json.loads(json.dumps(container.oci())) == {
        "ociVersion": "1.2.1",
        "id": "c1",
        "pid": os.getpid(),
        "status": "created",
        "bundle": "/b",
        "annotations": {"a": "b"},
    }
    os.unlink(container.socket_path)
    assert container.status() == "running"
    container.record.start_time += 1
    assert container.oci()["pid"] == 0
    assert container.status() == "stopped"
    with pytest.raises(Refused, match="container not running"):
        container.pidfd()
