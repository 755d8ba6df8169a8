"""run, create, start, attach and exec: whatever connects a terminal to a container."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import ExitStack, contextmanager

from wherry.cli import engine, streams
from wherry.cli.creation import CREATE_FLAGS, attached, create_body
from wherry.cli.failures import ApiError, Failure, Rejected, StartFailed
from wherry.cli.flags import Command, Flag, Parsed
from wherry.cli.http import Client, Response, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

_DETACH = Flag("-d --detach", "Run container in background and print container ID")
_DETACH_KEYS = Flag("--detach-keys", "Override the key sequence for detaching a container", "text")
_SIG_PROXY = Flag("--sig-proxy", "Proxy received signals to the process", "bool", True)

RUN = Command(
    "run",
    "IMAGE [COMMAND] [ARG...]",
    "Create and run a new container from an image",
    "running:run",
    (*CREATE_FLAGS, _DETACH, _DETACH_KEYS, _SIG_PROXY),
    (1, -1),
).ends_at_first_word()
CREATE = Command(
    "create",
    "IMAGE [COMMAND] [ARG...]",
    "Create a new container",
    "running:create",
    CREATE_FLAGS,
    (1, -1),
).ends_at_first_word()
START = Command(
    "start",
    "CONTAINER [CONTAINER...]",
    "Start one or more stopped containers",
    "running:start",
    (
        Flag("-a --attach", "Attach STDOUT/STDERR and forward signals"),
        Flag("-i --interactive", "Attach container's STDIN"),
        _DETACH_KEYS,
    ),
    (1, -1),
)
ATTACH = Command(
    "attach",
    "CONTAINER",
    "Attach local standard input, output, and error streams to a running container",
    "running:attach",
    (_DETACH_KEYS, Flag("--no-stdin", "Do not attach STDIN"), _SIG_PROXY),
    (1, 1),
)
EXEC = Command(
    "exec",
    "CONTAINER COMMAND [ARG...]",
    "Execute a command in a running container",
    "running:execute",
    (
        Flag("-d --detach", "Detached mode: run command in the background"),
        _DETACH_KEYS,
        Flag("-e --env", "Set environment variables", "list"),
        Flag("--env-file", "Read in a file of environment variables", "list"),
        Flag("-i --interactive", "Keep STDIN open even if not attached"),
        Flag("--privileged", "Give extended privileges to the command"),
        Flag("-t --tty", "Allocate a pseudo-TTY"),
        Flag("-u --user", 'Username or UID (format: "<name|uid>[:<group|gid>]")', "text"),
        Flag("-w --workdir", "Working directory inside the container", "text"),
    ),
    (2, -1),
).ends_at_first_word()


def exit_status_of(message: str) -> int:
    """docker's rule: 127 when the command does not exist, 126 when it cannot be run, else 125."""
    if any(text in message for text in ("executable file not found", "no such file or directory")):
        return 127
    if any(text in message for text in ("permission denied", "is a directory", "not a directory")):
        return 126
    return 125


def _create(client: Client, flags: Parsed, *, detach: bool) -> str:
    body = create_body(flags, detach=detach)
    if flags["tty"] and (size := streams.terminal_size()):
        body["HostConfig"]["ConsoleSize"] = list(size)
    query = {"name": flags["name"] or None, "platform": flags["platform"] or None}
    cid_file = flags["cidfile"]
    if cid_file and os.path.exists(cid_file):
        reason = "make sure the other container isn't running or delete"
        raise Rejected(f"container ID file found, {reason} {cid_file}", 125)
    if flags["pull"] == "always":
        _pull(client, flags)
    try:
        answer = client.post("/containers/create", query, body)
    except ApiError as error:
        missing = "No such image" in error.message or "the specified platform" in error.message
        if error.http != 404 or flags["pull"] == "never" or not missing:
            raise
        print(f"Unable to find image '{_with_tag(body['Image'])}' locally", file=sys.stderr)
        _pull(client, flags)
        answer = client.post("/containers/create", query, body)
    for warning in answer.get("Warnings") or []:
        print(f"WARNING: {warning}", file=sys.stderr)
    if cid_file:
        with open(cid_file, "x", encoding="ascii") as file:
            file.write(answer["Id"])
    return str(answer["Id"])


def _with_tag(image: str) -> str:
    return image if "@" in image or ":" in image.rpartition("/")[2] else f"{image}:latest"


def _pull(client: Client, flags: Parsed) -> None:
    """Bring the image here; what is told of it must not stand in the output of the container."""
    from wherry.cli import registries

    name = _with_tag(flags.words[0])
    registries.fetch(client, name, flags["platform"], None if flags["quiet"] else sys.stderr)


