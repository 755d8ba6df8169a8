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
    assert (question.id, question.name, question.type, question.size) == (0x1234, "web.front", message.A, 512)


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
    data = message.answer(question, [message.address("10.0.0.2")] * 100, size=question.size)
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
    assert message.belongs(question, good)
    assert not message.belongs(question, b"\x00\x00" + good[2:])
    assert not message.belongs(question, query())
    assert not message.belongs(question, good.replace(b"front", b"tront"))
    assert not message.belongs(question, b"")


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("2.0.18.172.in-addr.arpa", "172.18.0.2"),
        ("2.0.18.172.in-addr.arpa.x", ""),
        ("18.172.in-addr.arpa", ""),
        ("web", ""),
    ],
)
def test_reverse_names(name, address):
    assert message.reversed_address(name) == address
