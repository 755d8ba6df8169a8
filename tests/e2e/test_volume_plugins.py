"""Volumes that a plugin keeps: a real process, asked by the engine, through the unmodified docker CLI."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_volume_backup import wherry
from tests.engine import Engine
from tests.volumes import content_image
from tests.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.engine]
PROGRAM = Path(__file__).parents[1] / "plugins" / "volumes.py"


class Plugin:
    """A plugin process of one engine."""

    def __init__(self, engine: Engine, folder: Path, name: str = "keeper") -> None:
        self.folder = folder
        self.socket = engine.run_root / "plugins" / f"{name}.sock"
        self.socket.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
        self.start()

    def start(self) -> None:
        self.socket.unlink(missing_ok=True)
        self.process = subprocess.Popen([sys.executable, str(PROGRAM), str(self.socket), str(self.folder)])
        until(self.socket.exists)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def order(self, **orders: str) -> None:
        (self.folder / "orders").write_text(json.dumps(orders))

    def calls(self, method: str) -> list[dict]:
        lines = (self.folder / "calls").read_text().splitlines()
        return [each["request"] for each in map(json.loads, lines) if each["method"] == f"VolumeDriver.{method}"]

    def make(self, volume: str) -> None:
        """Have a volume made that no engine knows of."""
        where = ["--unix-socket", str(self.socket), "http://p/VolumeDriver.Create"]
        subprocess.run(["curl", "-sf", "-d", json.dumps({"Name": volume}), *where], check=True, capture_output=True)

    def users(self, volume: str) -> list[str]:
        return json.loads((self.folder / "state.json").read_text())[volume]["users"]

    def mounted(self, volume: str) -> bool:
        return f" {self.folder}/mnt/{volume} " in Path("/proc/self/mountinfo").read_text()


@pytest.fixture
def running(own_engine: Engine) -> Engine:
    own_engine.start()
    own_engine.import_busybox()
    return own_engine


@pytest.fixture
def plugin(running: Engine, tmp_path: Path) -> Iterator[Plugin]:
    made = Plugin(running, tmp_path / "keeper")
    yield made
    running.remove_all()
    made.kill()
    for place in (made.folder / "mnt").glob("*"):
        subprocess.run(["umount", "-l", str(place)], capture_output=True, check=False)


def test_a_volume_lives_with_its_plugin(running: Engine, plugin: Plugin) -> None:
    assert running.docker("volume", "create", "-d", "keeper", "-o", "speed=high", "--label", "a=b", "vol") == "vol"
    assert plugin.calls("Create") == [{"Name": "vol", "Opts": {"speed": "high"}}]
    write = ("run", "--rm", "-v", "vol:/v", "busybox", "sh", "-c", "echo data >/v/f")
    running.docker(*write)
    assert (plugin.folder / "data" / "vol" / "f").read_text() == "data\n"
    assert running.docker("run", "--rm", "-v", "vol:/v:ro", "busybox", "cat", "/v/f") == "data"
    until(lambda: not plugin.users("vol"))
    assert not plugin.mounted("vol")
    found = json.loads(running.docker("volume", "inspect", "vol"))[0]
    assert found == {
        "CreatedAt": "2020-01-02T03:04:05Z",
        "Driver": "keeper",
        "Labels": {"a": "b"},
        "Mountpoint": "",
        "Name": "vol",
        "Options": {"speed": "high"},
        "Scope": "global",
        "Status": {"options": {"speed": "high"}},
    }
    assert running.docker("volume", "ls", "--format", "{{.Driver}} {{.Name}}") == "keeper vol"
    assert running.docker("volume", "ls", "-q", "-f", "driver=keeper") == "vol"
    assert "keeper" in json.loads(running.docker("info", "-f", "{{json .Plugins.Volume}}"))
    running.docker("volume", "rm", "vol")
    assert not (plugin.folder / "data" / "vol").exists()
    assert running.docker("volume", "ls", "-q") == ""


def test_it_is_mounted_as_long_as_a_container_runs_and_no_longer(running: Engine, plugin: Plugin) -> None:
    run = ("run", "-d", "--mount", "type=volume,src=vol,dst=/v,volume-driver=keeper,volume-opt=x=y")
    one = running.docker(*run, "--name", "one", "busybox", "sleep", "1000")
    running.docker("run", "-d", "--name", "two", "--volumes-from", "one:ro", "busybox", "sleep", "1000")
    assert plugin.calls("Create")[0] == {"Name": "vol", "Opts": {"x": "y"}}
    assert len(plugin.users("vol")) == 2
    assert one in plugin.users("vol")
    mount = json.loads(running.docker("inspect", "-f", "{{json .Mounts}}", "one"))[0]
    assert (mount["Driver"], mount["Source"]) == ("keeper", f"{plugin.folder}/mnt/vol")
    running.docker("exec", "one", "sh", "-c", "echo seen >/v/f")
    assert running.docker("exec", "two", "cat", "/v/f") == "seen"
    assert running.run("exec", "two", "touch", "/v/no").returncode
    refused = running.run("volume", "rm", "vol")
    assert "volume is in use" in refused.stderr
    running.docker("rm", "-f", "two")
    until(lambda: plugin.users("vol") == [one])
    running.docker("restart", "-t", "0", "one")
    until(lambda: plugin.users("vol") == [one])
    running.docker("kill", "one")
    until(lambda: not plugin.mounted("vol"))


def test_the_images_content_comes_into_an_empty_one(running: Engine, plugin: Plugin) -> None:
    content_image(running, "full")
    running.docker("run", "--rm", "--volume-driver", "keeper", "-v", "vol:/data", "full", "true")
    assert (plugin.folder / "data" / "vol" / "f").read_text() == "hi\n"
    assert os.stat(plugin.folder / "data" / "vol").st_uid == 5
    running.docker("run", "--rm", "--volume-driver", "keeper", "-v", "bare:/data:nocopy", "full", "true")
    assert os.listdir(plugin.folder / "data" / "bare") == []


def test_unnamed_ones_go_with_their_container(running: Engine, plugin: Plugin) -> None:
    running.docker("run", "--rm", "--volume-driver", "keeper", "-v", "/v", "busybox", "touch", "/v/f")
    until(lambda: os.listdir(plugin.folder / "data") == [])
    assert running.docker("volume", "ls", "-q") == ""


def test_the_engine_is_killed_and_comes_back(running: Engine, plugin: Plugin) -> None:
    run = ("run", "-d", "-v", "vol:/v", "--volume-driver", "keeper")
    stays = running.docker(*run, "--name", "stays", "busybox", "sleep", "1000")
    running.docker(*run, "--name", "goes", "busybox", "sh", "-c", "while [ ! -e /v/go ]; do sleep 0.05; done")
    running.crash()
    (plugin.folder / "data" / "vol" / "go").touch()
    plugin.kill()
    plugin.start()
    time.sleep(0.3)
    running.start()
    until(lambda: plugin.users("vol") == [stays])
    running.docker("exec", "stays", "sh", "-c", "echo on >/v/f")
    assert (plugin.folder / "data" / "vol" / "f").read_text() == "on\n"
    running.docker("rm", "-f", "stays")
    until(lambda: not plugin.users("vol"))


def test_what_the_plugin_refuses_is_said_and_leaves_nothing(running: Engine, plugin: Plugin) -> None:
    said = running.run("volume", "create", "-d", "keeper", "-o", "bad=1", "vol").stderr
    assert "create vol: VolumeDriver.Create: this option is no good" in said
    said = running.run("volume", "create", "-d", "nobody", "vol").stderr
    assert 'create vol: error looking up volume plugin nobody: plugin "nobody" not found' in said
    plugin.order(Mount="fail")
    ran = running.run("run", "--name", "c", "--volume-driver", "keeper", "-v", "vol:/v", "busybox", "true")
    assert ran.returncode == 125
    assert "error while mounting volume 'vol' of driver keeper: VolumeDriver.Mount: as ordered" in ran.stderr
    assert running.docker("inspect", "-f", "{{.State.Status}}", "c") == "created"
    plugin.order()
    running.docker("start", "c")
    until(lambda: not plugin.users("vol"))
    unmounted = len(plugin.calls("Unmount"))
    two = ("--volume-driver", "keeper", "-v", "vol:/v", "-v", "other:/w")
    assert running.run("run", "--rm", *two, "busybox", "nosuch").returncode == 127
    until(lambda: not plugin.users("vol") and not plugin.users("other"))
    assert len(plugin.calls("Unmount")) == unmounted + 2, "each as often as it was mounted: some plugins count"
    running.docker("volume", "create", "mine")
    said = running.run("run", "--rm", "--volume-driver", "keeper", "-v", "mine:/v", "busybox", "true").stderr
    assert 'a volume named mine already exists with the "local" driver' in said
    assert running.docker("run", "--rm", "-v", "vol:/v", "busybox", "ls", "-d", "/v") == "/v"


def test_one_that_hangs_holds_up_its_own_volumes_and_nothing_else(running: Engine, plugin: Plugin) -> None:
    running.docker("volume", "create", "-d", "keeper", "vol")
    plugin.order(Mount="hang", List="hang", Get="hang")
    stuck = threading.Thread(target=running.run, args=("run", "--rm", "-v", "vol:/v", "busybox", "true"), daemon=True)
    stuck.start()
    until(lambda: plugin.calls("Mount"))
    begin = time.monotonic()
    running.docker("run", "--rm", "-v", "other:/v", "busybox", "true")
    running.docker("ps", "-a")
    assert time.monotonic() - begin < 15
    assert set(running.docker("volume", "ls", "-q").split()) == {"vol", "other"}
    assert time.monotonic() - begin < 25, "the plugin's own limit is 30"
    plugin.kill()
    stuck.join(30)
    assert not stuck.is_alive(), "a plugin that dies ends the wait"
    said = running.run("volume", "rm", "vol")
    assert said.returncode
    plugin.order()
    plugin.start()
    running.docker("volume", "rm", "vol")


def test_a_volume_whose_plugin_is_gone_for_ever_can_be_forgotten(running: Engine, plugin: Plugin) -> None:
    running.docker("volume", "create", "-d", "keeper", "vol")
    plugin.kill()
    plugin.socket.unlink()
    assert running.run("volume", "rm", "vol").returncode
    running.docker("volume", "rm", "-f", "vol")
    assert running.docker("volume", "ls", "-q") == ""
    assert (plugin.folder / "data" / "vol").exists()


def test_a_volume_that_only_its_plugin_knows_is_found_by_name(running: Engine, plugin: Plugin) -> None:
    for name in ("theirs", "other", "third"):
        plugin.make(name)
    (plugin.folder / "data/theirs/f").write_text("was there before")
    (shown,) = json.loads(running.docker("volume", "inspect", "theirs"))
    assert (shown["Driver"], shown["Scope"], shown["Labels"]) == ("keeper", "global", None)
    listed = running.docker("volume", "ls", "--format", "{{.Driver}} {{.Name}}").split("\n")
    assert listed == ["keeper other", "keeper theirs", "keeper third"]
    assert running.docker("volume", "create", "third") == "third"
    since = str(time.time())
    assert running.docker("run", "--name", "aa", "-v", "theirs:/v", "busybox", "cat", "/v/f") == "was there before"
    seen = running.docker("events", "--since", since, "--until", str(time.time() + 1), "--filter", "type=volume",
                          "--format", "{{.Action}} {{.Actor.ID}} {{.Actor.Attributes.driver}}")  # fmt: skip
    assert seen.split("\n") == ["mount theirs keeper", "unmount theirs keeper"]
    assert "volume is in use" in running.run("volume", "rm", "theirs").stderr
    running.docker("rm", "aa")
    assert running.docker("volume", "rm", "theirs", "other") == "theirs\nother"
    assert list((plugin.folder / "data").iterdir()) == [plugin.folder / "data/third"]
    assert "no such volume" in running.run("volume", "inspect", "other").stderr


def test_one_that_does_not_say_what_it_has_is_not_asked_again_at_once(running: Engine, plugin: Plugin) -> None:
    plugin.make("theirs")
    plugin.order(Get="hang")
    begin = time.monotonic()
    running.docker("run", "--rm", "-v", "one:/v", "busybox", "true")
    assert time.monotonic() - begin >= 2
    running.docker("run", "--rm", "-v", "two:/v", "busybox", "true")
    assert running.run("volume", "inspect", "nosuch").returncode == 1
    assert time.monotonic() - begin < 25, "the plugin's own limit is 30"
    assert len(plugin.calls("Get")) == 1
    running.docker("volume", "rm", "one", "two")


def test_it_is_added_to_a_container_that_runs_and_taken_away(running: Engine, plugin: Plugin) -> None:
    """Mounted once however many places it has, over a restart, and given back at the last one or at the end."""
    identity = running.docker("run", "-d", "--name", "aa", "busybox", "sh", "-c", "trap exit TERM; sleep 1000 & wait")
    plugin.make("theirs")
    (plugin.folder / "data/theirs/f").write_text("kept elsewhere")
    assert wherry(running, "mount", "add", "aa", "theirs:/v").returncode == 0
    assert wherry(running, "mount", "add", "aa", "theirs:/w:ro").returncode == 0
    assert running.docker("exec", "aa", "cat", "/v/f", "/w/f") == "kept elsewhere" * 2
    assert running.run("exec", "aa", "touch", "/w/no").returncode == 1
    running.docker("exec", "aa", "touch", "/v/yes")
    assert (plugin.folder / "data/theirs/yes").exists()
    assert plugin.users("theirs") == [identity]
    running.docker("restart", "-t", "1", "aa")
    assert running.docker("exec", "aa", "cat", "/v/f") == "kept elsewhere"
    assert plugin.users("theirs") == [identity]
    assert wherry(running, "mount", "rm", "aa", "/v").returncode == 0
    assert plugin.users("theirs") == [identity]
    assert wherry(running, "mount", "rm", "aa", "/w").returncode == 0
    until(lambda: not plugin.users("theirs"))
    assert not plugin.mounted("theirs")
    assert wherry(running, "mount", "add", "aa", "theirs:/v").returncode == 0
    running.crash()
    running.start()
    assert plugin.users("theirs") == [identity]
    running.docker("rm", "-f", "aa")
    until(lambda: not plugin.users("theirs"))


def test_one_that_cannot_be_added_is_with_nobody(running: Engine, plugin: Plugin) -> None:
    running.docker("run", "-d", "--name", "aa", "--read-only", "busybox", "sleep", "1000")
    plugin.make("theirs")
    plugin.order(Mount="fail")
    refused = wherry(running, "mount", "add", "aa", "theirs:/v")
    assert (refused.returncode != 0, b"theirs" in refused.stderr) == (True, True)
    plugin.order()
    refused = wherry(running, "mount", "add", "aa", "theirs:/bin/busybox/x")
    assert refused.returncode
    until(lambda: not plugin.users("theirs"))
    assert json.loads(running.docker("inspect", "-f", "{{json .Mounts}}", "aa")) == []
    new = "type=volume,src=new,dst=/bin/busybox/x,volume-driver=keeper"
    assert wherry(running, "mount", "add", "aa", new).returncode
    until(lambda: "new" not in json.loads((plugin.folder / "state.json").read_text()))
    assert running.docker("volume", "ls", "-q") == "theirs"
    assert running.docker("exec", "aa", "ls", "/") != ""


def test_it_is_saved_whether_in_use_or_not(running: Engine, plugin: Plugin) -> None:
    plugin.make("theirs")
    (plugin.folder / "data/theirs/f").write_text("kept elsewhere")
    running.docker("run", "-d", "--name", "aa", "-v", "theirs:/v", "busybox", "sleep", "1000")
    for number in range(2):
        saved = wherry(running, "volume", "export", "theirs")
        assert saved.returncode == 0, saved.stderr
        assert wherry(running, "volume", "import", f"again{number}", "-", data=saved.stdout).returncode == 0
        assert (running.data_root / f"volumes/again{number}/_data/f").read_text() == "kept elsewhere"
        assert len(plugin.users("theirs")) == 1 - number
        running.remove_all()
        until(lambda: not plugin.users("theirs"))
    assert wherry(running, "volume", "snapshot", "theirs", "here").returncode == 0
    assert (running.data_root / "volumes/here/_data/f").read_text() == "kept elsewhere"
    assert not plugin.mounted("theirs")
    plugin.order(Mount="fail")
    assert b"theirs" in wherry(running, "volume", "export", "theirs").stderr


def test_an_engine_killed_before_the_container_runs_gives_it_back(
    running: Engine, plugin: Plugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.docker("volume", "create", "-d", "keeper", "vol")
    running.docker("run", "-d", "--name", "bb", "-v", "vol:/v", "busybox", "sleep", "1000")
    running.stop()
    monkeypatch.setenv("WHERRY_FAILPOINTS", "plugins.mounted=kill")
    running.start()
    running.run("run", "-d", "--name", "aa", "-v", "vol:/v", "busybox", "sleep", "1000")
    assert running.process is not None
    running.process.wait(timeout=20)
    assert len(plugin.users("vol")) == 2
    monkeypatch.delenv("WHERRY_FAILPOINTS")
    running.start()
    until(lambda: len(plugin.users("vol")) == 1)
    assert plugin.users("vol") == [running.docker("inspect", "-f", "{{.Id}}", "bb")]
    running.docker("start", "aa")
    assert len(plugin.users("vol")) == 2
    running.docker("rm", "-f", "aa", "bb")
    until(lambda: not plugin.users("vol"))
    assert list((running.run_root / "plugin-mounts").iterdir()) == []
