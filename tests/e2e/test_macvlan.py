"""macvlan networks as a user makes them, on a link whose other end is the world outside."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from tests.engine import Engine
from tests.kernel.isolation import command, inside, new_namespace
from wherry.kernel.netlink import link
from wherry.kernel.netlink.socket import NetlinkSocket

pytestmark = [pytest.mark.root, pytest.mark.engine]


@pytest.fixture
def parent(own_engine: Engine) -> Iterator[tuple[str, int]]:
    """The name of a link, and a namespace with its other end, which is the gateway."""
    outside, name = new_namespace(), f"mv{own_engine.tag}"
    with NetlinkSocket() as netlink:
        netlink.apply(link.new_veth(name, link.VethPeer("far0", outside, "02:00:00:00:00:01")))

        def up() -> None:
            command("ip", "addr", "add", "10.79.0.1/24", "dev", "far0")
            command("ip", "link", "set", "far0", "up")

        inside(outside, up)
        yield name, outside
        netlink.apply(link.delete_link(name))
    os.close(outside)


def test_a_macvlan_network(own_engine: Engine, parent: tuple[str, int]):
    name, outside = parent
    own_engine.start()
    own_engine.import_busybox()
    create = ("network", "create", "-d", "macvlan", "-o", f"parent={name}", "--subnet", "10.79.0.0/24")
    own_engine.docker(*create, "--gateway", "10.79.0.1", "lan")
    for container in ("c1", "c2"):
        run = ("run", "-d", "--name", container, "--network", "lan", "-p", "8080:80", "busybox", "sleep", "1000")
        own_engine.docker(*run)
    own_engine.docker("exec", "c1", "ping", "-c1", "-W2", "c2")
    own_engine.docker("exec", "c1", "ping", "-c1", "-W2", "10.79.0.1")
    settings = json.loads(own_engine.docker("inspect", "-f", "{{json .NetworkSettings}}", "c2"))
    endpoint = settings["Networks"]["lan"]
    assert (endpoint["IPAddress"], endpoint["IPPrefixLen"], endpoint["Gateway"]) == ("10.79.0.3", 24, "10.79.0.1")
    assert settings["Ports"] in ({}, {"80/tcp": None}), "it has an address of its own: both could have port 8080"
    inside(outside, lambda: command("busybox", "ping", "-c1", "-W2", endpoint["IPAddress"]))
    seen = inside(outside, lambda: command("ip", "neigh", "show", endpoint["IPAddress"]))
    assert endpoint["MacAddress"] in seen
    (network,) = json.loads(own_engine.docker("network", "inspect", "lan"))
    assert (network["Driver"], network["Options"]) == ("macvlan", {"parent": name})
    assert network["IPAM"]["Config"] == [{"Subnet": "10.79.0.0/24", "Gateway": "10.79.0.1"}]
    own_engine.crash()
    inside(outside, lambda: command("busybox", "ping", "-c1", "-W2", endpoint["IPAddress"]))
    own_engine.start()
    own_engine.docker("restart", "-t", "0", "c2")
    own_engine.docker("exec", "c1", "ping", "-c1", "-W2", "c2")
    address = own_engine.docker("inspect", "-f", "{{.NetworkSettings.Networks.lan.IPAddress}}", "c2")
    inside(outside, lambda: command("busybox", "ping", "-c1", "-W2", address))
    refused = own_engine.run(*create[:-2], "--subnet", "10.80.0.0/24", "-o", "macvlan_mode=passthru", "two")
    assert "cannot use mode passthru, macvlan network" in refused.stderr
    own_engine.docker("rm", "-f", "c1", "c2")
    own_engine.docker("network", "rm", "lan")
