from __future__ import annotations

import ipaddress
import struct

import pytest

from wherry.kernel.netlink import codec, link, nftexpr


def test_a_request_is_padded_and_says_its_length():
    request = codec.Request(20, b"abcde", "RTM_NEWADDR", flags=codec.NLM_F_CREATE)
    data = codec.encode(request, 7, codec.NLM_F_ACK)
    assert len(data) == 24
    assert struct.unpack("=IHHII", data[:16]) == (21, 20, 0x1 | 0x4 | 0x400, 7, 0)
    assert data[16:] == b"abcde\0\0\0"


def test_messages_of_one_datagram_are_told_apart():
    data = b"".join(codec.encode(codec.Request(kind, b"x" * kind, ""), kind, 0) for kind in (1, 2, 5))
    assert [(reply.type, reply.body, reply.sequence) for reply in codec.decode(data)] == [
        (1, b"x", 1),
        (2, b"xx", 2),
        (5, b"xxxxx", 5),
    ]


@pytest.mark.parametrize("data", [b"", b"\0" * 15, b"\0" * 16, struct.pack("=IHHII", 15, 1, 0, 0, 0)])
def test_a_message_shorter_than_its_header_ends_the_datagram(data):
    assert list(codec.decode(data)) == []


def test_attributes_survive_the_way_there_and_back():
    data = codec.text(3, "eth0") + codec.nested(18, codec.u8(1, 255), codec.be32(2, -3))
    found = codec.attributes(data)
    assert codec.as_text(found[3]) == "eth0"
    assert codec.attributes(found[18]) == {1: b"\xff", 2: b"\xff\xff\xff\xfd"}


def test_an_attribute_with_a_length_of_zero_ends_the_list():
    assert list(codec.listed(b"\0\0\0\0" * 4)) == []


@pytest.mark.parametrize("text", ["", "02:42:ac:11:00", "02:42:ac:11:00:0", "0242ac110002", "02:42:ac:11:00:zz"])
def test_what_is_no_mac_is_refused(text):
    with pytest.raises(ValueError, match=r"not an Ethernet address|non-hexadecimal"):
        link.mac_bytes(text)


def test_subnet_masks_of_any_length():
    _load, mask, value = nftexpr.from_subnet(ipaddress.ip_network("10.128.0.0/9"))
    assert b"\xff\x80\0\0" in mask
    assert b"\x0a\x80\0\0" in value
