from __future__ import annotations

import pytest

from wherry.errors import InvalidArgument
from wherry.network.endpointoptions import IFNAME, SYSCTLS, check, interfaces, sysctls


@pytest.mark.parametrize("name", ["foo0", "eth5", "a" * 15, "br-lan.7", "x@y"])
def test_names_that_an_interface_can_have(name: str):
    check({IFNAME: name, "anything": "else"})
    assert interfaces([({IFNAME: name}, "eth")]) == [name]


@pytest.mark.parametrize("name", ["a" * 16, "a/b", "a b", "..", ".", "lo", "all", "default", "a:1", "a\n", "ä"])
def test_names_that_it_cannot_have(name: str):
    with pytest.raises(InvalidArgument, match=r"invalid com\.docker\.network\.endpoint\.ifname"):
        check({IFNAME: name})


def test_sysctls_are_of_the_endpoints_interface():
    text = "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.ifname.accept_ra=2,net.ipv4.neigh.IFNAME.gc_stale_time="
    assert sysctls({SYSCTLS: text}, "foo0") == {
        "net/ipv4/conf/foo0/log_martians": "1",
        "net/ipv6/conf/foo0/accept_ra": "2",
        "net/ipv4/neigh/foo0/gc_stale_time": "",
    }
    assert sysctls({SYSCTLS: ""}, "foo0") == sysctls({}, "foo0") == {}


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("net.ipv4.conf.IFNAME.log_martians", "name=value"),
        ("net.ipv4.conf.eth0.log_martians=1", "net.X.Y.IFNAME.Z"),
        ("net.ipv4.ip_forward=1", "net.X.Y.IFNAME.Z"),
        ("net.core.conf.IFNAME.x=1", "net.X.Y.IFNAME.Z"),
        ("net.ipv4.conf.IFNAME.a.b=1", "net.X.Y.IFNAME.Z"),
        ("net/ipv4/conf/IFNAME/x=1", "net.X.Y.IFNAME.Z"),
        ("net.ipv4.conf.IFNAME.../../x=1", "net.X.Y.IFNAME.Z"),
        ("kernel.domainname=x", "net.X.Y.IFNAME.Z"),
        ("net.ipv4.conf.IFNAME.a=1,b", "name=value"),
    ],
)
def test_sysctls_in_another_form(text: str, form: str):
    with pytest.raises(InvalidArgument, match=f"to have format {form}$"):
        check({SYSCTLS: text})


def test_interfaces_get_the_first_free_numbers():
    plain: tuple[dict[str, str], str] = ({}, "eth")
    assert interfaces([plain, plain]) == ["eth0", "eth1"]
    assert interfaces([plain], ["eth0", "foo0", "eth2"]) == ["eth1"]
    assert interfaces([plain, ({IFNAME: "eth0"}, "eth"), ({}, "lan"), plain]) == ["eth1", "eth0", "lan0", "eth2"]


@pytest.mark.parametrize("taken", [["z0"], []])
def test_no_two_interfaces_have_one_name(taken: list[str]):
    wanted = [({IFNAME: "z0"}, "eth")] * (1 if taken else 2)
    with pytest.raises(InvalidArgument, match="interface name z0 is asked for, but another interface"):
        interfaces(wanted, taken)
