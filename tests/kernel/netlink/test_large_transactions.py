"""A transaction may be larger than the send buffer that a socket begins with: the rules of a hundred networks are."""

from __future__ import annotations

import json
import socket

import pytest

from tests.kernel.isolation import command, isolated
from wherry.kernel.netlink import nft, nftexpr

pytestmark = pytest.mark.root

KEYS = 20_000


@isolated
def test_a_transaction_larger_than_the_send_buffer_is_done_as_a_whole():
    change = nft.Ruleset()
    change.table("large")
    change.set("large", "names", nft.IFNAME_TYPE, nft.IFNAMSIZ)
    change.add_elements("large", "names", [nftexpr.interface_key(f"link{number}") for number in range(KEYS)])
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as fresh:
        room = fresh.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    assert room < KEYS * nft.IFNAMSIZ, "it would fit, and the test would show nothing"
    change.commit()
    found = json.loads(command("nft", "-j", "list", "set", "ip", "large", "names"))
    (names,) = [each["set"]["elem"] for each in found["nftables"] if "set" in each]
    assert len(names) == KEYS
