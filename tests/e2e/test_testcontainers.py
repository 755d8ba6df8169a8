"""testcontainers-python, as test suites use it; Ryuk, its container that tidies up, is off by its own setting."""

from __future__ import annotations

import socket
import time

import pytest
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

from tests.engine import Engine

pytestmark = [pytest.mark.root, pytest.mark.engine]


@pytest.fixture
def host(engine: Engine, monkeypatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", engine.host)
    monkeypatch.setattr(testcontainers_config, "ryuk_disabled", True)


def test_a_container_for_the_time_of_a_test(engine: Engine, host: None):
    container = DockerContainer("busybox")
    container.with_command(["sh", "-c", "echo booting; sleep 0.2; echo ready; sleep 1000"]).with_env("A", "b")
    with container.waiting_for(LogMessageWaitStrategy("ready")):
        code, output = container.exec(["sh", "-c", "echo $A; exit 3"])
        assert (code, output) == (3, b"b\n")
        out, err = container.get_logs()
        assert (out, err) == (b"booting\nready\n", b"")
        assert engine.docker("ps", "-q")
    assert engine.docker("ps", "-aq") == ""


def test_containers_find_each_other_in_a_network(engine: Engine, host: None):
    with Network() as network:
        server = DockerContainer("busybox").with_network(network).with_network_aliases("server")
        server.with_command(["sh", "-c", "mkdir /www; echo hello >/www/index; cd /www; httpd -f -p 80"])
        client = DockerContainer("busybox").with_network(network).with_command(["sleep", "1000"])
        with server, client:
            address = engine.docker(
                "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", server._container.id
            )
            code, _ = client.exec(["ping", "-c", "1", "-W", "2", address])
            assert code == 0
            assert engine.docker("network", "ls", "-q", "--filter", f"name={network.name}")
    assert engine.docker("network", "ls", "-q", "--filter", "type=custom") == ""


def test_an_exposed_port_is_reached_where_it_is_said_to_be(engine: Engine, host: None):
    container = DockerContainer("busybox").with_exposed_ports(80)
    with container.with_command(["sh", "-c", "while true; do nc -l -p 80 -e echo hello; done"]):
        place = (container.get_container_host_ip(), int(container.get_exposed_port(80)))
        deadline = time.monotonic() + 5
        while True:
            try:
                with socket.create_connection(place, timeout=5) as client:
                    assert client.recv(100) == b"hello\n"
                break
            except ConnectionRefusedError:
                assert time.monotonic() < deadline
