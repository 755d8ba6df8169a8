"""Docker Compose v2, unmodified: a project comes up, is looked at, changes, and goes without leaving anything."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine import Engine
from tests.kernel.isolation import ip

pytestmark = [pytest.mark.root, pytest.mark.engine]

PLUGIN = Path(sys.prefix) / "libexec/docker/cli-plugins/docker-compose"
FILE = Path(__file__).with_name("compose.yaml")


class Project:
    """A folder with a Compose file, and the command."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.folder = folder

    def try_(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["docker", "compose", "--ansi", "never", "--project-directory", str(self.folder), *words],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
            env={**self.engine.environment, **environment},
        )

    def __call__(self, *words: str, **environment: str) -> str:
        ran = self.try_(*words, **environment)
        assert ran.returncode == 0, f"{words}: {ran.returncode}\n{ran.stdout}{ran.stderr}\n{self.engine.tail()}"
        return ran.stdout

    def containers(self) -> dict[str, dict]:
        """What `docker compose ps` shows, by name."""
        lines = self("ps", "-a", "--format", "json").splitlines()
        return {entry["Name"]: entry for entry in map(json.loads, lines)}

    def ids(self) -> set[str]:
        return {entry["ID"] for entry in self.containers().values()}


@pytest.fixture
def project(engine: Engine, tmp_path: Path) -> Iterator[Project]:
    assert PLUGIN.exists(), "no Compose: ./test fetches it"
    folder = engine.root / "docker" / "cli-plugins"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "docker-compose").unlink(missing_ok=True)
    (folder / "docker-compose").symlink_to(PLUGIN)
    shutil.copy(FILE, tmp_path / "compose.yaml")
    found = Project(engine, tmp_path)
    yield found
    found("--profile", "*", "down", "-v", "--remove-orphans", "-t", "0")


def test_a_project_comes_up_in_order_and_goes_without_a_trace(project: Project, engine: Engine):
    project("up", "-d")
    shown = project.containers()
    assert {(each["Service"], each["State"], each["Health"]) for each in shown.values()} == {
        ("db", "running", "healthy"),
        ("web", "running", ""),
    }
    started = [engine.docker("inspect", "-f", "{{.State.StartedAt}}", f"demo-{name}-1") for name in ("db", "web")]
    assert started == sorted(started), "web waits until db is healthy"
    lines = project("logs", "--no-log-prefix").replace("\x1b[2K", "").split()  # 2.26 clears its line in any case
    assert sorted(lines) == sorted(["db", "up", "web", "up", "red"])
    assert "tool" not in str(shown)
    networks = json.loads(engine.docker("inspect", "-f", "{{json .NetworkSettings.Networks}}", "demo-web-1"))
    assert set(networks) == {"demo_front", "demo_back"}
    assert networks["demo_back"]["IPAddress"].startswith("10.210.0.")
    assert engine.docker("network", "ls", "-q", "--filter", "label=tier=public")
    bridges = {f"br-{each}" for each in engine.docker("network", "ls", "-q", "--filter", "type=custom").split()}
    assert len(bridges & {each["ifname"] for each in ip("link")}) == 2
    project("down", "-v", "-t", "0")
    assert engine.docker("ps", "-aq") == ""
    assert engine.docker("network", "ls", "-q", "--filter", "type=custom") == ""
    assert not bridges & {each["ifname"] for each in ip("link")}


def test_up_again_changes_nothing_and_a_change_makes_a_new_container(project: Project):
    project("up", "-d")
    before = project.containers()
    project("up", "-d")
    assert project.ids() == {each["ID"] for each in before.values()}
    project("up", "-d", COLOUR="blue")
    after = project.containers()
    assert after["demo-db-1"]["ID"] == before["demo-db-1"]["ID"]
    assert after["demo-web-1"]["ID"] != before["demo-web-1"]["ID"]
    assert "web up blue" in project("logs", "web")


