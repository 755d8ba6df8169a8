"""A volume that is removed while it is saved: said in words as long as no byte of the answer is out."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from wherry.errors import Conflict, SystemFailure
from wherry.events import Bus
from wherry.services.backups import Backups
from wherry.services.provision import Provision
from wherry.store.database import Database
from wherry.volumes.local import Volumes
from wherry.volumes.records import Volume


@pytest.fixture
def volumes(tmp_path: Path) -> Iterator[Volumes]:
    database = Database(tmp_path / "meta.db")
    made = Volumes(database, tmp_path / "volumes")
    made.make("vol")
    (made.mountpoint("vol") / "f").write_text("x")
    with made.recording([Volume(name="vol", created=1)]):
        pass
    yield made
    database.close()


def backups(volumes: Volumes) -> Backups:
    provision = Provision(volumes, [], None, Bus(), None, None, None)  # type: ignore[arg-type]
    return Backups(SimpleNamespace(provision=provision, catalog=[]))  # type: ignore[arg-type]


def descriptors() -> set[str]:
    return {str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()}


@pytest.mark.parametrize("anew", [False, True])
def test_it_is_removed_under_the_walk(volumes: Volumes, anew: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    real, before = os.listdir, descriptors()

    async def remove() -> None:
        with volumes.forgetting(["vol"]):
            pass
        volumes.unsettle("vol")
        volumes.discard("vol")
        if anew:
            volumes.make("vol")
            with volumes.recording([Volume(name="vol", created=2)]):
                pass

    async def scene() -> None:
        loop = asyncio.get_running_loop()

        def removing(fd: int) -> list[str]:
            monkeypatch.setattr(os, "listdir", real)
            asyncio.run_coroutine_threadsafe(remove(), loop).result(20)
            return real(fd)

        monkeypatch.setattr(os, "listdir", removing)
        with pytest.raises(Conflict, match="volume vol was removed, or renamed, while it was saved"):
            await backups(volumes).save("vol", io.BytesIO(), freeze=False)

    asyncio.run(scene())
    assert descriptors() <= before


def test_what_else_fails_is_told_as_such(volumes: Volumes, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_: int) -> list[str]:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "listdir", failing)
    with pytest.raises(SystemFailure, match=r"cannot save volume vol: .*Input/output error"):
        asyncio.run(backups(volumes).save("vol", io.BytesIO(), freeze=False))


def test_the_last_container_with_a_file_system_ends(volumes: Volumes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look for one and the entry into its mount namespace."""
    with volumes.recording([Volume(name="mem", created=1, options={"type": "tmpfs", "device": "tmpfs"})]):
        pass
    with subprocess.Popen("true") as ended:
        gone = f"/proc/{ended.pid}/ns/mnt"
    monkeypatch.setattr(Provision, "holder", lambda *_: gone)
    with pytest.raises(Conflict, match="a container with volume mem ended just now"):
        asyncio.run(backups(volumes).save("mem", io.BytesIO(), freeze=False))
