"""The messages that make links of macvlan and ipvlan, byte for byte as include/uapi/linux/if_link.h draws them."""

from __future__ import annotations

import struct

import pytest

from wherry.kernel.netlink import link
from wherry.kernel.netlink.codec import as_text, as_u32, attributes

HEADER = 16


def parsed(body: bytes) -> tuple[dict[int, bytes], str, dict[int, bytes]]:
    """Return the attributes of a request, the kind of link and the attributes of that kind."""
    found = attributes(body, HEADER)
    info = attributes(found[18])
    return found, as_text(info[1]), attributes(info.get(2, b""))


@pytest.mark.parametrize(("mode", "number"), [("private", 1), ("vepa", 2), ("bridge", 4), ("passthru", 8)])
def test_macvlan(mode, number):
    request = link.new_macvlan("eth0", 7, mode, 33, mac="02:42:0a:00:00:02")
    found, kind, data = parsed(request.body)
    assert (request.type, kind, as_u32(data[1])) == (16, "macvlan", number)
    assert (as_text(found[3]), as_u32(found[5]), as_u32(found[28])) == ("eth0", 7, 33)
    assert found[1] == bytes((2, 0x42, 10, 0, 0, 2))
    assert request.body[:HEADER] == bytes(HEADER), "it is made down"


@pytest.mark.parametrize(("mode", "number"), [("l2", 0), ("l3", 1), ("l3s", 2)])
@pytest.mark.parametrize(("flag", "bits"), [("bridge", 0), ("private", 1), ("vepa", 2)])
def test_ipvlan(mode, number, flag, bits):
    found, kind, data = parsed(link.new_ipvlan("eth0", 7, mode, flag, 33).body)
    assert kind == "ipvlan"
    assert [struct.unpack("=H", data[each][:2])[0] for each in (1, 2)] == [number, bits]
    assert (as_text(found[3]), as_u32(found[5]), as_u32(found[28])) == ("eth0", 7, 33)
    assert 1 not in found, "the MAC address is the parent's"


def test_a_vlan_and_a_dummy():
    found, kind, data = parsed(link.new_vlan("eth0.10", 3, 10).body)
    assert (kind, struct.unpack("=H", data[1][:2])[0], as_u32(found[5])) == ("vlan", 10, 3)
    assert as_text(found[3]) == "eth0.10"
    found, kind, data = parsed(link.new_dummy("dm-0123456789ab").body)
    assert (kind, data, as_text(found[3])) == ("dummy", {}, "dm-0123456789ab")
