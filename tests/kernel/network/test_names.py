"""The name server as programs in a container see it: dig asks, dnsmasq answers for the rest of the world."""

from __future__ import annotations

import contextlib
import os
import random
import re
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kernel.isolation import command, inside, isolated
from wherry.kernel import mountapi, namespaces
from wherry.kernel.const import CLONE_NEWNS
from wherry.models.network import CreateNetwork, Ipam, IpamPool
from wherry.network.api import EndpointRequest, SandboxRequest
from wherry.network.config import NetworkConfig
from wherry.network.controller import Networks
from wherry.store.database import Database

pytestmark = pytest.mark.root

SERVER = "127.0.0.11"
DUAL = CreateNetwork(
    name="net", enable_ipv6=True, ipam=Ipam(config=[IpamPool(subnet="10.9.0.0/24"), IpamPool(subnet="fd09::/64")])
)
FOREIGN = "www.example.org"
MS_REC, MS_PRIVATE, MS_BIND = 0x4000, 1 << 18, 4096


def opened(networks, container: str, *names: str, network: str = "net", **more):
    asked = EndpointRequest(network, names=(container, *names), **{k: v for k, v in more.items() if k != "nameservers"})
    return networks.open_sandbox(SandboxRequest(container, (asked,), nameservers=more.get("nameservers", ())))


def dig(box, *words: str) -> str:
    return inside(box.netns_fd, lambda: command("dig", f"@{SERVER}", "+time=8", "+tries=1", *words))


def short(box, *words: str) -> set[str]:
    return set(dig(box, "+short", *words).split())


def status(text: str) -> tuple[str, int]:
    """The code of an answer and how many records it has."""
    code, count = re.search(r"status: (\w+)", text), re.search(r"ANSWER: (\d+)", text)
    assert code, text
    assert count, text
    return code[1], int(count[1])


