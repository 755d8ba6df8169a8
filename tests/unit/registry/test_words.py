"""What a registry's headers say, who may know a password, and how things are written."""

from __future__ import annotations

import base64
import json

import pytest

from wherry.errors import InvalidArgument
from wherry.registry import challenges, progress
from wherry.registry.api import RegistryConfig
from wherry.registry.challenges import Challenge
from wherry.registry.client import without_password
from wherry.registry.credentials import decode_auth, host_of
from wherry.registry.failures import Answered, texts_of
from wherry.registry.origins import Origins, place
from wherry.registry.session import retry_after
from wherry.registry.wire import bypasses


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ('Bearer realm="https://a/t",service="s",scope="repository:a:pull,push"',
         [Challenge("bearer", {"realm": "https://a/t", "service": "s", "scope": "repository:a:pull,push"})]),
        ('Basic realm="x\\"y"', [Challenge("basic", {"realm": 'x"y'})]),
        ("Basic", [Challenge("basic", {})]),
        ("Negotiate, Basic realm=x, BEARER Realm = z", [
            Challenge("negotiate", {}), Challenge("basic", {"realm": "x"}), Challenge("bearer", {"realm": "z"}),
        ]),
        ("", []), ('="', []),
    ],
)  # fmt: skip
def test_challenges(header: str, found: list[Challenge]) -> None:
    assert challenges.parse([header]) == found


def test_a_header_that_never_ends_is_cut() -> None:
    assert len(challenges.parse(["Basic " * 100_000])) < 2000


@pytest.mark.parametrize(
    ("host", "insecure"),
    [
        ("localhost", True), ("localhost:5000", True), ("127.0.0.1:5000", True), ("127.8.8.8", True),
        ("[::1]:5000", True),
        ("localhost.example", False), ("127.0.0.1.example:80", False), ("registry.test:5000", True),
        ("REGISTRY.test:5000", True), ("registry.test", False), ("registry.test:5001", False), ("bare.test:1", True),
        ("10.1.2.3:5000", True), ("11.1.2.3:5000", False), ("10.example", False),
    ],
)  # fmt: skip
def test_what_is_insecure(host: str, insecure: bool) -> None:
    origins = Origins(RegistryConfig(insecure=("registry.test:5000", "10.0.0.0/8", "bare.test")))
    assert origins.is_insecure(host) == insecure
    schemes = [(each.scheme, each.verified) for each in origins.of(host)]
    assert schemes == ([("https", False), ("http", False)] if insecure else [("https", True)])


def test_the_origins_of_docker_hub() -> None:
    origins = Origins(RegistryConfig(mirrors=("https://mirror.test/hub/",)))
    pulls = [each.url for each in origins.of("docker.io", mirrors=True)]
    assert pulls == ["https://mirror.test/hub", "https://registry-1.docker.io"]
    assert [each.url for each in origins.of("docker.io")] == ["https://registry-1.docker.io"]
    assert [each.url for each in origins.of("[fd00::1]:5000")] == ["https://[fd00::1]:5000"]


@pytest.mark.parametrize("url", [
    "file:///etc/passwd", "unix:///x", "http://", "https://a:b@c/", "http://a/ b", "http://a/\n", "http://[", "http://a:x/",
])  # fmt: skip
def test_urls_that_are_not_followed(url: str) -> None:
    with pytest.raises(InvalidArgument):
        place(url)


@pytest.mark.parametrize(
    ("host", "rules", "direct"),
    [
        ("a.test:443", "", False), ("localhost:5000", "", True), ("127.0.0.1", "", True), ("a.test", "*", True),
        ("a.test", "a.test", True), ("b.a.test", "a.test", True), ("ba.test", "a.test", False),
        ("b.a.test", ".a.test", True), ("a.test", ".a.test", True), ("a.test:5000", "a.test:5000", True),
        ("a.test:5001", "a.test:5000", False), ("10.2.3.4", "x, 10.0.0.0/8", True), ("10.test", "10.0.0.0/8", False),
        ("10.2.3.4", "10.0.0.0/99", False),
    ],
)  # fmt: skip
def test_who_is_reached_without_a_proxy(host: str, rules: str, direct: bool) -> None:
    assert bypasses(host, rules) == direct


def test_a_password_of_a_proxy_is_not_shown() -> None:
    assert without_password("http://joe:pa@p.test:1/") == "http://xxxxx:xxxxx@p.test:1/"
    assert without_password("http://p.test:1") == "http://p.test:1"


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_credentials_of_a_client(encode: object) -> None:
    data = json.dumps({"username": "ann?>", "password": "ö??>>~~"}).encode()
    text = encode(data).decode()  # type: ignore[operator]
    for form in (text, text.rstrip("=")):
        found = decode_auth(form)
        assert (found.username, found.password) == ("ann?>", "ö??>>~~")
    assert decode_auth("").username == ""


@pytest.mark.parametrize("text", [
    "!!!", "e30=x=", "A" * 100_000,
    *(base64.b64encode(data).decode() for data in (b"[]", b'{"username":1}', b"pass\xff")),
])  # fmt: skip
def test_garbage_is_told_without_being_repeated(text: str) -> None:
    with pytest.raises(InvalidArgument) as told:
        decode_auth(text)
    assert "pass" not in told.value.message


@pytest.mark.parametrize(("address", "host"), [
    ("", "docker.io"), ("https://index.docker.io/v1/", "docker.io"), ("docker.io", "docker.io"),
    ("https://reg.test:5000/v2/", "reg.test:5000"), ("REG.test", "reg.test"),
])  # fmt: skip
def test_the_host_of_a_server_address(address: str, host: str) -> None:
    assert host_of(address) == host


def test_what_errors_say() -> None:
    first = '{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}}'
    body = f'{{"errors":[{first},{{"code":"DENIED"}}]}}'.encode()
    assert texts_of(body) == ("manifest unknown: manifest unknown", "denied")
    assert texts_of(b'{"errors":[{"code":"X","message":"a\\u001b]0;b\\n"}]}') == ("x: a ]0;b ",)
    assert texts_of(b'{"details":"incorrect username or password"}') == ("incorrect username or password",)
    for nonsense in (b"", b"<html>", b'{"errors":3}', b"[" * 10_000):
        assert texts_of(nonsense) == ()
    assert str(Answered("GET", "http://a/b", 418)) == "received unexpected HTTP status: 418 from GET http://a/b"


@pytest.mark.parametrize(("text", "seconds"), [
    ("", None), ("7", 7.0), ("-1", None), ("x", None), ("Thu, 01 Jan 1970 00:01:40 GMT", 90.0),
    ("Thu, 01 Jan 1970 00:00:01 GMT", 0.0), ("9" * 400, 999999999.0),
])  # fmt: skip
def test_retry_after(text: str, seconds: float | None) -> None:
    assert retry_after(text, 10.0) == seconds


def test_bars() -> None:
    assert progress.bar(38912, 1982928) == "[>" + " " * 50 + "]  38.91kB/1.983MB"
    assert progress.bar(1081250, 1081250) == "[" + "=" * 50 + ">]  1.081MB/1.081MB"
    assert progress.bar(5, 0) == "5B"
    assert progress.size(10**18) == "1000PB"
