"""What is kept free when something is copied into a container."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from tests import tars
from wherry.models.queries import ExtractQuery
from wherry.rootfs.view import View
from wherry.services.copying import _put, _Target


@pytest.mark.parametrize("other", [False, True], ids=["in-the-root", "in-a-volume"])
def test_the_disk_of_the_engine_is_not_filled(tmp_path: Path, other: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As well by a copy into what has the device of the engine's folder and not the root's."""
    monkeypatch.setattr("wherry.kernel.fsio.space.RESERVE", 1 << 60)
    (tmp_path / "t").mkdir()
    root = os.open("/" if other else tmp_path, os.O_RDONLY)
    if other:
        real = os.fstat
        fake = os.stat_result((0o040755, 2, 1 << 40, *[0] * 7))
        monkeypatch.setattr(os, "fstat", lambda fd: fake if fd == root else real(fd))
    place = str(tmp_path / "t") if other else "/t"
    body = io.BytesIO(tars.archive([tars.file("f", b"x")]))
    target = _Target(root, View(root, -1), tmp_path if other else Path("/proc"))
    with pytest.raises(OSError, match="MiB are free"):
        _put(target, "", ExtractQuery(place), body, "")
    assert os.listdir(tmp_path / "t") == []