@contextmanager
def dnsmasq(*addresses: str, answer: str = "192.0.2.7", more: tuple[str, ...] = ()) -> Iterator[None]:
    """A real server for example.org, and .test of which there are no names but those of `more`."""
    flags = ["--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--bind-interfaces", "--user=root"]
    flags += [f"--listen-address={each}" for each in addresses]
    flags += [f"--address=/example.org/{answer}", "--local=/test/", *more]
    process = subprocess.Popen(["dnsmasq", *flags, "--pid-file="], stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 10
        asking = ["dig", f"@{addresses[0]}", "+time=1", "+tries=1", "x.test"]
        while subprocess.run(asking, capture_output=True).returncode:
            assert process.poll() is None, process.stderr
            assert time.monotonic() < deadline
        yield
    finally:
        process.kill()
        process.communicate()


@contextmanager
def upstream(address: str, answer: Callable[[socket.socket, bytes, tuple], None]) -> Iterator[None]:
    """A server of the test's own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((address, 53))
        sock.settimeout(0.05)
        ended = threading.Event()

        def serve() -> None:
            while not ended.is_set():
                with contextlib.suppress(TimeoutError):
                    answer(sock, *sock.recvfrom(4096))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def reply(query: bytes, last: int = 7, name: bytes = b"") -> bytes:
    """An answer with 192.0.2.LAST."""
    question = query[12 : query.index(b"\0", 12) + 5]
    record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + bytes((192, 0, 2, last))
    return query[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + (name or question) + record


def host_servers(folder: Path, *servers: str) -> Path:
    """Give this thread, and what it starts, a resolv.conf of its own; return the file."""
    path = folder / "resolv.conf"
    path.write_text("".join(f"nameserver {each}\n" for each in servers))
    path.chmod(0o644)
    for each in (folder, *folder.parents):  # the name server is nobody
        if str(each) not in ("/", "/tmp"):
            os.chmod(each, 0o755)
    namespaces.unshare(CLONE_NEWNS)
    mountapi.mount("none", "/", "", MS_REC | MS_PRIVATE)
    mountapi.mount(str(path), "/etc/resolv.conf", "", MS_BIND)
    return path


@isolated
def test_what_containers_are_called(engine):
    networks = engine()
    networks.create(DUAL)
    one = opened(networks, "one", "web", "abcdefabcdef")
    two = opened(networks, "two", "web", "Upper", "under_score")
    addresses = {each.container_id: (each.endpoints[0].ipv4, each.endpoints[0].ipv6) for each in (one, two)}
    for name in ("two", "TWO", "two.", "two.net", "upper", "UPPER.NET.", "under_score"):
        assert short(one, name) == {addresses["two"][0]}, name
        assert short(one, name, "AAAA") == {addresses["two"][1]}, name
    assert short(two, "abcdefabcdef") == {addresses["one"][0]}
    assert short(two, "web") == {addresses["one"][0], addresses["two"][0]}
    assert short(two, "web", "AAAA") == {addresses["one"][1], addresses["two"][1]}
    assert {dig(two, "+short", "web").split()[0] for _ in range(40)} == {addresses["one"][0], addresses["two"][0]}
    for address in addresses["two"]:
        assert dig(one, "+short", "-x", address) == "two.net.\n"
    for kind in ("TXT", "MX", "SRV", "HTTPS"):
        assert status(dig(one, "two", kind)) == ("NOERROR", 0), kind
    assert "EDNS: version: 0" in dig(one, "two")
    for box in (one, two):
        box.close()


@isolated
def test_a_container_of_one_family_has_no_address_of_the_other(engine, tmp_path):
    networks = engine()
    networks.create(DUAL)
    networks.create(CreateNetwork(name="four", ipam=Ipam(config=[IpamPool(subnet="10.8.0.0/24")])))
    box = opened(networks, "one", network="four", nameservers=("127.0.0.61",))
    asked: list[bytes] = []
    with upstream("127.0.0.61", lambda sock, data, client: asked.append(data)):
        assert status(dig(box, "one", "AAAA")) == ("NOERROR", 0)
    assert asked == [], "a known name is asked of nobody else"
    box.close()


@isolated
def test_names_of_other_networks_are_unknown_and_an_internal_network_asks_nobody(engine):
    networks = engine()
    networks.create(DUAL)
    networks.create(CreateNetwork(name="other", internal=True))
    one, far = opened(networks, "one"), opened(networks, "far", network="other", nameservers=("127.0.0.61",))
    asked: list[bytes] = []
    with upstream("127.0.0.61", lambda sock, data, client: asked.append(data)):
        for words in (["one"], ["one.net"], ["-x", one.endpoints[0].ipv4], [FOREIGN], ["+tcp", FOREIGN]):
            assert status(dig(far, *words)) == ("SERVFAIL", 0), words
    assert asked == []
    assert short(far, "far")
    for box in (one, far):
        box.close()


@isolated
def test_a_container_alone_calls_others_by_names_of_its_own(engine):
    networks = engine()
    networks.create(DUAL)
    one = opened(networks, "one", links=("later:store",))
    two = opened(networks, "two")
    assert status(dig(one, "store"))[1] == 0
    later = opened(networks, "later")
    assert short(one, "store") == short(one, "store.net") == {later.endpoints[0].ipv4}
    assert short(one, "store", "AAAA") == {later.endpoints[0].ipv6}
    assert short(two, "store") == set()
    for box in (one, two, later):
        box.close()


@isolated
def test_other_names_by_udp_and_tcp_and_with_long_answers(engine):
    networks = engine()
    networks.create(DUAL)
    long = "--txt-record=long.test," + ",".join("x" * 200 for _ in range(8))
    more = ("--ptr-record=9.2.0.192.in-addr.arpa,elsewhere.test", long, "--edns-packet-max=4096")
    with dnsmasq("127.0.0.61", more=more):
        box = opened(networks, "one", nameservers=("127.0.0.61",))
        assert short(box, FOREIGN) == short(box, "+tcp", FOREIGN) == {"192.0.2.7"}
        assert short(box, "-x", "192.0.2.9") == {"elsewhere.test."}
        assert status(dig(box, "nosuch.test")) == ("NXDOMAIN", 0)
        cut = dig(box, "+noedns", "+ignore", "long.test", "TXT")
        assert " tc" in cut, "it is the other server that cuts off, and the client that knows what to do"
        text = dig(box, "+noedns", "long.test", "TXT")
        assert "Truncated, retrying in TCP mode" in text
        assert text.count("x" * 200) == 8
        whole = dig(box, "+bufsize=4096", "long.test", "TXT")
        assert whole.count("x" * 200) == 8
        assert "(UDP)" in whole
        assert "Truncated" not in whole
        box.close()


@contextmanager
def engine_here(folder: Path) -> Iterator[Networks]:
    """As the fixture, and stopped by the thread that started it, whose mounts nobody else has."""
    database = Database(folder / "meta.db")
    networks = Networks(database, NetworkConfig(stock=0), folder)
    networks.start()
    try:
        networks.restore([])
        yield networks
    finally:
        networks.close_sandbox("one")
        networks.stop(remove=False)
        database.close()


@isolated
def test_servers_on_the_hosts_own_loopback_and_other_ones_later(tmp_path):
    path = host_servers(tmp_path, "127.0.0.53")
    with engine_here(tmp_path) as networks:
        networks.create(DUAL)
        _follows(networks, path)


def _follows(networks: Networks, path: Path) -> None:
    box = opened(networks, "one")
    with dnsmasq("127.0.0.53", answer="192.0.2.53"), dnsmasq("127.0.0.54", "::1", answer="192.0.2.54"):
        assert short(box, FOREIGN) == {"192.0.2.53"}
        for servers in ("nameserver 127.0.0.54\n", "search x\n# none\nnameserver ::1\n"):
            path.write_text(servers)
            deadline = time.monotonic() + 5
            while short(box, FOREIGN) != {"192.0.2.54"}:
                assert time.monotonic() < deadline, "the host has come into another network"
            path.write_text("nameserver 127.0.0.53\n")
            deadline = time.monotonic() + 5
            while short(box, FOREIGN) != {"192.0.2.53"}:
                assert time.monotonic() < deadline, "and back"
    box.close()


@isolated
def test_a_silent_server_costs_a_second_once(engine):
    networks = engine()
    networks.create(DUAL)
    with upstream("127.0.0.61", lambda sock, data, client: None), dnsmasq("127.0.0.62"):
        box = opened(networks, "one", nameservers=("127.0.0.60", "127.0.0.61", "127.0.0.62"))
        took = []
        for _ in range(2):
            begin = time.monotonic()
            assert short(box, FOREIGN) == {"192.0.2.7"}
            took.append(time.monotonic() - begin)
        assert 0.9 < took[0] < 3, "nobody is at .60, which is known at once; .61 is waited for"
        assert took[1] < 0.9, "then .62 is asked first"
        box.close()


@isolated
def test_only_the_server_that_was_asked_can_answer_and_only_what_was_asked(engine):
    networks = engine()
    networks.create(DUAL)
    seen: list[tuple[int, int]] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as liar:
        liar.bind(("127.0.0.62", 53))

        def answer(sock: socket.socket, data: bytes, client: tuple) -> None:
            seen.append((int.from_bytes(data[:2], "big"), client[1]))
            other = struct.pack("!H", seen[-1][0] ^ 1)
            liar.sendto(reply(data, 66), client)
            sock.sendto(other + reply(data, 66)[2:], client)
            sock.sendto(reply(data, 66, b"\4evil\4test\0\0\1\0\1"), client)
            sock.sendto(data[:2] + b"\x81\x80\0\0\0\0\0\0\0\0", client)
            sock.sendto(b"\0", client)
            sock.sendto(reply(data), client)

        with upstream("127.0.0.61", answer):
            box = opened(networks, "one", nameservers=("127.0.0.61",))

            def asked() -> set[bytes]:
                found = set()
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                    sock.settimeout(5)
                    for _ in range(60):
                        sock.sendto(b"\0\7\1\0\0\1\0\0\0\0\0\0\7example\3org\0\0\1\0\1", (SERVER, 53))
                        found.add(sock.recv(512))
                return found

            (found,) = inside(box.netns_fd, asked)
            assert found[:2] == b"\0\7"
            assert found.endswith(bytes((192, 0, 2, 7)))
            box.close()
    assert len({id_ for id_, _ in seen}) > 50, "an id of our own for each question"
    assert len({port for _, port in seen}) > 50, "and a port"


@isolated
def test_a_container_may_be_a_name_server_and_have_rules_of_its_own(engine):
    networks = engine()
    networks.create(DUAL)
    box, other = opened(networks, "one"), opened(networks, "two")

    def rules() -> None:
        for program in ("iptables-nft", "iptables-legacy"):
            for words in ("-t nat -A OUTPUT -p udp -j ACCEPT", "-A INPUT -j ACCEPT", "-t nat -F"):
                ran = subprocess.run([program, *words.split()], capture_output=True, text=True)
                assert ran.returncode == 0 or "does not exist" in ran.stderr or "modprobe" in ran.stderr, ran.stderr

    for address in ("0.0.0.0", "127.0.0.1"):
        kinds = (socket.SOCK_DGRAM, socket.SOCK_STREAM)
        bound = inside(box.netns_fd, lambda address=address, kinds=kinds: [_bound(address, each) for each in kinds])
        inside(box.netns_fd, rules)
        assert short(box, "two") == short(box, "+tcp", "two") == {other.endpoints[0].ipv4}
        for sock in bound:
            sock.close()
    inside(box.netns_fd, lambda: command("nft", "flush", "ruleset"))
    with pytest.raises(subprocess.CalledProcessError):
        inside(box.netns_fd, lambda: command("dig", f"@{SERVER}", "+time=1", "+tries=1", "two"))
    assert short(other, "one"), "who takes the rule away harms itself alone"
    for each in (box, other):
        each.close()


def _bound(address: str, kind: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, kind)
    sock.bind((address, 53))
    return sock


@isolated
def test_noise_and_ten_thousand_questions_do_no_harm(engine):
    networks = engine()
    networks.create(DUAL)
    box, other = opened(networks, "one", nameservers=("127.0.0.61",)), opened(networks, "two")
    good = b"\0\7\1\0\0\1\0\0\0\0\0\0\3two\0\0\1\0\1"

    def noise() -> None:
        seed = random.Random(11)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect((SERVER, 53))
            for _ in range(10000):
                data = bytearray(good if seed.random() < 0.8 else seed.randbytes(seed.randrange(600)))
                for _ in range(seed.randrange(4)):
                    if data:
                        data[seed.randrange(len(data))] = seed.randrange(256)
                sock.send(data[: seed.randrange(len(data) + 1)] if seed.random() < 0.2 else data)
        for _ in range(50):
            with socket.create_connection((SERVER, 53), 5) as stream, contextlib.suppress(ConnectionResetError):
                stream.sendall(seed.randbytes(seed.randrange(100)))

    def many() -> int:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(5)
            sock.connect((SERVER, 53))
            answered = 0
            for first in range(0, 10000, 50):
                for number in range(first, first + 50):
                    sock.send(struct.pack("!H", number) + good[2:])
                answered += sum(sock.recv(512)[7] == 1 for _ in range(50))
            return answered

    storm = threading.Thread(target=inside, args=(box.netns_fd, noise))
    storm.start()
    while storm.is_alive():
        assert short(other, "one") == {box.endpoints[0].ipv4}, "the others do not notice"
    storm.join()
    assert inside(box.netns_fd, many) == 10000
    for each in (box, other):
        each.close()
