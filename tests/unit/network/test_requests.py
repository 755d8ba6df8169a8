from __future__ import annotations

import pytest
from msgspec import structs

from wherry.errors import InvalidArgument
from wherry.models.container import ContainerConfig, HostConfig
from wherry.models.network import IpamPool
from wherry.network import requests, sysctls
from wherry.network.api import EndpointRequest
from wherry.network.records import Network

BRIDGE = Network(id="1" * 64, name="bridge", driver="bridge", created=0)
HOST = Network(id="2" * 64, name="host", driver="host", created=0)


def test_an_address_on_the_default_bridge_is_refused_in_dockerds_words():
    with pytest.raises(InvalidArgument) as caught:
        requests.check(EndpointRequest("bridge", ipv4="172.17.0.9"), BRIDGE)
    assert caught.value.message == (
        "invalid endpoint settings:\n"
        "* user specified IP address is supported on user defined networks only\n"
        "* user specified IP address is supported only when connecting to networks with user configured subnets"
    )


@pytest.mark.parametrize(
    "mac", ["zz", "02:42", "01:00:5e:00:00:01", "00:00:00:00:00:00", "02:42:ac:11:00:02\n", "02-42-ac-11-00-02"]
)
def test_bad_macs_are_refused(mac):
    with pytest.raises(InvalidArgument, match=r"^invalid MAC address"):
        requests.check(EndpointRequest("bridge", mac=mac), BRIDGE)


def test_good_ones_pass():
    requests.check(EndpointRequest("bridge", mac="02:42:AC:11:00:09"), BRIDGE)
    assert requests.is_plain(EndpointRequest("bridge", aliases=("a",)))
    assert not requests.is_plain(EndpointRequest("bridge", mac="02:42:ac:11:00:09"))


ASKED = Network(
    id="3" * 64,
    name="mine",
    driver="bridge",
    created=0,
    subnet="10.1.0.0/24",
    gateway="10.1.0.1",
    asked=(IpamPool(subnet="10.1.0.0/24"),),
)
BOTH = structs.replace(
    ASKED, ipv6=True, subnet6="fd12::/64", gateway6="fd12::1", asked=(*ASKED.asked, IpamPool(subnet="fd12::/64"))
)
CHOSEN = Network(id="4" * 64, name="any", driver="bridge", created=0, subnet="172.18.0.0/16", gateway="172.18.0.1")


@pytest.mark.parametrize(
    ("network", "wanted", "complaint"),
    [
        (ASKED, {"ipv4": "10.1.0.7"}, None),
        (ASKED, {"ipv4": "10.1.1.7"}, "no configured subnet or ip-range contain the IP address 10.1.1.7"),
        (ASKED, {"ipv4": "10.1.0.0"}, "no configured subnet or ip-range contain the IP address 10.1.0.0"),
        (
            ASKED,
            {"ipv4": "banana"},
            "* invalid IPv4 address: banana\n* no configured subnet or ip-range contain the IP ",
        ),
        (ASKED, {"ipv6": "fd00::7"}, "user specified IP address is supported only when connecting to networks with"),
        (BOTH, {"ipv6": "fd00::7"}, "no configured subnet or ip-range contain the IP address fd00::7"),
        (BOTH, {"ipv6": "fd12::7", "ipv4": "10.1.0.7"}, None),
        (BOTH, {"ipv6": "fd12::ffff:ffff:ffff:ffff"}, None),
        (BOTH, {"ipv6": "fd12::"}, "no configured subnet or ip-range contain the IP address fd12::"),
        (BOTH, {"ipv6": "10.1.0.7"}, "* invalid IPv6 address: 10.1.0.7\n* no configured subnet"),
        (BOTH, {"ipv4": "fd12::7"}, "* invalid IPv4 address: fd12::7\n* no configured subnet"),
        (ASKED, {"aliases": ("a",)}, None),
        (
            CHOSEN,
            {"ipv4": "172.18.0.7"},
            "user specified IP address is supported only when connecting to networks with",
        ),
        (BRIDGE, {"aliases": ("a",)}, "network-scoped alias is supported only for containers in user defined networks"),
    ],
)
def test_what_an_endpoint_may_ask_of_a_network(network, wanted, complaint):
    asked = EndpointRequest(network.name, **wanted)
    if complaint is None:
        requests.check(asked, network)
        return
    with pytest.raises(InvalidArgument) as caught:
        requests.check(asked, network)
    assert caught.value.message.startswith("invalid endpoint settings:\n" + complaint)


