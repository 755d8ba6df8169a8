"""stop, kill, rm, restart, rename, wait, pause, unpause, top and logs: one request for each name."""

from __future__ import annotations

import sys

from wherry.cli import engine
from wherry.cli.failures import ApiError, Failure
from wherry.cli.flags import Command, Flag, Parsed
from wherry.cli.http import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

_SIGNAL = Flag("-s --signal", "Signal to send to the container", "text")
_TIMEOUT = Flag("-t --timeout --time", "Seconds to wait before killing the container", "int")
_NAMES = "CONTAINER [CONTAINER...]"

_TIMED = (_SIGNAL, _TIMEOUT)

STOP = Command("stop", _NAMES, "Stop one or more running containers", "lifecycle:stop", _TIMED, (1, -1))
RESTART = Command("restart", _NAMES, "Restart one or more containers", "lifecycle:restart", _TIMED, (1, -1))
KILL = Command("kill", _NAMES, "Kill one or more running containers", "lifecycle:kill", (_SIGNAL,), (1, -1))
RM = Command(
    "rm",
    _NAMES,
    "Remove one or more containers",
    "lifecycle:remove",
    (
        Flag("-f --force", "Force the removal of a running container (uses SIGKILL)"),
        Flag("-l --link", "Remove the specified link"),
        Flag("-v --volumes", "Remove anonymous volumes associated with the container"),
    ),
    (1, -1),
)
RENAME = Command("rename", "CONTAINER NEW_NAME", "Rename a container", "lifecycle:rename", (), (2, 2))
_ANY = (1, -1)
WAIT = Command("wait", _NAMES, "Block until containers stop, then print their exit codes", "lifecycle:wait", (), _ANY)
PAUSE = Command("pause", _NAMES, "Pause all processes within containers", "lifecycle:pause", (), _ANY)
UNPAUSE = Command("unpause", _NAMES, "Unpause all processes within containers", "lifecycle:unpause", (), _ANY)
TOP = Command(
    "top", "CONTAINER [ps OPTIONS]", "Display the running processes of a container", "lifecycle:top", (), (1, -1)
).ends_at_first_word()
LOGS = Command(
    "logs",
    "CONTAINER",
    "Fetch the logs of a container",
    "lifecycle:logs",
    (
        Flag("--details", "Show extra details provided to logs"),
        Flag("-f --follow", "Follow log output"),
        Flag("--since", "Show logs since timestamp or relative (e.g. 42m for 42 minutes)", "text"),
        Flag("-n --tail", "Number of lines to show from the end of the logs", "text", "all"),
        Flag("-t --timestamps", "Show timestamps"),
        Flag("--until", "Show logs before a timestamp or relative (e.g. 42m for 42 minutes)", "text"),
    ),
    (1, 1),
)


def each(
    names: Sequence[str], call: Callable[[str], Any], *, show: bool = True, failed: list[str] | None = None
) -> int:
    """Do one thing for each name: print the name when it worked, the reason when not; 1 when any failed.

    failed: takes the names with which it did not work.
    """
    status = 0
    for name in names:
        try:
            call(name)
        except ApiError as error:
            print(f"Error response from daemon: {error.message}", file=sys.stderr)
            status = 1
            if failed is not None:
                failed.append(name)
        else:
            if show:
                print(name)
    return status


def _timed(host: str, flags: Parsed, verb: str) -> int:
    client = engine.client(host)
    query = {"signal": flags["signal"] or None, "t": flags["time"]}
    return each(flags.words, lambda name: client.post(f"/containers/{quote(name)}/{verb}", query))


def stop(host: str, flags: Parsed) -> int:
    """Stop containers."""
    return _timed(host, flags, "stop")


def restart(host: str, flags: Parsed) -> int:
    """Restart containers."""
    return _timed(host, flags, "restart")


def kill(host: str, flags: Parsed) -> int:
    """Send a signal to containers."""
    client = engine.client(host)
    query = {"signal": flags["signal"] or None}
    return each(flags.words, lambda name: client.post(f"/containers/{quote(name)}/kill", query))


def remove(host: str, flags: Parsed) -> int:
    """Remove containers; with --force one that does not exist is no error."""
    client = engine.client(host)
    query = {"force": flags["force"] or None, "link": flags["link"] or None, "v": flags["volumes"] or None}
    status = 0
    for name in flags.words:
        try:
            client.call("DELETE", f"/containers/{quote(name.strip('/'))}", query)
            print(name)
        except ApiError as error:
            print(f"Error response from daemon: {error.message}", file=sys.stderr)
            if not (flags["force"] and error.http == 404):
                status = 1
    return status


def rename(host: str, flags: Parsed) -> int:
    """Give a container another name."""
    old, new = flags.words
    try:
        engine.client(host).post(f"/containers/{quote(old)}/rename", {"name": new})
    except ApiError as error:
        raise Failure(f"{error.prefix}{error}\nError: failed to rename container named {old}") from error
    return 0


def wait(host: str, flags: Parsed) -> int:
    """Print the exit codes of containers as they end."""
    client = engine.client(host)

    def one(name: str) -> None:
        print(client.post(f"/containers/{quote(name)}/wait")["StatusCode"])

    return each(flags.words, one, show=False)


def pause(host: str, flags: Parsed) -> int:
    """Freeze containers."""
    client = engine.client(host)
    return each(flags.words, lambda name: client.post(f"/containers/{quote(name)}/pause"))


def unpause(host: str, flags: Parsed) -> int:
    """Thaw containers."""
    client = engine.client(host)
    return each(flags.words, lambda name: client.post(f"/containers/{quote(name)}/unpause"))


def top(host: str, flags: Parsed) -> int:
    """Show a container's processes."""
    from wherry.cli.tables import columns

    name, *arguments = flags.words
    answer = engine.client(host).get(f"/containers/{quote(name)}/top", {"ps_args": " ".join(arguments) or None})
    sys.stdout.write(columns([answer["Titles"], *answer["Processes"]]))
    return 0


def timestamp(text: str) -> str | None:
    """A moment for the API: Unix time, RFC 3339 or a duration before now."""
    import time

    from wherry.cli.tables import parse_time
    from wherry.cli.values import nanoseconds

    if not text:
        return None
    if text.replace(".", "", 1).isdigit():
        return text
    try:
        return f"{time.time() - nanoseconds(text) / 1e9:.9f}"
    except ValueError:
        pass  # not a duration: a date
    try:
        return f"{parse_time(text):.9f}"
    except ValueError:
        raise Failure(f'failed to parse value as time or duration: "{text}"') from None


def logs(host: str, flags: Parsed) -> int:
    """Print, and follow, what a container wrote."""
    import signal

    from wherry.cli.streams import Demultiplexer, write_all

    # A pipe that its reader has closed ends us quietly, as any filter.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    client = engine.client(host)
    path = f"/containers/{quote(flags.words[0])}"
    query = {
        "stdout": True,
        "stderr": True,
        "follow": flags["follow"] or None,
        "timestamps": flags["timestamps"] or None,
        "details": flags["details"] or None,
        "tail": flags["tail"],
        "since": timestamp(flags["since"]),
        "until": timestamp(flags["until"]),
    }
    tty = client.get(f"{path}/json")["Config"]["Tty"]
    demultiplexer = Demultiplexer(lambda stream, data: write_all(2 if stream == 2 else 1, data))
    feed: Callable[[bytes], None] = (lambda data: write_all(1, data)) if tty else demultiplexer.feed
    for piece in client.open("GET", f"{path}/logs", query).chunks():
        feed(piece)
    return 0
