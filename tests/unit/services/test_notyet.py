"""Nothing that is not there yet is accepted and ignored."""

import pytest

from wherry.errors import NotImplementedHere
from wherry.models.container import ContainerConfig, HostConfig, PortBinding, RestartPolicy
from wherry.models.image import ImageRunConfig
from wherry.services import notyet


@pytest.mark.parametrize(
    ("config", "host", "text"),
    [
        (ContainerConfig(), HostConfig(port_bindings={"80/tcp": [PortBinding(host_port="80")]}), "publishing ports"),
        (ContainerConfig(), HostConfig(publish_all_ports=True), "publishing ports"),
        (ContainerConfig(volumes={"/data": {}}), HostConfig(), "anonymous volumes"),
        (ContainerConfig(), HostConfig(volumes_from=["other"]), "--volumes-from"),
        (ContainerConfig(), HostConfig(links=["a:b"]), "--link"),
    ],
)
def test_what_a_client_asks_for_is_refused(config, host, text):
    with pytest.raises(NotImplementedHere, match=text):
        notyet.check(config, host, ImageRunConfig())


def test_what_an_image_brings_along_is_warned_about():
    image = ImageRunConfig(volumes={"/data": {}})
    warnings = notyet.check(ContainerConfig(), HostConfig(), image)
    assert [("volumes (/data)" in each) for each in warnings] == [True]


def test_a_plain_container_raises_nothing():
    assert notyet.check(ContainerConfig(), HostConfig(restart_policy=RestartPolicy(name="no")), ImageRunConfig()) == []
