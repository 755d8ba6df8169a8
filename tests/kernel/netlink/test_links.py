"""Links, addresses, routes and neighbours as ip(8) sees them."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from tests.kernel.isolation import command, inside, ip, isolated, new_namespace
from wherry.kernel.netlink import addr, link, neigh, route
from wherry.kernel.netlink.socket import NetlinkSocket

pytestmark = pytest.mark.root


@isolated
def test_a_bridge():
    with NetlinkSocket() as netlink:
        netlink.apply(
            link.new_bridge("br0", mac="02:42:00:00:00:01", mtu=1400, multicast_snooping=False),
            link.set_attributes("br0", link.alias("of a test")),
        )
        (seen,) = ip("link", "show", "br0")
        assert seen["address"] == "02:42:00:00:00:01"
        assert seen["mtu"] == 1400
        assert seen["ifalias"] == "of a test"
        assert "UP" in seen["flags"]
        assert seen["linkinfo"]["info_kind"] == "bridge"
        assert seen["linkinfo"]["info_data"]["mcast_snooping"] == 0
        found = link.find_link(netlink, "br0")
        assert (found.kind, found.mac, found.mtu, found.alias, found.up) == (
            "bridge",
            "02:42:00:00:00:01",
            1400,
            "of a test",
            True,
        )


@isolated
def test_a_veth_pair_is_made_in_place_with_one_message():
    far = new_namespace()
    with NetlinkSocket() as netlink:
        netlink.apply(link.new_bridge("br0", mac="02:42:00:00:00:01"))
        bridge = link.find_link(netlink, "br0").index
        peer = link.VethPeer("eth0", far, "02:42:0a:00:00:02")
        netlink.apply(link.new_veth("veth0", peer, master=bridge, mtu=1300, group=77))
        (near,) = ip("link", "show", "veth0")
        assert near["master"] == "br0"
        assert near["mtu"] == 1300
        assert near["group"] == "77"
        assert "UP" in near["flags"]
        (inner,) = inside(far, lambda: ip("link", "show", "eth0"))
        assert inner["address"] == "02:42:0a:00:00:02"
        assert inner["mtu"] == 1300
        assert "UP" not in inner["flags"]
        assert link.find_link(netlink, "veth0").group == 77
    os.close(far)


@isolated
def test_up_down_rename_master_mtu_move_and_delete():
    far = new_namespace()
    with NetlinkSocket() as netlink:
        netlink.apply(link.new_bridge("br0", mac="02:42:00:00:00:01"))
        bridge = link.find_link(netlink, "br0")
        netlink.apply(link.new_veth("veth0", link.VethPeer("eth0", far, "02:42:0a:00:00:02")))
        near = link.find_link(netlink, "veth0")
        netlink.apply(
            link.set_up(near.index, up=False),
            link.set_attributes(near.index, link.renamed("other"), link.mtu(900), link.master(bridge.index)),
        )
        (seen,) = ip("link", "show", "other")
        assert "UP" not in seen["flags"]
        assert (seen["mtu"], seen["master"]) == (900, "br0")
        netlink.apply(link.set_attributes(near.index, link.master(0)), link.set_attributes("other", link.moved(far)))
        assert link.find_link(netlink, "other") is None
        assert {each["ifname"] for each in inside(far, lambda: ip("link"))} >= {"eth0", "other"}
        netlink.apply(link.delete_link("br0"))
        assert {each.name for each in link.list_links(netlink)} == {"lo"}
        netlink.apply(link.delete_link("br0"))
        with pytest.raises(OSError, match="RTM_DELLINK") as caught:
            netlink.apply(link.delete_link("br0", missing_ok=False))
        assert (caught.value.errno, caught.value.filename) == (errno.ENODEV, "br0")
    os.close(far)


@isolated
def test_a_group_goes_at_once_and_takes_no_other_link():
    spaces = [new_namespace() for _ in range(3)]
    with NetlinkSocket() as netlink:
        for number, fd in enumerate(spaces):
            netlink.apply(link.new_veth(f"veth{number}", link.VethPeer("eth0", fd, f"02:42:0a:00:00:0{number}")))
        netlink.apply(
            link.set_attributes("veth0", link.group(5)),
            link.set_attributes("gone", link.group(5), missing_ok=True),
            link.set_attributes("veth2", link.group(5)),
            link.delete_group(5),
        )
        assert {each.name for each in link.list_links(netlink)} == {"lo", "veth1"}
        netlink.apply(link.delete_group(5))
    for fd in spaces:
        os.close(fd)


@isolated
def test_a_batch_reports_the_first_failure_and_what_was_tried():
    with NetlinkSocket() as netlink:
        with pytest.raises(OSError, match="RTM_NEWADDR: Invalid") as caught:
            netlink.apply(
                link.set_up(1), addr.new_address(1, "10.0.0.1", 33), link.set_up(99), addr.new_address(1, "10.0.0.1", 8)
            )
        assert (caught.value.errno, caught.value.filename) == (errno.EINVAL, "10.0.0.1/33")
        # The socket is still usable, with no answer left over from the failed batch.
        assert link.find_link(netlink, "lo").index == 1
        with pytest.raises(OSError, match="RTM_NEWADDR: File exists"):
            netlink.apply(addr.new_address(1, "10.0.0.1", 8))


@isolated
def test_addresses_of_both_families():
    with NetlinkSocket() as netlink:
        netlink.apply(link.new_bridge("br0", mac="02:42:00:00:00:01"))
        index = link.find_link(netlink, "br0").index
        netlink.apply(
            addr.new_address(index, "10.9.0.1", 24, broadcast="10.9.0.255"), addr.new_address(index, "fd00:9::1", 64)
        )
        (seen,) = ip("addr", "show", "br0")
        shown = {(each["local"], each["prefixlen"]): each for each in seen["addr_info"]}
        assert shown["10.9.0.1", 24]["broadcast"] == "10.9.0.255"
        assert ("fd00:9::1", 64) in shown
        assert addr.Address(index, "10.9.0.1", 24) in addr.list_addresses(netlink, socket.AF_INET)
        assert addr.Address(index, "fd00:9::1", 64) in addr.list_addresses(netlink)
        gone = addr.delete_address(index, "10.9.0.1", 24)
        netlink.apply(gone, gone)
        assert "10.9.0.1" not in command("ip", "addr")


@isolated
def test_routes():
    with NetlinkSocket() as netlink:
        netlink.apply(link.new_bridge("br0", mac="02:42:00:00:00:01"))
        index = link.find_link(netlink, "br0").index
        netlink.apply(
            addr.new_address(index, "10.9.0.1", 24),
            route.new_route("10.10.0.0", 16, gateway="10.9.0.2"),
            route.new_route("10.11.0.0", 16, link=index),
            route.new_route("", 0, gateway="10.9.0.3"),
        )
        seen = {each["dst"]: each for each in ip("route")}
        assert seen["default"]["gateway"] == "10.9.0.3"
        assert seen["10.10.0.0/16"]["gateway"] == "10.9.0.2"
        assert seen["10.11.0.0/16"]["dev"] == "br0"
        found = {(each.destination, each.prefix): each for each in route.list_routes(netlink)}
        assert found["", 0].gateway == "10.9.0.3"
        assert found["10.9.0.0", 24].link == index
        netlink.apply(route.delete_route("10.10.0.0", 16, gateway="10.9.0.2"))
        assert "10.10.0.0/16" not in command("ip", "route")
        with pytest.raises(OSError, match="RTM_NEWROUTE") as caught:
            netlink.apply(route.new_route("10.12.0.0", 16, gateway="192.0.2.77"))
        assert caught.value.errno in (errno.ENETUNREACH, errno.EINVAL)


@isolated
def test_neighbours():
    with NetlinkSocket() as netlink:
        netlink.apply(link.new_bridge("br0", mac="02:42:00:00:00:01"))
        index = link.find_link(netlink, "br0").index
        netlink.apply(addr.new_address(index, "10.9.0.1", 24))
        netlink.apply(neigh.set_neighbour(index, "10.9.0.5", "02:00:00:00:00:05", permanent=True))
        (seen,) = ip("neigh", "show", "dev", "br0")
        assert (seen["dst"], seen["lladdr"], seen["state"]) == ("10.9.0.5", "02:00:00:00:00:05", ["PERMANENT"])
        (found,) = [each for each in neigh.list_neighbours(netlink) if each.address == "10.9.0.5"]
        assert (found.address, found.mac, found.state) == ("10.9.0.5", "02:00:00:00:00:05", neigh.NUD_PERMANENT)
        netlink.apply(neigh.delete_neighbour(index, "10.9.0.5"), neigh.delete_neighbour(index, "10.9.0.5"))
        assert ip("neigh", "show", "dev", "br0") == []


@isolated
def test_counters_count():
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with NetlinkSocket() as netlink:
        before = link.find_link(netlink, "lo")
        sender.sendto(bytes(1000), ("127.0.0.1", 9))
        after = link.find_link(netlink, "lo")
    sender.close()
    assert after.tx_packets > before.tx_packets
    assert after.rx_bytes >= before.rx_bytes + 1000


@isolated
def test_a_socket_stays_in_the_namespace_it_was_made_in():
    with NetlinkSocket() as netlink:
        netlink.apply(link.new_bridge("mark", mac="02:42:00:00:00:01"))
        far = new_namespace()
        assert inside(far, lambda: link.find_link(netlink, "mark")) is not None
    os.close(far)
