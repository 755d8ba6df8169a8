"""docker pull, push, login, search and run against Debian's docker-registry."""

from __future__ import annotations

import base64
import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.engine import Engine
from tests.liars import liar, on
from tests.registries import PASSWORD, USER, Registry, elsewhere
from tests.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.engine]


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    with Registry() as made:
        yield made


@pytest.fixture(scope="module")
def locked_registry() -> Iterator[Registry]:
    with Registry(password=True) as made:
        yield made


def forget(engine: Engine, *names: str) -> None:
    """Remove images with all their names by digest, and look that nothing is left of them."""
    engine.docker("rmi", "-f", *names)


def test_there_and_back(engine: Engine, registry: Registry) -> None:
    name = f"{registry.host}/team/there:1"
    engine.docker("tag", "busybox", name)
    before = json.loads(engine.docker("image", "inspect", name))[0]
    pushed = engine.docker("push", name).splitlines()
    assert pushed[0] == f"The push refers to repository [{registry.host}/team/there]"
    assert pushed[-1].startswith("1: digest: sha256:")
    digest = pushed[-1].split()[2]
    assert any(line.endswith(": Pushed") for line in pushed)
    forget(engine, name)
    assert engine.run("image", "inspect", name).returncode
    pulled = engine.docker("pull", name).splitlines()
    assert pulled[0] == "1: Pulling from team/there"
    assert pulled[-3:] == [f"Digest: {digest}", f"Status: Downloaded newer image for {name}", name]
    after = json.loads(engine.docker("image", "inspect", name))[0]
    assert after["Id"] == before["Id"]
    assert after["RootFS"] == before["RootFS"]
    assert after["RepoDigests"] == [f"{registry.host}/team/there@{digest}"]
    assert engine.docker("run", "--rm", name, "echo", "hi") == "hi"
    assert engine.docker("pull", "-q", name) == name
    forget(engine, name)


def test_run_pulls_what_is_not_there(engine: Engine, registry: Registry) -> None:
    name = f"{registry.host}/team/run"
    engine.docker("tag", "busybox", name)
    engine.docker("push", name)
    forget(engine, name)
    ran = engine.run("run", "--rm", name, "echo", "hi")
    assert (ran.returncode, ran.stdout) == (0, "hi\n")
    assert f"Unable to find image '{name}:latest' locally" in ran.stderr
    assert f"Status: Downloaded newer image for {name}:latest" in ran.stderr
    forget(engine, name)
    ran = engine.run("run", "--rm", f"{name}:nosuch", "true")
    assert ran.returncode == 125
    assert f"manifest for {name}:nosuch not found: manifest unknown: manifest unknown" in ran.stderr


def test_what_a_registry_has_is_not_sent_again(engine: Engine, registry: Registry) -> None:
    first, second = f"{registry.host}/team/a:1", f"{registry.host}/team/b:1"
    for name in (first, second):
        engine.docker("tag", "busybox", name)
    one = engine.docker("push", first)
    asked = len(registry.requests())
    other = engine.docker("push", second)
    assert ": Mounted from team/a" in other or ": Mounted from team/there" in other
    sent = [each for each in registry.requests()[asked:] if each.startswith("PATCH")]
    assert len(sent) <= 1  # the config, which is not mounted
    again = engine.docker("push", first)
    assert ": Layer already exists" in again
    assert len({text.splitlines()[-1] for text in (one, other, again)}) == 1
    forget(engine, first, second)


def test_a_pulled_image_keeps_its_digest_when_it_is_pushed_on(engine: Engine, registry: Registry) -> None:
    first, second = f"{registry.host}/team/c:1", f"{registry.host}/team/d:9"
    engine.docker("tag", "busybox", first)
    digest = engine.docker("push", first).splitlines()[-1].split()[2]
    forget(engine, first)
    engine.docker("pull", first)
    engine.docker("tag", first, second)
    assert engine.docker("push", second).splitlines()[-1].split()[2] == digest
    by_digest = f"{registry.host}/team/d@{digest}"
    engine.docker("rmi", first, second)
    assert f"Digest: {digest}" in engine.docker("pull", by_digest)
    assert engine.docker("run", "--rm", by_digest, "echo", "hi") == "hi"
    forget(engine, by_digest)


