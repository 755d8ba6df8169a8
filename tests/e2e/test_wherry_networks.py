"""wherry network, and the network flags of wherry run: beside docker's answers, and by what is there afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.e2e.test_wherry_cli import docker_major, out, wherry
from tests.engine import Engine
from tests.kernel.isolation import ip

pytestmark = [
    pytest.mark.root,
    pytest.mark.engine,
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),
]


@pytest.fixture
def networks(engine: Engine) -> Iterator[Engine]:
    yield engine
    engine.remove_all()
    assert engine.run("network", "prune", "-f").returncode == 0


SAME = [
    ["network", "ls"],
    ["network", "ls", "--no-trunc"],
    ["network", "list", "-q", "--filter", "driver=bridge"],
    ["network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Internal}} {{.IPv6}} {{.Labels}} {{.CreatedAt}}"],
    ["network", "ls", "--format", "{{.ID}} {{.Label \"a\"}}"],
    ["network", "ls", "--format", "table {{.Name}}\t{{.Scope}}"],
    ["network", "ls", "--filter", "foo"],
    ["network", "ls", "--filter", "foo=bar"],
    ["network", "inspect", "same"],
    ["network", "inspect", "same", "nosuch"],
    ["network", "inspect", "-f", "{{.Name}} {{(index .IPAM.Config 0).Subnet}} {{json .Labels}}", "same"],
    ["network", "inspect", "-f", "{{range .Containers}}{{.Name}} {{.IPv4Address}}{{end}}", "same"],
    ["network", "create"],
    ["network", "create", "same"],
    ["network", "create", "bridge"],
    ["network", "create", "-d", "nosuch", "other"],
    ["network", "create", "--subnet", "10.213.0.0/24", "--gateway", "10.9.0.1", "other"],
    ["network", "create", "--subnet", "10.213.0.0/24", "--ip-range", "10.9.0.0/28", "other"],
    ["network", "create", "--subnet", "10.213.0.0/24", "--aux-address", "a=10.9.0.9", "other"],
    ["network", "create", "--gateway", "10.9.0.1", "other"],
    ["network", "create", "--subnet", "bad", "other"],
    ["network", "create", "--ingress", "other"],
    ["network", "rm", "bridge", "nosuch"],
    ["network", "rm", "-f", "nosuch"],
    ["network", "rm", "same"],
    ["network", "connect", "same"],
    ["network", "connect", "same", "nosuch"],
    ["network", "connect", "nosuch", "in"],
    ["network", "connect", "--driver-opt", "x", "same", "in"],
    ["network", "connect", "--gw-priority", "x", "same", "in"],
    ["network", "disconnect", "same", "nosuch"],
    ["network", "disconnect", "-f", "same", "nosuch"],
    ["network", "disconnect", "bridge", "in"],
    ["network", "prune", "-f", "--filter", "label=nosuch"],
]  # fmt: skip


def run_both(engine: Engine, words: list[str]) -> tuple[object, object]:
    """What wherry and docker say; at the end of network rm docker prints the text of its own exit, which is a slip."""
    ran, theirs = wherry(engine, *words), engine.run(*words)
    stderr = theirs.stderr.replace("docker", "wherry").removesuffix("exit status 1\n")
    ours = (ran.returncode, ran.stdout.decode(), ran.stderr.decode())
    return ours, (theirs.returncode, theirs.stdout, stderr)


def test_the_same_words_give_the_same_answers_as_docker(networks: Engine) -> None:
    if docker_major() < 28:
        pytest.skip("older clients say it in other words")
    out(networks, "network", "create", "--subnet", "10.231.0.0/24", "--label", "a=b", "same")
    out(networks, "run", "-d", "--name", "in", "--network", "same", "busybox", "sleep", "1000")
    for words in SAME:
        ours, theirs = run_both(networks, words)
        assert ours == theirs, words


def test_a_network_as_it_was_asked_for(networks: Engine) -> None:
    words = ["--subnet", "10.233.0.0/24", "--gateway", "10.233.0.254", "--ip-range", "10.233.0.64/28"]
    words += ["--aux-address", "router=10.233.0.64", "-o", "com.docker.network.driver.mtu=1400", "--label", "tier=db"]
    identity = out(networks, "network", "create", *words, "asked")
    bridge = f"br-{identity[:12]}"
    (link,) = (each for each in ip("addr") if each["ifname"] == bridge)
    assert link["mtu"] == 1400
    assert [(each["local"], each["prefixlen"]) for each in link["addr_info"] if each["family"] == "inet"] == [
        ("10.233.0.254", 24)
    ]
    out(networks, "run", "-d", "--name", "first", "--network", "asked", "busybox", "sleep", "1000")
    told = out(networks, "inspect", "-f", '{{(index .NetworkSettings.Networks "asked").IPAddress}}', "first")
    assert told == "10.233.0.65"  # the first of the range is the router's
    assert out(networks, "network", "ls", "-q", "--no-trunc", "--filter", "label=tier=db") == identity
    assert wherry(networks, "network", "rm", "asked").returncode == 1
    out(networks, "rm", "-f", "first")
    assert out(networks, "network", "rm", "asked") == "asked"
    assert bridge not in {each["ifname"] for each in ip("link")}


def test_connect_and_disconnect_while_it_runs(networks: Engine) -> None:
    out(networks, "network", "create", "--subnet", "10.235.0.0/24", "front")
    out(networks, "network", "create", "--subnet", "10.236.0.0/24", "back")
    out(networks, "run", "-d", "--name", "web", "--network", "front", "busybox", "sleep", "1000")
    out(networks, "run", "-d", "--name", "db", "--network", "back", "busybox", "sleep", "1000")
    assert out(networks, "network", "connect", "--ip", "10.236.0.77", "--alias", "shop", "back", "web") == ""
    assert "10.236.0.77/24" in out(networks, "exec", "web", "ip", "-o", "-4", "addr")
    assert "10.236.0.77" in out(networks, "exec", "db", "nslookup", "shop")
    out(networks, "exec", "db", "ping", "-c", "4", "-W", "2", "shop")
    assert out(networks, "network", "disconnect", "back", "web") == ""
    assert "10.236.0.77" not in out(networks, "exec", "web", "ip", "-o", "-4", "addr")
    assert wherry(networks, "exec", "db", "ping", "-c", "1", "-W", "1", "10.236.0.77").returncode == 1


def test_the_network_flags_of_run(networks: Engine) -> None:
    out(networks, "network", "create", "--subnet", "10.237.0.0/24", "front")
    out(networks, "network", "create", "--subnet", "10.238.0.0/24", "back")
    words = ["--network", "name=front,ip=10.237.0.9,mac-address=02:00:00:00:00:09,alias=www", "--network", "back"]
    words += ["--dns", "10.237.0.53", "--dns-search", "corp.example", "--dns-option", "ndots:3"]
    words += ["--add-host", "mirror=192.0.2.7"]
    out(networks, "run", "-d", "--name", "web", *words, "busybox", "sleep", "1000")
    inside = out(networks, "exec", "web", "ip", "-o", "addr")
    assert "10.237.0.9/24" in inside
    assert "10.238.0." in inside
    assert "02:00:00:00:00:09" in out(networks, "exec", "web", "ip", "-o", "link")
    resolver = out(networks, "exec", "web", "cat", "/etc/resolv.conf")
    assert "search corp.example" in resolver
    assert "ndots:3" in resolver
    assert "192.0.2.7\tmirror" in out(networks, "exec", "web", "cat", "/etc/hosts")
    out(networks, "run", "--rm", "--network", "front", "busybox", "ping", "-c", "4", "-W", "2", "www")
    (entry,) = json.loads(out(networks, "network", "inspect", "front"))
    assert [each["IPv4Address"] for each in entry["Containers"].values()] == ["10.237.0.9/24"]


def test_prune_takes_what_nobody_is_in(networks: Engine) -> None:
    for name in ("used", "idle"):
        out(networks, "network", "create", name)
    out(networks, "run", "-d", "--name", "in", "--network", "used", "busybox", "sleep", "1000")
    assert wherry(networks, "network", "prune", data=b"n\n").returncode == 0
    assert "idle" in out(networks, "network", "ls", "--format", "{{.Name}}").split()
    assert out(networks, "network", "prune", "-f") == "Deleted Networks:\nidle\n"
    assert "idle" not in out(networks, "network", "ls", "--format", "{{.Name}}").split()


def test_an_image_that_exposes_ports_can_share_a_network(networks: Engine) -> None:
    out(networks, "run", "-d", "--name", "web", "busybox", "sleep", "1000")
    networks.docker("commit", "-c", "EXPOSE 80", "web", "exposed")
    shared = out(networks, "run", "--rm", "--network", "container:web", "exposed", "readlink", "/proc/self/ns/net")
    assert shared == out(networks, "exec", "web", "readlink", "/proc/self/ns/net")
    refused = wherry(networks, "run", "--rm", "--expose", "90", "--network", "container:web", "busybox", "true")
    assert b"conflicting options: port exposing and the container type network mode" in refused.stderr
    networks.docker("rmi", "exposed")
