"""What wherry system check says of bytes, while they change."""

from __future__ import annotations

from pathlib import Path

import pytest

from wherry.services import check


def test_what_shrinks_while_it_is_measured_leaves_no_negative_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {tmp_path: 900, tmp_path / "meta.db-wal": 1000}
    monkeypatch.setattr(check, "_size", lambda path: sizes.get(path, 0))
    found = check._bytes(tmp_path)
    assert found["other"] == 0
    assert found["total"] == sum(size for part, size in found.items() if part != "total") == 1000
