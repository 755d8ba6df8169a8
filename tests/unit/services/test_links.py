"""The variables of links, in dockerd's order, and what is a link."""

from __future__ import annotations

import pytest

from wherry.errors import InvalidArgument
from wherry.services.links import _port_variables, parse


@pytest.mark.parametrize(
    ("text", "found"),
    [("db", ("db", "db")), ("db:x", ("db", "x")), ("/db:/web/x", ("db", "x")), ("db:", ("db", ""))],
)
def test_forms(text, found):
    assert parse(text) == found


@pytest.mark.parametrize("text", ["", "a:b:c"])
def test_what_is_no_link(text):
    with pytest.raises(InvalidArgument):
        parse(text)


def names(*ports: tuple[int, str]) -> list[str]:
    """The variables but those that every port has, and of those the first."""
    found = [each.removeprefix("A_PORT") for each in _port_variables("A", ports, "10.0.0.2")]
    return [each for each in found if not any(word in each for word in ("_ADDR=", "_PROTO=", "P_PORT="))]


def test_ports_that_follow_each_other_are_told_behind_the_next_one():
    assert names((80, "tcp"), (81, "tcp"), (90, "tcp"), (53, "udp")) == [
        "=tcp://10.0.0.2:80",
        "_80_TCP=tcp://10.0.0.2:80",
        "_81_TCP=tcp://10.0.0.2:81",
        "_90_TCP=tcp://10.0.0.2:90",
        "_80_TCP_START=tcp://10.0.0.2:80",
        "_80_TCP_PORT_START=80",
        "_80_TCP_END=tcp://10.0.0.2:81",
        "_80_TCP_PORT_END=81",
        "_53_UDP=udp://10.0.0.2:53",
    ]


def test_ports_of_two_protocols_do_not_follow_each_other():
    assert names((80, "tcp"), (81, "udp")) == [
        "=tcp://10.0.0.2:80",
        "_80_TCP=tcp://10.0.0.2:80",
        "_81_UDP=udp://10.0.0.2:81",
    ]


def test_no_ports():
    assert names() == []
