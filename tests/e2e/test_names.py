"""Names through the unmodified docker CLI: links, what the name server answers to dig, what leaves the host."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.engine import Engine

pytestmark = [pytest.mark.root, pytest.mark.engine]

HOSTS = 6
"""Lines that every hosts file begins with."""


@pytest.fixture
def names(engine: Engine) -> Iterator[Engine]:
    yield engine
    engine.remove_all()
    assert engine.run("network", "prune", "-f").returncode == 0


def start(engine: Engine, name: str, *flags: str) -> None:
    engine.docker("run", "-d", "--name", name, *flags, "busybox", "sleep", "1000")


def hosts(engine: Engine, name: str) -> list[str]:
    return engine.docker("exec", name, "cat", "/etc/hosts").splitlines()[HOSTS:]


def address(engine: Engine, name: str, network: str = "bridge") -> str:
    wanted = '{{(index .NetworkSettings.Networks "' + network + '").IPAddress}}'
    return engine.docker("inspect", "-f", wanted, name)


def links(engine: Engine, name: str) -> list[str] | None:
    return json.loads(engine.docker("inspect", "-f", "{{json .HostConfig.Links}}", name))


def variables(engine: Engine, name: str, prefix: str) -> dict[str, str]:
    found = dict(line.split("=", 1) for line in engine.docker("exec", name, "env").splitlines())
    return {key: value for key, value in found.items() if key.startswith(prefix)}


def lookup(engine: Engine, asker: str, name: str) -> set[str]:
    """The addresses that a container gets for a name."""
    text = engine.run("exec", asker, "nslookup", name, timeout=30).stdout
    answer = text.partition("\n\n")[2]
    return {line.split()[-1] for line in answer.splitlines() if line.startswith("Address: ")}


# ---- links on the default bridge


def test_a_link_on_the_default_bridge(names: Engine):
    start(names, "db", "-h", "dbhost", "-e", "FOO=bar", "-e", "X-Y=z", "--expose", "80", "--expose", "53/udp")
    start(names, "web", "--link", "db:my-db", "--link", "db", "--add-host", "first:192.0.2.1")
    there = address(names, "db")
    own = [f"{address(names, 'web')}\t{names.docker('inspect', '-f', '{{.Config.Hostname}}', 'web')}"]
    linked = [f"{there}\tmy-db dbhost db", f"{there}\tdb dbhost"]
    assert hosts(names, "web") == ["192.0.2.1\tfirst", *linked, *own]
    assert variables(names, "web", "MY_DB_") == {
        "MY_DB_PORT": f"tcp://{there}:80",
        "MY_DB_PORT_80_TCP": f"tcp://{there}:80",
        "MY_DB_PORT_80_TCP_ADDR": there,
        "MY_DB_PORT_80_TCP_PORT": "80",
        "MY_DB_PORT_80_TCP_PROTO": "tcp",
        "MY_DB_PORT_53_UDP": f"udp://{there}:53",
        "MY_DB_PORT_53_UDP_ADDR": there,
        "MY_DB_PORT_53_UDP_PORT": "53",
        "MY_DB_PORT_53_UDP_PROTO": "udp",
        "MY_DB_NAME": "/web/my-db",
        "MY_DB_ENV_FOO": "bar",
        "MY_DB_ENV_X-Y": "z",
    }
    assert links(names, "web") == ["/db:/web/my-db", "/db:/web/db"]
    assert links(names, "db") is None
    names.docker("exec", "web", "ping", "-c", "1", "-W", "2", "my-db")
    known = [each["Names"] for each in json.loads(names.api("GET", "/containers/json")[1])]
    assert sorted(known) == [["/db", "/web/db", "/web/my-db"], ["/web"]]
    assert names.docker("inspect", "-f", "{{.Name}}", "web/my-db") == "/db"


def test_a_link_follows_to_another_address(names: Engine):
    start(names, "db")
    start(names, "web", "--link", "db:store")
    before = address(names, "db")
    names.docker("stop", "-t", "0", "db")
    start(names, "taker")
    names.docker("start", "db")
    after = address(names, "db")
    assert after != before
    host = names.docker("inspect", "-f", "{{.Config.Hostname}}", "db")
    assert hosts(names, "web")[0] == f"{after}\tstore {host} db"
    assert before not in "".join(hosts(names, "web"))
    names.docker("exec", "web", "ping", "-c", "1", "-W", "2", "store")
    names.docker("restart", "-t", "0", "web")
    assert variables(names, "web", "STORE_NAME") == {"STORE_NAME": "/web/store"}
    assert hosts(names, "web")[0] == f"{after}\tstore {host} db"


def test_links_outlive_the_engine_and_renaming(names: Engine):
    start(names, "db")
    start(names, "web", "--link", "db:store")
    names.docker("rename", "db", "base")
    names.docker("rename", "web", "front")
    names.crash()
    names.start()
    assert links(names, "front") == ["/base:/front/store"]
    names.docker("restart", "-t", "0", "base")
    assert hosts(names, "front")[0].split()[:2] == [address(names, "base"), "store"]


def test_a_link_is_removed(names: Engine):
    start(names, "db")
    start(names, "web", "--link", "db:one", "--link", "db:two")
    assert names.docker("rm", "--link", "web/one") == "web/one"
    assert links(names, "web") == ["/db:/web/two"]
    assert [line.split()[1] for line in hosts(names, "web")][:1] == ["two"]
    assert lookup(names, "web", "one") == set()
    for ref, text in (
        ("web/one", "No such container: web/one"),
        ("nosuch/x", "No such container: nosuch"),
        ("web", "Conflict, cannot remove the default link name of the container"),
    ):
        assert text in names.run("rm", "--link", ref).stderr
    assert address(names, "db"), "what it led to is untouched"


def test_a_container_does_not_start_without_those_that_it_links_to(names: Engine):
    names.docker("create", "--name", "db", "busybox", "sleep", "1000")
    names.docker("create", "--name", "web", "--link", "db:store", "busybox", "sleep", "1000")
    text = "Cannot link to a non running container: /db AS /web/store"
    assert text in names.run("start", "web").stderr
    names.docker("start", "db")
    names.docker("start", "web")
    names.docker("rm", "-f", "db")
    assert links(names, "web") == ["/db:/web/store"]
    assert f"Cannot restart container web: {text}" in names.run("restart", "-t", "0", "web").stderr


def test_a_command_in_a_container_whose_link_has_ended(names: Engine):
    start(names, "db", "-e", "A=b")
    start(names, "web", "--link", "db:store")
    assert variables(names, "web", "STORE_ENV") == {"STORE_ENV_A": "b"}
    names.docker("stop", "-t", "0", "db")
    assert variables(names, "web", "STORE") == {}


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--link", "nosuch:x"), "could not get container for nosuch: No such container: nosuch"),
        (("--link", "db:a b"), "bad format for links"),
        (("--link", "db:a=b"), "bad format for links"),
        (("--link", "onhost:x"), "conflicting options: host type networking can't be used with links"),
        (("--link", "db:x", "--network", "host"), "conflicting options: host type networking can't be used with links"),
        (("--link", "inside:x"), "not attached to default bridge network"),
        (("--link", "db:a b", "--network", "n"), "bad format for links"),
    ],
)
def test_links_that_cannot_be(names: Engine, flags, text):
    names.docker("network", "create", "n")
    start(names, "db")
    start(names, "onhost", "--network", "host")
    start(names, "inside", "--network", "n")
    assert text in names.run("run", "--rm", *flags, "busybox", "true").stderr


def test_linked_containers_that_are_kept_apart_reach_what_is_exposed(own_engine: Engine):
    own_engine.flags = ("--icc=false",)
    own_engine.start()
    own_engine.import_busybox()
    serve = ("sh", "-c", "for port in 80 81; do (while true; do echo $port | nc -l -p $port; done) & done; wait")
    own_engine.docker("run", "-d", "--name", "db", "--expose", "80", "busybox", *serve)
    start(own_engine, "web", "--link", "db:store")
    start(own_engine, "other")

    def reached(name: str, place: str) -> bool:
        asked = own_engine.run("exec", name, "sh", "-c", f"nc -w 1 {place} </dev/null", timeout=30)
        return asked.stdout.strip() == place.split()[1]

    there = address(own_engine, "db")
    assert reached("web", "store 80")
    assert not reached("web", "store 81"), "not exposed"
    assert not reached("other", f"{there} 80"), "not linked"
    own_engine.crash()
    own_engine.start()
    assert reached("web", "store 80")
    own_engine.docker("restart", "-t", "0", "web")
    assert reached("web", "store 80")
    own_engine.docker("rm", "--link", "web/store")
    assert not reached("web", f"{there} 80")


# ---- links in networks of the user


def test_a_link_in_a_network_of_the_user(names: Engine):
    names.docker("network", "create", "n")
    start(names, "web", "--network", "n", "--link", "later:store", "--link", "db")
    start(names, "other", "--network", "n")
    found = json.loads(names.docker("inspect", "-f", "{{json .}}", "web"))
    assert found["HostConfig"]["Links"] is None
    assert found["NetworkSettings"]["Networks"]["n"]["Links"] == ["later:store", "db"]
    assert lookup(names, "web", "store") == set(), "it is not there yet"
    start(names, "later", "--network", "n")
    there = {address(names, "later", "n")}
    assert lookup(names, "web", "store") == lookup(names, "web", "store.n") == there
    assert lookup(names, "other", "store") == set(), "nobody else calls it so"
    assert variables(names, "web", "STORE") == {}
    names.docker("network", "connect", "--link", "later:mine", "n", _connectable(names))
    assert lookup(names, "late", "mine") == there
    names.crash()
    names.start()
    assert lookup(names, "web", "store") == there
    names.docker("restart", "-t", "0", "web")
    assert lookup(names, "web", "store") == there


def _connectable(engine: Engine) -> str:
    start(engine, "late")
    return "late"


def test_names_have_addresses_of_both_families(names: Engine):
    names.docker("network", "create", "--ipv6", "n")
    start(names, "aa", "--network", "n")
    start(names, "bb", "--network", "n", "--network-alias", "web", "--add-host", "six:2001:db8::6")
    found = json.loads(names.docker("inspect", "-f", "{{json .NetworkSettings.Networks.n}}", "bb"))
    both = {found["IPAddress"], found["GlobalIPv6Address"]}
    assert lookup(names, "aa", "bb") == lookup(names, "aa", "web") == both
    assert "name = bb.n" in names.docker("exec", "aa", "nslookup", found["GlobalIPv6Address"])
    names.docker("exec", "aa", "ping", "-6", "-c", "1", "-W", "2", "bb")
    own = names.docker("inspect", "-f", "{{.Config.Hostname}}", "bb")
    assert hosts(names, "bb") == [
        "2001:db8::6\tsix",
        f"{found['IPAddress']}\t{own}",
        f"{found['GlobalIPv6Address']}\t{own}",
    ]


def test_link_local_addresses(names: Engine):
    names.docker("network", "create", "n")
    start(names, "aa", "--network", "n", "--link-local-ip", "169.254.7.7")
    assert "169.254.7.7/16" in names.docker("exec", "aa", "ip", "addr", "show", "eth0")
    asked = '{{json (index .NetworkSettings.Networks "n").IPAMConfig.LinkLocalIPs}}'
    assert json.loads(names.docker("inspect", "-f", asked, "aa")) == ["169.254.7.7"]
    start(names, "bb", "--network", "n", "--link-local-ip", "169.254.7.8")
    names.docker("exec", "bb", "ping", "-c", "1", "-W", "2", "169.254.7.7")
    refused = names.run("run", "--rm", "--network", "n", "--link-local-ip", "1.2.3", "busybox", "true")
    assert "invalid config for network n: invalid endpoint settings:\ninvalid link-local IP address: 1.2.3" in (
        refused.stderr
    )
    refused = names.run("run", "--rm", "--network", "n", "--link-local-ip", "10.1.2.3", "busybox", "true")
    assert "invalid link local IP address: 10.1.2.3" in refused.stderr
