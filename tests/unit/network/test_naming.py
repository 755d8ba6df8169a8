"""What the name server is told of a container."""

from __future__ import annotations

import pytest

from wherry.network.api import Endpoint
from wherry.network.naming import addresses_of, client
from wherry.network.records import Attached

HOSTS = ("192.0.2.1", "fe80::1%eth0")
DB = "0123456789ab" + "c" * 52


def attached(network: str, *, priority: int = 0, nameservers: tuple[str, ...] = (), **more) -> Attached:
    endpoint = Endpoint(f"id-{network}", network, "e", "eth0", "", gw_priority=priority, **more)
    return Attached(endpoint, "s", nameservers=nameservers)


def test_who_is_asked_for_all_other_names():
    inside = attached("n", ipv4="10.0.0.2")
    outside = attached("n", ipv4="10.0.0.2", gateway4="10.0.0.1")
    found = client((outside,), HOSTS)
    assert (found.upstreams, found.follows_host) == (HOSTS, True)
    found = client((attached("n", gateway4="10.0.0.1", nameservers=("192.0.2.9",)),), HOSTS)
    assert (found.upstreams, found.follows_host) == (("192.0.2.9",), False)
    for group in ((inside,), (attached("n", nameservers=("192.0.2.9",)),)):
        found = client(group, HOSTS)
        assert (found.upstreams, found.follows_host) == ((), False), "nothing leaves an internal network"


def test_the_order_of_search():
    group = attached("b"), attached("c", priority=1), attached("a")
    assert client(group, ()).networks == ("id-c", "id-a", "id-b")


@pytest.mark.parametrize(
    ("links", "meanings"),
    [
        (("db",), {"db": "db"}),
        (("DB:Store", "b:c"), {"store": "db", "c": "b"}),
        ((f"{DB}:db",), {"db": DB[:12]}),
        (("db:",), {"db": "db"}),
    ],
)
def test_links(links, meanings):
    assert client((attached("n", links=links),), ()).links == {"id-n": meanings}
    assert client((attached("n"),), ()).links == {}


def test_addresses():
    assert addresses_of(attached("n", ipv4="10.0.0.2", ipv6="fd00::2").endpoint) == ("10.0.0.2", "fd00::2")
    assert addresses_of(attached("n", ipv6="fd00::2").endpoint) == ("fd00::2",)
    assert addresses_of(attached("n").endpoint) == ()