def test_endpoint_options_are_looked_at():
    requests.check(EndpointRequest("mine", driver_opts={"com.docker.network.endpoint.ifname": "lan0"}), ASKED)
    with pytest.raises(InvalidArgument, match="ifname 'a/b'"):
        requests.check(EndpointRequest("mine", driver_opts={"com.docker.network.endpoint.ifname": "a/b"}), ASKED)


def test_the_hosts_network_takes_no_endpoints():
    with pytest.raises(InvalidArgument, match="cannot be connected to host network"):
        requests.check(EndpointRequest("host"), HOST)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/conf/eth0.5/forwarding", "net/ipv4/conf/eth0.5/forwarding"),
        ("net.ipv4.conf.eth0/5.forwarding", "net/ipv4/conf/eth0.5/forwarding"),
    ],
)
def test_sysctl_paths(name, path):
    assert sysctls.path_of(name) == path


@pytest.mark.parametrize(
    "name",
    [
        "kernel.shmmax",
        "net",
        "net.ipv4",
        "net..ipv4.x",
        "net.ipv4.../../kernel",
        "net/../kernel/core_pattern",
        "net/./a/b",
        "",
    ],
)
def test_what_is_no_network_sysctl_is_refused(name):
    with pytest.raises(InvalidArgument):
        sysctls.path_of(name)


def test_other_sysctls_are_somebody_elses():
    assert sysctls.network_only({"kernel.msgmax": "1", "net.ipv4.ip_forward": "1"}) == {"net/ipv4/ip_forward": "1"}


LINKS = "can't be used with links. This would result in undefined behavior"


@pytest.mark.parametrize(
    ("mode", "config", "host", "message"),
    [
        ("container:x", {"hostname": "h"}, {}, "conflicting options: hostname and the network mode"),
        (
            "container:x",
            {},
            {"dns": ["1.1.1.1"], "extra_hosts": ["a:1.1.1.1"]},
            "conflicting options: dns and the network mode",
        ),
        (
            "container:x",
            {"exposed_ports": {"80/tcp": {}}},
            {"extra_hosts": ["a:1.1.1.1"]},
            "conflicting options: custom host-to-IP mapping and the network mode",
        ),
        (
            "container:x",
            {},
            {"publish_all_ports": True},
            "conflicting options: port publishing and the container type network mode",
        ),
        (
            "container:x",
            {"exposed_ports": {"80/tcp": {}}},
            {},
            "conflicting options: port exposing and the container type network mode",
        ),
        ("container:x", {}, {"links": ["a:b"]}, f"conflicting options: container type network {LINKS}"),
        ("host", {}, {"links": ["a:b"]}, f"conflicting options: host type networking {LINKS}"),
        ("container:", {}, {}, "invalid network mode: invalid container format container:<name|id>"),
        ("host", {"hostname": "h"}, {"dns": ["1.1.1.1"], "publish_all_ports": True}, None),
        ("bridge", {"hostname": "h", "exposed_ports": {"80/tcp": {}}}, {"links": ["a:b"], "dns": ["1.1.1.1"]}, None),
        ("container:x", {}, {}, None),
    ],
)
def test_what_a_network_mode_cannot_give(mode, config, host, message):
    asked = ContainerConfig(**config), HostConfig(network_mode=mode, **host)
    if message is None:
        requests.check_mode(*asked)
        return
    with pytest.raises(InvalidArgument) as caught:
        requests.check_mode(*asked)
    assert caught.value.message == message