def test_all_tags(engine: Engine, registry: Registry) -> None:
    base = f"{registry.host}/team/many"
    for tag in ("a", "b"):
        engine.docker("tag", "busybox", f"{base}:{tag}")
    told = engine.docker("push", "-a", base)
    assert "a: digest: sha256:" in told
    assert "b: digest: sha256:" in told
    forget(engine, f"{base}:a", f"{base}:b")
    told = engine.docker("pull", "-a", base)
    assert f"Status: Downloaded newer image for {base}" in told
    assert sorted(engine.docker("images", "--format", "{{.Tag}}", base).split()) == ["a", "b"]
    forget(engine, f"{base}:a", f"{base}:b")


def test_words_for_what_is_not_there(engine: Engine, registry: Registry) -> None:
    name = f"{registry.host}/team/no"
    assert engine.run("push", f"{name}:1").stderr.strip() == f"tag does not exist: {name}:1"
    assert engine.run("push", "-a", name).stderr.strip() == f"An image does not exist locally with the tag: {name}"
    ran = engine.run("pull", "localhost:1/nobody:1")
    assert ran.returncode == 1
    assert 'Get "http://localhost:1/v2/' in ran.stderr
    assert "connection refused" in ran.stderr


def test_login_push_and_pull_with_a_password(engine: Engine, locked_registry: Registry) -> None:
    host = locked_registry.host
    name = f"{host}/team/locked:1"
    engine.docker("tag", "busybox", name)
    assert "no basic auth credentials" in engine.run("push", name).stderr
    bad = engine.run("login", "-u", USER, "--password-stdin", host, input="wrong")
    assert f"login attempt to http://{host}/v2/ failed with status: 401 Unauthorized" in bad.stderr
    assert "Login Succeeded" in engine.docker("login", "-u", USER, "--password-stdin", host, input=PASSWORD)
    engine.docker("push", name)
    forget(engine, name)
    engine.docker("pull", name)
    forget(engine, name)
    engine.docker("logout", host)
    assert "no basic auth credentials" in engine.run("pull", name).stderr
    log = engine.log.read_text(errors="replace")
    secret = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    assert PASSWORD not in log
    assert secret not in log
    data = subprocess.run(["grep", "-rlE", f"{PASSWORD}|{secret}", engine.data_root], capture_output=True, text=True)
    assert data.stdout == ""


