"""Root file systems whose layers are names below the driver's folder, as on kernels before 6.8."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.mounttable import lines
from wherry.runtime import ops_root
from wherry.runtime.mounts import Mount
from wherry.runtime.roots import make_root

pytestmark = pytest.mark.root


@pytest.fixture
def mount(tmp_path: Path) -> Mount:
    for name in ("layers/one/fs", "layers/two/fs", "active/key/fs", "active/key/work", "l"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("one", "two"):
        (tmp_path / "layers" / name / "fs" / name).touch()
        (tmp_path / "l" / name).symlink_to(f"../layers/{name}/fs")
    options = ("lowerdir=l/two:l/one", "upperdir=active/key/fs", "workdir=active/key/work", "redirect_dir=nofollow")
    return Mount("overlay", str(tmp_path), "", options)


@pytest.mark.parametrize("classic", [False, True])
def test_such_a_root_is_made_and_nothing_stays(mount: Mount, monkeypatch: pytest.MonkeyPatch, classic: bool):
    def refuse(*_: object) -> int:
        raise OSError(errno.EINVAL, "fsconfig: no such option")

    if classic:
        monkeypatch.setattr(ops_root, "make_filesystem", refuse)
    before, here = lines(), os.getcwd()
    root = make_root(mount, -1)
    try:
        assert sorted(os.listdir(f"/proc/self/fd/{root}")) == ["one", "two"]
        os.close(os.open("made", os.O_CREAT | os.O_WRONLY, dir_fd=root))
    finally:
        os.close(root)
    assert os.listdir(f"{mount.source}/active/key/fs") == ["made"]
    assert (lines(), os.getcwd()) == (before, here)
