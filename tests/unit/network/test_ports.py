"""What may be asked of published ports."""

from __future__ import annotations

import pytest

from wherry.errors import InvalidArgument, NotImplementedHere
from wherry.models.container import PortBinding
from wherry.network import ports
from wherry.network.ports import PortRequest


@pytest.mark.parametrize(
    ("key", "address", "port", "wanted"),
    [
        ("80", "", "8080", PortRequest("tcp", 80, "", 8080, 8080)),
        ("80/UDP", "127.0.0.1", "", PortRequest("udp", 80, "127.0.0.1")),
        ("80/sctp", "0.0.0.0", "8000-8010", PortRequest("sctp", 80, "0.0.0.0", 8000, 8010)),
        ("80/tcp", "", "0", PortRequest("tcp", 80, "")),
        ("80/tcp", "2001:DB8::0001", "8080", PortRequest("tcp", 80, "2001:db8::1", 8080, 8080)),
        ("80/tcp", "::", "", PortRequest("tcp", 80, "::")),
    ],
)
def test_forms(key, address, port, wanted):
    assert ports.requests({key: [PortBinding(address, port), PortBinding(address, port)]}) == (wanted,)


@pytest.mark.parametrize("key", ["abc/tcp", "0/tcp", "65536", "80-82/tcp", "80/foo", "80/", "٨٠"])
def test_what_is_no_port_of_a_container(key):
    with pytest.raises(InvalidArgument):
        ports.requests({key: [PortBinding("", "8080")]})


@pytest.mark.parametrize("port", ["abc", "70000", "90-80", "0-5", "1-", "-1", "80 "])
def test_what_is_no_port_of_the_host(port):
    with pytest.raises(InvalidArgument, match="invalid port specification"):
        ports.requests({"80/tcp": [PortBinding("", port)]})


def test_addresses():
    with pytest.raises(InvalidArgument, match="invalid IP address 'xx'"):
        ports.requests({"80/tcp": [PortBinding("xx", "80")]})
    for address in ("::1", "fe80::1", "fe80::1%eth0"):
        with pytest.raises(NotImplementedHere, match="IPv6"):
            ports.requests({"80/tcp": [PortBinding(address, "80")]})
    with pytest.raises(InvalidArgument, match="can have 4096"):
        ports.requests({"80/tcp": [PortBinding("", str(n)) for n in range(1, 4098)]})


def test_only_what_is_a_port_counts_as_exposed():
    assert ports.exposed({"80": {}, "81/udp": {}, "82-83/tcp": {}, "x": {}}) == [(80, "tcp"), (81, "udp")]