def test_garbage_as_credentials(engine: Engine, registry: Registry) -> None:
    name = f"{registry.host}/team/x"
    for path in (f"/images/create?fromImage={name}&tag=1", f"/images/{name}/push?tag=1"):
        ran = subprocess.run(
            ["curl", "-s", "-o", "-", "-w", "%{http_code}", "-X", "POST", "-H", "X-Registry-Auth: !!!",
             "--unix-socket", engine.socket, f"http://d{path}"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert ran.stdout.endswith("400"), ran.stdout


def test_manifest_inspect_by_the_engine(engine: Engine, registry: Registry) -> None:
    name = f"{registry.host}/team/dist:1"
    engine.docker("tag", "busybox", name)
    digest = engine.docker("push", name).splitlines()[-1].split()[2]
    status, text = engine.api("GET", f"/v1.51/distribution/{name}/json")
    assert status == 200
    body = json.loads(text)
    assert body["Descriptor"]["digest"] == digest
    assert body["Descriptor"]["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    assert body["Descriptor"]["size"] == len(registry.get(f"/v2/team/dist/manifests/{digest}"))
    assert body["Platforms"] == [{"architecture": "amd64", "os": "linux"}]
    status, text = engine.api("GET", f"/v1.51/distribution/{registry.host}/team/dist:2/json")
    assert status == 404
    forget(engine, name)


def test_search(engine: Engine) -> None:
    """docker-registry has no index, so one of our own answers."""
    found = [
        {"name": "team/one", "description": "the first", "star_count": 7, "is_official": False, "is_automated": False},
        {"name": "team/two", "description": "the second", "star_count": 1, "is_official": True, "is_automated": False},
    ]
    with liar() as index:
        body = json.dumps({"results": found}).encode()
        index.tricks.append(on("/v1/search", lambda exchange: exchange.reply(200, body)))
        shown = engine.docker("search", "--format", "{{.Name}} {{.StarCount}}", f"{index.host}/team")
        assert shown.splitlines() == [f"{index.host}/team/one 7", f"{index.host}/team/two 1"]
        assert index.paths()[-1] == "/v1/search?q=team&n=25"
        few = ("--filter", "stars=3", "--limit", "9")
        shown = engine.docker("search", "--format", "{{.Name}}", *few, f"{index.host}/t")
        assert shown == f"{index.host}/team/one"
        assert index.paths()[-1] == "/v1/search?q=t&n=9"


def test_mirrors_insecure_registries_and_proxies_of_the_daemon(own_engine: Engine, registry: Registry) -> None:
    """A mirror answers for Docker Hub; what is configured is shown."""
    own_engine.root.joinpath("daemon.json").write_text(json.dumps({
        "registry-mirrors": [f"http://{registry.host}"],
        "insecure-registries": ["reg.test:5000", "10.9.0.0/16"],
        "proxies": {"http-proxy": "http://joe:pass@proxy.test:3128", "no-proxy": "127.0.0.1,.test"},
    }))  # fmt: skip
    own_engine.start()
    own_engine.import_busybox()
    own_engine.docker("tag", "busybox", f"{registry.host}/library/mirrored:1")
    own_engine.docker("push", f"{registry.host}/library/mirrored:1")
    told = own_engine.docker("pull", "mirrored:1")
    assert "1: Pulling from library/mirrored" in told
    assert "Status: Downloaded newer image for mirrored:1" in told
    info = json.loads(own_engine.api("GET", "/info")[1])
    assert info["RegistryConfig"]["Mirrors"] == [f"http://{registry.host}/"]
    assert info["RegistryConfig"]["IndexConfigs"]["reg.test:5000"]["Secure"] is False
    assert "10.9.0.0/16" in info["RegistryConfig"]["InsecureRegistryCIDRs"]
    assert info["HttpProxy"] == "http://xxxxx:xxxxx@proxy.test:3128"
    own_engine.root.joinpath("daemon.json").write_text(json.dumps({"insecure-registries": ["other.test"]}))
    assert own_engine.process is not None
    own_engine.process.send_signal(signal.SIGHUP)
    until(lambda: "other.test" in json.loads(own_engine.api("GET", "/info")[1])["RegistryConfig"]["IndexConfigs"])
    assert json.loads(own_engine.api("GET", "/info")[1])["RegistryConfig"]["Mirrors"] is None


def test_tls_with_the_certificate_of_the_registry(own_engine: Engine) -> None:
    """Loopback needs no good certificate, so the registry is elsewhere. Without its certificate nothing goes there."""
    with elsewhere() as address, Registry(tls=True, host=address) as registry, ExitStack() as stack:
        own_engine.start()
        own_engine.import_busybox()
        name = f"{registry.host}/team/tls:1"
        own_engine.docker("tag", "busybox", name)
        refused = own_engine.run("push", name)
        assert "certificate verify failed" in refused.stderr
        assert registry.requests() == []
        trusted = Path("/etc/docker/certs.d") / registry.host
        trusted.mkdir(parents=True)
        stack.callback(shutil.rmtree, trusted)
        (trusted / "ca.crt").write_bytes(registry.crt.read_bytes())
        own_engine.docker("push", name)
        own_engine.docker("rmi", name)
        own_engine.docker("pull", name)
