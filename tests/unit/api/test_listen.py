"""Listening sockets: who may connect at every moment, and what is in the way."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys

import pytest

from wherry.api import listen as listen_module
from wherry.api.listen import LONGEST, listen
from wherry.errors import InvalidArgument, SystemFailure


@pytest.fixture
def path(tmp_path):
    """A short path for a socket."""
    return str(tmp_path / "a.sock")


def opened(host: str):
    """Listen, and return the one socket."""
    (listening,) = listen(host, group="")
    return listening


def test_mode_and_owner_are_set_before_anybody_can_connect(path, monkeypatch):
    seen = []

    class Watched(socket.socket):
        """A socket that notes the mode that its name has when it begins to listen."""

        def listen(self, *args):
            seen.append((stat.S_IMODE(os.stat(path).st_mode), os.stat(path).st_uid))
            super().listen(*args)

        def bind(self, address):
            super().bind(address)
            seen.append((stat.S_IMODE(os.stat(path).st_mode), os.stat(path).st_uid))

    monkeypatch.setattr(listen_module.socket, "socket", Watched)
    before = os.umask(0)
    try:
        with opened(f"unix://{path}").socket:
            assert seen == [(0o600, os.geteuid()), (0o660, os.geteuid())]
            assert os.umask(0) == 0
    finally:
        os.umask(before)


@pytest.mark.root
def test_group_may_use_the_socket(path):
    with listen(f"unix://{path}", group="12345")[0].socket:
        assert (os.stat(path).st_uid, os.stat(path).st_gid) == (0, 12345)
    os.unlink(path)
    with listen(f"unix://{path}", group="no-such-group-here")[0].socket:
        assert os.stat(path).st_gid == 0


def test_dead_socket_is_replaced_and_a_live_one_is_not(path):
    first = opened(f"unix://{path}")
    with pytest.raises(SystemFailure, match="another process is listening"):
        opened(f"unix://{path}")
    first.socket.close()
    with opened(f"unix://{path}").socket, socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


def test_a_full_backlog_is_not_taken_for_death(path, monkeypatch):
    monkeypatch.setattr(listen_module, "BACKLOG", 0)
    with opened(f"unix://{path}").socket, socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        with pytest.raises(SystemFailure, match="another process is listening"):
            opened(f"unix://{path}")


def test_links_and_files_in_the_way_are_left_alone(path, tmp_path):
    os.symlink(tmp_path / "other", path)
    with pytest.raises(SystemFailure, match="a symbolic link"):
        opened(f"unix://{path}")
    os.unlink(path)
    (tmp_path / "a.sock").write_text("precious")
    with pytest.raises(SystemFailure, match="no socket"):
        opened(f"unix://{path}")
    assert (tmp_path / "a.sock").read_text() == "precious"


@pytest.mark.root
def test_socket_of_somebody_else_is_left_alone(path):
    opened(f"unix://{path}").socket.close()
    os.chown(path, 12345, 0)
    with pytest.raises(SystemFailure, match="belongs to user id 12345"):
        opened(f"unix://{path}")
    assert os.path.exists(path)


def test_only_our_own_name_is_removed(path):
    first = opened(f"unix://{path}")
    os.rename(path, path + "2")
    first.socket.close()
    second = opened(f"unix://{path}")
    first.unlink()
    assert os.path.exists(path)
    second.unlink()
    second.unlink()
    assert not os.path.exists(path)
    second.socket.close()


def test_too_long_a_path_is_refused_with_the_reason(tmp_path):
    path = "/" + "x" * LONGEST
    with pytest.raises(InvalidArgument, match="has 108 bytes, the kernel takes 107"):
        opened(f"unix://{path}")


@pytest.mark.parametrize(
    ("host", "text"),
    [
        ("tcp://0.0.0.0:2375", "TLS is not there yet"),
        ("unix://relative", "must be absolute"),
        ("/run/x.sock", "give unix://PATH"),
        ("npipe://x", "unknown scheme"),
        ("fd://", "no sockets were passed"),
    ],
)
def test_what_cannot_be_listened_on(host, text):
    with pytest.raises(InvalidArgument, match=text):
        opened(host)


SYSTEMD = """
import os, socket, sys
if os.fork() == 0:
    server = socket.socket(socket.AF_UNIX); server.bind(sys.argv[1]); server.listen()
    os.dup2(server.fileno(), 3); os.set_inheritable(3, True)
    os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "api"}
    os.execv(sys.executable, [sys.executable, "-c", '''
import os
from wherry.api.listen import listen
for host in ("fd://", "fd://api", "fd://3"):
    (found,) = listen(host)
    assert found.path == "" and not os.get_inheritable(3) and not found.socket.getblocking()
    found.socket.detach()
try:
    listen("fd://other")
except Exception as error:
    print(error)
'''])
os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_sockets_of_systemd(path):
    done = subprocess.run([sys.executable, "-c", SYSTEMD, path], capture_output=True, text=True, check=True)
    assert done.stdout == "fd://other: no such socket was passed to this process\n"
