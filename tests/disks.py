"""A disk that is full."""

from __future__ import annotations

import os

import pytest


def fill(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Let every write(2) put ten bytes down and fail, until the list is emptied."""
    real, failing = os.write, [True]

    def full(fd: int, data: bytes) -> int:
        if failing:
            real(fd, data[:10])
            raise OSError(28, "No space left on device")
        return real(fd, data)

    monkeypatch.setattr(os, "write", full)
    return failing
