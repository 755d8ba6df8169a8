"""Where the engine is, and how to start one in the background when none runs."""

from __future__ import annotations

import os
import sys
import time

from wherry.cli.failures import Unreachable
from wherry.cli.http import Client, connect

DEFAULT_HOST = "unix:///run/wherry.sock"
START_SECONDS = 20.0


def address(flag: str = "") -> str:
    """The engine's address: --host, WHERRY_HOST, DOCKER_HOST or the default."""
    return flag or os.environ.get("WHERRY_HOST") or os.environ.get("DOCKER_HOST") or DEFAULT_HOST


def _spawn(host: str, log_path: str) -> int:
    """Start wherryd in a session of its own; its log goes to a file that only root may read."""
    os.makedirs(os.path.dirname(log_path), mode=0o711, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    log = os.open(log_path, flags, 0o600)
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
    # A daemon that stayed in our working directory would keep its file system busy.
    argv = ["/bin/sh", "-c", 'cd / && exec "$@"', "sh", sys.executable, "-I", "-m", "wherry.cmd.daemon", "-H", host]
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"}
    try:
        return os.posix_spawn(argv[0], argv, environment, file_actions=actions, setsid=True)
    finally:
        os.close(log)
        os.close(null)


def _answers(host: str) -> bool:
    try:
        connect(host).close()
    except Unreachable:
        return False
    return True


def start_in_background(host: str, log_path: str = "/run/wherry/wherryd.log") -> None:
    """Start an engine at `host` and wait until it listens; says so on stderr."""
    if os.geteuid() != 0:
        raise Unreachable(f"Cannot connect to the Wherry daemon at {host}; only root can start one")
    pid = _spawn(host, log_path)
    deadline = time.monotonic() + START_SECONDS
    while not _answers(host):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended or time.monotonic() > deadline:
            why = f"it ended with status {os.waitstatus_to_exitcode(status)}" if ended else "it does not listen"
            raise Unreachable(f"no Wherry daemon ran at {host} and a new one did not start: {why}; see {log_path}")
        time.sleep(0.01)
    print(f"wherry: started wherryd in the background (pid {pid}, log {log_path})", file=sys.stderr)


def client(flag: str = "", *, start: bool = False) -> Client:
    """A client of the engine. start: run one in the background when nobody listens at a socket path."""
    host = address(flag)
    if start and host.startswith("unix://"):
        try:
            connect(host).close()
        except Unreachable as error:
            if isinstance(error.__cause__, PermissionError):
                raise
            start_in_background(host)
    return Client(host)
