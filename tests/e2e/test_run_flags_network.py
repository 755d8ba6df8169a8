"""docker run flags about the network of a container, on the networks that are always there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.engine import Engine

pytestmark = [pytest.mark.root, pytest.mark.engine]


def cat(engine: Engine, path: str, *flags: str) -> str:
    """Return a file as a container with these flags sees it."""
    return engine.docker("run", "--rm", *flags, "busybox", "cat", path)


def test_network_none_host_and_of_another_container(engine: Engine):
    assert engine.docker("run", "--rm", "--network", "none", "busybox", "ls", "/sys/class/net") == "lo"
    link = ("busybox", "readlink", "/proc/self/ns/net")
    assert engine.docker("run", "--rm", "--network", "host", *link) == os.readlink("/proc/self/ns/net")
    engine.docker("run", "-d", "--name", "aa", "busybox", "sleep", "1000")
    pid = engine.docker("inspect", "-f", "{{.State.Pid}}", "aa")
    shared = engine.docker("run", "--rm", "--network", "container:aa", *link)
    assert shared == os.readlink(f"/proc/{pid}/ns/net")


def test_a_mac_address_is_the_links(engine: Engine):
    words = ("busybox", "cat", "/sys/class/net/eth0/address")
    assert engine.docker("run", "--rm", "--mac-address", "92:d0:c6:0a:29:33", *words) == "92:d0:c6:0a:29:33"
    ran = engine.run("run", "--rm", "--mac-address", "bogus", *words)
    assert (ran.returncode, "bogus is not a valid mac address" in ran.stderr) == (125, True)


def test_name_servers_are_asked(engine: Engine):
    flags = ("--dns", "192.0.2.7", "--dns", "192.0.2.8", "--dns-search", "d.example", "--dns-option", "ndots:3")
    lines = cat(engine, "/etc/resolv.conf", *flags).splitlines()
    assert [line for line in lines if line.startswith("nameserver")] == ["nameserver 192.0.2.7", "nameserver 192.0.2.8"]
    assert "search d.example" in lines
    assert "options ndots:3" in lines


def test_added_hosts_resolve(engine: Engine):
    flags = ("--add-host", "one.example:192.0.2.1", "--add-host", "six.example=2001:db8::1")
    flags += ("--add-host", "me.example:host-gateway")
    script = "getent hosts one.example 2>/dev/null || grep one.example /etc/hosts; grep -c six.example /etc/hosts"
    out = engine.docker("run", "--rm", *flags, "busybox", "sh", "-c", f"{script}; ping -c 1 -W 2 me.example")
    assert "192.0.2.1" in out
    assert "0% packet loss" in out


def test_exposed_ports_are_known_and_open_nothing(engine: Engine):
    engine.docker("run", "-d", "--name", "aa", "--expose", "80", "--expose", "90-91/udp", "busybox", "sleep", "1000")
    kept = engine.docker("inspect", "-f", "{{json .Config.ExposedPorts}}", "aa")
    assert kept == '{"80/tcp":{},"90/udp":{},"91/udp":{}}'
    pid = engine.docker("inspect", "-f", "{{.State.Pid}}", "aa")
    assert len(Path(f"/proc/{pid}/net/tcp").read_text().splitlines()) == 1  # nobody listens


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--network", "nosuch"), "network nosuch not found"),
        (("--ip", "192.0.2.1"), "user specified IP address is supported on user defined networks only"),
        (("--ip6", "2001:db8::1"), "user specified IP address is supported on user defined networks only"),
        (("--dns", "x"), "IP address is not correctly formatted: x"),
        (("--add-host", "x"), 'bad format for add-host: "x"'),
        (("--expose", "x"), "invalid range format for --expose: x"),
    ],
)
def test_what_cannot_be(engine: Engine, flags: tuple[str, ...], text: str):
    ran = engine.run("run", "--rm", *flags, "busybox", "true")
    assert (ran.returncode, text in ran.stderr) == (125, True), ran.stderr
    assert engine.docker("ps", "-aq") == ""


def test_a_disabled_network_is_none(engine: Engine):
    """ContainerConfig.NetworkDisabled, for which the command line has no flag any more."""
    body = '{"Image":"busybox","Cmd":["ls","/sys/class/net"],"NetworkDisabled":true}'
    assert engine.api("POST", "/containers/create?name=aa", body)[0] == 201
    assert engine.docker("start", "-a", "aa") == "lo"
