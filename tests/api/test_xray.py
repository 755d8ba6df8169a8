"""Our own prefix: beside Docker's versioned paths, and never in their way."""

from __future__ import annotations

import json

from .test_http import split


def get(api, path: str) -> tuple[bytes, dict]:
    head, body = split(api.exchange(f"GET {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n".encode()))
    return head.split(b"\r\n")[0], json.loads(body)


def test_the_path_needs_no_docker_version(api):
    status, answer = get(api, "/wherry/v1/containers/it/xray")
    assert status == b"HTTP/1.1 200 OK"
    assert answer["Name"] == "it"


def test_a_network(api):
    status, answer = get(api, "/wherry/v1/networks/net/xray")
    assert (status, answer["Name"]) == (b"HTTP/1.1 200 OK", "net")
    status, answer = get(api, "/wherry/v1/networks/nosuch/xray")
    assert (status, answer["message"]) == (b"HTTP/1.1 404 Not Found", "network nosuch not found")


def test_what_is_not_there(api):
    status, answer = get(api, "/wherry/v1/containers/nosuch/xray")
    assert (status, answer["message"]) == (b"HTTP/1.1 404 Not Found", "No such container: nosuch")
    for path in ("/containers/it/xray", "/wherry/v2/containers/it/xray", "/v1.51/containers/it/xray"):
        assert get(api, path)[0] == b"HTTP/1.1 404 Not Found"
