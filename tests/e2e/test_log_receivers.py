"""Log drivers against the receivers that people run: rsyslog and systemd's journal; a forward and a GELF server."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.engine import Engine
from tests.receivers import Stream, certificate, receiving, wait_for

pytestmark = [pytest.mark.root]

SCRIPT = r"""echo one; sleep 0.1; echo bad >&2; sleep 0.1
printf 'a\tb \342\202\254 \377\n'; sleep 0.1
head -c 20000 /dev/zero | tr '\0' x; echo; echo end"""
"""Lines of both streams, what is no text, a line that is cut in two, and one more."""
PARTS = ("x" * 16384, "x" * (20000 - 16384))
NODE = Path(__file__).parents[1] / "node"


def run(engine: Engine, driver: str, options: tuple[str, ...], *words: str) -> str:
    """Run a container that logs there, to its end; return its id."""
    given = [word for option in options for word in ("--log-opt", option)]
    engine.docker("create", "--name", "aa", "--log-driver", driver, *given, *words, "busybox", "sh", "-c", SCRIPT)
    identity = engine.docker("inspect", "-f", "{{.Id}}", "aa")
    ran = engine.run("start", "-a", "aa")
    assert ran.returncode == 0, ran.stderr
    return identity


# rsyslog

FORM = "%app-name%|%syslogfacility-text%|%syslogseverity-text%|%hostname%|%timereported:::date-rfc3339%|%msg%\\n"


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(type=kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def rsyslog(folder: Path, module: str, listen: str, ready: Callable[[], bool]) -> Iterator[Path]:
    """Run rsyslogd with one input; yields the file of its messages."""
    config, messages = folder / "rsyslog.conf", folder / "messages"
    config.write_text(
        f'global(workDirectory="{folder}" maxMessageSize="64k" parser.escapeControlCharactersOnReceive="off")\n'
        f'{module}\ntemplate(name="plain" type="string" string="{FORM}")\n'
        f'{listen}\naction(type="omfile" file="{messages}" template="plain")\n'
    )
    command = ["rsyslogd", "-n", "-f", str(config), "-i", str(folder / "pid")]
    with (folder / "output").open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as daemon:
        try:
            wait_for(ready)
            yield messages
        finally:
            daemon.terminate()


def is_bound(network: str, port: int) -> bool:
    """Return whether somebody has the port (proc(5), net/tcp and net/udp)."""
    lines = Path(f"/proc/net/{network}").read_text().splitlines()[1:]
    return any(line.split()[1].endswith(f":{port:04X}") for line in lines)


def entries(messages: Path, count: int) -> list[list[str]]:
    """Return app-name, facility, severity, host, time and text of the container's messages."""

    def found() -> list[list[str]]:
        lines = (messages.read_bytes() if messages.exists() else b"").decode(errors="surrogateescape").split("\n")[:-1]
        return [line.split("|", 5) for line in lines]

    return wait_for(lambda: (rows := found()) and len(rows) >= count and rows)


