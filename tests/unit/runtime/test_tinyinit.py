"""The small init as a program: its exit codes, PATH search and messages, on this machine and on an emulated one."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from wherry.runtime import tinyinit
from wherry.runtime.assembler import AArch64

MACHINES = [os.uname().machine, pytest.param("aarch64", marks=pytest.mark.slow)]


class Init:
    """The program for one machine, run here or under qemu."""

    def __init__(self, folder: Path, machine: str) -> None:
        path = folder / "docker-init"
        path.write_bytes(tinyinit.image(machine))
        path.chmod(0o755)
        self.argv = [str(path)]
        if machine != os.uname().machine:
            emulator = shutil.which(f"qemu-{machine}-static") or shutil.which(f"qemu-{machine}")
            if emulator is None:
                pytest.skip(f"no qemu-{machine}-static")
            self.argv.insert(0, emulator)

    def __call__(self, *argv: str, path: str | None = "/usr/bin:/bin", cwd: str = "/") -> tuple[int, str, str]:
        environment = {} if path is None else {"PATH": path}
        result = subprocess.run(
            [*self.argv, *argv], env=environment, cwd=cwd, capture_output=True, text=True, check=False, timeout=20
        )
        return result.returncode, result.stdout, result.stderr


@pytest.fixture(params=MACHINES)
def init(request, tmp_path):
    return Init(tmp_path, request.param)


@pytest.fixture
def script(tmp_path):
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "greet").write_text("echo $0 says $1\n")  # no #!, so execve(2) says ENOEXEC
    (folder / "greet").chmod(0o755)
    (folder / "data").write_text("not to be run\n")
    return folder


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (("--", "sh", "-c", "exit 7"), 7),
        (("sh", "-c", "exit 0"), 0),
        (("--", "sh", "-c", "exit 255"), 255),
        (("--", "sh", "-c", "kill -9 $$"), 137),
        (("--", "sh", "-c", "kill -SEGV $$"), 139),
        (("--", "sh", "-c", "exec sh -c 'exit 3'"), 3),
    ],
)
def test_it_ends_with_the_status_of_the_command(init, argv, code):
    assert init(*argv) == (code, "", "")


def test_what_cannot_be_run_is_127_or_126_with_the_reason(init, script):
    assert init("--", "no-such") == (127, "", "docker-init: cannot execute no-such: not found\n")
    assert init("--", "/no/such") == (127, "", "docker-init: cannot execute /no/such: not found\n")
    assert init("--", "") == (127, "", "docker-init: cannot execute : not found\n")
    assert init("--", "/etc") == (126, "", "docker-init: cannot execute /etc: permission denied\n")
    assert init("--", "data", path=str(script)) == (126, "", "docker-init: cannot execute data: permission denied\n")


def test_no_command_is_a_usage_error(init):
    for argv in ((), ("--",)):
        assert init(*argv) == (1, "", "usage: docker-init -- command [argument]\n")


def test_only_the_first_two_dashes_are_taken(init):
    assert init("--", "echo", "--", "-- x") == (0, "-- -- x\n", "")
    assert init("--x")[0] == 127
    assert init("-")[0] == 127


def test_path_is_searched_in_order_and_goes_on_after_a_refusal(init, script):
    assert init("--", "greet", "hi", path=f"/nope::{script}:/bin") == (0, f"{script}/greet says hi\n", "")
    (script / "sh").write_text("cannot be run, the next one can\n")
    assert init("--", "sh", "-c", "echo ok", path=f"{script}:/bin")[:2] == (0, "ok\n")


def test_without_path_the_usual_folders_are_searched(init):
    assert init("--", "echo", "hi", path=None)[:2] == (0, "hi\n")


def test_an_empty_element_of_path_is_the_current_folder(init):
    assert init("--", "echo", "hi", path=":", cwd="/bin")[:2] == (0, "hi\n")
    assert init("--", "echo", "hi", path="/nope:", cwd="/bin")[:2] == (0, "hi\n")


@pytest.mark.parametrize("length", [4090, 4091, 4092, 4095, 4096, 4097, 20000])
def test_an_overlong_element_of_path_is_passed_over(init, length):
    assert init("--", "echo", "hi", path="/" * length + ":/bin")[:2] == (0, "hi\n")


def test_an_overlong_name_does_not_overrun_the_stack(init):
    code, _, complaint = init("--", "x" * 20000, path="/bin:/usr/bin")
    assert (code, complaint) == (126, "docker-init: cannot execute " + "x" * 20000 + ": permission denied\n")


def test_a_script_without_a_first_line_is_read_by_the_shell(init, script):
    assert init("--", f"{script}/greet", "you") == (0, f"{script}/greet says you\n", "")


def test_the_environment_arrives(init):
    assert init("--", "env", path="/bin")[1] == "PATH=/bin\n"


def test_write_leaves_one_executable_file(tmp_path):
    target = tmp_path / "docker-init"
    target.write_bytes(b"old")
    tinyinit.write(str(target))
    assert [entry.name for entry in tmp_path.iterdir()] == ["docker-init"]
    assert target.stat().st_mode & 0o7777 == 0o755
    assert target.stat().st_size < 2048
    assert subprocess.run([target, "--", "/bin/true"], check=False).returncode == 0


def test_write_takes_its_temporary_back_when_it_fails(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        tinyinit.write(str(tmp_path / "folder"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_an_unknown_machine_is_refused():
    with pytest.raises(OSError, match="riscv64"):
        tinyinit.image("riscv64")


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("set t -0x300001", (0x92800009, 0xF2BFF9E9)),  # movn x9, 0; movk x9, 0xffcf, lsl 16
        ("set t 0x5410", (0xD28A8209,)),
        ("add sp -8192", (0xD1400BFF,)),  # sub sp, sp, 2, lsl 12
        ("bit t 7", (0xB2790129,)),  # orr x9, x9, 0x80
        ("load v0 sp 16", (0xF84103F3,)),
        ("storeb t v5 0", (0x38000309,)),
        ("move a1 sp", (0x910003E1,)),
    ],
)
def test_arm_encodings(line, word):
    assert AArch64().assemble(line) == struct.pack(f"<{len(word)}I", *word)


def test_the_assembler_refuses_what_has_no_encoding():
    with pytest.raises(ValueError, match="nine bits"):
        AArch64().assemble("load v0 sp 256")
    with pytest.raises(ValueError, match="12 bits"):
        AArch64().assemble("add sp 4097")
    with pytest.raises(ValueError, match="twice"):
        AArch64().assemble("x:\n add sp 16\nx:")
