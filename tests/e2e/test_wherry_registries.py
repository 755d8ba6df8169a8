"""wherry pull, push, login, logout and search, beside docker's."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from tests.e2e.test_wherry_cli import MAIN
from tests.engine import Engine
from tests.liars import liar, on
from tests.registries import PASSWORD, USER, Registry

pytestmark = [
    pytest.mark.root,
    pytest.mark.engine,
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    with Registry(password=True) as made:
        yield made


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    return tmp_path / "docker"


def wherry(engine: Engine, *words: str, data: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MAIN, "-H", engine.host, *words], capture_output=True, text=True, timeout=60, input=data, check=False
    )


def out(engine: Engine, *words: str, data: str = "") -> str:
    ran = wherry(engine, *words, data=data)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def docker(engine: Engine, *words: str) -> str:
    environment = {**os.environ, "DOCKER_HOST": engine.host}
    ran = subprocess.run(["docker", *words], capture_output=True, text=True, timeout=60, env=environment, check=True)
    return ran.stdout


def test_the_same_words_as_docker(engine: Engine, registry: Registry, home: Path) -> None:
    host = registry.host
    name = f"{host}/team/words"
    refused = wherry(engine, "login", "-u", USER, "--password-stdin", host, data="wrong")
    assert refused.returncode == 1
    assert "failed with status: 401 Unauthorized" in refused.stderr
    assert not home.exists()
    assert "Login Succeeded\n" in out(engine, "login", "-u", USER, "--password-stdin", host, data=PASSWORD)
    mode = (home / "config.json").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600
    known = json.loads((home / "config.json").read_text())
    assert known == {"auths": {host: {"auth": base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}}}
    engine.docker("tag", "busybox", f"{name}:latest")
    engine.docker("tag", "busybox", f"{name}:two")
    out(engine, "push", "-a", name)
    assert out(engine, "push", name) == docker(engine, "push", name)
    assert out(engine, "push", "-q", f"{name}:two") == docker(engine, "push", "-q", f"{name}:two")
    assert out(engine, "pull", name) == docker(engine, "pull", name)
    assert out(engine, "pull", "-a", name) == docker(engine, "pull", "-a", name)
    engine.docker("rmi", f"{name}:latest", f"{name}:two")
    assert out(engine, "pull", "-q", f"{name}:two") == f"{name}:two\n"
    engine.docker("rmi", f"{name}:two")
    ran = wherry(engine, "run", "--rm", f"{name}:two", "echo", "hi")
    assert (ran.returncode, ran.stdout) == (0, "hi\n")
    assert ran.stderr.startswith(f"Unable to find image '{name}:two' locally\ntwo: Pulling from team/words\n")
    ran = wherry(engine, "run", "--rm", "--pull", "always", f"{name}:two", "echo", "hi")
    assert f"Status: Image is up to date for {name}:two\n" in ran.stderr
    engine.docker("rmi", f"{name}:two")
    assert out(engine, "logout", host) == f"Removing login credentials for {host}\n"
    assert json.loads((home / "config.json").read_text()) == {"auths": {}}
    assert "no basic auth credentials" in wherry(engine, "pull", name).stderr
    assert out(engine, "logout", host).splitlines()[1] == f"Not logged in to {host}"


def test_a_credential_helper(engine: Engine, registry: Registry, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps what config.json would; when it fails nothing else is tried."""
    programs = home.parent / "bin"
    programs.mkdir()
    helper = programs / "docker-credential-shelf"
    helper.write_text(
        f"#!/bin/sh\ncd {home.parent}\ncase $1 in\nstore) cat >shelf ;;\nget) read host\n"
        '[ -e shelf ] && cat shelf || { echo "credentials not found in native keychain"; exit 1; } ;;\n'
        "erase) rm shelf ;;\nesac\n"
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    home.mkdir()
    (home / "config.json").write_text(json.dumps({"credHelpers": {registry.host: "shelf"}, "other": 1}))
    out(engine, "login", "-u", USER, "--password-stdin", registry.host, data=PASSWORD)
    assert json.loads((home.parent / "shelf").read_text()) == {
        "ServerURL": registry.host, "Username": USER, "Secret": PASSWORD,
    }  # fmt: skip
    assert PASSWORD not in (home / "config.json").read_text()
    name = f"{registry.host}/team/helped:1"
    engine.docker("tag", "busybox", name)
    out(engine, "push", name)
    engine.docker("rmi", name)
    helper.write_text("#!/bin/sh\necho broken; exit 3\n")
    failed = wherry(engine, "pull", name)
    assert (failed.returncode, failed.stderr.strip()) == (
        1, "error get credentials - err: exit status 3, out: `broken`",
    )  # fmt: skip


def test_search(engine: Engine, home: Path) -> None:
    found = [
        {"name": "a/b", "description": "x" * 60, "star_count": 2, "is_official": False, "is_automated": False},
        {"name": "c", "description": "short", "star_count": 9, "is_official": True, "is_automated": False},
    ]
    with liar() as index:
        body = json.dumps({"results": found}).encode()
        index.tricks.append(on("/v1/search", lambda exchange: exchange.reply(200, body)))
        term = f"{index.host}/x"
        assert out(engine, "search", term) == docker(engine, "search", term)
        assert out(engine, "search", "--format", "{{.Name}}", term) == f"{index.host}/a/b\n{index.host}/c\n"


def test_bars_on_a_terminal(engine: Engine, home: Path) -> None:
    with Registry() as registry:
        name = f"{registry.host}/team/bars:1"
        engine.docker("tag", "busybox", name)
        engine.docker("push", name)
        engine.docker("rmi", "-f", name, "busybox")
        argv = [*MAIN[1:], "-H", engine.host, "pull", name]
        child = pexpect.spawn(MAIN[0], argv, encoding="utf-8", dimensions=(24, 120))
        child.expect(pexpect.EOF, timeout=30)
        child.close()
        assert child.exitstatus == 0
        text = child.before or ""
        assert "\x1b[1A\x1b[2K\r" in text
        assert "Downloading [====" in text
        assert "Pull complete" in text
        assert text.rstrip().endswith(name)
        engine.docker("tag", name, "busybox")
        engine.docker("rmi", name)