@pytest.mark.parametrize("network", ["udp", "tcp", "tcp+tls", "unixgram"])
@pytest.mark.parametrize("form", ["", "rfc3164", "rfc5424", "rfc5424micro"])
def test_rsyslog_understands_every_message(engine: Engine, tmp_path: Path, network: str, form: str) -> None:
    port = free_port(socket.SOCK_DGRAM if network == "udp" else socket.SOCK_STREAM)
    address = f"{network}://127.0.0.1:{port}"
    options: tuple[str, ...] = ("syslog-facility=local3", f"syslog-format={form}", "tag=app-{{.Name}}")
    if network == "udp":
        module, listen = 'module(load="imudp")', f'input(type="imudp" address="127.0.0.1" port="{port}")'
    elif network == "unixgram":
        address = f"unixgram://{tmp_path}/log"
        module = 'module(load="imuxsock" SysSock.Use="off")'
        listen = f'input(type="imuxsock" Socket="{tmp_path}/log" UseSpecialParser="off" ParseHostname="on")'
    else:
        tls = ' StreamDriver.Name="gtls" StreamDriver.Mode="1" StreamDriver.AuthMode="anon"'
        module = f'module(load="imtcp"{tls if network == "tcp+tls" else ""})'
        listen = f'input(type="imtcp" address="127.0.0.1" port="{port}")'
        if network == "tcp+tls":
            cert, key = certificate(tmp_path)
            files = f'DefaultNetstreamDriverCAFile="{cert}" DefaultNetstreamDriverCertFile="{cert}"'
            module = f'global({files} DefaultNetstreamDriverKeyFile="{key}")\n{module}'
            options += (f"syslog-tls-ca-cert={cert}",)

    def ready() -> bool:
        return (tmp_path / "log").exists() if network == "unixgram" else is_bound(network[:3], port)

    with rsyslog(tmp_path, module, listen, ready) as messages:
        run(engine, "syslog", (f"syslog-address={address}", *options))
        rows = entries(messages, 6)
    assert [row[0] for row in rows] == ["app-aa"] * 6
    assert [row[1] for row in rows] == ["local3"] * 6
    assert [row[2] for row in rows] == ["info", "err", "info", "info", "info", "info"]
    texts = [row[5].removeprefix(" ") for row in rows]
    assert texts == ["one", "bad", "a\tb \u20ac \udcff", *PARTS, "end"]
    if form:  # the form without a name leaves the host out
        assert {row[3] for row in rows} == {os.uname().nodename}
    if form == "rfc5424micro":
        assert any(row[4][19] == "." and row[4][20:26] != "000000" for row in rows)


# journald

JOURNAL = """set -e
mkdir -p /run/systemd /run/log
mount -t tmpfs none /run/systemd
mount -t tmpfs none /run/log
mount -t tmpfs none /etc/systemd
mkdir /run/systemd/journal
printf '[Journal]\\nStorage=volatile\\nReadKMsg=no\\nAudit=no\\nRateLimitIntervalSec=0\\nLineMax=64K\\n' \
    > /etc/systemd/journald.conf
exec /lib/systemd/systemd-journald
"""


@contextmanager
def journal() -> Iterator[tuple[str, ...]]:
    """Run systemd-journald in a mount namespace where /run/systemd is its own; yields what enters that."""
    command = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", JOURNAL]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as daemon:
        enter = ("nsenter", f"--mount=/proc/{daemon.pid}/ns/mnt")
        try:
            there = [*enter, "test", "-S", "/run/systemd/journal/socket"]
            wait_for(lambda: subprocess.run(there, capture_output=True).returncode == 0)
            yield enter
        finally:
            daemon.terminate()


def test_systemd_journal_has_every_field(own_engine: Engine) -> None:
    with journal() as enter:
        own_engine.prefix = enter
        own_engine.start()
        own_engine.import_busybox()
        options = ("labels=color", "env=FOO", "tag=app-{{.Name}}")
        identity = run(own_engine, "journald", options, "-l", "color=red", "-e", "FOO=two words")
        show = [*enter, "journalctl", "-D", "/run/log/journal", "--no-pager", "-a", "-o", "json"]

        def read() -> list[dict[str, str]]:
            found = subprocess.run([*show, f"CONTAINER_ID_FULL={identity}"], capture_output=True, check=True).stdout
            return [json.loads(line) for line in found.splitlines()]

        entries = wait_for(lambda: (rows := read()) and len(rows) >= 6 and rows)
        assert own_engine.docker("logs", "--tail", "1", "aa") == "end"
        own_engine.stop()
    own_engine.prefix = ()
    assert [entry["MESSAGE"] for entry in entries] == [
        *("one", "bad", list(b"a\tb \xe2\x82\xac \xff"), *PARTS, "end"),
    ]
    assert [entry["PRIORITY"] for entry in entries] == ["6", "3", "6", "6", "6", "6"]
    for entry in entries:
        assert entry["_TRANSPORT"] == "journal"
        assert entry["CONTAINER_NAME"] == "aa"
        assert entry["CONTAINER_ID"] == identity[:12]
        assert entry["CONTAINER_TAG"] == entry["SYSLOG_IDENTIFIER"] == "app-aa"
        assert entry["IMAGE_NAME"] == "busybox"
        assert (entry["COLOR"], entry["FOO"]) == ("red", "two words")
    first, last = entries[3], entries[4]
    assert first["CONTAINER_PARTIAL_ID"] == last["CONTAINER_PARTIAL_ID"]
    assert (first["CONTAINER_PARTIAL_LAST"], last["CONTAINER_PARTIAL_LAST"]) == ("false", "true")


