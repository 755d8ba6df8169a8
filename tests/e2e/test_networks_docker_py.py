"""docker-py over the networks API."""

from __future__ import annotations

from collections.abc import Iterator

import docker
import pytest
from docker.types import IPAMConfig, IPAMPool

from tests.engine import Engine

pytestmark = [pytest.mark.root, pytest.mark.engine]


@pytest.fixture
def client(engine: Engine) -> Iterator[docker.DockerClient]:
    found = docker.DockerClient(base_url=engine.host, timeout=30)
    yield found
    engine.remove_all()
    found.networks.prune()
    found.close()


def test_the_life_of_a_network(client):
    ipam = IPAMConfig(pool_configs=[IPAMPool(subnet="10.214.0.0/24", iprange="10.214.0.64/26", gateway="10.214.0.1")])
    network = client.networks.create("n", driver="bridge", ipam=ipam, labels={"a": "b"}, internal=True)
    assert [each.name for each in client.networks.list(filters={"label": "a=b"})] == ["n"]
    assert client.networks.get("n").attrs["IPAM"]["Config"] == [
        {"Subnet": "10.214.0.0/24", "IPRange": "10.214.0.64/26", "Gateway": "10.214.0.1"}
    ]
    container = client.containers.run("busybox", ["sleep", "1000"], detach=True, network="n")
    network.reload()
    assert [each.id for each in network.containers] == [container.id]
    container.reload()
    assert container.attrs["NetworkSettings"]["Networks"]["n"]["IPAddress"] == "10.214.0.64"
    other = client.networks.create("m")
    other.connect(container, aliases=["x"])
    container.reload()
    assert set(container.attrs["NetworkSettings"]["Networks"]) == {"n", "m"}
    with pytest.raises(docker.errors.APIError) as caught:
        other.remove()
    assert caught.value.status_code == 403
    other.disconnect(container)
    assert client.networks.prune()["NetworksDeleted"] == ["m"]
    with pytest.raises(docker.errors.NotFound):
        client.networks.get("m")
    with pytest.raises(docker.errors.APIError) as caught:
        client.networks.create("n")
    assert caught.value.status_code == 409