class Session:
    """One attached stream with its terminal and signals.

    resize, forward: what to do when the window changes and when a signal arrives; None: nothing.
    """

    def __init__(self, stdin: bool, tty: bool, detach_keys: str) -> None:
        self.stdin = stdin
        self.tty = tty
        self.detach_keys = detach_keys
        self.resize: Callable[[int, int], None] | None = None
        self.forward: Callable[[int], None] | None = None

    @contextmanager
    def terminal(self) -> Iterator[int]:
        """The signal descriptor, with the terminal in raw mode when keys go to a terminal inside."""
        numbers = (signal.SIGWINCH, *streams.FORWARDED) if self.forward else (signal.SIGWINCH,)
        with ExitStack() as stack:
            # Output to a pipe that its reader has closed ends us quietly, as any filter.
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            if self.stdin and self.tty and os.isatty(0):
                stack.enter_context(streams.raw_terminal(0))
            yield stack.enter_context(streams.signal_descriptor(numbers))

    def fit(self) -> None:
        """Give the terminal inside the size of ours."""
        if self.tty and self.resize and (size := streams.terminal_size()):
            self.resize(*size)

    def on_signal(self, number: int) -> None:
        """A signal arrived while the streams are copied."""
        if number == signal.SIGWINCH:
            self.fit()
        elif self.forward:
            self.forward(number)


def _attach_query(flags: tuple[bool, bool, bool], keys: str) -> dict[str, Any]:
    stdin, stdout, stderr = flags
    query = {"stream": True, "stdin": stdin, "stdout": stdout, "stderr": stderr}
    return {name: value for name, value in query.items() if value} | {"detachKeys": keys or None}


def _container_session(client: Client, container: str, session: Session, *, proxy: bool) -> Session:
    path = f"/containers/{quote(container)}"

    def resize(height: int, width: int) -> None:
        _ignoring_gone(lambda: client.post(f"{path}/resize", {"h": height, "w": width}))

    def forward(number: int) -> None:
        _ignoring_gone(lambda: client.post(f"{path}/kill", {"signal": signal.Signals(number).name.removeprefix("SIG")}))

    session.resize = resize
    session.forward = forward if proxy else None
    return session


def _ignoring_gone(call: Callable[[], Any]) -> None:
    """A resize or a signal that comes after the process has ended has nobody to reach."""
    try:
        call()
    except ApiError as error:
        if error.http not in (404, 409, 500):
            raise


def _check_terminal(flags_stdin: bool, tty: bool) -> None:
    if flags_stdin and tty and not os.isatty(0):
        raise Failure("the input device is not a TTY")


def _connected(client: Client, container: str, session: Session, wanted: tuple[bool, bool, bool]) -> streams.Attachment:
    path = f"/containers/{quote(container)}/attach"
    sock, early = client.hijack(path, _attach_query(wanted, session.detach_keys))
    detach = streams.detach_sequence(session.detach_keys)
    return streams.Attachment(sock, early, stdin=0 if wanted[0] else None, tty=session.tty, detach=detach)


def _await_exit(response: Response) -> int:
    answer = response.json()
    response.close()
    error = answer.get("Error") or {}
    if error.get("Message"):
        raise ApiError(500, error["Message"])
    return int(answer["StatusCode"])


def run(host: str, flags: Parsed) -> int:
    """Make a container, attach to it, start it and exit with its status."""
    streams.detach_sequence(flags["detach-keys"])
    _check_terminal(flags["interactive"] and not flags["detach"], flags["tty"])
    client = engine.client(host, start=True)
    try:
        container = _create(client, flags, detach=flags["detach"])
        if flags["detach"]:
            client.post(f"/containers/{container}/start")
            print(container)
            return 0
        return _run_attached(client, container, flags)
    except ApiError as error:
        raise StartFailed(error.message, exit_status_of(error.message)) from error


def _run_attached(client: Client, container: str, flags: Parsed) -> int:
    wanted = attached(flags)
    base = Session(wanted[0], flags["tty"], flags["detach-keys"])
    session = _container_session(client, container, base, proxy=flags["sig-proxy"])
    attachment = _connected(client, container, session, wanted)
    # Registered before the start, so that not even the shortest life is missed.
    condition = "removed" if flags["rm"] else "next-exit"
    waiting = client.open("POST", f"/containers/{container}/wait", {"condition": condition})
    client.post(f"/containers/{container}/start")
    with session.terminal() as signals:
        session.fit()
        detached = attachment.run(signals, session.on_signal)
        if detached:
            print("\r\nread escape sequence", end="\r\n", file=sys.stderr)
            return 0
    return _await_exit(waiting)


