"""The pages of a network: that they fit, and that no name in them can write to the terminal."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.unit.cli.test_xray import HOSTILE, LINK
from wherry.cli.xray import networks

STEP = {
    "Hook": "forward", "Family": "ip", "Table": "wherry-wherry0", "Chain": "forward", "Effect": "drop",
    "Text": "oifname @bridges counter drop", "Says": "if it goes to a link of the set bridges: drop it",
    "Packets": 3, "Bytes": 180, "Certain": True,
}  # fmt: skip
PATH = {
    "Kind": "foreign", "Family": 4, "Protocol": "tcp", "Source": "198.51.100.10:40000", "Destination": "172.18.0.2:80",
    "FromLink": "eth0", "ToLink": "br-0123456789ab", "Steps": [STEP], "Arrives": False, "StoppedBy": 0,
    "EndsAs": "198.51.100.10:40000 to 172.18.0.2:80",
}  # fmt: skip
ANSWER: dict[str, Any] = {
    "Name": "front", "Driver": "bridge", "Internal": False, "Kernel": "6.18.0", "Outside": ["eth0"], "Parent": None,
    "Bridge": {
        "Name": "br-0123456789ab", "Index": 7, "Kind": "bridge", "Mac": "02:42:00:00:00:01", "Mtu": 1500, "Up": True,
        "Addresses": ["172.18.0.1/16"],
        "Ports": [{"Name": "veth1234567", "Index": 9, "State": "forwarding", "Container": ""}],
    },
    "Containers": [{"Name": "web", "Pid": 101, "Link": LINK,
                    "Routes": [{"Destination": "default", "Via": "172.18.0.1", "Link": "eth0"}]}],
    "Published": [{"Protocol": "tcp", "Address": "", "Port": 8080, "Container": "web", "ToAddress": "172.18.0.2",
                   "ToPort": 80, "Mapped": False}],
    "Paths": [PATH, {**PATH, "Kind": "among", "Steps": [], "Arrives": True, "StoppedBy": -1, "FromLink": "br0"}],
    "Sysctls": [{"Name": "net.ipv4.ip_forward", "Value": "1", "Meaning": "1: the host passes packets on"}],
    "Problems": [{"What": "Nothing works.", "Why": "a reason", "Advice": "do something"}],
    "Differences": [{"Section": "network", "What": "bridge", "Asked": "up", "Found": "down", "Where": ""}],
    "Notes": [], "LeftOut": 0,
}  # fmt: skip


def spoiled(value: Any) -> Any:
    """The answer with every name that somebody else may choose made hostile."""
    if isinstance(value, dict):
        free = ("Name", "Container", "Driver", "Text", "Table", "Chain", "Why", "Link")
        return {key: HOSTILE if key in free and isinstance(item, str) else spoiled(item) for key, item in value.items()}
    return [spoiled(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("columns", [72, 90, 120])
def test_pages_fit(columns: int) -> None:
    page = networks.text(ANSWER, list(networks.SECTIONS), columns)
    assert max(map(len, page.splitlines())) <= columns
    for text in ("3 packets so far", "DO NOT lead there", "Because a reason.", "meets no rule", "veth1234567 (9)"):
        assert text in " ".join(page.split())


def test_a_name_cannot_write_to_the_terminal() -> None:
    page = networks.text(spoiled(copy.deepcopy(ANSWER)), list(networks.SECTIONS), 100)
    assert "owned" in page
    assert all(each.isprintable() or each == "\n" for each in page)


def test_colours_change_nothing_that_is_written() -> None:
    import re

    names = list(networks.SECTIONS)
    painted, plain = (networks.text(ANSWER, names, 90, colour=colour) for colour in (True, False))
    assert painted != plain
    assert re.sub(r"\x1b\[[0-9;]*m", "", painted) == plain


def test_a_network_without_a_bridge() -> None:
    page = networks.text({**ANSWER, "Driver": "host", "Bridge": None, "Paths": [], "Published": []}, ["summary"], 80)
    assert "no network of their own" in page