def test_volumes_and_copies(project: Project, engine: Engine, tmp_path: Path):
    """What one service writes the other reads; it outlives the containers, and goes with down -v."""
    project("up", "-d")
    project("exec", "-T", "db", "sh", "-c", "echo precious >/data/file")
    assert project("exec", "-T", "web", "cat", "/shared/file") == "precious\n"
    assert project.try_("exec", "-T", "web", "touch", "/shared/no").returncode == 1
    project("exec", "-T", "web", "touch", "/scratch/yes")
    project("cp", "db:/data/file", str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "precious\n"
    project("cp", str(tmp_path / "out"), "db:/data/again")
    assert project("exec", "-T", "web", "cat", "/shared/again") == "precious\n"
    project("down", "-t", "0")
    assert engine.docker("volume", "ls", "-q", "--filter", "label=kind=kept") == "demo_data"
    project("up", "-d")
    assert project("exec", "-T", "web", "cat", "/shared/file") == "precious\n"
    project("down", "-v", "-t", "0")
    assert engine.docker("volume", "ls", "-q") == ""


def test_a_published_port(project: Project):
    project("up", "-d", "--wait", "web")
    place = project("port", "web", "80").strip()
    deadline = time.monotonic() + 5
    while True:
        try:
            with urllib.request.urlopen(f"http://{place}/index.html", timeout=5) as answer:
                assert answer.read() == b"hi\n"
            break
        except urllib.error.URLError:
            assert time.monotonic() < deadline
    (publisher,) = [each for each in project.containers()["demo-web-1"]["Publishers"] if each["PublishedPort"]]
    assert place == f"127.0.0.1:{publisher['PublishedPort']}"


def test_scaling(project: Project):
    project("up", "-d", "--scale", "web=3")
    assert set(project.containers()) == {"demo-db-1", "demo-web-1", "demo-web-2", "demo-web-3"}
    project("up", "-d", "--scale", "web=1")
    assert len(project.containers()) == 2


def test_commands_inside_and_beside_the_services(project: Project, engine: Engine):
    project("up", "-d")
    assert project("exec", "-T", "web", "sh", "-c", "echo $COLOUR") == "red\n"
    ran = project.try_("exec", "-T", "db", "sh", "-c", "exit 7")
    assert ran.returncode == 7
    assert project("run", "--rm", "-T", "web", "echo", "once") == "once\n"
    assert project("run", "--rm", "-T", "tool") == "tool ran\n"
    address = engine.docker("inspect", "-f", "{{.NetworkSettings.Networks.demo_back.IPAddress}}", "demo-db-1")
    project("exec", "-T", "web", "ping", "-c", "1", "-W", "2", address)
    assert "sleep 0.1" in project("top", "web")
    assert "busybox" in project("images")
    assert json.loads(project("ls", "--format", "json"))[0]["Status"] == "running(2)"
    assert len(project.containers()) == 2


def test_stop_start_restart_pause_kill(project: Project):
    project("up", "-d")
    ids = project.ids()

    def states() -> set[str]:
        return {each["State"] for each in project.containers().values()}

    project("stop", "-t", "2")
    assert states() == {"exited"}
    assert {each["ExitCode"] for each in project.containers().values()} == {0}
    project("start")
    assert states() == {"running"}
    project("restart", "-t", "2")
    assert states() == {"running"}
    project("pause")
    assert states() == {"paused"}
    project("unpause")
    project("kill", "web")
    assert project.containers()["demo-web-1"]["ExitCode"] == 137
    project("up", "-d", "--no-recreate")
    assert (states(), project.ids()) == ({"running"}, ids)


def test_profiles_and_foreground(project: Project):
    """Without -d the client attaches to all of them, follows the events, and ends with the first that ends."""
    ran = project.try_("--profile", "tools", "up", "--abort-on-container-exit", "--exit-code-from", "tool", "-t", "1")
    assert ran.returncode == 0, ran.stderr
    assert "tool ran" in ran.stdout
    assert {each["State"] for each in project.containers().values()} <= {"exited", "created"}


def test_waiting_for_a_service(project: Project):
    project("up", "-d")
    waiting = subprocess.Popen(
        ["docker", "compose", "--ansi", "never", "--project-directory", str(project.folder), "wait", "db"],
        env=project.engine.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 20
    while project.engine.log.read_text().count('operation="POST /containers/{id}/wait"') == 0:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    project("kill", "-s", "TERM", "db")
    out, _ = waiting.communicate(timeout=20)
    assert waiting.returncode == 0
    assert "exited with status code 0" in out or out.strip() == "0"


VOLUMES = """
name: keeping
services:
  app:
    image: busybox
    command: ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]
    volumes:
      - kept:/kept
      - theirs:/theirs
      - /unnamed
      - {type: tmpfs, target: /scratch, tmpfs: {size: 1048576, mode: 0700}}
      - {type: volume, source: quick, target: /quick, read_only: true, volume: {nocopy: true}}
volumes:
  kept: {labels: {tier: data}}
  theirs: {external: true, name: outside}
  quick: {driver: local, driver_opts: {type: tmpfs, device: tmpfs, o: size=1m}}
"""


def test_what_is_kept_and_what_goes(project: Project, engine: Engine):
    """Named, external and unnamed volumes and a tmpfs over up, down and down -v."""
    (project.folder / "compose.yaml").write_text(VOLUMES)
    missing = project.try_("up", "-d")
    assert missing.returncode
    assert 'external volume "outside" not found' in missing.stderr
    engine.docker("volume", "create", "outside")
    project("up", "-d")
    app = "keeping-app-1"
    engine.docker("exec", app, "sh", "-c", "for each in kept theirs unnamed scratch; do echo $each >/$each/f; done")
    seen = engine.docker("exec", app, "sh", "-c", "stat -c %a /scratch; df -k /scratch /quick | awk 'NR>1{print $2}'")
    assert seen.split() == ["700", "1024", "1024"]
    assert engine.run("exec", app, "touch", "/quick/f").returncode == 1
    project("restart", "-t", "1")
    listed = "for each in kept theirs unnamed scratch; do cat /$each/f; done; true"
    assert engine.docker("exec", app, "sh", "-c", listed).split("\n")[:3] == ["kept", "theirs", "unnamed"]
    project("down", "-t", "1")
    named = {"keeping_kept", "keeping_quick", "outside"}
    assert named <= set(engine.docker("volume", "ls", "-q").split())
    project("up", "-d")
    assert engine.docker("exec", app, "sh", "-c", f"{listed}").split("\n") == ["kept", "theirs"]
    project("down", "-v", "-t", "1")
    assert named & set(engine.docker("volume", "ls", "-q").split()) == {"outside"}
    assert (engine.data_root / "volumes/outside/_data/f").read_text() == "theirs\n"
    assert not (engine.data_root / "volumes/keeping_kept").exists()
    engine.docker("volume", "rm", "outside")
