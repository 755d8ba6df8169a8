"""What the kernel remembers of a file is what stat(2) says of it."""

import os

import pytest

from wherry.kernel import cachedstat


def test_a_file_that_was_looked_up_and_one_that_was_missed(tmp_path):
    (tmp_path / "file").write_text("some")
    expected = os.stat(tmp_path / "file")
    assert not (tmp_path / "none").exists()
    root = os.open(tmp_path, os.O_PATH)
    fd = cachedstat.open_known(root, "/file")
    device, *rest = cachedstat.state_of(fd)
    assert (device >> 32, device & 0xFFFFFFFF) == (os.major(expected.st_dev), os.minor(expected.st_dev))
    assert rest == [expected.st_ino, 4, expected.st_mtime_ns, expected.st_ctime_ns]
    with pytest.raises(FileNotFoundError):
        cachedstat.open_known(root, "/none")
    os.close(fd)
    os.close(root)


def test_a_file_that_nobody_has_looked_up_is_not_searched_for():
    """procfs makes its files anew: that of a new thread is in no memory."""
    root = os.open("/proc", os.O_PATH)
    with pytest.raises((BlockingIOError, FileNotFoundError)) as caught:
        cachedstat.open_known(root, f"/{os.getpid()}/task/{os.getpid()}/net/never-asked-for-{os.getpid()}")
    os.close(root)
    assert caught.type is BlockingIOError
