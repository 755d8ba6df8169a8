"""The hooks of the OCI runtime specification: programs run at fixed points of a container's life.

    kind              run by            where                    when
    prestart          the runtime       its own namespaces       the namespaces are made, before pivot_root
    createRuntime     the runtime       its own namespaces       after prestart
    createContainer   the container     its mount namespace      after createRuntime, before pivot_root
    startContainer    the container     inside it                the last thing before execve
    poststart         the runtime       its own namespaces       after execve; a failure is only told
    poststop          the runtime       its own namespaces       after everything is removed; a failure is only told

Each gets the container's state as JSON on stdin and exactly the environment it is configured with (execve(2)
semantics, so an empty one by default). Its output is kept in a memfd, not a pipe, so that a hook that writes much
cannot hang, and is part of the message when it fails.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
from typing import Any

from wherry.runtime.faults import Refused

_SHOWN = 4096  # bytes of output in a message


def run(kind: str, spec: dict[str, Any], state: dict[str, Any]) -> None:
    """Run the hooks of one kind in order; the first that fails ends it with `Refused`."""
    for number, hook in enumerate(spec.get("hooks", {}).get(kind) or ()):
        failure = _run_one(hook, state)
        if failure:
            raise Refused(f"error running {kind} hook #{number}: {failure}")


def run_all(kind: str, spec: dict[str, Any], state: dict[str, Any]) -> list[str]:
    """Run the hooks of one kind to the last; return what failed."""
    failures = []
    for number, hook in enumerate(spec.get("hooks", {}).get(kind) or ()):
        failure = _run_one(hook, state)
        if failure:
            failures.append(f"error running {kind} hook #{number}: {failure}")
    return failures


def _run_one(hook: dict[str, Any], state: dict[str, Any]) -> str:
    """Return why the hook failed, or ""."""
    stdin = os.memfd_create("hook-state", os.MFD_CLOEXEC)
    output = os.memfd_create("hook-output", os.MFD_CLOEXEC)
    try:
        os.write(stdin, json.dumps(state).encode())
        os.lseek(stdin, 0, os.SEEK_SET)
        try:
            pid = _spawn(hook, stdin, output)
        except OSError as error:
            return f"exec {hook['path']}: {os.strerror(error.errno or errno.ENOEXEC).lower()}"
        failure = _wait(pid, hook.get("timeout"))
        if failure:
            text = os.pread(output, _SHOWN, 0).decode(errors="replace").strip()
            failure += f", output: {text}" if text else ""
        return failure
    finally:
        os.close(stdin)
        os.close(output)


def _spawn(hook: dict[str, Any], stdin: int, output: int) -> int:
    environment = dict(entry.partition("=")[::2] for entry in hook.get("env") or ())
    actions = [(os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, output, 2)]
    return os.posix_spawn(
        hook["path"], hook.get("args") or [hook["path"]], environment,
        file_actions=actions, setsigmask=(), setsigdef=signal.valid_signals(),
    )  # fmt: skip


def _wait(pid: int, timeout: int | None) -> str:
    """Return how the process failed, or "". timeout: in seconds; without one the specification sets no limit."""
    pidfd = os.pidfd_open(pid)
    try:
        ended = select.select([pidfd], [], [], timeout)[0]
        if not ended:
            os.kill(pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        os.close(pidfd)
    if not ended:
        return f"it did not end within {timeout} s and was killed"
    if code < 0:
        return f"signal {-code}"
    return f"exit status {code}" if code else ""