def create(host: str, flags: Parsed) -> int:
    """Make a container and print its id."""
    print(_create(engine.client(host, start=True), flags, detach=False))
    return 0


def start(host: str, flags: Parsed) -> int:
    """Start containers; one of them may be attached to."""
    client = engine.client(host)
    if not (flags["attach"] or flags["interactive"]):
        from wherry.cli.lifecycle import each

        failed: list[str] = []
        status = each(flags.words, lambda name: client.post(f"/containers/{quote(name)}/start"), failed=failed)
        if failed:
            print(f"Error: failed to start containers: {', '.join(failed)}", file=sys.stderr)
        return status
    if len(flags.words) > 1:
        raise Failure("you cannot start and attach multiple containers at once")
    container = client.get(f"/containers/{quote(flags.words[0])}/json")
    return _attach_to(client, container, flags, stdin=flags["interactive"], begin=True)


def attach(host: str, flags: Parsed) -> int:
    """Attach to a running container and exit with its status."""
    client = engine.client(host)
    container = client.get(f"/containers/{quote(flags.words[0])}/json")
    state = container["State"]
    if not state["Running"]:
        raise Failure("cannot attach to a stopped container, start it first")
    if state.get("Paused"):
        raise Failure("cannot attach to a paused container, unpause it first")
    return _attach_to(client, container, flags, stdin=not flags["no-stdin"], begin=False)


def _attach_to(client: Client, container: dict[str, Any], flags: Parsed, *, stdin: bool, begin: bool) -> int:
    name, config = container["Id"], container["Config"]
    wanted = (stdin and config["OpenStdin"], True, True)
    _check_terminal(wanted[0] and not begin, config["Tty"])
    proxy = flags.values.get("sig-proxy", True)
    base = Session(wanted[0], config["Tty"], flags["detach-keys"])
    session = _container_session(client, name, base, proxy=proxy)
    attachment = _connected(client, name, session, wanted)
    removed = begin and container["HostConfig"].get("AutoRemove")
    condition = "removed" if removed else "next-exit" if begin else "not-running"
    waiting = client.open("POST", f"/containers/{name}/wait", {"condition": condition})
    if begin:
        client.post(f"/containers/{name}/start")
    with session.terminal() as signals:
        session.fit()
        if attachment.run(signals, session.on_signal):
            print("\r\nread escape sequence", end="\r\n", file=sys.stderr)
            return 0
    return _await_exit(waiting)


def _exec_config(flags: Parsed) -> dict[str, Any]:
    from wherry.cli import values

    files = [line for path in flags["env-file"] for line in values.read_env_file(path)]
    return {
        "User": flags["user"],
        "Privileged": flags["privileged"],
        "Tty": flags["tty"],
        "AttachStdin": flags["interactive"] and not flags["detach"],
        "AttachStdout": not flags["detach"],
        "AttachStderr": not flags["detach"],
        "DetachKeys": flags["detach-keys"],
        "Env": files + values.environment(flags["env"]),
        "WorkingDir": flags["workdir"],
        "Cmd": flags.words[1:],
    }


def execute(host: str, flags: Parsed) -> int:
    """Run one more process in a container and exit with its status."""
    _check_terminal(flags["interactive"] and not flags["detach"], flags["tty"])
    client = engine.client(host)
    config = _exec_config(flags)
    made = client.post(f"/containers/{quote(flags.words[0])}/exec", None, config)
    path = f"/exec/{made['Id']}"
    size = streams.terminal_size() if flags["tty"] else None
    begin: dict[str, Any] = {"Detach": flags["detach"], "Tty": flags["tty"]}
    if size:
        begin["ConsoleSize"] = list(size)
    try:
        if flags["detach"]:
            client.post(f"{path}/start", None, begin)
            return 0
        detached = _exec_attached(client, path, flags, begin)
    except ApiError as error:
        raise StartFailed(error.message, exit_status_of(error.message)) from error
    if detached:
        return 0
    return int(client.get(f"{path}/json")["ExitCode"] or 0)


def _exec_attached(client: Client, path: str, flags: Parsed, begin: dict[str, Any]) -> bool:
    session = Session(flags["interactive"], flags["tty"], flags["detach-keys"])
    session.resize = lambda h, w: _ignoring_gone(lambda: client.post(f"{path}/resize", {"h": h, "w": w}))
    sock, early = client.hijack(f"{path}/start", None, begin)
    detach = streams.detach_sequence(session.detach_keys)
    attachment = streams.Attachment(
        sock, early, stdin=0 if session.stdin else None, tty=session.tty, detach=detach
    )
    with session.terminal() as signals:
        session.fit()
        return attachment.run(signals, session.on_signal)
