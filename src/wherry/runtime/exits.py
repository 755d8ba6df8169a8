"""The files by which a supervisor tells of its container: task.json and exit.json."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

from wherry.runtime.wire import Exit

TASK = "task.json"
EXIT = "exit.json"
SOCKET = "supervisor.sock"
FAULT = "supervisor.log"
_LIMIT = 64 * 1024
_BACKLOG = 8


def start_time(pid: int) -> int:
    """Return when `pid` started, in clock ticks since boot: with the pid it names a process for good (proc(5))."""
    fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    try:
        stat = os.read(fd, 4096)
    finally:
        os.close(fd)
    return int(stat[stat.rindex(b")") + 2 :].split()[19])  # the name may hold spaces and parentheses


def write_record(directory: int, name: str, record: dict[str, Any]) -> None:
    """Put `record` into the directory as JSON; a reader sees all of it or nothing. Run roots are tmpfs: no fsync."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(f".{name}", flags, 0o600, dir_fd=directory)
    try:
        os.write(fd, json.dumps(record).encode())
    finally:
        os.close(fd)
    os.rename(f".{name}", name, src_dir_fd=directory, dst_dir_fd=directory)


def read_record(path: str) -> dict[str, Any] | None:
    """Return the record in the file, or None when there is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        record = json.loads(os.read(fd, _LIMIT))
    finally:
        os.close(fd)
    return record if isinstance(record, dict) else None


def read_exit(run_dir: str) -> Exit | None:
    """Return how the container with this run directory ended, or None when that is not recorded."""
    record = read_record(f"{run_dir}/{EXIT}")
    return Exit.from_wire(record) if record is not None else None


def listen(directory: int) -> socket.socket:
    """Return the socket on which a supervisor waits for wherryd, for the owner of the directory alone."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    umask = os.umask(0o177)
    try:
        # Through the descriptor: sun_path takes 107 bytes, a run root may be longer (unix(7)).
        listener.bind(f"/proc/self/fd/{directory}/{SOCKET}")
    finally:
        os.umask(umask)
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener


def record_fault(run_dir: str) -> None:
    """Keep the traceback of the exception that is being handled, which ends the supervisor."""
    import traceback  # only for the worst case; here we are in the host's file system still

    fd = os.open(f"{run_dir}/{FAULT}", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.write(fd, traceback.format_exc().encode())
    os.close(fd)
