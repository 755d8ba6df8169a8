"""Plugins: where they are found, what is called, and that none can hold anything up for longer than its time."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.plugins.running import QUICK, Program, plugins, roots
from wherry.errors import NotFound, SystemFailure
from wherry.models.base import Model
from wherry.plugins import discovery
from wherry.plugins.api import IPAM, MEDIA_TYPE, NETWORK, VOLUME, Limits, PluginFailed, PluginSilent
from wherry.plugins.discovery import Address, Tls
from wherry.plugins.registry import Nothing


class Scope(Model, frozen=True):
    """The answer of NetworkDriver.GetCapabilities."""

    scope: str


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    made = Program(tmp_path).start()
    yield made
    made.kill()


def test_a_plugin_is_found_activated_once_and_asked(tmp_path, program):
    found = plugins(tmp_path)
    assert found.known(NETWORK) == []
    plugin = found.get("tester", NETWORK)
    assert plugin.call("NetworkDriver.GetCapabilities", None, Scope) == Scope(scope="local")
    assert found.get("tester", IPAM) is plugin
    assert program.asked() == ["Activate", "GetCapabilities"]
    assert (found.known(NETWORK), found.known(VOLUME)) == (["tester"], [])
    lines = (program.folder / "calls").read_text().splitlines()
    headers = json.loads(lines[-1])["headers"]
    assert (headers["Accept"], headers["Content-Type"]) == (MEDIA_TYPE, MEDIA_TYPE)


def test_one_that_was_restarted_is_activated_again_and_works_on(tmp_path, program):
    found = plugins(tmp_path)
    found.get("tester", NETWORK)
    program.kill()
    program.start()
    assert found.get("tester", NETWORK).call("NetworkDriver.GetCapabilities", None, Scope).scope == "local"
    assert program.asked() == ["Activate", "Activate", "GetCapabilities"]


def test_one_that_is_not_there_or_does_other_things(tmp_path, program):
    found = plugins(tmp_path)
    for name in ("nosuch", "../tester", "", "a/b", "vieux/sshfs:latest", "tester.sock/.."):
        with pytest.raises(NotFound) as caught:
            found.get(name, NETWORK)
        assert caught.value.message == f'plugin "{name}" not found'
    with pytest.raises(SystemFailure, match="plugin tester does not implement the requested driver VolumeDriver"):
        found.get("tester", VOLUME)


@pytest.mark.parametrize(
    ("order", "kind", "message"),
    [
        ("err no luck", PluginFailed, "NetworkDriver.GetCapabilities: no luck"),
        ('status 500 {"Err": "no luck"}', PluginFailed, "NetworkDriver.GetCapabilities: no luck"),
        ("status 400 what?", PluginFailed, "NetworkDriver.GetCapabilities: what?"),
        ("hang", PluginSilent, "GetCapabilities: the plugin does not answer: no answer within 1.5 seconds"),
        ("drip", PluginSilent, "GetCapabilities: the plugin does not answer: no answer within 1.5 seconds"),
        ("not json", PluginSilent, "gave an answer that cannot be read"),
        ('{"Scope": 5}', PluginSilent, "gave an answer that cannot be read"),
        ("[]", PluginSilent, "gave an answer that cannot be read"),
        (json.dumps("x" * (5 << 20)), PluginSilent, "the plugin's answer is larger than 4194304 bytes"),
    ],
)
def test_answers_that_are_none(tmp_path, program, order, kind, message):
    plugin = plugins(tmp_path).get("tester", NETWORK)
    program.order(GetCapabilities=order)
    start = time.monotonic()
    with pytest.raises(kind) as caught:
        plugin.call("NetworkDriver.GetCapabilities", None, Scope)
    assert message in caught.value.message
    assert time.monotonic() - start < 2 * QUICK.answer


def test_a_method_that_a_plugin_does_not_know(tmp_path, program):
    with pytest.raises(PluginFailed) as caught:
        plugins(tmp_path).get("tester", NETWORK).call("NetworkDriver.Nonsense", None, Nothing)
    assert caught.value.unknown


def test_one_that_died_is_tried_for_a_while(tmp_path, program):
    found = plugins(tmp_path)
    program.kill()
    start = time.monotonic()
    with pytest.raises(PluginSilent, match=r"Plugin.Activate: cannot connect to the plugin: connection refused"):
        found.get("tester", NETWORK)
    assert 0.3 < time.monotonic() - start < 5 * QUICK.connect
    patient = plugins(tmp_path, Limits(connect=30.0, answer=10.0, first_pause=0.05))
    late = threading.Timer(0.3, program.start)
    late.start()
    assert NETWORK in patient.get("tester", NETWORK).implements
    late.join()


def test_many_who_wait_for_one_that_hangs_wait_together_and_others_do_not(tmp_path, program):
    program.order(Plugin_Activate="hang")
    other = Program(tmp_path, "other").start()
    found, failed = plugins(tmp_path), []

    def ask() -> None:
        try:
            found.get("tester", NETWORK)
        except PluginSilent as error:
            failed.append(error)

    threads = [threading.Thread(target=ask) for _ in range(5)]
    start = time.monotonic()
    for each in threads:
        each.start()
    assert NETWORK in found.get("other", NETWORK).implements
    assert time.monotonic() - start < QUICK.answer
    for each in threads:
        each.join()
    assert (len(failed), time.monotonic() - start < 2 * QUICK.answer) == (5, True)
    other.kill()


@pytest.mark.parametrize(
    ("path", "text", "address"),
    [
        ("etc/x.spec", "unix:///run/x.sock\n", Address(path="/run/x.sock")),
        ("etc/x/x.spec", "tcp://127.0.0.1:8080", Address(host="127.0.0.1", port=8080)),
        ("etc/x.spec", "http://[::1]:80", Address(host="::1", port=80)),
        (
            "etc/x.json",
            '{"Name": "x", "Addr": "https://h:1", "TLSConfig": {"CAFile": "/ca", "CertFile": "/c", "KeyFile": "/k"}}',
            Address(host="h", port=1, tls=Tls(ca_file="/ca", cert_file="/c", key_file="/k")),
        ),
        (
            "etc/x/x.json",
            '{"Addr": "https://h", "TLSConfig": {"InsecureSkipVerify": true}}',
            Address(host="h", port=443, tls=Tls(insecure_skip_verify=True)),
        ),
        ("etc/x.json", '{"Addr": "tcp://h:1"}', Address(host="h", port=1)),
    ],
)
def test_descriptions(tmp_path, path, text, address):
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(text)
    assert discovery.find(roots(tmp_path), "x") == address


@pytest.mark.parametrize("text", ["", "x", "ftp://h", "unix://x", "tcp://", "tcp://h:99999", "tcp://h:x", "\xff"])
def test_descriptions_that_say_nothing(tmp_path, text):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "x.spec").write_text(text, encoding="latin-1")
    with pytest.raises(PluginSilent, match="cannot use plugin x: "):
        discovery.find(roots(tmp_path), "x")


def test_a_socket_is_before_a_description_and_a_folder_of_its_own_will_do(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "x.spec").write_text("tcp://h:1")
    (tmp_path / "run" / "x").mkdir(parents=True)
    (tmp_path / "run" / "x.sock").write_text("a file is no socket")
    assert discovery.find(roots(tmp_path), "x").host == "h"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "run" / "x" / "x.sock"))
        assert discovery.find(roots(tmp_path), "x").path == str(tmp_path / "run" / "x" / "x.sock")


def test_a_description_of_any_size_or_kind_lets_nobody_wait(tmp_path):
    (tmp_path / "etc").mkdir()
    os.mkfifo(tmp_path / "etc" / "x.spec")
    with pytest.raises(NotFound):
        discovery.find(roots(tmp_path), "x")
    (tmp_path / "etc" / "y.spec").write_bytes(bytes(65 << 10))
    with pytest.raises(PluginSilent, match="larger than 65536 bytes"):
        discovery.find(roots(tmp_path), "y")


def test_a_plugin_by_tcp(tmp_path, program):
    """A relay from a port to the socket."""
    listener = socket.create_server(("127.0.0.1", 0))

    def relay() -> None:
        for _ in range(2):
            near, _address = listener.accept()
            with near, socket.socket(socket.AF_UNIX) as far:
                far.connect(str(program.socket))
                near.settimeout(5)
                head = near.recv(1 << 16)
                far.sendall(head)
                while data := far.recv(1 << 16):
                    near.sendall(data)

    thread = threading.Thread(target=relay)
    thread.start()
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "far.spec").write_text(f"tcp://127.0.0.1:{listener.getsockname()[1]}")
    found = plugins(tmp_path).get("far", NETWORK)
    assert found.call("NetworkDriver.GetCapabilities", None, Scope).scope == "local"
    thread.join()
    listener.close()


def test_requests_are_encoded_with_the_names_of_the_protocol(tmp_path, program):
    class Ask(Model, frozen=True):
        network_id: str = msgspec.field(name="NetworkID")

    plugins(tmp_path).get("tester", NETWORK).call("NetworkDriver.Leave", Ask(network_id="n"), Nothing)
    assert program.last("Leave") == {"NetworkID": "n"}
