"""Interactive use through a real terminal: prompt, resize, ctrl-c, detach."""

import time

import pexpect
import pytest

from tests.engine import Engine

pytestmark = [
    pytest.mark.root,
    pytest.mark.engine,
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),
]


def spawn(engine: Engine, *words: str) -> pexpect.spawn:
    return pexpect.spawn(
        "docker", list(words), env=engine.environment, encoding="utf-8", timeout=10, dimensions=(30, 100)
    )


def test_an_interactive_shell_with_resize(engine: Engine):
    shell = spawn(engine, "run", "-it", "--rm", "busybox", "sh")
    shell.expect("/ # ")
    shell.sendline("stty size")
    shell.expect("30 100")
    shell.setwinsize(40, 120)
    time.sleep(0.3)
    shell.expect("/ # ")
    shell.sendline("stty size")
    shell.expect("40 120")
    shell.expect("/ # ")
    shell.sendline("tty; exit 5")
    shell.expect("/dev/pts/0")
    shell.expect(pexpect.EOF)
    shell.close()
    assert shell.exitstatus == 5


def test_ctrl_c_reaches_the_program(engine: Engine):
    shell = spawn(engine, "run", "-it", "--rm", "busybox", "sh")
    shell.expect("/ # ")
    shell.sendline("sleep 1000")
    time.sleep(0.3)
    shell.sendintr()
    shell.expect("/ # ")
    shell.sendline("echo alive-$((1 + 1))")
    shell.expect("alive-2")
    shell.sendline("exit")
    shell.expect(pexpect.EOF)
    shell.close()


def test_detach_and_attach_again(engine: Engine):
    shell = spawn(engine, "run", "-it", "--name", "aa", "busybox", "sh")
    shell.expect("/ # ")
    shell.send("\x10\x11")
    shell.expect(pexpect.EOF)
    shell.close()
    assert shell.exitstatus == 0
    assert engine.docker("inspect", "-f", "{{.State.Running}}", "aa") == "true"
    again = spawn(engine, "attach", "aa")
    time.sleep(0.3)
    again.sendline("echo back-$((1 + 1))")
    again.expect("back-2")
    again.sendline("exit")
    again.expect(pexpect.EOF)
    again.close()


def test_exec_with_a_terminal(engine: Engine):
    engine.docker("run", "-d", "--name", "aa", "busybox", "sleep", "1000")
    shell = spawn(engine, "exec", "-it", "aa", "sh")
    shell.expect("/ # ")
    shell.setwinsize(41, 121)
    time.sleep(0.3)
    shell.sendline("stty size; exit 6")
    shell.expect("41 121")
    shell.expect(pexpect.EOF)
    shell.close()
    assert shell.exitstatus == 6
