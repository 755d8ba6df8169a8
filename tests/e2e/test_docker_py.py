"""docker-py 7: run, exec_run, attach, logs."""

from collections.abc import Iterator

import docker
import pytest

from tests.engine import Engine

pytestmark = [pytest.mark.root, pytest.mark.engine]


@pytest.fixture
def client(engine: Engine) -> Iterator[docker.DockerClient]:
    found = docker.DockerClient(base_url=engine.host, timeout=30)
    yield found
    found.close()


def test_run_returns_the_output(client):
    assert client.containers.run("busybox", ["echo", "hi"], remove=True) == b"hi\n"


def test_exec_output_is_complete_a_hundred_times(client):
    container = client.containers.run("busybox", ["sleep", "1000"], detach=True)
    wanted = b"0123456789\n"
    results = [container.exec_run(["echo", "0123456789"]) for _ in range(100)]
    assert [result.output for result in results] == [wanted] * 100
    assert {result.exit_code for result in results} == {0}


def test_attach_and_logs_stream(client):
    container = client.containers.create("busybox", ["sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.1; done"])
    stream = container.attach_socket(params={"stdout": 1, "stderr": 1, "stream": 1})
    container.start()
    frames = docker.utils.socket.frames_iter(stream, tty=False)
    assert b"".join(data for _, data in frames) == b"1\n2\n3\n"
    # docker-py leaves both open
    stream._sock.close()
    stream.close()
    logs = container.logs(stream=True, follow=True)
    assert b"".join(logs) == b"1\n2\n3\n"
    logs.close()
    assert container.wait()["StatusCode"] == 0


def test_errors_keep_their_kind(client):
    with pytest.raises(docker.errors.NotFound, match="No such container: nosuch"):
        client.containers.get("nosuch")
    with pytest.raises(docker.errors.ImageNotFound):
        client.images.get("nosuch")
