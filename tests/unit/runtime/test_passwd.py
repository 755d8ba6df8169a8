"""Who USER means: RT-12, RT-13 and RT-14 on files of our own making."""

import os
import time

import pytest

from wherry.runtime.passwd import LIMIT, Accounts
from wherry.runtime.setup import SetupError

PASSWD = """root:x:0:0:root:/root:/bin/sh
daemon:x:1:1::/:
ann:x:1000:1001::/home/ann:/bin/sh
1002:x:0:0::/evil:/bin/sh
broken:x:y:0::/:
short:x:5
bob:x:1003:1003::/home/bob:/bin/sh
"""
GROUP = """root:x:0:
wheel:x:10:root,ann
audio:x:29:ann,bob
1004:x:0:
ann:x:1001:
"""
RANGE = "uids and gids must be in range 0-2147483647"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(PASSWD)
    (tmp_path / "etc/group").write_text(GROUP)
    fd = os.open(tmp_path, os.O_PATH)
    yield fd
    os.close(fd)


@pytest.mark.parametrize(
    ("text", "uid", "gid", "groups", "home"),
    [
        ("", 0, 0, (0, 10), "/root"),
        ("ann", 1000, 1001, (1001, 10, 29), "/home/ann"),
        ("1000", 1000, 1001, (1001, 10, 29), "/home/ann"),
        ("ann:audio", 1000, 29, (29,), "/home/ann"),
        ("ann:7", 1000, 7, (7,), "/home/ann"),
        ("7777", 7777, 0, (0,), ""),
        ("1:", 1, 1, (1,), "/"),
        (":5", 0, 5, (5,), "/root"),
        ("1002", 1002, 0, (0,), ""),
        ("1:1004", 1, 1004, (1004,), "/"),
        ("2147483647", 2147483647, 0, (0,), ""),
    ],
)
def test_identify(root, text, uid, gid, groups, home):
    found = Accounts(root).identify(text)
    assert (found.uid, found.gid, found.groups, found.home) == (uid, gid, groups, home)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("foo", "unable to find user foo: no matching entries in passwd file"),
        ("ann:foo", "unable to find group foo: no matching entries in group file"),
        ("4294967296", RANGE),
        ("2147483648", RANGE),
        ("-1", RANGE),
        ("0:-1", RANGE),
        ("18446744073709551616", RANGE),
        ("+0", RANGE),
        ("0x0", "unable to find user 0x0: no matching entries in passwd file"),
        ("\uff11", "unable to find user \uff11: no matching entries in passwd file"),
        ("1_0", "unable to find user 1_0: no matching entries in passwd file"),
        ("broken", "unable to find user broken: no matching entries in passwd file"),
        (" 0", "unable to find user  0: no matching entries in passwd file"),
    ],
)
def test_refused(root, text, message):
    with pytest.raises(SetupError) as caught:
        Accounts(root).identify(text)
    assert caught.value.message == message


def test_additional_groups(root):
    assert Accounts(root).identify("1000:1000", ("audio", "44", "1000")).groups == (1000, 29, 44)
    with pytest.raises(SetupError, match="unable to find group nope"):
        Accounts(root).identify("0", ("nope",))


def test_directories_in_their_places_tell_nobody(tmp_path):
    """A volume can be mounted over /etc/passwd of an image that has none."""
    (tmp_path / "etc/passwd").mkdir(parents=True)
    fd = os.open(tmp_path, os.O_PATH)
    assert Accounts(fd).identify("").uid == 0
    with pytest.raises(SetupError, match="no matching entries in passwd file"):
        Accounts(fd).identify("ann")
    os.close(fd)


def test_no_files(tmp_path):
    fd = os.open(tmp_path, os.O_PATH)
    try:
        found = Accounts(fd).identify("1000:1000", ("44",))
        assert (found.uid, found.gid, found.groups, found.home) == (1000, 1000, (1000, 44), "")
        with pytest.raises(SetupError, match="unable to find user root"):
            Accounts(fd).identify("root")
    finally:
        os.close(fd)


def _sparse(path):
    path.unlink()
    with open(path, "wb") as file:
        file.truncate(10 << 30)


def _fifo(path):
    path.unlink()
    os.mkfifo(path)


def _folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("make", "message"), [(_sparse, f"larger than {LIMIT}"), (_fifo, "not a regular"), (_folder, "no matching entries")]
)
def test_hostile_files(root, tmp_path, make, message):
    make(tmp_path / "etc/passwd")
    begin = time.monotonic()
    with pytest.raises(SetupError, match=message):
        Accounts(root).identify("ann")
    assert time.monotonic() - begin < 1


def test_links_stay_inside(root, tmp_path):
    """To the host's shadow file, and to a device: both are looked for below the root, where they are not."""
    for target in ("/etc/shadow", "../../../../etc/shadow", "/dev/zero"):
        path = tmp_path / "etc/group"
        path.unlink()
        path.symlink_to(target)
        assert Accounts(root).group() == []


def test_a_link_inside_is_followed(root, tmp_path):
    (tmp_path / "etc/passwd").rename(tmp_path / "real")
    (tmp_path / "etc/passwd").symlink_to("/real")
    assert Accounts(root).identify("bob").uid == 1003
