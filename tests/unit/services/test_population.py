"""When the image is looked into for a volume, and when not: a look costs more than all else that a volume costs."""

from pathlib import Path

import pytest

from wherry.containers.record import MountRecord, Record
from wherry.models.container import ContainerConfig, HostConfig, NetworkingConfig
from wherry.runtime.mounts import Mount
from wherry.services.population import Population
from wherry.store.database import Database
from wherry.volumes.local import Volumes
from wherry.volumes.records import Volume


class Snapshots:
    """Describes a folder as the root of every container, and counts how often it was asked to."""

    mount_namespace = -1

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked = 0

    def mounts(self, key: str) -> tuple[Mount, ...]:
        """Return a root."""
        self.asked += 1
        return (Mount("bind", str(self.root)),)


@pytest.fixture
def volumes(tmp_path: Path):
    database = Database(tmp_path / "meta.db")
    yield Volumes(database, tmp_path / "volumes")
    database.close()


@pytest.fixture
def snapshots(tmp_path: Path):
    (tmp_path / "image" / "srv").mkdir(parents=True)
    (tmp_path / "image" / "srv" / "page").write_text("text")
    return Snapshots(tmp_path / "image")


def with_volume(volumes: Volumes, name: str, destination: str) -> Record:
    if name not in volumes:
        volumes.make(name)
        with volumes.recording([Volume(name=name, created=1)]):
            pass
    place = str(volumes.mountpoint(name))
    mount = MountRecord(type="volume", name=name, source=place, destination=destination, copy=True)
    return Record(
        id="c" * 64,
        name="aa",
        created=1,
        image_id="sha256:aa",
        config=ContainerConfig(),
        host_config=HostConfig(),
        networking=NetworkingConfig(),
        driver="",
        path="",
        args=(),
        mounts=(mount,),
    )


def test_what_an_image_has_not_is_looked_for_once(volumes: Volumes, snapshots: Snapshots):
    population = Population(volumes, snapshots)  # type: ignore[arg-type]
    for name in ("one", "other"):
        record = with_volume(volumes, name, "/data")
        assert population.done(record, {}) == (name == "other")
        population.fill(record, {})
        assert snapshots.asked == 1
    population.fill(with_volume(volumes, "other", "/srv"), {})
    assert (volumes.mountpoint("other") / "page").read_text() == "text"
    assert snapshots.asked == 2


def test_for_a_volume_that_has_something_no_root_is_made(volumes: Volumes, snapshots: Snapshots):
    population = Population(volumes, snapshots)  # type: ignore[arg-type]
    record = with_volume(volumes, "full", "/srv")
    (volumes.mountpoint("full") / "own").touch()
    assert population.done(record, {})
    population.fill(record, {})
    assert [each.name for each in volumes.mountpoint("full").iterdir()] == ["own"]
    assert snapshots.asked == 0
