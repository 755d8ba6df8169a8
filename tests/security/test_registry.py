"""Registries in hostile hands: whom credentials are told to, whose word is believed, where we let ourselves be sent.

The rules have the numbers of those in the docstring of registry/api.py.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.kernel.images.store import LAYER
from tests.kernel.registry.desk import Desk
from tests.liars import Exchange, Liar, digest, liar, on
from tests.registries import ELSEWHERE, certificate, elsewhere, named
from wherry.errors import EngineError, InvalidArgument
from wherry.registry.api import Credentials

pytestmark = pytest.mark.root

ANN = Credentials("ann", "secret")
BASIC = "Basic " + base64.b64encode(b"ann:secret").decode()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with Desk(tmp_path) as made:
        yield made


@pytest.fixture
def registry() -> Iterator[Liar]:
    with liar() as server:
        yield server


@pytest.fixture(scope="module", autouse=True)
def _elsewhere() -> Iterator[None]:
    with elsewhere():
        yield


def secrets(server: Liar) -> list[str]:
    """What a server has learnt of who asks."""
    return [headers["Authorization"] for _, _, headers in server.seen if "Authorization" in headers]


def basic(exchange: Exchange) -> bool:
    """A registry with a password."""
    if exchange.headers.get("Authorization") == BASIC:
        return False
    exchange.reply(401, WWW_Authenticate='Basic realm="x"')
    return True


def bearer(realm: str) -> Callable[[Exchange], bool]:
    """A registry that believes a token server."""

    def trick(exchange: Exchange) -> bool:
        if exchange.path.startswith("/token"):
            body = {"token": f"token-{'ann' if exchange.headers.get('Authorization') == BASIC else 'nobody'}"}
            exchange.reply(200, json.dumps(body).encode())
            return True
        if exchange.headers.get("Authorization") == "Bearer token-ann":
            return False
        exchange.reply(401, WWW_Authenticate=f'Bearer realm="{realm}",service="reg",scope="repository:a/b:pull"')
        return True

    return trick


@contextmanager
def tls(folder: Path, *names: str, address: str = "127.0.0.1") -> Iterator[Liar]:
    folder.mkdir()
    with liar(address, certificate(folder, *names)) as server:
        yield server


# RG-01: a redirect takes no credentials along


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_takes_no_credentials_along(desk: Desk, registry: Liar, status: int) -> None:
    registry.put_image([LAYER])
    with liar() as other:
        other.blobs = registry.blobs
        registry.tricks += [basic, on("/blobs/", lambda e: e.reply(status, Location=f"{other.url}{e.path}"))]
        desk.pull(f"{registry.host}/a/b:1", credentials=ANN)
        assert BASIC in secrets(registry)
        assert other.paths()
        assert secrets(other) == []


@pytest.mark.parametrize("challenge", ['Basic realm="x"', 'Bearer realm="{url}/token",service="x"'])
def test_the_target_of_a_redirect_asks_for_credentials_in_vain(desk: Desk, registry: Liar, challenge: str) -> None:
    """CVE-2020-15157."""
    registry.put_image([LAYER])
    before = desk.state()
    with liar() as other:
        text = challenge.format(url=other.url)
        other.tricks.append(on("/", lambda e: e.reply(401, WWW_Authenticate=text)))
        registry.tricks += [basic, on("/blobs/", lambda e: e.reply(307, Location=f"{other.url}{e.path}"))]
        with pytest.raises(EngineError, match=r"unauthorized|401"):
            desk.pull(f"{registry.host}/a/b:1", credentials=ANN)
        assert other.paths()
        assert not [path for path in other.paths() if "token" in path]
        assert secrets(other) == []
    assert desk.state() == before


def test_the_place_of_an_upload_learns_nothing(desk: Desk, registry: Liar) -> None:
    """A Location on another host gets the bytes, which the registry would get too, and no credentials."""
    desk.store.put(LAYER, repo=f"{registry.host}/a/b", tag="1")
    with liar() as other:
        other.tricks += [
            on("/up", lambda e: e.reply(202, Location=f"{other.url}/up"), method="PATCH"),
            on("/up", lambda e: e.reply(201), method="PUT"),
        ]
        registry.tricks += [
            basic,
            on("/uploads/", lambda e: e.reply(202, Location=f"{other.url}/up"), method="POST"),
            on("/manifests/", lambda e: e.reply(201), method="PUT"),
        ]
        desk.push(f"{registry.host}/a/b:1", credentials=ANN)
        assert [method for method, _, _ in other.seen] == ["PATCH", "PUT"] * 2
        assert secrets(other) == []


def test_the_urls_of_a_layer_are_not_asked(desk: Desk, registry: Liar) -> None:
    with liar() as other:
        registry.put_image([LAYER])
        document = json.loads(registry.manifests["1"][0])
        document["layers"][0]["urls"] = [f"{other.url}/layer"]
        registry.put_manifest(document, "1")
        registry.tricks.append(on("/blobs/sha256:" + document["layers"][0]["digest"][7:], lambda e: e.reply(404)))
        with pytest.raises(EngineError):
            desk.pull(f"{registry.host}/a/b:1", credentials=ANN)
        assert other.seen == []


# RG-02: the token server


def test_a_token_server_that_is_the_registry_learns_who_asks(desk: Desk, registry: Liar) -> None:
    registry.put_image([LAYER])
    registry.tricks.append(bearer(f"{registry.url}/token"))
    desk.pull(f"{registry.host}/a/b:1", credentials=ANN)
    token = next(path for path in registry.paths() if path.startswith("/token"))
    assert token == "/token?service=reg&scope=repository%3Aa%2Fb%3Apull&account=ann"
    assert {BASIC, "Bearer token-ann"} == set(secrets(registry))


def test_a_token_server_by_http_elsewhere_learns_nothing(desk: Desk, registry: Liar) -> None:
    """The registry is insecure, for it is at a loopback address; the other one is not."""
    registry.put_image([LAYER])
    with liar(ELSEWHERE) as other:
        registry.tricks.append(bearer(f"{other.url}/token"))
        other.tricks.append(bearer(f"{other.url}/token"))
        with pytest.raises(EngineError, match="unauthorized"):
            desk.pull(f"{registry.host}/a/b:1", credentials=ANN)
        assert other.paths()
        assert secrets(other) == []
        assert not [path for path in other.paths() if "ann" in path]


def test_a_token_server_by_http_for_a_registry_by_https_learns_nothing(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    with ExitStack() as stack:
        stack.enter_context(named(f"{ELSEWHERE} reg.test"))
        registry = stack.enter_context(tls(tmp_path / "tls", "reg.test", address=ELSEWHERE))
        other = stack.enter_context(liar(ELSEWHERE))
        desk = stack.enter_context(Desk(tmp_path / "d"))
        name = f"reg.test:{registry.server_address[1]}"
        trust(desk, name, tmp_path / "tls")
        registry.put_image([LAYER])
        registry.tricks.append(bearer(f"{other.url}/token"))
        other.tricks.append(bearer(f"{other.url}/token"))
        with pytest.raises(EngineError, match="unauthorized"):
            desk.pull(f"{name}/a/b:1", credentials=ANN)
        assert secrets(other) == []


@pytest.mark.parametrize("realm", ["file:///etc/passwd", "unix:///run/x", "//x/token", "javascript:1", "http://"])
def test_a_realm_that_is_no_place(desk: Desk, registry: Liar, realm: str) -> None:
    registry.put_image([LAYER])
    registry.tricks.append(bearer(realm))
    with pytest.raises(EngineError, match="refusing the URL"):
        desk.pull(f"{registry.host}/a/b:1", credentials=ANN)


def trust(desk: Desk, host: str, folder: Path) -> None:
    place = desk.root / "certs.d" / host
    place.mkdir(parents=True)
    (place / "ca.crt").write_bytes((folder / "server.crt").read_bytes())


# RG-03, RG-04: what is insecure


def test_a_name_that_means_this_machine_is_not_insecure(tmp_path: Path) -> None:
    """CVE-2026-92543: dockerd asks the resolver, and one loopback address turns verification off."""
    (tmp_path / "d").mkdir()
    with ExitStack() as stack:
        stack.enter_context(named("127.0.0.1 liar.test", f"{ELSEWHERE} liar.test"))
        plain = stack.enter_context(liar())
        bad = stack.enter_context(tls(tmp_path / "tls", "other.test"))
        desk = stack.enter_context(Desk(tmp_path / "d"))
        for server in (plain, bad):
            server.put_image([LAYER])
            with pytest.raises(EngineError):
                desk.pull(f"liar.test:{server.server_address[1]}/a/b:1", credentials=ANN)
            assert server.paths() == []
            assert secrets(server) == []


def test_a_certificate_for_another_name(tmp_path: Path) -> None:
    """Its authority is trusted, its name is not the one that was asked for."""
    (tmp_path / "d").mkdir()
    with ExitStack() as stack:
        stack.enter_context(named("127.0.0.1 reg.test"))
        registry = stack.enter_context(tls(tmp_path / "tls", "other.test"))
        desk = stack.enter_context(Desk(tmp_path / "d"))
        name = f"reg.test:{registry.server_address[1]}"
        trust(desk, name, tmp_path / "tls")
        with pytest.raises(EngineError, match="certificate"):
            desk.pull(f"{name}/a/b:1", credentials=ANN)
        assert registry.paths() == []


def test_https_that_fails_does_not_become_http(desk: Desk) -> None:
    with liar(ELSEWHERE) as registry:
        registry.put_image([LAYER])
        with pytest.raises(EngineError):
            desk.pull(f"{registry.host}/a/b:1", credentials=ANN)
        assert registry.paths() == []


@pytest.mark.parametrize("entry", ["NETWORK", "HOST"])
def test_what_is_configured_as_insecure_may_be_http(tmp_path: Path, entry: str) -> None:
    with liar(ELSEWHERE) as registry:
        registry.put_image([LAYER])
        entry = f"{ELSEWHERE}/32" if entry == "NETWORK" else registry.host
        with Desk(tmp_path, insecure=(entry,)) as desk:
            desk.pull(f"{registry.host}/a/b:1")
            assert registry.paths()


def test_a_network_means_addresses_and_no_names(tmp_path: Path) -> None:
    with named(f"{ELSEWHERE} reg.test"), liar(ELSEWHERE) as registry, Desk(tmp_path, insecure=("10.0.0.0/8",)) as desk:
        registry.put_image([LAYER])
        with pytest.raises(EngineError):
            desk.pull(f"reg.test:{registry.server_address[1]}/a/b:1")
        assert registry.paths() == []


def test_https_does_not_lead_to_http(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    with ExitStack() as stack:
        stack.enter_context(named(f"{ELSEWHERE} reg.test"))
        registry = stack.enter_context(tls(tmp_path / "tls", "reg.test", address=ELSEWHERE))
        other = stack.enter_context(liar(ELSEWHERE))
        desk = stack.enter_context(Desk(tmp_path / "d"))
        name = f"reg.test:{registry.server_address[1]}"
        trust(desk, name, tmp_path / "tls")
        registry.put_image([LAYER])
        desk.pull(f"{name}/a/b:1")
        desk.store.remove(f"{name}/a/b:1")
        registry.tricks.append(on("/blobs/", lambda e: e.reply(307, Location=f"{other.url}{e.path}")))
        with pytest.raises(EngineError, match="by http, which is not followed from https"):
            desk.pull(f"{name}/a/b:1")
        assert other.paths() == []


# RG-05: the right credentials for the right registry


def test_credentials_for_another_registry_are_not_used(desk: Desk, registry: Liar) -> None:
    from wherry.registry.credentials import AuthConfig, for_host

    ours = ("", registry.host, f"https://{registry.host}/v1/")
    for server, used in (*((each, True) for each in ours), ("evil.test", False)):
        auth = AuthConfig(username="ann", password="secret", serveraddress=server)
        assert bool(for_host(auth, registry.host)) == used, server
    assert for_host(AuthConfig(username="ann", serveraddress="https://index.docker.io/v1/"), "docker.io")
    assert not for_host(AuthConfig(username="ann", serveraddress="https://index.docker.io/v1/"), registry.host)


def test_a_mirror_learns_nothing(tmp_path: Path, registry: Liar) -> None:
    registry.put_image([LAYER])
    with Desk(tmp_path, mirrors=(registry.url,)) as desk:
        registry.tricks.append(bearer(f"{registry.url}/token"))
        with pytest.raises(EngineError):
            desk.pull("busybox:1", credentials=ANN)
        assert registry.paths()
        assert BASIC not in secrets(registry)


def test_what_is_told_of_credentials() -> None:
    assert "secret" not in repr(Credentials("ann", "secret", "secret", "secret"))


# RG-06: where a registry may not send us


@pytest.mark.parametrize("target", ["http://127.0.0.1:{port}", "http://localhost:{port}", "http://inner.test:{port}"])
def test_a_registry_elsewhere_does_not_send_us_to_this_machine(tmp_path: Path, target: str) -> None:
    """Also by a name; who answers is looked at before anything is said."""
    with ExitStack() as stack:
        stack.enter_context(named("127.0.0.1 inner.test"))
        registry = stack.enter_context(liar(ELSEWHERE))
        inner = stack.enter_context(liar())
        desk = stack.enter_context(Desk(tmp_path, insecure=(f"{ELSEWHERE}/32",)))
        registry.put_image([LAYER])
        inner.blobs = registry.blobs
        url = target.format(port=inner.server_address[1])
        registry.tricks.append(on("/blobs/", lambda e: e.reply(307, Location=f"{url}{e.path}")))
        with pytest.raises(EngineError, match="may not send anybody"):
            desk.pull(f"{registry.host}/a/b:1")
        assert inner.seen == []


def test_a_token_server_is_not_this_machine_either(tmp_path: Path) -> None:
    with liar(ELSEWHERE) as registry, liar() as inner, Desk(tmp_path, insecure=(f"{ELSEWHERE}/32",)) as desk:
        registry.put_image([LAYER])
        registry.tricks.append(bearer(f"{inner.url}/token"))
        with pytest.raises(EngineError, match="may not send anybody"):
            desk.pull(f"{registry.host}/a/b:1", credentials=ANN)
        assert inner.seen == []


# RG-07: bytes count by their digest alone


def test_a_rotten_blob_is_not_pushed_and_is_fetched_anew(desk: Desk, registry: Liar) -> None:
    registry.put_image([LAYER])
    name = f"{registry.host}/a/b:1"
    desk.pull(name)
    desk.store.images.tag(name, f"{registry.host}/c/d", "1")
    config = desk.store.images.resolve(name).id
    path = desk.root / "content/blobs/sha256" / config[7:]
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(EngineError, match="damaged"):
        desk.push(f"{registry.host}/c/d:1")
    desk.pull(name)
    assert path.read_bytes() == registry.blobs[config]


def test_a_rotten_layer_is_not_pushed_and_is_fetched_anew(desk: Desk, registry: Liar) -> None:
    registry.put_image([LAYER])
    name = f"{registry.host}/a/b:1"
    desk.pull(name)
    path = desk.root / "content/blobs/sha256" / digest(LAYER)[7:]
    path.write_bytes(b"x" + LAYER[1:])
    with liar() as other:
        desk.store.images.tag(name, f"{other.host}/c/d", "1")
        other.tricks.append(on("/uploads/", lambda e: e.reply(202, Location=f"{other.url}/up"), method="POST"))
        with pytest.raises(EngineError, match="damaged: its bytes are not those of its digest"):
            desk.push(f"{other.host}/c/d:1")
        assert other.paths("PUT") == []
    assert f"Status: Image is up to date for {name}" in desk.pull(name)
    assert path.read_bytes() == LAYER


def test_mirrors_that_are_none() -> None:
    from wherry.registry.api import RegistryConfig
    from wherry.registry.client import Registries

    for mirror in ("mirror.test", "ftp://mirror.test", "https://a:b@mirror.test", "https://mirror.test/?x=1"):
        with pytest.raises(InvalidArgument, match="invalid mirror"):
            Registries(RegistryConfig(mirrors=(mirror,)))
    with pytest.raises(InvalidArgument, match="insecure registry"):
        Registries(RegistryConfig(insecure=("10.0.0.0/99",)))
