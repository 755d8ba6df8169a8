"""What the stand-alone runtime keeps of each container, and the status it has by that and by the kernel.

    ROOT/ID/               0700, made by create and by nobody else: its mkdir(2) is what makes an id unique
        state.json         the fields of `Record`, replaced as a whole
        config.json        the bundle's configuration as it was at create; exec and delete go by this one
        start.sock         the container waits on it for start; removed by start before it says so

    status      state.json     process            start.sock   freezer
    creating    pid 0          none yet
    created     pid            alive              there
    running     pid            alive              gone         thawed
    paused      pid            alive              gone         frozen
    stopped     pid            gone or zombie

A process is known by its pid and its start time, so that a number used again is not mistaken for it.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from wherry.kernel.pidfd import pidfd_open
from wherry.runtime import exits
from wherry.runtime.cgroups import Cgroup
from wherry.runtime.faults import Refused
from wherry.runtime.versions import OCI_VERSION

STATE = "state.json"
CONFIG = "config.json"
SOCKET = "start.sock"
_ID_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")


@dataclass(slots=True)
class Record:
    """The content of state.json. created: RFC 3339. cgroup: OCI cgroupsPath. owner: the user that created it.

    keyring: it has a session keyring of its own, which execs join.
    """

    id: str
    bundle: str
    rootfs: str
    created: str
    cgroup: str
    pid: int = 0
    start_time: int = 0
    owner: int = 0
    keyring: bool = True
    annotations: dict[str, str] = field(default_factory=dict)


def now() -> str:
    """Return the time as RFC 3339 with nanoseconds."""
    seconds, rest = divmod(time.time_ns(), 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}Z"


def check_id(container_id: str) -> None:
    """Refuse an id that is no plain file name."""
    if not container_id or container_id in (".", "..") or not _ID_CHARACTERS.issuperset(container_id):
        raise Refused("invalid container ID format")


class Store:
    """The containers below one root directory."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)

    def ids(self) -> list[str]:
        """Return the ids of all containers."""
        try:
            names = os.listdir(self.root)
        except FileNotFoundError:
            return []
        return sorted(name for name in names if os.path.exists(f"{self.root}/{name}/{STATE}"))

    def create(self, record: Record, spec: dict[str, Any]) -> Container:
        """Take the id and write what is known so far."""
        check_id(record.id)
        os.makedirs(self.root, 0o700, exist_ok=True)
        container = Container(f"{self.root}/{record.id}", record)
        try:
            os.mkdir(container.directory, 0o700)
        except FileExistsError:
            raise Refused("container with given ID already exists") from None
        try:
            container.write(CONFIG, spec)
            container.save()
        except OSError:
            container.forget()
            raise
        return container

    def load(self, container_id: str) -> Container:
        """Return a container that was created before."""
        check_id(container_id)
        directory = f"{self.root}/{container_id}"
        try:
            found = exits.read_record(f"{directory}/{STATE}")
        except NotADirectoryError:
            found = None
        if found is None:
            raise Refused("container does not exist")
        return Container(directory, Record(**found))


class Container:
    """One container: its record, its configuration and its process."""

    def __init__(self, directory: str, record: Record) -> None:
        self.directory = directory
        self.record = record

    @property
    def socket_path(self) -> str:
        """Where the container waits for start."""
        return f"{self.directory}/{SOCKET}"

    def write(self, name: str, content: dict[str, Any]) -> None:
        """Replace one of the container's files as a whole."""
        directory = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            exits.write_record(directory, name, content)
        finally:
            os.close(directory)

    def save(self) -> None:
        """Write the record."""
        self.write(STATE, asdict(self.record))

    def spec(self) -> dict[str, Any]:
        """Return the configuration the container was created with."""
        with open(f"{self.directory}/{CONFIG}", "rb") as file:
            spec: dict[str, Any] = json.load(file)
        return spec

    def cgroup(self) -> Cgroup:
        """Return the container's control group."""
        return Cgroup.open(self.record.cgroup)

    def alive(self) -> bool:
        """Whether the first process runs; one that only waits to be reaped does not."""
        return process_runs(self.record.pid, self.record.start_time)

    def status(self) -> str:
        """Return the OCI status, or "paused"."""
        if self.record.pid == 0:
            return "creating"
        if not self.alive():
            return "stopped"
        if os.path.exists(self.socket_path):
            return "created"
        return "paused" if self.cgroup().frozen() else "running"

    def pidfd(self) -> int:
        """Return a descriptor of the first process, which is checked to be the recorded one after the open."""
        try:
            descriptor = pidfd_open(self.record.pid)
        except ProcessLookupError:
            raise Refused("container not running") from None
        if not self.alive():
            os.close(descriptor)
            raise Refused("container not running")
        return descriptor

    def oci(self, status: str = "") -> dict[str, Any]:
        """Return the state as the OCI runtime specification words it, for hooks and for `state`."""
        status = status or self.status()
        record = self.record
        state: dict[str, Any] = {
            "ociVersion": OCI_VERSION,
            "id": record.id,
            "pid": 0 if status == "stopped" else record.pid,
            "status": status,
            "bundle": record.bundle,
        }
        if record.annotations:
            state["annotations"] = record.annotations
        return state

    def forget(self) -> None:
        """Remove the container's files, the record last, so that an interrupted removal can be repeated."""
        for name in (f".{CONFIG}", f".{STATE}", SOCKET, CONFIG, STATE):
            try:
                os.unlink(f"{self.directory}/{name}")
            except FileNotFoundError:
                continue
        os.rmdir(self.directory)


def process_runs(pid: int, start_time: int) -> bool:
    """Whether the process with this number and start time exists and is no zombie (proc(5): state Z or X)."""
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        stat = os.read(descriptor, 4096)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    fields = stat[stat.rindex(b")") + 2 :].split()
    return fields[0] not in (b"Z", b"X") and int(fields[19]) == start_time
