"""RT-01: the interpreter of a helper cannot be overwritten through /proc/PID/exe."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import mounttable

pytestmark = pytest.mark.root

SCRIPT = """
import json, os, sys
sys.path.insert(0, {packages!r})
from wherry.runtime.selfprotect import engine_mounts, protect_interpreter
protect_interpreter()
def write(path):
    try:
        os.close(os.open(path, os.O_WRONLY))
        return 0
    except OSError as error:
        return error.errno
engine = engine_mounts()
json.dump({{
    "exe": write("/proc/self/exe"), "library": write(os.__file__), "package": write({module!r}),
    "left": os.readlink(f"/proc/self/fd/{{engine}}"), "own": os.readlink("/proc/self/ns/mnt"),
    "kept": os.get_inheritable(engine), "environment": [name for name in os.environ if "WHERRY" in name],
    "arguments": sys.argv, "fd": os.readlink("/proc/self/fd/0"),
}}, sys.stdout)
"""


@pytest.fixture(scope="module")
def told():
    packages = str(Path(__file__).resolve().parents[2] / "src")
    script = SCRIPT.format(packages=packages, module=f"{packages}/wherry/runtime/selfprotect.py")
    before = mounttable.lines()
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script, "word"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, env={},
    )  # fmt: skip
    assert mounttable.lines() == before
    return json.loads(result.stdout)


def test_nothing_of_the_interpreter_can_be_written(told):
    assert told["exe"] in (errno.EROFS, errno.ETXTBSY)
    assert told["library"] == told["package"] == errno.EROFS


def test_the_engines_mounts_can_be_gone_back_to(told):
    ours = os.readlink("/proc/self/ns/mnt")
    assert (told["left"], told["own"] != ours, told["kept"]) == (ours, True, False)


def test_the_program_is_the_same_one(told):
    assert told["environment"] == []
    assert told["arguments"] == ["-c", "word"]
    assert told["fd"] == "/dev/null"
