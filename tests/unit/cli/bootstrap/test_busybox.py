"""The busybox image: what is in it, the same bytes each time, and clear words when there is no such busybox."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from wherry.cli.bootstrap import busybox
from wherry.cli.failures import Failure


def layer(date: int | None = None) -> bytes:
    target = io.BytesIO()
    busybox.build(target, date)
    return target.getvalue()


def test_the_same_bytes_each_time() -> None:
    assert layer(5) == layer(5)
    assert layer(5) != layer(6)


def test_what_is_in_it() -> None:
    with tarfile.open(fileobj=io.BytesIO(layer(5))) as tar:
        found = {info.name: info for info in tar}
    assert {info.mtime for info in found.values()} == {5}
    assert list(found) == sorted(found)
    assert (found["bin/sh"].linkname, found["usr/bin/env"].linkname) == ("busybox", "/bin/busybox")
    assert (found["tmp"].mode, found["root"].mode, found["bin/busybox"].mode) == (0o1777, 0o700, 0o755)
    assert {info.uname for info in found.values()} == {""}


def test_its_date_is_that_of_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "busybox"
    shutil.copy(busybox.find(), copy)
    os.utime(copy, (1000, 1000))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert busybox.build(io.BytesIO(), None) == 1000


def test_without_busybox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Failure, match="there is no busybox on this machine: install Debian's busybox-static"):
        layer()


def test_a_busybox_that_needs_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = shutil.which("sleep")
    assert program
    shutil.copy(program, tmp_path / "busybox")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Failure, match="needs libraries"):
        layer()


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n", b"\x7fELF", b"\x7fELF\x02\x01" + b"\xff" * 60])
def test_what_is_no_program(data: bytes) -> None:
    assert not busybox.is_static(data)