# Servers of others, in Node


@contextmanager
def node(folder: Path, *words: str) -> Iterator[tuple[int, Path]]:
    """Run a receiver; yields its port and the file of its entries."""
    assert shutil.which("node"), "node is not installed"
    assert (NODE / "node_modules").exists(), "npm ci was not run in tests/node"
    output = folder / "entries"
    with (
        output.open("wb") as target,
        subprocess.Popen(["node", *words], cwd=NODE, stdout=target, stderr=subprocess.STDOUT) as receiver,
    ):
        try:
            port = wait_for(lambda: output.read_text().split("\n")[0])
            yield int(port), output
        finally:
            receiver.send_signal(signal.SIGKILL)


def received(output: Path, count: int) -> list[dict[str, object]]:
    lines = wait_for(lambda: (found := output.read_text().split("\n")[1:-1]) and len(found) >= count and found)
    return [json.loads(line) for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("ack", [False, True])
@pytest.mark.parametrize("tls", [False, True])
def test_a_forward_server_has_every_entry(
    own_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ack: bool, tls: bool
) -> None:
    files = certificate(tmp_path) if tls else ()
    if tls:
        monkeypatch.setenv("SSL_CERT_FILE", str(files[0]))
    own_engine.start()
    own_engine.import_busybox()
    with node(tmp_path, "fluentd.js", *map(str, files)) as (port, output):
        options = (
            f"fluentd-address={'tls' if tls else 'tcp'}://127.0.0.1:{port}",
            f"fluentd-request-ack={str(ack).lower()}",
            "fluentd-sub-second-precision=true",
            "tag=app.{{.Name}}",
            "labels=color",
        )
        identity = run(own_engine, "fluentd", options, "-l", "color=red")
        entries = received(output, 6)
    records = [entry["record"] for entry in entries]
    texts = [str(record["log"]) for record in records]
    texts[2] = texts[2][:-1]  # a byte that is no UTF-8 was sent as it is; the server makes some letter of it
    assert texts == ["one", "bad", "a\tb \u20ac ", *PARTS, "end"]
    assert [record["source"] for record in records] == ["stdout", "stderr", *["stdout"] * 4]
    assert {entry["tag"] for entry in entries} == {"app.aa"}
    assert all(len(entry["time"]) == 2 for entry in entries)
    for record in records:
        assert (record["container_id"], record["container_name"], record["color"]) == (identity, "/aa", "red")


@pytest.mark.slow
@pytest.mark.parametrize("compression", ["gzip", "zlib", "none"])
def test_a_gelf_server_has_every_message(engine: Engine, tmp_path: Path, compression: str) -> None:
    with node(tmp_path, "gelf.js", str(free_port(socket.SOCK_DGRAM))) as (port, output):
        options = (f"gelf-address=udp://127.0.0.1:{port}", f"gelf-compression-type={compression}", "labels=color")
        identity = run(engine, "gelf", options, "-l", "color=red")
        messages = received(output, 6)
    found = {each["short_message"]: each["level"] for each in messages}  # the server expands them in any order
    assert found == {"one": 6, "bad": 3, "a\tb \u20ac \ufffd": 6, PARTS[0]: 6, PARTS[1]: 6, "end": 6}
    for each in messages:
        assert (each["version"], each["host"], each["_container_id"]) == ("1.1", os.uname().nodename, identity)
        assert (each["_container_name"], each["_image_name"], each["_color"]) == ("aa", "busybox", "red")


def test_a_forward_server_over_tls_is_only_trusted_by_name(
    own_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine's certificates are the machine's, or those that SSL_CERT_FILE names, as for dockerd."""
    cert, key = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    own_engine.start()
    own_engine.import_busybox()
    with receiving(Stream(context=context)) as receiver:
        options = ("--log-driver", "fluentd", "--log-opt", f"fluentd-address=tls://127.0.0.1:{receiver.port}")
        own_engine.docker("create", "--name", "aa", *options, "busybox", "echo", "hello")
        assert "CERTIFICATE_VERIFY_FAILED" in own_engine.run("start", "aa").stderr
        own_engine.stop()
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
        own_engine.start()
        own_engine.docker("start", "aa")
        receiver.wait_for(b"hello")
