"""The process of the name server as the engine sees it: one that hangs is replaced."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.isolation import in_thread, new_namespace
from wherry.errors import Unavailable
from wherry.kernel.pidfd import pidfd_open
from wherry.network.dns import place
from wherry.network.dns.client import Client, NameServer
from wherry.runtime import channel

pytestmark = pytest.mark.root

PATIENCE = 2.0
CLIENT = Client("box", ("n",), ())


def serve(server: NameServer) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.create_server(("127.0.0.1", 0)) as tcp:
        udp.bind(("127.0.0.1", 0))
        server.place(CLIENT, (udp.fileno(), tcp.fileno()))


def peer(path: Path) -> int:
    """The process that listens there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.connect(str(path))
        return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], "little")


def gone(pid: int) -> bool:
    """Whether a process that was killed ends; where init is slow to reap, a zombie is left for a while."""
    try:
        pidfd = pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([pidfd], [], [], 5)[0])
    finally:
        os.close(pidfd)


@pytest.fixture
def lost() -> threading.Event:
    return threading.Event()


@pytest.fixture
def server(tmp_path: Path, lost: threading.Event) -> Iterator[NameServer]:
    found = NameServer(tmp_path, lost.set, patience=PATIENCE)
    serve(found)
    yield found
    found.drop([CLIENT.sandbox_id])
    found.close()


def test_the_process_is_known_by_its_socket(server: NameServer, tmp_path: Path):
    pid = peer(tmp_path / "dns.sock")
    assert pid != os.getpid()
    assert Path(f"/proc/{pid}/comm").read_text() == "wherry-names\n"


def test_the_process_has_no_rights_and_cannot_get_any(server: NameServer, tmp_path: Path):
    status = Path(f"/proc/{peer(tmp_path / 'dns.sock')}/status").read_text().splitlines()
    found = {name: value.split() for name, _, value in (line.partition(":") for line in status)}
    assert found["Uid"] == found["Gid"] == ["65534"] * 4
    assert found["Groups"] == []
    assert {int(found[each][0], 16) for each in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {0}
    assert found["NoNewPrivs"] == ["1"], "set-user-ID programs of the host are no way out"


def test_one_that_hangs_is_replaced(server: NameServer, tmp_path: Path, lost: threading.Event):
    pid = peer(tmp_path / "dns.sock")
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(Unavailable, match="the name server of the networks does not answer"):
        server.show("n", "net", [])
    assert lost.wait(5), "all it knew is to be told anew"
    assert gone(pid)
    serve(server)
    assert peer(tmp_path / "dns.sock") != pid


def test_one_that_hangs_does_not_keep_the_engine_from_starting(tmp_path: Path, lost: threading.Event):
    before = NameServer(tmp_path, lost.set, patience=PATIENCE)
    serve(before)
    pid = peer(tmp_path / "dns.sock")
    before.close()
    os.kill(pid, signal.SIGSTOP)
    after = NameServer(tmp_path, lost.set, patience=PATIENCE)
    assert after.resume() == set()
    assert gone(pid)
    assert not after.running


def test_one_of_another_version_is_replaced(tmp_path: Path, lost: threading.Event):
    """It serves on until the engine has asked; then it is told that all containers are gone, which is its end."""
    orders: list[dict] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / "dns.sock"))
        listener.listen()

        def old() -> None:
            engine, _ = listener.accept()
            with engine:
                for answer in ({"ok": True, "version": 1, "sandboxes": ["box"]}, {"ok": True, "version": 1}):
                    orders.append(channel.receive(engine)[0])
                    channel.send(engine, answer)
                with pytest.raises(EOFError):
                    channel.receive(engine)

        thread = threading.Thread(target=old)
        thread.start()
        after = NameServer(tmp_path, lost.set, patience=PATIENCE)
        assert after.resume() == set(), "those that it served are to be given to the new one"
        thread.join(timeout=5)
        assert not thread.is_alive()
    assert orders == [{"type": "hello"}, {"type": "gone", "sandboxes": ["box"], "networks": []}]
    serve(after)
    assert Path(f"/proc/{peer(tmp_path / 'dns.sock')}/comm").read_text() == "wherry-names\n"
    after.drop([CLIENT.sandbox_id])
    after.close()


def test_a_kernel_without_nf_tables_is_told_of(monkeypatch: pytest.MonkeyPatch):
    """As such a one answers: the firewall may do without, names cannot."""

    def unknown(_change: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(place.nft.Ruleset, "commit", unknown)
    fd = new_namespace()
    try:
        with pytest.raises(OSError, match="names need nf_tables in the kernel, whatever the firewall's backend is"):
            in_thread(lambda: place.sockets(fd))
    finally:
        os.close(fd)
