from __future__ import annotations

import pytest

from wherry.errors import SystemFailure
from wherry.network import hostsfile


def test_lines_come_and_go_in_place(tmp_path):
    path = tmp_path / "hosts"
    path.write_text("127.0.0.1\tlocalhost\n10.0.0.2\tc1\n")
    inode = path.stat().st_ino
    hostsfile.add(path, "10.1.0.2\tc1\n")
    with path.open("a") as file:
        file.write("192.0.2.1 mine")
    hostsfile.remove(path, "10.0.0.2\tc1\n")
    assert path.read_text() == "127.0.0.1\tlocalhost\n10.1.0.2\tc1\n192.0.2.1 mine"
    assert path.stat().st_ino == inode


def test_a_link_in_its_place_is_not_followed(tmp_path):
    (tmp_path / "target").write_text("10.0.0.2\tc1\n")
    (tmp_path / "hosts").symlink_to("target")
    with pytest.raises(SystemFailure):
        hostsfile.add(tmp_path / "hosts", "x\n")
    with pytest.raises(SystemFailure):
        hostsfile.remove(tmp_path / "hosts", "10.0.0.2\tc1\n")
    assert (tmp_path / "target").read_text() == "10.0.0.2\tc1\n"


def test_a_giant_file_is_left_alone(tmp_path):
    path = tmp_path / "hosts"
    path.write_text("10.0.0.2\tc1\n" + "#" * hostsfile.LARGEST)
    hostsfile.remove(path, "10.0.0.2\tc1\n")
    assert path.read_text().startswith("10.0.0.2\tc1\n")
