"""The starter as a program: what it executes, answers and leaves open, on this machine and on an emulated one."""

from __future__ import annotations

import os
import shutil
import socket

import pytest

from wherry.runtime import starter

MACHINES = [os.uname().machine, pytest.param("aarch64", marks=pytest.mark.slow)]


class Starter:
    """The program for one machine, run here or under qemu, that executes `command`."""

    def __init__(self, folder, machine, *command):
        path = folder / "starter"
        path.write_bytes(starter.image(machine))
        path.chmod(0o755)
        argv = [str(path)]
        if machine != os.uname().machine:
            emulator = shutil.which(f"qemu-{machine}-static") or shutil.which(f"qemu-{machine}")
            if emulator is None:
                pytest.skip(f"no qemu-{machine}-static")
            argv.insert(0, emulator)
        self.sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = os.posix_spawn(
            argv[0], [*argv, *command], {"WORD": "x"},
            file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), starter.PLACE)],
        )  # fmt: skip
        theirs.close()

    def run(self):
        """Return what it answers, and the output."""
        source, output = os.pipe()
        with open(source, "rb") as file:
            starter.request(self.sock, output)
            os.close(output)
            return starter.answer(self.sock), file.read()

    def end(self):
        """Return how it ends when its socket is closed."""
        self.sock.close()
        pid, self.pid = self.pid, 0
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if pid else None


@pytest.fixture(params=MACHINES)
def start(request, tmp_path):
    started = []

    def go(*command):
        started.append(Starter(tmp_path / str(len(started)), request.param, *command))
        return started[-1]

    for number in range(2):
        (tmp_path / str(number)).mkdir()
    yield go
    for each in started:
        each.end()


def test_it_executes_again_and_again(start):
    made = start("/bin/sh", "sh", "-c", 'echo "$0 $1 $WORD"; echo and >&2; exit 3', "zero", "one")
    for _ in range(3):
        assert made.run() == ((3 << 8, 0), b"zero one x\nand\n")
    assert made.end() == 0


def test_a_signal_is_in_the_status(start):
    assert start("/bin/sh", "sh", "-c", "kill -9 $$").run() == ((9, 0), b"")


def test_what_cannot_be_executed_is_told(start, tmp_path):
    made = start(str(tmp_path / "late"), "late")
    assert made.run()[0][1] == 2  # ENOENT
    (tmp_path / "late").symlink_to("/bin/true")
    assert made.run() == ((0, 0), b"")


def test_it_goes_when_nobody_is_there(start):
    made = start("/bin/true", "true")
    assert made.run() == ((0, 0), b"")
    assert made.end() == 0


def test_a_machine_that_is_not_known():
    with pytest.raises(OSError, match="no small program"):
        starter.image("vax")
