"""Which names a container knows: those of its own networks, and nobody else's."""

from __future__ import annotations

import socket

import pytest

from wherry.network.dns import message
from wherry.network.dns.client import upstreams
from wherry.network.dns.message import Question
from wherry.network.dns.zone import Sandbox, Table, Zone


@pytest.fixture
def zone() -> Zone:
    found = Zone()
    found.tables["f"] = Table.of(
        "Front", [("10.1.0.2", ("web-1", "Web", "abc")), ("10.1.0.3", ("web-2", "web", "def"))]
    )
    found.tables["b"] = Table.of("back", [("10.2.0.2", ("db", "web")), ("10.2.0.9", ("web-1",))])
    found.sandboxes["one"] = Sandbox(("f", "b"), ("192.0.2.1",))
    found.sandboxes["two"] = Sandbox(("b",))
    return found


def find(zone: Zone, sandbox: str, name: str, type_: int = message.A) -> set[str] | None:
    found = zone.find(sandbox, Question(1, 0, name, type_, message.IN, b""))
    return None if found is None else {socket.inet_ntoa(each) for each in found}


@pytest.mark.parametrize(
    ("sandbox", "name", "found"),
    [
        ("one", "web", {"10.1.0.2", "10.1.0.3"}),
        ("one", "web-1", {"10.1.0.2"}),
        ("one", "abc", {"10.1.0.2"}),
        ("one", "web-1.back", {"10.2.0.9"}),
        ("one", "web.front", {"10.1.0.2", "10.1.0.3"}),
        ("one", "db", {"10.2.0.2"}),
        ("two", "web", {"10.2.0.2"}),
        ("two", "web-2", None),
        ("two", "web.front", None),
        ("two", "example.org", None),
        ("nobody", "web", None),
    ],
)
def test_names(zone, sandbox, name, found):
    assert find(zone, sandbox, name) == found


@pytest.mark.parametrize("type_", [message.AAAA, 15, 16])
def test_a_name_of_ours_without_such_a_record_is_not_asked_elsewhere(zone, type_):
    assert find(zone, "one", "web", type_) == set()


def test_the_order_changes_from_answer_to_answer(zone):
    question = Question(1, 0, "web", message.A, message.IN, b"")
    assert {zone.find("one", question)[0] for _ in range(100)} == {
        message.address("10.1.0.2"),
        message.address("10.1.0.3"),
    }


def test_reverse(zone):
    def name(sandbox: str, address: str) -> list[bytes] | None:
        backwards = ".".join(reversed(address.split(".")))
        return zone.find(sandbox, Question(1, 0, f"{backwards}.in-addr.arpa", message.PTR, message.IN, b""))

    assert name("one", "10.1.0.3") == [b"\x05web-2\x05Front\x00"]
    assert name("two", "10.1.0.3") is None


def test_upstreams():
    assert upstreams((), ("192.0.2.1",), way_out=True) == ("192.0.2.1",)
    assert upstreams(("192.0.2.9",), ("192.0.2.1",), way_out=True) == ("192.0.2.9",)
    assert upstreams(("192.0.2.9",), ("192.0.2.1",), way_out=False) == ()
