"""The starter as a program: what it executes and answers, on this machine and on an emulated one."""

from __future__ import annotations

import errno
import os
import shutil

import pytest

from wherry.runtime import channel, starter

MACHINES = [os.uname().machine, pytest.param("aarch64", marks=pytest.mark.slow)]


class Starter:
    """The program for one machine, run here or under qemu; we are the parent of what it starts."""

    def __init__(self, folder, machine, environment):
        path = folder / "starter"
        path.write_bytes(starter.image(machine))
        path.chmod(0o755)
        argv = [str(path)]
        if machine != os.uname().machine:
            emulator = shutil.which(f"qemu-{machine}-static") or shutil.which(f"qemu-{machine}")
            if emulator is None:
                pytest.skip(f"no qemu-{machine}-static")
            argv.insert(0, emulator)
        self.sock, theirs = channel.pair()
        actions = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), starter.PLACE)]
        self.pid = os.posix_spawn(argv[0], argv, environment, file_actions=actions)
        theirs.close()

    def run(self, *arguments, cwd="/"):
        """Return the numbers that come back, but for the pid, the exit code and the output."""
        source, output = os.pipe()
        ours, theirs = channel.pair()
        with ours, open("/dev/null", "rb") as null, open(source, "rb") as file:
            starter.request(self.sock, starter.pack(arguments, cwd), (null.fileno(), output, output), theirs.fileno())
            theirs.close()
            os.close(output)
            numbers = [number for _, number in iter(lambda: starter.told(ours), None)]
            pid = next(number for number in numbers if number > 0)
            numbers.remove(pid)
            return numbers, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), file.read()

    def end(self):
        """Return how it ends when its socket is closed."""
        self.sock.close()
        pid, self.pid = self.pid, 0
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if pid else None


@pytest.fixture(params=MACHINES)
def start(request, tmp_path):
    started = []

    def go(**environment):
        started.append(Starter(tmp_path, request.param, environment))
        return started[-1]

    yield go
    for each in started:
        each.end()


def test_it_executes_again_and_again(start):
    made = start(PATH="/nosuch:/usr/bin:/bin", WORD="x")
    for number in range(3):
        words = ("sh", "-c", f'echo "$0 $1 $WORD $PWD"; echo and >&2; exit {number}', "zero", "one two")
        assert made.run(*words, cwd="/usr") == ([], number, b"zero one two x /usr\nand\n")
    assert made.run("/bin/sh", "-c", "kill -9 $$") == ([], -9, b"")
    assert made.run("cat") == ([], 0, b"")
    assert made.end() == 0


def test_the_program_has_its_three_descriptors_and_a_session(start):
    made = start(PATH="/bin:/usr/bin")
    numbers, code, output = made.run("ls", "/proc/self/fd")
    opened = {int(word) for word in output.split()}
    assert (numbers, code) == ([], 0)
    assert opened - set(range(8, 1024)) == {0, 1, 2, 3}  # 3 is the folder that ls reads; 8 and more: the machine's
    numbers, code, output = made.run("sh", "-c", "cut -d' ' -f1,6 /proc/$$/stat")
    assert len(set(output.split())) == 1


def test_what_cannot_be_executed_is_told(start, tmp_path):
    made = start(PATH=f"{tmp_path}:")
    late = tmp_path / "late"
    assert made.run("late") == ([-errno.ENOENT], 127, b"")
    late.write_text("no program\n")
    assert made.run("late") == ([-errno.EACCES], 127, b"")
    late.chmod(0o755)
    assert made.run("late") == ([-errno.ENOEXEC], 127, b"")
    late.unlink()
    late.symlink_to("/bin/true")
    assert made.run("late") == ([], 0, b"")
    assert made.run("./late", cwd=str(tmp_path)) == ([], 0, b"")
    assert made.run("true", cwd="/bin") == ([], 0, b"")  # the empty part of PATH
    assert made.run("true", cwd=str(tmp_path / "nowhere")) == ([-errno.ENOENT], 127, b"")
    assert made.run("", cwd="/bin") == ([-errno.ENOENT], 127, b"")
    assert made.run("x" * 5000) == ([-errno.ENAMETOOLONG], 127, b"")


def test_without_a_path_nothing_is_found(start):
    assert start(A="b").run("true") == ([-errno.ENOENT], 127, b"")


def test_long_requests(start):
    made = start(PATH="/bin")
    words = ["w" * 60] * 510
    assert made.run("/bin/echo", *words)[2] == " ".join(words).encode() + b"\n"


def test_what_does_not_fit_into_a_request():
    assert starter.pack(["x"] * 512, "/") is None
    assert starter.pack(["x" * 40000], "/") is None
    assert starter.pack([], "/") is None
    assert starter.pack(["a\0b"], "/") is None
    assert starter.pack(["a"], "/") == b"\1\0\0\0\0\0\0\0/\0a\0"


def test_it_goes_when_nobody_is_there(start):
    made = start(PATH="/bin")
    assert made.run("true") == ([], 0, b"")
    assert made.end() == 0


def test_a_machine_that_is_not_known():
    with pytest.raises(OSError, match="no small program"):
        starter.image("vax")
