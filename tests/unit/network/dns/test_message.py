"""DNS messages of clients that mean well and of those that do not."""

from __future__ import annotations

import random
import struct

import pytest

from wherry.network.dns import message

NAME = b"\x03web\x05front\x00"


def query(
    name: bytes = NAME, type_: int = message.A, *, flags: int = 0x0100, extra: bytes = b"", count: int = 1
) -> bytes:
    head = struct.pack("!6H", 0x1234, flags, count, 0, 0, 1 if extra else 0)
    return head + name + struct.pack("!HH", type_, message.IN) + extra


def test_a_question_is_read():
    question = message.parse(query(b"\x03WeB\x05front\x00"))
    assert question is not None
    assert (question.id, question.name, question.type, question.size) == (0x1234, "web.front", message.A, None)


def test_a_client_says_how_much_it_takes():
    opt = b"\x00" + struct.pack("!HHIH", message.OPT, 1232, 0, 0)
    question = message.parse(query(extra=opt))
    assert question is not None
    assert question.size == 1232


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x12\x34",
        query(flags=0x8000),
        query(flags=0x2800),
        query(count=0),
        query(count=2),
        query()[:-1],
        query()[:14],
        query(b"\xc0\x0c"),
        query(b"\x3f" + b"a" * 10),
        query((b"\x3f" + b"a" * 63) * 4 + b"\x00"),
    ],
)
def test_what_is_no_query_with_one_question_is_not_read(data):
    assert message.parse(data) is None


def test_noise_is_refused_and_never_more():
    noise = random.Random(7)
    for _ in range(20000):
        data = bytes(noise.randrange(256) for _ in range(noise.randrange(60)))
        question = message.parse(data)
        answer = message.refusal(data) if question is None else message.answer(question, ())
        assert answer is None or len(answer) <= len(data) + 12


def test_the_answer_has_the_question_and_the_records():
    question = message.parse(query())
    assert question is not None
    data = message.answer(question, [message.address("10.0.0.2"), message.address("10.0.0.3")])
    id_, flags, questions, answers = struct.unpack_from("!4H", data)
    assert (id_, flags, questions, answers) == (0x1234, 0x8180, 1, 2)
    assert data.endswith(b"\xc0\x0c" + struct.pack("!HHIH", message.A, 1, 600, 4) + bytes((10, 0, 0, 3)))


def test_an_answer_that_is_too_large_is_cut_and_says_so():
    question = message.parse(query())
    assert question is not None
    data = message.answer(question, [message.address("10.0.0.2")] * 100, size=message.SMALLEST)
    _, flags, _, answers = struct.unpack_from("!4H", data)
    assert len(data) <= 512
    assert flags & 0x0200
    assert 0 < answers < 100


def test_answers_are_not_answered():
    assert message.refusal(query(flags=0x8000)) is None
    refused = message.refusal(query(flags=0x2900))
    assert refused is not None
    assert struct.unpack_from("!HH", refused) == (0x1234, 0xA984)


def test_only_the_answer_to_the_question_counts():
    question = message.parse(query())
    assert question is not None
    good = message.answer(question, [message.address("10.0.0.2")])
    assert message.belongs(question, 0x1234, good)
    assert message.belongs(question, 0x1234, good.replace(b"web", b"WEB"))
    assert not message.belongs(question, 0x1235, good)
    assert not message.belongs(question, 0x1234, query())
    assert not message.belongs(question, 0x1234, good.replace(b"front", b"tront"))
    assert not message.belongs(question, 0x1234, good.replace(question.raw, question.raw[:-4] + b"\0\x1c\0\x01"))
    assert not message.belongs(question, 0x1234, b"")


def test_an_answer_without_the_question_is_a_refusal_or_none():
    question = message.parse(query())
    assert question is not None
    refused, forged = message.refusal(query(count=0)), struct.pack("!6H", 0x1234, 0x8180, 0, 0, 0, 0)
    assert message.belongs(question, 0x1234, refused)
    assert not message.belongs(question, 0x1234, forged)


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("2.0.18.172.in-addr.arpa", bytes((172, 18, 0, 2))),
        ("2.0.18.172.in-addr.arpa.x", b""),
        ("18.172.in-addr.arpa", b""),
        ("300.0.18.172.in-addr.arpa", b""),
        ("2." + "0." * 29 + "d.f.ip6.arpa", bytes.fromhex("fd" + "00" * 14 + "02")),
        ("2.0.d.f.ip6.arpa", b""),
        ("g." + "0." * 29 + "d.f.ip6.arpa", b""),
        ("web", b""),
    ],
)
def test_reverse_names(name, address):
    assert message.reversed_address(name) == address


@pytest.mark.parametrize(
    ("name", "can"),
    [
        ("web", True),
        ("a" * 63, True),
        ("a" * 64, False),
        (".".join(["a" * 60] * 5), False),
        ("", False),
        ("a..b", False),
    ],
)
def test_names_that_no_question_can_hold(name, can):
    assert message.can_be_asked(name) is can
