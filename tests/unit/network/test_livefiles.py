from __future__ import annotations

import pytest

from wherry.errors import SystemFailure
from wherry.network import livefiles


def test_lines_come_and_go_in_place(tmp_path):
    path = tmp_path / "hosts"
    path.write_text("127.0.0.1\tlocalhost\n10.0.0.2\tc1\n")
    inode = path.stat().st_ino
    livefiles.add(path, "10.1.0.2\tc1\n")
    with path.open("a") as file:
        file.write("192.0.2.1 mine")
    livefiles.remove(path, "10.0.0.2\tc1\n")
    assert path.read_text() == "127.0.0.1\tlocalhost\n10.1.0.2\tc1\n192.0.2.1 mine"
    assert path.stat().st_ino == inode


def test_a_link_in_its_place_is_not_followed(tmp_path):
    (tmp_path / "target").write_text("10.0.0.2\tc1\n")
    (tmp_path / "hosts").symlink_to("target")
    with pytest.raises(SystemFailure):
        livefiles.add(tmp_path / "hosts", "x\n")
    with pytest.raises(SystemFailure):
        livefiles.remove(tmp_path / "hosts", "10.0.0.2\tc1\n")
    assert (tmp_path / "target").read_text() == "10.0.0.2\tc1\n"


def test_a_giant_file_is_left_alone(tmp_path):
    path = tmp_path / "hosts"
    path.write_text("10.0.0.2\tc1\n" + "#" * livefiles.LARGEST)
    livefiles.remove(path, "10.0.0.2\tc1\n")
    assert path.read_text().startswith("10.0.0.2\tc1\n")


def test_a_file_is_replaced_unless_the_container_has_changed_it(tmp_path):
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 192.0.2.1\n")
    livefiles.replace(path, "nameserver 192.0.2.1\n", "nameserver 127.0.0.11\n")
    assert path.read_text() == "nameserver 127.0.0.11\n"
    livefiles.replace(path, "nameserver 192.0.2.1\n", "another\n")
    assert path.read_text() == "nameserver 127.0.0.11\n"


def test_exchange(tmp_path):
    path = tmp_path / "hosts"
    path.write_text("127.0.0.1\tlocalhost\n10.0.0.2\tdb host other\nmine\n10.0.0.3\tdbx host\nfd00::2\tdb host other\n")
    livefiles.exchange(path, ("db", "host"), "10.0.0.9\tdb host new\n")
    assert path.read_text() == "127.0.0.1\tlocalhost\n10.0.0.9\tdb host new\nmine\n10.0.0.3\tdbx host\n"
    livefiles.exchange(path, ("db", "host"), "")
    assert path.read_text() == "127.0.0.1\tlocalhost\nmine\n10.0.0.3\tdbx host\n"
    livefiles.exchange(path, ("db", "host"), "10.0.0.9\tdb host new\n")
    assert "new" not in path.read_text(), "what the container took out stays out"
