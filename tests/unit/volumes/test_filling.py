"""An empty volume is filled with all that an image has, or stays empty."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from wherry.kernel.fsio import placement
from wherry.volumes import filling


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("image/data/deep", "volume/_data"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("a", "b", "deep/c"):
        (tmp_path / "image/data" / name).write_text(name)
    return tmp_path / "image", tmp_path / "volume"


@pytest.mark.parametrize("full", [False, True])
def test_a_copy_that_does_not_fit_leaves_nothing(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    """In a volume with a project of its own nothing can be renamed; what others wrote meanwhile stays."""
    image, volume = places
    real = filling.copy_tree

    def refused(*_: object) -> None:
        raise OSError(errno.EXDEV, "another project")

    def copy(source: int, target: int) -> None:
        real(source, target)
        if full and os.path.samestat(os.fstat(target), os.stat(volume / "_data")):
            (volume / "_data" / "theirs").touch()
            raise OSError(errno.EDQUOT, "full")

    monkeypatch.setattr(placement, "move_new", refused)
    monkeypatch.setattr(filling, "copy_tree", copy)
    root, target = (os.open(place, os.O_RDONLY) for place in (image, volume / "_data"))
    try:
        if full:
            with pytest.raises(OSError, match="full"):
                filling.fill(root, "/data", target, volume)
        else:
            assert filling.fill(root, "/data", target, volume)
    finally:
        os.close(root)
        os.close(target)
    assert sorted(os.listdir(volume / "_data")) == (["theirs"] if full else ["a", "b", "deep"])
    assert os.listdir(volume) == ["_data"]
