"""Names that a client or an image chooses become one word each, or are refused (NW-04, NW-07)."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.engine import Engine

pytestmark = [pytest.mark.root, pytest.mark.engine]

FIXED = 6
"""Lines that every hosts file begins with."""

WORDS = [
    "a b",
    "a\n1.1.1.1 evil",
    "a\r1.1.1.1",
    "a\tevil",
    "a\x00b",
    "a\x0bb",
    "a\u2028b",
    "a\u00a0b",
    "a#b",
    "a;b",
    "'a",
    '"a',
    "$(id)",
    "`id`",
    "-j",
    "--link",
    "a:b",
    "a=b",
    "a/b",
    "../../etc/passwd",
    "\u00e9\u4e2d",
    "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
    "%s%n",
    "{}",
    "x" * 10240,
    "",
]


@pytest.fixture
def victim(engine: Engine) -> Iterator[Engine]:
    engine.docker("network", "create", "n")
    engine.docker("run", "-d", "--name", "db", "busybox", "sleep", "1000")
    yield engine
    engine.remove_all()
    assert engine.run("network", "prune", "-f").returncode == 0


def ran(engine: Engine, **body) -> tuple[int, str, str]:
    """Create and start a container; return the status that refused it or 204, its hosts file and resolv.conf."""
    wanted = {"Image": "busybox", "Cmd": ["sleep", "1000"], **body}
    status, answer = engine.api("POST", "/containers/create", json.dumps(wanted))
    if status != 201:
        return status, "", ""
    id_ = json.loads(answer)["Id"]
    status, answer = engine.api("POST", f"/containers/{id_}/start")
    if status != 204:
        return status, "", ""
    folder = engine.data_root / "containers" / id_
    texts = [(folder / name).read_text() for name in ("hosts", "resolv.conf")]
    engine.docker("rm", "-f", id_)
    return status, *texts


def extra(hosts: str) -> list[list[str]]:
    return [line.split() for line in hosts.splitlines()[FIXED:]]


def test_a_hostname_is_one_word_of_the_hosts_file(victim: Engine):
    for word in WORDS:
        status, hosts, _ = ran(victim, Hostname=word)
        assert status in (204, 400), (word, status)
        if status == 204 and word:
            ((_, *names),) = extra(hosts)
            assert names[0] == word
            assert len(names) <= 2, names


def test_an_added_host_is_one_line_with_one_name(victim: Engine):
    for word in WORDS:
        status, hosts, _ = ran(victim, HostConfig={"ExtraHosts": [f"{word}:192.0.2.1"]})
        assert status in (204, 400), (word, status)
        if status == 204:
            added, _own = extra(hosts)
            assert added == ["192.0.2.1", word]


def test_an_address_of_an_added_host_or_a_name_server_is_an_address(victim: Engine):
    for text in ("x 1.2.3.4 evil:1.1.1.1", "x:1.1.1.1 evil", "x:1.1.1.1\n2.2.2.2 evil", "x:1.1.1", "x:", "x=::1%a\nb"):
        assert ran(victim, HostConfig={"ExtraHosts": [text]})[0] == 400, text
    for text in ("1.1.1.1\nsearch evil", "1.1.1.1 2.2.2.2", "1.1.1", "localhost", "", "::1%eth0\nsearch evil", "-1"):
        assert ran(victim, HostConfig={"Dns": [text]})[0] == 400, text


@pytest.mark.parametrize("network", ["bridge", "n"])
def test_a_search_domain_and_an_option_are_one_word(victim: Engine, network: str):
    for word in WORDS:
        asked = {"DnsSearch": [word], "DnsOptions": [word], "NetworkMode": network}
        status, _, resolv = ran(victim, HostConfig=asked)
        assert status in (204, 400), (word, status)
        if status == 204 and word:
            lines = [line.split() for line in resolv.splitlines() if line and not line.startswith("#")]
            assert {line[0] for line in lines} <= {"nameserver", "search", "options"}, lines
            assert all(len(line) == 2 for line in lines if line[0] != "options"), lines
            assert ["search", word] in lines


def test_a_link_is_one_word_of_the_hosts_file_and_of_a_variable(victim: Engine):
    for word in WORDS:
        status, hosts, _ = ran(victim, HostConfig={"Links": [f"db:{word}"]})
        assert status in (204, 400), (word, status)
        if status == 204:
            linked, _own = extra(hosts)
            assert linked[1] == word
            assert len(linked) == 4, linked
        settings = {"EndpointsConfig": {"n": {"Links": [f"db:{word}"]}}}
        assert ran(victim, HostConfig={"NetworkMode": "n"}, NetworkingConfig=settings)[0] == status, word


def test_an_alias_means_nothing_to_anybody_else(victim: Engine):
    """It is in the memory of the name server alone, which goes on, and in no file and no rule."""
    settings = {"EndpointsConfig": {"n": {"Aliases": [*WORDS, "fine"]}}}
    body = {"HostConfig": {"NetworkMode": "n"}, "NetworkingConfig": settings}
    wanted = {"Image": "busybox", "Cmd": ["sleep", "1000"], **body}
    status, answer = victim.api("POST", "/containers/create?name=asker", json.dumps(wanted))
    assert status == 201, answer
    victim.docker("start", "asker")
    assert len(extra(victim.docker("exec", "asker", "cat", "/etc/hosts"))) == 1
    assert "Address: " in victim.docker("exec", "asker", "nslookup", "fine").partition("\n\n")[2]


def test_a_network_is_called_so_or_not_at_all(victim: Engine):
    for word in filter(None, WORDS):
        status, answer = victim.api("POST", "/networks/create", json.dumps({"Name": word}))
        assert status in (201, 400), (word, answer)
        if status == 201:
            id_ = json.loads(answer)["Id"]
            found = json.loads(victim.api("GET", f"/networks/{id_}")[1])
            assert found["Name"] == word
            assert victim.api("DELETE", f"/networks/{id_}")[0] == 204
