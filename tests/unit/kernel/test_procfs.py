"""What the kernel writes into /proc, read back."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from wherry.kernel import nsfs, sockettables
from wherry.kernel.procfs import LIMIT, Process, parse_mount, unescaped

OVERLAY = (
    "172 134 0:43 / / rw,relatime shared:5 master:1 - overlay overlay rw,lowerdir+=/a/fs,lowerdir+=/b/fs,"
    "upperdir=/up/fs,workdir=/up/work"
)


def test_a_line_of_mountinfo() -> None:
    mount = parse_mount(OVERLAY)
    assert (mount.id, mount.parent, mount.device, mount.root, mount.target) == (172, 134, "0:43", "/", "/")
    assert mount.options == ("rw", "relatime")
    assert mount.propagation == ("shared:5", "master:1")
    assert (mount.type, mount.source) == ("overlay", "overlay")
    assert mount.super_options[1:3] == ("lowerdir+=/a/fs", "lowerdir+=/b/fs")


def test_names_with_spaces_and_newlines() -> None:
    mount = parse_mount(r"1 2 0:3 /a\040b /with\012newline\134 rw - tmpfs my\040disk rw")
    assert (mount.root, mount.target, mount.source) == ("/a b", "/with\nnewline\\", "my disk")
    assert unescaped(r"\043\011") == "#\t"


def test_what_is_no_line_of_mountinfo() -> None:
    with pytest.raises(ValueError, match="not a line"):
        parse_mount("172 134 0:43 / / rw")


def test_our_own_process() -> None:
    with Process(os.getpid()) as process:
        assert process.status()["Pid"] == str(os.getpid())
        assert process.stat().parent == os.getppid()
        assert process.arguments(100_000)[0].encode() == Path("/proc/self/cmdline").read_bytes().split(b"\0")[0]
        assert process.namespace("uts") == os.stat("/proc/self/ns/uts").st_ino
        assert ("open files", "files") in [(n.removeprefix("Max "), u) for n, _, _, u in process.limits()]
        assert any(each.target == "/" for each in process.mounts())
        assert process.id_map("uid_map")
        fd = process.open_namespace("user")
        try:
            assert nsfs.identity(fd) == process.namespace("user")
            assert nsfs.owner_uid(fd) >= 0
        finally:
            os.close(fd)


def test_a_name_cannot_feign_fields() -> None:
    rename = "import ctypes,sys; ctypes.CDLL(None).prctl(15, b') Z 1 (\\n\\x1b', 0, 0, 0)"
    code = f"{rename}; print(flush=True); sys.stdin.read()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdout
        assert child.stdin
        child.stdout.read(1)
        with Process(child.pid) as process:
            stat = process.stat()
            assert (stat.name, stat.parent) == (") Z 1 (\n\x1b", os.getpid())
            assert "Uid" in process.status()
    finally:
        child.communicate()


def test_a_process_that_has_gone_is_never_another() -> None:
    child = subprocess.Popen(["sleep", "100"])
    with Process(child.pid) as process:
        child.kill()
        child.wait()
        with pytest.raises(ProcessLookupError):
            process.stat()
        with pytest.raises(OSError, match=r"open|read"):
            process.text("status")
        assert process.children() == []
        assert process.socket_inodes(10) == set()


def test_a_table_is_read_up_to_whole_lines() -> None:
    with Process(os.getpid()) as process:
        whole = process.text("limits").splitlines()
        assert process.lines("limits", 100) == whole[:1]
        assert process.lines("limits") == whole
        assert process.lines("limits", LIMIT) == whole


def test_addresses_of_socket_tables() -> None:
    if sys.byteorder != "little":
        pytest.skip("the table is in the machine's byte order")
    assert sockettables.address_of("0100007F") == "127.0.0.1"
    assert sockettables.address_of("00000000000000000000000001000000") == "::1"


def test_a_listening_socket_is_found() -> None:
    with socket.socket() as listener, socket.socket(socket.AF_UNIX) as other, Process(os.getpid()) as process:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        other.bind("\0wherry-test-of-procfs")
        other.listen()
        found = sockettables.listening(process)
        ours = [each for each in found if each.port == listener.getsockname()[1] and each.protocol == "tcp"]
        assert [(each.address, each.inode) for each in ours] == [("127.0.0.1", os.fstat(listener.fileno()).st_ino)]
        assert "@wherry-test-of-procfs" in [each.address for each in found if each.protocol == "unix"]
        assert os.fstat(listener.fileno()).st_ino in process.socket_inodes(10_000)
