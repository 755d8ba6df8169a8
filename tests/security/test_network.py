"""Attacks on published ports and on the rules that keep networks apart."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.kernel.isolation import command, inside, isolated
from tests.kernel.network.firewall.world import (
    HOST,
    HOST6,
    NEIGHBOUR,
    NEIGHBOUR6,
    World,
    publish,
    seen,
    shut,
)
from wherry.errors import EngineError, InvalidArgument, SystemFailure
from wherry.models.container import PortBinding
from wherry.network import ports
from wherry.network.config import NetworkConfig
from wherry.network.controller import Networks
from wherry.store.database import Database

pytestmark = pytest.mark.root

HOSTILE = ("80\n", "80 ", "80;reboot", "$(reboot)", "-j ACCEPT", "80 -j", "8" * 10240, "٨٠", "-80", '80"', "0x50")


@pytest.fixture(params=["nftables", "iptables"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], World]]:
    """Make a host with an engine of each backend and a neighbour; inside of the test's namespace."""
    with ExitStack() as stack:

        def make() -> World:
            database = Database(tmp_path / "meta.db")
            stack.callback(database.close)
            networks = Networks(database, NetworkConfig(stock=0, firewall=request.param), tmp_path)
            networks.start()
            networks.restore([])
            stack.callback(networks.stop, remove=True)
            stack.callback(networks.settle)
            stack.callback(lambda: [networks.close_sandbox(each) for each in list(networks._members.groups())])
            return World(networks, stack)

        yield make


@isolated
def test_nw01_a_neighbour_reaches_published_ports_alone_and_by_the_hosts_address_alone(world):
    here = world()
    here.network("n", "10.1.0.0/24", six="fd12::/64")
    box = here.container("n", publish(80, 18080), publish(80, 18081, address="127.0.0.1"))
    for port in (80, 81):
        here.serving(box.netns_fd, port)
    here.route("10.1.0.0/24")
    here.route("fd12::/64")
    assert seen(here.neighbour, HOST, 18080) == NEIGHBOUR
    assert seen(here.neighbour, HOST6, 18080) == NEIGHBOUR6
    assert seen(None, "127.0.0.1", 18081), "it serves"
    for address in ("10.1.0.2", "fd12::2"):
        for port in (80, 81):
            assert shut(here.neighbour, address, port), (address, port)
    for address in (HOST, HOST6):
        assert shut(here.neighbour, address, 18081)

    def roundabout() -> None:
        command("ip", "addr", "del", "127.0.0.1/8", "dev", "lo")
        command("sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1")
        command("ip", "route", "add", "127.0.0.0/8", "via", HOST, "src", NEIGHBOUR)

    inside(here.neighbour, roundabout)
    assert shut(here.neighbour, "127.0.0.1", 18081)


@isolated
def test_nw02_link_local_addresses_lead_to_no_other_network(world):
    here = world()
    here.network("a", "10.1.0.0/24", six="fd12::/64")
    here.network("b", "10.2.0.0/24", six="fd12:0:0:1::/64")
    here.network("shut", "10.3.0.0/24", six="fd12:0:0:2::/64", internal=True)
    one, far, closed = here.container("a"), here.container("b"), here.container("shut")
    here.serving(far.netns_fd, 80)
    local = inside(far.netns_fd, lambda: command("sh", "-c", "ip -6 -o addr show dev eth0 scope link"))
    found = re.search(r"fe80:[0-9a-f:]+", local)
    assert found is not None
    for box in (one, closed):
        gateway = inside(box.netns_fd, lambda: command("ip", "-6", "route"))
        assert "eth0" in gateway
        inside(box.netns_fd, lambda: command("ip", "route", "replace", f"{found[0]}/128", "dev", "eth0"))
        for address in (f"{found[0]}%eth0", far.endpoints[0].ipv6, far.endpoints[0].ipv4):
            assert not inside(box.netns_fd, lambda address=address: _reaches(address))


def _reaches(address: str) -> bool:
    family, kind, _, _, place = socket.getaddrinfo(address, 80, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind) as client:
        client.settimeout(0.3)
        try:
            client.connect(place)
        except OSError:
            return False
        return True


@isolated
def test_nw03_a_flush_of_all_rules_while_containers_run_is_undone(world):
    here = world()
    here.network("n", "10.1.0.0/24", six="fd12::/64")
    box = here.container("n", publish(80, 18080))
    here.serving(box.netns_fd, 80)
    here.route("10.1.0.0/24")
    here.route("fd12::/64")
    assert seen(here.neighbour, HOST6, 18080) == NEIGHBOUR6
    command("nft", "flush", "ruleset")
    here.networks.refresh_firewall()
    for host, who, address in ((HOST, NEIGHBOUR, "10.1.0.2"), (HOST6, NEIGHBOUR6, "fd12::2")):
        assert seen(here.neighbour, host, 18080) == who
        assert shut(here.neighbour, address, 80)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_nw04_what_is_no_port_or_address_becomes_no_rule(text):
    with pytest.raises(InvalidArgument):
        ports.requests({text: [PortBinding("", "8080")]})
    with pytest.raises(InvalidArgument):
        ports.requests({"80/tcp": [PortBinding("", text)]})
    with pytest.raises(EngineError):
        ports.requests({"80/tcp": [PortBinding(text, "8080")]})


@isolated
def test_nw06_no_container_gets_a_port_of_the_host_or_of_another_in_either_family(world):
    here = world()
    here.network("n", "10.1.0.0/24", six="fd12::/64")
    here.serving(None, 18070)  # as the engine's own TCP socket would
    for address in ("", "0.0.0.0", "::", HOST, HOST6):
        with pytest.raises(SystemFailure, match="address already in use"):
            here.container("n", publish(80, 18070, address=address))
    here.container("n", publish(80, 18080))
    for address in ("", "0.0.0.0", "::", HOST, HOST6):
        with pytest.raises(SystemFailure, match="port is already allocated"):
            here.container("n", publish(80, 18080, address=address))


@pytest.mark.parametrize("name", ["../../x", "..", "-x", "a" * 16, "a/b", "a b", "a\n", "eth%d", "b;reboot", "\u0661"])
@isolated
def test_nw05_a_bridge_name_is_a_name_or_refused(world, name):
    here = world()
    before = command("ip", "-o", "link"), command("nft", "list", "ruleset")
    with pytest.raises(InvalidArgument, match="invalid bridge name"):
        here.network("n", "10.1.0.0/24", bridge=name)
    assert (command("ip", "-o", "link"), command("nft", "list", "ruleset")) == before


@isolated
def test_nw05_a_link_that_is_no_bridge_is_not_taken_over(world):
    here = world()
    command("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth9")
    command("ip", "addr", "add", "203.0.113.1/24", "dev", "eth0")
    before = command("ip", "-o", "addr", "show", "dev", "eth0")
    with pytest.raises(EngineError):
        here.network("n", "10.1.0.0/24", bridge="eth0")
    assert command("ip", "-o", "addr", "show", "dev", "eth0") == before
    assert "eth0" not in command("nft", "list", "ruleset")
