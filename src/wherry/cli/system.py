"""info, version, events, system dial-stdio and daemon."""

from __future__ import annotations

import os
import sys

from wherry.cli import engine
from wherry.cli.failures import Unreachable
from wherry.cli.flags import Command, Flag, Parsed
from wherry.cli.http import API_VERSION, connect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FORMAT = Flag("-f --format", "Format output using a Go template or 'json'", "text")

INFO = Command("info", "", "Display system-wide information", "system:info", (_FORMAT,), (0, 0))
VERSION = Command("version", "", "Show the Wherry version information", "system:version", (_FORMAT,), (0, 0))
EVENTS = Command(
    "events",
    "",
    "Get real time events from the server",
    "system:events",
    (
        Flag("-f --filter", "Filter output based on conditions provided", "list"),
        Flag("--format", "Format output using a Go template or 'json'", "text"),
        Flag("--since", "Show all events created since timestamp", "text"),
        Flag("--until", "Stream events until this timestamp", "text"),
    ),
    (0, 0),
)
DIAL_STDIO = Command(
    "system dial-stdio", "", "Proxy the stdio stream to the daemon connection", "system:dial_stdio", (), (0, 0)
)
DAEMON = Command(
    "daemon", "[WHERRYD OPTIONS]", "Run the engine in the foreground", "system:daemon", (), (0, -1)
).ends_at_first_word()


def daemon(host: str, flags: Parsed) -> int:
    """Become wherryd: the same process, the same interpreter."""
    argv = [sys.executable, "-I", "-m", "wherry.cmd.daemon", *(["-H", host] if host else []), *flags.words]
    os.execv(sys.executable, argv)


def _templated(value: Any, shape: str) -> int:
    from wherry.cli.templates import Template

    print(Template("{{json .}}" if shape == "json" else shape).render(value))
    return 0


def _client_version() -> dict[str, Any]:
    from wherry.version import WHERRY

    return {"Version": WHERRY, "ApiVersion": API_VERSION, "PythonVersion": sys.version.split()[0]}


def version(host: str, flags: Parsed) -> int:
    """Both sides' versions; 1 when the engine does not answer."""
    client = _client_version()
    try:
        server: Any = engine.client(host).get("/version")
        failure = ""
    except Unreachable as error:
        server, failure = None, str(error)
    if flags["format"]:
        _templated({"Client": client, "Server": server}, flags["format"])
    else:
        print("Client: Wherry")
        titles = {"Version": "Version", "ApiVersion": "API version", "PythonVersion": "Python version"}
        _lines([(title, client[key]) for key, title in titles.items()])
        if server:
            _server_version(server)
    if failure:
        print(failure, file=sys.stderr)
    return 1 if failure else 0


def _lines(pairs: list[tuple[str, Any]], indent: str = " ") -> None:
    for name, value in pairs:
        print(f"{indent}{name + ':':<18} {value}")


def _server_version(server: dict[str, Any]) -> None:
    print("\nServer:\n Engine:")
    _lines(
        [
            ("Version", server["Version"]),
            ("API version", f"{server['ApiVersion']} (minimum version {server['MinAPIVersion']})"),
            ("OS/Arch", f"{server['Os']}/{server['Arch']}"),
            ("Kernel version", server["KernelVersion"]),
        ],
        "  ",
    )
    for component in server.get("Components") or []:
        if component["Name"] != "Engine":
            print(f" {component['Name']}:")
            _lines([("Version", component["Version"])], "  ")


_INFO_LINES = (
    ("Containers", "Containers"),
    (" Running", "ContainersRunning"),
    (" Paused", "ContainersPaused"),
    (" Stopped", "ContainersStopped"),
    ("Images", "Images"),
    ("Server Version", "ServerVersion"),
    ("Storage Driver", "Driver"),
    ("*", "DriverStatus"),
    ("Logging Driver", "LoggingDriver"),
    ("Cgroup Driver", "CgroupDriver"),
    ("Cgroup Version", "CgroupVersion"),
    ("Default Runtime", "DefaultRuntime"),
    ("Init Binary", "InitBinary"),
    ("Kernel Version", "KernelVersion"),
    ("Operating System", "OperatingSystem"),
    ("OSType", "OSType"),
    ("Architecture", "Architecture"),
    ("CPUs", "NCPU"),
    ("Name", "Name"),
    ("ID", "ID"),
    ("Root Dir", "DockerRootDir"),
    ("Debug Mode", "Debug"),
    ("Live Restore Enabled", "LiveRestoreEnabled"),
)


def info(host: str, flags: Parsed) -> int:
    """What the engine says about itself and its machine."""
    from wherry.cli.tables import binary_size

    facts = engine.client(host).get("/info")
    if flags["format"]:
        return _templated(facts, flags["format"])
    print(f"Client:\n Version:    {_client_version()['Version']}\n\nServer:")
    for title, key in _INFO_LINES:
        value = facts.get(key)
        if title == "*":
            for name, status in value or []:
                print(f"  {name}: {status}")
        elif value not in (None, ""):
            print(f" {title}: {str(value).lower() if isinstance(value, bool) else value}")
    print(f" Total Memory: {binary_size(facts.get('MemTotal', 0))}")
    options = facts.get("SecurityOptions") or []
    print(" Security Options:" + "".join(f"\n  {option}" for option in options))
    for warning in facts.get("Warnings") or []:
        print(warning, file=sys.stderr)
    return 0


def _event_line(event: dict[str, Any]) -> str:
    from datetime import UTC, datetime

    nanoseconds = int(event["timeNano"])
    moment = datetime.fromtimestamp(nanoseconds // 10**9, UTC).astimezone()
    zone = moment.strftime("%z")
    zone = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    stamp = f"{moment:%Y-%m-%dT%H:%M:%S}.{nanoseconds % 10**9:09d}{zone}"
    actor = event.get("Actor") or {}
    line = f"{stamp} {event['Type']} {event['Action']} {actor.get('ID', '')}"
    attributes = actor.get("Attributes") or {}
    shown = ", ".join(f"{key}={value}" for key, value in sorted(attributes.items()))
    return f"{line} ({shown})" if shown else line


def events(host: str, flags: Parsed) -> int:
    """Print events as they happen."""
    from wherry.cli.lifecycle import timestamp
    from wherry.cli.listing import filters
    from wherry.cli.templates import Template

    shape = "{{json .}}" if flags["format"] == "json" else flags["format"]
    template = Template(shape) if shape else None
    query = {
        "since": timestamp(flags["since"]),
        "until": timestamp(flags["until"]),
        "filters": filters(flags["filter"]),
    }
    for event in engine.client(host).open("GET", "/events", query).records():
        print(template.render(event) if template else _event_line(event), flush=True)
    return 0


def dial_stdio(host: str, flags: Parsed) -> int:
    """Join stdin and stdout to the engine's socket, each direction closed by itself: the far end of -H ssh://."""
    import select
    from _socket import SHUT_WR

    from wherry.cli.streams import write_all

    sock = connect(engine.address(host))
    poll = select.poll()
    poll.register(0, select.POLLIN)
    poll.register(sock, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == 0:
                data = os.read(0, 1 << 16)
                if data:
                    sock.sendall(data)
                    continue
                poll.unregister(0)
                sock.shutdown(SHUT_WR)
                continue
            data = sock.recv(1 << 16)
            if not data:
                return 0
            write_all(1, data)
