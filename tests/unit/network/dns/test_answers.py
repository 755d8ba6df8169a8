"""Answers as bytes: whose turn it is, what is kept and for how long, how large they are."""

from __future__ import annotations

import struct

import pytest

from wherry.network.dns import answers, message
from wherry.network.dns.answers import Answers
from wherry.network.dns.zone import Sandbox, Table, Zone


@pytest.fixture
def zone() -> Zone:
    found = Zone()
    found.tables["n"] = Table.of("net", [([f"10.0.0.{last}"], ("web", f"web-{last}")) for last in (2, 3, 4)])
    found.sandboxes["one"] = Sandbox(("n",))
    return found


def query(name: str, id_: int = 7, *, opt: int = 0) -> bytes:
    head = struct.pack("!6H", id_, 0x0100, 1, 0, 0, 1 if opt else 0)
    tail = b"\0" + struct.pack("!HHIH", message.OPT, opt, 0, 0) if opt else b""
    return head + message.encode_name(name) + struct.pack("!HH", message.A, message.IN) + tail


def first(answer: object) -> int:
    """The last byte of the first address of an answer without EDNS to a question for "web"."""
    assert isinstance(answer, bytes)
    at = len(query("web")) + 12 + 3
    return answer[at]


def test_every_container_of_a_name_has_its_turn(zone):
    asked = Answers(zone)
    turns = [first(asked.find("one", query("web"))) for _ in range(3000)]
    assert {last: 800 < turns.count(last) < 1200 for last in (2, 3, 4)} == {2: True, 3: True, 4: True}


def test_an_answer_has_the_id_of_its_question(zone):
    asked = Answers(zone)
    found = [asked.find("one", query("web-2", id_)) for id_ in (1, 2, 0xFFFF)]
    assert [each[:2] for each in found] == [b"\0\1", b"\0\2", b"\xff\xff"]
    assert len({each[2:] for each in found}) == 1


def test_what_has_changed_is_answered_anew(zone):
    asked = Answers(zone)
    assert first(asked.find("one", query("web"))) in (2, 3, 4)
    zone.tables["n"] = Table.of("net", [(["10.0.0.9"], ("web",))])
    asked.clear()
    assert first(asked.find("one", query("web"))) == 9


def test_what_is_for_other_servers_is_not_kept(zone):
    asked = Answers(zone)
    assert isinstance(asked.find("one", query("example.org")), message.Question)
    zone.tables["x"] = Table.of("x", [(["10.0.0.9"], ("example.org",))])
    zone.sandboxes["one"] = Sandbox(("n", "x"))
    assert asked.find("one", query("example.org")).endswith(bytes((10, 0, 0, 9)))


def test_a_program_that_asks_for_everything_takes_no_memory(zone):
    asked = Answers(zone)
    names = [f"{''.join(letter.upper() if n >> i & 1 else letter for i, letter in enumerate('web'))}" for n in range(8)]
    for number in range(3 * answers.KEPT):
        asked.find("one", query(names[number % 8], opt=600 + number))
    assert len(asked._kept["one"]) <= answers.KEPT


def test_a_long_answer_is_cut_off_for_udp_and_whole_by_tcp(zone):
    zone.tables["n"] = Table.of("net", [([f"10.0.{n}.2"], ("web",)) for n in range(100)])
    asked = Answers(zone)
    short, longer = (asked.find("one", query("web", opt=opt)) for opt in (0, 1232))
    whole = asked.find("one", query("web"), size=message.LARGEST)
    assert [len(each) <= limit for each, limit in ((short, 512), (longer, 1232))] == [True, True]
    assert [bool(each[2] & 2) for each in (short, longer, whole)] == [True, True, False]
    assert [int.from_bytes(each[6:8], "big") for each in (short, longer, whole)] == [30, 75, 100]


def test_who_speaks_edns_is_answered_so(zone):
    asked = Answers(zone)
    assert asked.find("one", query("web-2", opt=1232))[10:12] == b"\0\1"
    assert asked.find("one", query("web-2", opt=1232)).endswith(b"\0" + struct.pack("!HHIH", message.OPT, 4096, 0, 0))
    assert asked.find("one", query("web-2"))[10:12] == b"\0\0"
