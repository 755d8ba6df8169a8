"""Where the host finds what a container has mounted, from the records alone."""

from pathlib import Path

import pytest

from wherry.containers.record import Record
from wherry.events import Bus
from wherry.models.container import ContainerConfig, HostConfig, NetworkingConfig
from wherry.services import binds
from wherry.services.provision import Place, Provision
from wherry.store.database import Database
from wherry.volumes.local import Volumes
from wherry.volumes.records import Volume


@pytest.fixture
def provision(tmp_path: Path):
    database = Database(tmp_path / "meta.db")
    volumes = Volumes(database, tmp_path / "volumes")
    bind = {"type": "none", "o": "bind", "device": "/srv"}
    memory = {"type": "tmpfs", "device": "tmpfs"}
    with volumes.recording(
        [
            Volume(name="plain", created=1),
            Volume(name="bind", created=1, options=bind),
            Volume(name="memory", created=1, options=memory),
        ]
    ):
        pass
    yield Provision(volumes, [], None, Bus(), None, None, None)  # type: ignore[arg-type]
    database.close()


def record_of(provision: Provision, host: HostConfig) -> Record:
    return Record(
        id="c" * 64,
        name="aa",
        created=1,
        image_id="",
        config=ContainerConfig(),
        host_config=host,
        networking=NetworkingConfig(),
        driver="",
        path="",
        args=(),
        mounts=tuple(provision.located(each.record) for each in binds.resolve(host, ContainerConfig())),
    )


def test_places_of_a_container(provision: Provision, tmp_path: Path):
    asked = ["/tmp:/t:ro", "plain:/t/a", "bind:/b", "memory:/m:ro"]
    found = provision.places(record_of(provision, HostConfig(binds=asked, tmpfs={"/x": "size=1m,ro"})))
    assert found == (
        Place("/t", "bind", "/tmp", "", True),
        Place("/b", "volume", "/srv", "", False),
        Place("/m", "mounted", str(tmp_path / "volumes" / "memory" / "_data"), "", True),
        Place("/x", "tmpfs", "", "", True),
        Place("/t/a", "volume", str(tmp_path / "volumes" / "plain" / "_data"), "", False),
    )
