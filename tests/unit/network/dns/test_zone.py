"""Which names a container knows: those of its own networks, and nobody else's."""

from __future__ import annotations

import ipaddress

import pytest

from wherry.network.dns import message
from wherry.network.dns.message import Question
from wherry.network.dns.zone import Sandbox, Table, Zone


@pytest.fixture
def zone() -> Zone:
    found = Zone()
    found.tables["f"] = Table.of(
        "Front",
        [
            (["10.1.0.2", "fd00::2"], ("web-1", "Web", "abc")),
            (["10.1.0.3"], ("web-2", "web", "def")),
            (["fd00::6"], ("six",)),
        ],
    )
    found.tables["b"] = Table.of("back", [(["10.2.0.2"], ("db", "web")), (["10.2.0.9"], ("web-1",))])
    found.sandboxes["one"] = Sandbox(("f", "b"), ("192.0.2.1",))
    found.sandboxes["two"] = Sandbox(("b",))
    found.sandboxes["linked"] = Sandbox(("f", "b"), links={"f": {"late": "later"}, "b": {"store": "db", "web-1": "db"}})
    return found


def find(zone: Zone, sandbox: str, name: str, type_: int = message.A) -> set[str] | None:
    found = zone.find(sandbox, Question(1, 0, name, type_, message.IN, b""))
    return None if found is None else {str(ipaddress.ip_address(each)) for each in found}


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


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("store", {"10.2.0.2"}),
        ("store.back", {"10.2.0.2"}),
        ("web-1", {"10.2.0.2"}),
        ("store.front", None),
        ("late", None),
        ("web-2", {"10.1.0.3"}),
    ],
)
def test_what_a_container_alone_calls_others(zone, name, found):
    assert find(zone, "linked", name) == found
    assert find(zone, "one", "store") is None


def test_a_linked_container_may_come_later(zone):
    zone.tables["f"] = Table.of("Front", [(["10.1.0.9"], ("later",))])
    assert find(zone, "linked", "late") == {"10.1.0.9"}


def test_addresses_of_both_families(zone):
    assert find(zone, "one", "web", message.AAAA) == {"fd00::2"}
    assert find(zone, "one", "six", message.AAAA) == {"fd00::6"}
    assert find(zone, "one", "six") == set(), "known, but without such an address"


@pytest.mark.parametrize("type_", [message.AAAA, 15, 16, 65])
def test_a_name_of_ours_without_such_a_record_is_not_asked_elsewhere(zone, type_):
    assert find(zone, "one", "web-2", type_) == set()


def test_reverse(zone):
    def name(sandbox: str, address: str) -> list[bytes] | None:
        pointer = ipaddress.ip_address(address).reverse_pointer
        return zone.find(sandbox, Question(1, 0, pointer, message.PTR, message.IN, b""))

    assert name("one", "10.1.0.3") == [b"\x05web-2\x05Front\x00"]
    assert name("one", "fd00::2") == [b"\x05web-1\x05Front\x00"]
    assert name("two", "10.1.0.3") is None
    assert name("two", "fd00::2") is None
