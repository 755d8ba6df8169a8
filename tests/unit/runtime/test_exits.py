"""The supervisor's records."""

import os
import subprocess
from pathlib import Path

from wherry.runtime import exits
from wherry.runtime.wire import Exit


def test_record_is_private_and_whole(tmp_path):
    directory = os.open(tmp_path, os.O_PATH)
    outcome = Exit(137, 9, 123, oom=True)
    exits.write_record(directory, exits.EXIT, outcome.to_wire())
    os.close(directory)
    assert exits.read_exit(str(tmp_path)) == outcome
    assert [each.name for each in tmp_path.iterdir()] == [exits.EXIT]
    assert (tmp_path / exits.EXIT).stat().st_mode & 0o777 == 0o600


def test_no_record(tmp_path):
    assert exits.read_exit(str(tmp_path)) is None


def test_start_time_is_that_of_proc_even_with_a_hostile_name(tmp_path):
    name = tmp_path / "a) S 1 (b"
    os.symlink("/bin/sleep", name)
    with subprocess.Popen([name, "60"]) as process:
        fields = exits.start_time(process.pid)
        process.kill()
    assert abs(fields / os.sysconf("SC_CLK_TCK") - float(Path("/proc/uptime").read_text().split()[0])) < 5
