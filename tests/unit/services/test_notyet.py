"""Nothing that is not there yet is accepted and ignored."""

import pytest

from wherry.errors import NotImplementedHere
from wherry.models.container import HostConfig, RestartPolicy
from wherry.services import notyet


@pytest.mark.parametrize(
    ("host", "text"),
    [
        (HostConfig(links=["a:b"]), "--link"),
    ],
)
def test_what_a_client_asks_for_is_refused(host, text):
    with pytest.raises(NotImplementedHere, match=text):
        notyet.check(host)


def test_a_plain_container_raises_nothing():
    notyet.check(HostConfig(restart_policy=RestartPolicy(name="no"), volumes_from=["a"], volume_driver="local"))
