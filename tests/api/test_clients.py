"""Real clients against the server with fake backends: http.client, docker-py, the docker CLI."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import subprocess
import time

import docker
import pytest

from .fakes import ID


class UnixConnection(http.client.HTTPConnection):
    """http.client over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(self._path)


@pytest.fixture
def client(api):
    """docker-py 7."""
    found = docker.APIClient(base_url=api.url, version="auto", timeout=10)
    yield found
    found.close()


@pytest.fixture
def run(api):
    """The docker CLI."""
    binary = shutil.which("docker")
    assert binary, "the docker CLI is needed for this test"
    environment = {"DOCKER_HOST": api.url, "PATH": os.environ["PATH"], "HOME": "/nonexistent"}

    def call(*words: str, data: str = "", status: int = 0, limit: float = 10) -> str:
        done = subprocess.run(
            [binary, *words], env=environment, input=data, capture_output=True, text=True, timeout=limit, check=False
        )
        assert done.returncode == status, (done.stdout, done.stderr)
        return done.stdout

    return call


def test_http_client_reuses_its_connection(api):
    connection = UnixConnection(api.path)
    for _ in range(3):
        connection.request("GET", "/v1.51/containers/json")
        assert b'"Names":["/it"]' in connection.getresponse().read()
    connection.request("POST", "/images/load", body=iter([b"a" * 1000] * 10), encode_chunked=True)
    assert b"Loaded 10000 bytes" in connection.getresponse().read()
    connection.request("HEAD", "/_ping")
    assert connection.getresponse().getheader("Api-Version") == "1.51"
    assert len(api.server._live) == 1
    connection.close()


def test_docker_py_gets_every_byte_of_every_exec(api, client):
    """The first byte comes right behind the 101, once the client has read it: 100 of 100 are complete."""
    lengths = []
    for _ in range(100):
        made = client.exec_create(ID, ["true"])
        lengths.append(len(client.exec_start(made["Id"])))
    assert lengths == [1000] * 100


def test_docker_py_attach_logs_events_and_wait(api, client):
    assert client.logs(ID, stdout=True, stderr=True) == b"one\ntwo\n"
    assert list(client.logs(ID, stream=True, follow=False)) == [b"one\n", b"two\n"]
    raw = client.attach_socket(ID, params={"stdin": 1, "stdout": 1, "stream": 1})
    raw._sock.sendall(b"hello")
    raw._sock.shutdown(socket.SHUT_WR)
    assert raw._sock.recv(100)[8:] == b"hello"
    raw._sock.close()
    raw.close()
    events = client.events(decode=True)
    assert next(events)["Action"] == "start"
    events.close()
    assert client.start(ID) is None
    assert client.wait(ID)["StatusCode"] == 7


def test_docker_py_create_and_errors(api, client):
    host = client.create_host_config(mem_limit="64m", port_bindings={80: 8080}, binds=["/a:/b"])
    made = client.create_container("img", ["a", "b"], host_config=host, name="n", environment={"A": "b"})
    assert made["Id"] == ID
    request, name, _ = api.backends.containers.created[0]
    assert (name, request.config.env, request.host_config.memory) == ("n", ["A=b"], 64 << 20)
    with pytest.raises(docker.errors.NotFound, match="No such container: none"):
        client.inspect_container("none")
    with pytest.raises(docker.errors.APIError, match="already paused"):
        client.pause(ID)


def test_docker_py_load_and_import(api, client):
    assert b"Loaded" in str(list(client.load_image(b"x" * 5_000_000))).encode()
    assert api.backends.images.loaded == 5_000_000
    assert client.images(name="x")[0]["Size"] == 5


def test_cli_version_and_info(run):
    assert "API version:      1.51 (minimum version 1.24)" in run("version")
    assert "Server Version: 28.5.2" in run("info")


def test_cli_lists(run):
    assert ID[:12] in run("ps", "-a")
    assert "a/b" in run("images")
    run("volume", "ls")
    run("network", "ls")
    assert "Images" in run("system", "df")


def test_cli_exec_with_input(run):
    assert run("exec", "-i", "it", "cat", data="one\ntwo\n", status=3) == "one\ntwo\n"
    assert len(run("exec", "it", "true", status=3)) == 1000
    big = "0123456789abcdef\n" * 100_000
    assert run("exec", "-i", "it", "cat", data=big, status=3) == big


def test_cli_run_waits_attaches_and_returns_the_code(run, api):
    """create, attach, wait before start, start, wait's answer: the order in which `docker run` does it."""
    assert run("run", "-i", "img", "cat", data="hello\n", status=7) == "hello\n"
    assert api.backends.containers.waiting == 0


def test_cli_logs_and_events(run):
    assert run("logs", "it") == "one\n"
    assert run("events", "--until", "1").count("container start") == 3


def test_cli_load_and_import(run, api, tmp_path):
    archive = tmp_path / "a.tar"
    archive.write_bytes(bytes(3 << 20))
    assert f"Loaded {3 << 20} bytes" in run("load", "-i", str(archive))
    assert "repo:x: 3145728 ['CMD a'] note" in run("import", "-c", "CMD a", "-m", "note", str(archive), "repo:x")


def test_cli_shows_errors(run, api):
    binary = shutil.which("docker")
    assert binary
    done = subprocess.run(
        [binary, "-H", api.url, "kill", "none"], capture_output=True, text=True, timeout=10, check=False
    )
    assert done.returncode == 1
    assert "No such container: none" in done.stderr


def test_cli_swarm_and_missing_operations_are_told(api):
    binary = shutil.which("docker")
    assert binary
    install = ["plugin", "install", "--grant-all-permissions", "x"]
    for words, text in ((["node", "ls"], "This node is not a swarm manager"), (install, "not there yet")):
        done = subprocess.run([binary, "-H", api.url, *words], capture_output=True, text=True, timeout=10, check=False)
        assert text in done.stderr


def test_ping_on_new_connections_is_fast(api):
    """A rough guard: the median of a whole exchange, the client's own time included."""
    request = b"GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"
    times = []
    for _ in range(300):
        begin = time.perf_counter()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(api.path)
            connection.sendall(request)
            connection.recv(4096)
        times.append(time.perf_counter() - begin)
    assert sorted(times)[150] < 0.005
