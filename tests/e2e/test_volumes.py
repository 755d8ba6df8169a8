"""Volumes through the unmodified docker CLI: what is in them, who sees it, and what becomes of it."""

import contextlib
import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.engine import Engine
from tests.volumes import Requests, content_image, remove_volumes
from wherry.kernel.fsio import trees

pytestmark = [pytest.mark.root, pytest.mark.engine]


@pytest.fixture(autouse=True)
def _no_volume_stays(engine: Engine):
    yield
    remove_volumes(engine)


@pytest.fixture(scope="module")
def full(shared_engine: Engine) -> str:
    """An image with all kinds of things at /data, and VOLUME /data and /vol."""
    return content_image(shared_engine, "full", changes=("VOLUME /data /vol",))


def mounts_of(engine: Engine, container: str) -> dict[str, dict[str, object]]:
    found = json.loads(engine.docker("inspect", "-f", "{{json .Mounts}}", container))
    return {each["Destination"]: each for each in found}


def folders(engine: Engine) -> list[str]:
    return sorted(os.listdir(engine.data_root / "volumes"))


# ---- docker volume


def test_create_inspect_list_and_remove(engine: Engine):
    assert engine.docker("volume", "create", "--label", "a=b", "vv") == "vv"
    found = json.loads(engine.docker("volume", "inspect", "vv"))[0]
    place = str(engine.data_root / "volumes" / "vv" / "_data")
    assert found.pop("CreatedAt").endswith("Z")
    assert found == {
        "Driver": "local",
        "Labels": {"a": "b"},
        "Mountpoint": place,
        "Name": "vv",
        "Options": None,
        "Scope": "local",
    }
    assert os.path.isdir(place)
    assert engine.docker("volume", "create", "--label", "c=d", "vv") == "vv"
    assert json.loads(engine.docker("volume", "inspect", "vv"))[0]["Labels"] == {"a": "b"}
    nameless = engine.docker("volume", "create")
    assert sorted(engine.docker("volume", "ls", "-q").split()) == sorted(["vv", nameless])
    assert json.loads(engine.docker("volume", "inspect", nameless))[0]["Labels"] == {"com.docker.volume.anonymous": ""}
    assert engine.docker("volume", "rm", "vv", nameless) == f"vv\n{nameless}"
    assert folders(engine) == []


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("rm", "nosuch"), "get nosuch: no such volume"),
        (("inspect", "nosuch"), "get nosuch: no such volume"),
        (("create", "a"), "create a: volume name is too short, names should be at least two alphanumeric characters"),
        (("create", "Ä"), "includes invalid characters for a local volume name"),
        (("create", "a/b"), 'only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory'),
        (("create", "-d", "nod", "vv"), 'error looking up volume plugin nod: plugin "nod" not found'),
        (("create", "-o", "foo=bar", "vv"), 'create vv: invalid option: "foo"'),
        (("create", "-o", "type=tmpfs", "vv"), 'create vv: missing required option: "device"'),
        (("ls", "-f", "foo=bar"), "invalid filter 'foo'"),
        (("ls", "-f", "dangling=zz"), "invalid filter 'dangling=[zz]'"),
    ],
)
def test_what_dockerd_refuses_is_refused_in_its_words(engine: Engine, words, text):
    ran = engine.run("volume", *words)
    assert ran.returncode == 1
    assert text in ran.stderr
    assert folders(engine) == []


def test_statuses_are_those_of_dockerd(engine: Engine):
    assert engine.api("POST", "/volumes/create", '{"Name": "vv"}')[0] == 201
    assert engine.api("POST", "/volumes/create", '{"Name": "vv", "Driver": "nod"}')[0] == 404
    wanted = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"Binds": ["vv:/x"], "VolumeDriver": "nod"}}
    status, said = engine.api("POST", "/containers/create", json.dumps(wanted))
    assert (status, "error looking up volume plugin nod" in said) == (404, True)
    assert engine.api("POST", "/volumes/create", "{}")[0] == engine.api("POST", "/volumes/create")[0] == 201
    assert "error reading volume filters: invalid filter" in engine.api("GET", "/volumes?filters=x")[1]
    assert engine.api("POST", "/volumes/create", '{"ClusterVolumeSpec": {}}')[0] == 503
    assert engine.api("POST", "/v1.41/volumes/create", '{"ClusterVolumeSpec": {}}')[0] == 201
    assert engine.api("PUT", "/volumes/vv?version=1", "{}")[0] == 503
    assert engine.api("DELETE", "/volumes/nosuch")[0] == 404
    assert engine.api("DELETE", "/volumes/nosuch?force=1")[0] == 204
    engine.docker("create", "-v", "vv:/x", "busybox", "true")
    assert engine.api("DELETE", "/volumes/vv?force=1")[0] == 409


def test_filters_of_the_list(engine: Engine):
    engine.docker("volume", "create", "--label", "x=1", "one")
    engine.docker("volume", "create", "two")
    engine.docker("create", "-v", "two:/x", "busybox", "true")

    def listed(*filters: str) -> list[str]:
        words = [word for each in filters for word in ("-f", each)]
        return engine.docker("volume", "ls", "-q", *words).split()

    assert listed("name=n") == ["one"]
    assert listed("name=^t.o$") == ["two"]
    assert listed("label=x") == listed("label=x=1") == ["one"]
    assert listed("label=x=2") == []
    assert listed("dangling=true") == ["one"]
    assert listed("dangling=false") == ["two"]
    assert listed("driver=local") == ["one", "two"]
    assert listed("driver=other") == []


def test_prune_takes_unnamed_ones_unless_told_otherwise(engine: Engine):
    engine.docker("volume", "create", "named")
    nameless, used = engine.docker("volume", "create"), engine.docker("volume", "create")
    engine.docker("create", "-v", f"{used}:/x", "busybox", "true")
    text = engine.docker("volume", "prune", "-f")
    assert nameless in text
    assert sorted(engine.docker("volume", "ls", "-q").split()) == sorted(["named", used])
    (engine.data_root / "volumes" / "named" / "_data" / "file").write_text("x" * 1000)
    assert engine.docker("volume", "prune", "-f", "--filter", "label=no") == "Total reclaimed space: 0B"
    assert "Total reclaimed space: 1kB" in engine.docker("volume", "prune", "-af")
    assert engine.docker("volume", "ls", "-q") == used


def test_what_somebody_has_mounted_in_a_volume_is_not_removed_with_it(engine: Engine, tmp_path: Path):
    (tmp_path / "precious").touch()
    nameless = engine.docker("run", "-dv", "/v", "busybox", "sleep", "1000")
    (mount,) = mounts_of(engine, nameless).values()
    place = Path(str(mount["Source"])) / "there"
    place.mkdir()
    subprocess.run(["mount", "--bind", str(tmp_path), str(place)], check=True)
    try:
        engine.docker("rm", "-fv", nameless)
        said = engine.run("volume", "rm", str(mount["Name"])).stderr
        assert f"remove {mount['Name']}: something is mounted in it, at {place}" in said
        assert "Total reclaimed space: 0B" in engine.docker("volume", "prune", "-f")
        fd = os.open(engine.data_root / "volumes", os.O_RDONLY)
        with pytest.raises(OSError, match="something is mounted there"):
            trees.remove(fd, str(mount["Name"]))
        os.close(fd)
        assert (tmp_path / "precious").exists()
    finally:
        subprocess.run(["umount", str(place)], check=True)
    engine.docker("volume", "rm", str(mount["Name"]))
    assert folders(engine) == []


def test_prune_of_old_clients_takes_all(engine: Engine):
    engine.docker("volume", "create", "named")
    assert engine.api("POST", "/v1.42/volumes/prune")[1].strip() == '{"VolumesDeleted":[],"SpaceReclaimed":0}'
    assert engine.api("POST", "/v1.41/volumes/prune")[1].strip() == '{"VolumesDeleted":["named"],"SpaceReclaimed":0}'
    assert engine.api("POST", "/volumes/prune?filters=" + engine.quote('{"foo":["a"]}'))[0] == 400
    both = engine.api("POST", "/volumes/prune?filters=" + engine.quote('{"all":["true","false"]}'))
    assert (both[0], "only one value is expected" in both[1]) == (400, True)


def test_what_a_volume_takes_and_who_has_it(engine: Engine):
    engine.docker("run", "--name", "aa", "-v", "vv:/d", "busybox", "sh", "-c", "head -c 5000 /dev/zero > /d/f")
    engine.docker("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "memory")
    volumes = json.loads(engine.api("GET", "/system/df?type=volume")[1])["Volumes"]
    assert [(each["Name"], each["UsageData"]) for each in volumes] == [("vv", {"RefCount": 1, "Size": 5000})]
    assert "5kB" in engine.docker("system", "df", "-v")
    assert engine.docker("ps", "-aq", "--filter", "volume=vv") == engine.docker("ps", "-aq", "--filter", "volume=/d")
    assert engine.docker("ps", "-aq", "--filter", "volume=v") == ""
    assert engine.docker("ps", "-a", "--format", "{{.Mounts}} {{.LocalVolumes}}") == "vv 1"


def test_events(engine: Engine):
    since = str(time.time())
    engine.docker("run", "--rm", "--name", "aa", "-v", "vv:/d:ro", "-v", "/an", "busybox", "true")
    shape = "{{.Type}} {{.Action}} {{.Actor.ID}} {{json .Actor.Attributes}}"
    deadline = time.monotonic() + 5
    while "container destroy" not in (text := events(engine, since, shape)):
        assert time.monotonic() < deadline, text
        time.sleep(0.05)
    lines = [line.split(" ", 3) for line in text.splitlines()]
    order = [f"{kind} {action}" for kind, action, _, _ in lines if kind in ("volume", "container")]
    expected = ["volume create"] * 2 + ["container create"]
    assert order[:3] == expected
    assert order[-2:] == ["volume destroy", "container destroy"]
    assert [action for kind, action, name, _ in lines if name == "vv"] == ["create", "mount", "unmount"]
    mounted = next(json.loads(fields) for _, action, name, fields in lines if (action, name) == ("mount", "vv"))
    assert len(mounted.pop("container")) == 64
    assert mounted == {"destination": "/d", "driver": "local", "propagation": "", "read/write": "false"}


def events(engine: Engine, since: str, shape: str) -> str:
    return engine.docker("events", "--since", since, "--until", str(time.time()), "--format", shape)


# ---- in containers


def test_a_named_volume_outlives_its_container_and_a_killed_engine(own_engine: Engine):
    own_engine.start()
    own_engine.import_busybox()
    own_engine.docker("run", "--rm", "-v", "vv:/d", "busybox", "sh", "-c", "echo kept > /d/f")
    own_engine.docker("run", "-d", "--name", "aa", "-v", "vv:/e", "-v", "/an", "busybox", "sleep", "1000")
    own_engine.crash()
    own_engine.start()
    assert own_engine.docker("run", "--rm", "-v", "vv:/d:ro", "busybox", "cat", "/d/f") == "kept"
    ran = own_engine.run("volume", "rm", "vv")
    holder = own_engine.docker("inspect", "-f", "{{.Id}}", "aa")
    assert ran.stderr.strip().endswith(f"remove vv: volume is in use - [{holder}]")
    own_engine.docker("rm", "-fv", "aa")
    assert own_engine.docker("volume", "ls", "-q") == "vv"
    own_engine.docker("volume", "rm", "vv")
    assert folders(own_engine) == []


def test_read_only_and_missing_places(engine: Engine):
    script = "touch /new/deep/x && ! touch /ro/x 2>/dev/null && stat -c %a,%u /new /new/deep"
    out = engine.docker("run", "--rm", "-v", "vv:/new/deep", "-v", "vv:/ro:ro", "busybox", "sh", "-c", script)
    assert out == "755,0\n755,0"
    assert os.listdir(engine.data_root / "volumes" / "vv" / "_data") == ["x"]


def test_deeper_places_are_mounted_over_shallower_ones(engine: Engine):
    words = ["-v", "inner:/a/b/c", "-v", "outer:/a", "--tmpfs", "/a/b", "-v", "/a/b/c/d"]
    script = "for place in /a /a/b /a/b/c /a/b/c/d; do touch $place/mark && ls $place; done"
    listed = engine.docker("run", "--rm", *words, "busybox", "sh", "-c", script)
    assert listed.replace("\n", " ") == "b mark c mark d mark mark"
    base = engine.data_root / "volumes"
    assert sorted(os.listdir(base / "outer" / "_data")) == ["b", "mark"]
    assert os.listdir(base / "outer" / "_data" / "b") == []
    assert sorted(os.listdir(base / "inner" / "_data")) == ["d", "mark"]


def test_what_inspect_says(engine: Engine, full: str):
    words = ["-v", "vv:/v", "-v", "ww:/w:ro", "-v", "/tmp:/b", "--mount", "type=tmpfs,dst=/t", "--tmpfs", "/t2"]
    engine.docker("create", "--name", "aa", *words, "--mount", "type=volume,src=xx,dst=/x,readonly", full)
    found = mounts_of(engine, "aa")
    assert sorted(found) == ["/b", "/data", "/t", "/v", "/vol", "/w", "/x"]
    base = f"{engine.data_root}/volumes"
    assert found["/v"] == {
        "Type": "volume",
        "Name": "vv",
        "Source": f"{base}/vv/_data",
        "Destination": "/v",
        "Driver": "local",
        "Mode": "z",
        "RW": True,
        "Propagation": "",
    }
    assert (found["/w"]["Mode"], found["/w"]["RW"]) == ("ro", False)
    assert (found["/x"]["Mode"], found["/x"]["RW"]) == ("z", False)
    assert (found["/vol"]["Mode"], len(str(found["/vol"]["Name"]))) == ("", 64)
    assert found["/b"]["Propagation"] == "rprivate"


def test_unnamed_volumes_go_with_rm_v_and_with_rm_and_named_ones_stay(engine: Engine, full: str):
    engine.docker("create", "--name", "aa", "-v", "vv:/v", "-v", "/an", full)
    assert len(engine.docker("volume", "ls", "-q").split()) == 4
    engine.docker("rm", "aa")
    assert len(engine.docker("volume", "ls", "-q").split()) == 4
    engine.docker("volume", "prune", "-f")
    engine.docker("run", "--rm", "-v", "vv:/v", "-v", "/an", full, "true")
    engine.docker("create", "--name", "bb", "-v", "vv:/v", "-v", "/an", full)
    engine.docker("rm", "-v", "bb")
    assert engine.docker("volume", "ls", "-q") == "vv"


def test_volumes_from_is_transitive_and_its_volumes_go_with_the_last(engine: Engine, full: str):
    engine.docker("create", "--name", "aa", "-v", "vv:/v", "-v", "/tmp:/b", full)
    engine.docker("create", "--name", "bb", "--volumes-from", "aa", "-v", "other:/vol", "busybox", "true")
    engine.docker("run", "--name", "cc", "--volumes-from", "bb:ro", "busybox", "sh", "-c", "! touch /v/x 2>/dev/null")
    first, second, third = (mounts_of(engine, name) for name in ("aa", "bb", "cc"))
    assert second["/data"]["Name"] == third["/data"]["Name"] == first["/data"]["Name"]
    assert (second["/vol"]["Name"], third["/vol"]["Name"]) == ("other", "other")
    assert [third[place]["RW"] for place in ("/v", "/b", "/data")] == [False] * 3
    assert engine.docker("wait", "cc") == "0"
    shared = str(first["/data"]["Name"])
    engine.docker("rm", "-v", "aa")
    assert shared in engine.docker("volume", "ls", "-q")
    engine.docker("rm", "-v", "bb", "cc")
    assert sorted(engine.docker("volume", "ls", "-q").split()) == ["other", "vv"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--volumes-from", "nosuch"), "No such container: nosuch"),
        (("--volumes-from", "nosuch:zz"), "invalid mode: zz"),
        (("--volumes-from", "nosuch:nocopy"), "invalid mode: nocopy"),
        (("--volumes-from", ":ro"), 'invalid name or ID supplied: ""'),
        (("-v", "vv:/x", "-v", "ww:/x"), "Duplicate mount point: /x"),
        (("-v", "vv:/x", "--tmpfs", "/x"), "Duplicate mount point: /x"),
        (("-v", "vv:/x", "--mount", "type=volume,dst=/x/"), "Duplicate mount point: /x/"),
        (("-v", "a/b:/x"), "includes invalid characters for a local volume name"),
        (("-v", "vv:/"), "destination can't be '/'"),
        (("--volume-driver", "nod", "-v", "vv:/x"), 'plugin "nod" not found'),
        (("--mount", "type=bind,src=/nosuch,dst=/x"), "bind source path does not exist: /nosuch"),
        (("--mount", "type=bind,src=/proc/version/x,dst=/x"), "stat /proc/version/x: not a directory"),
        (("--mount", "type=volume,src=vv,dst=/x,volume-subpath=../x"), "subpath must be a relative path"),
        (("--mount", "type=volume,src=vv,dst=/bin/busybox"), "source /bin/busybox is not directory"),
        (("--tmpfs", "/x:foo"), 'invalid tmpfs option "foo"'),
    ],
)
def test_bad_requests_leave_neither_container_nor_volume(engine: Engine, words, text):
    ran = engine.run("create", "--pull=never", *words, "busybox", "true")
    assert ran.returncode == 1
    assert text in ran.stderr, ran.stderr
    assert engine.docker("ps", "-aq") == ""
    assert folders(engine) == []


def test_v_makes_a_missing_source_directory(engine: Engine, tmp_path: Path):
    engine.docker("run", "--rm", "-v", f"{tmp_path}/new/deep:/x", "busybox", "touch", "/x/f")
    assert (tmp_path / "new" / "deep" / "f").exists()


def test_binds_and_their_options(engine: Engine, tmp_path: Path):
    below = tmp_path / "below"
    below.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", below], check=True)
    try:
        (below / "f").touch()

        def run(options: str, script: str) -> str:
            mount = f"type=bind,src={tmp_path},dst=/x{options}"
            return engine.docker("run", "--rm", "--mount", mount, "busybox", "sh", "-c", script)

        assert run("", "ls /x/below") == "f"
        assert run(",bind-recursive=disabled", "ls /x/below") == ""
        assert run(",readonly", "touch /x/y /x/below/y 2>&1 | grep -c 'Read-only'") == "2"
        assert run(",readonly,bind-recursive=writable", "touch /x/y /x/below/y 2>&1 | grep -c 'Read-only'") == "1"
        assert (below / "y").exists()
    finally:
        subprocess.run(["umount", below], check=True)


def test_tmpfs_and_its_options(engine: Engine):
    words = ["--tmpfs", "/a", "--tmpfs", "/b:exec,size=1m,mode=700,uid=5"]
    words += ["--mount", "type=tmpfs,dst=/c,tmpfs-size=2m,tmpfs-mode=0711"]
    script = "grep -oE ' /[abc] [a-z,]*' /proc/self/mountinfo; df -k /b /c | awk 'NR>1{print $2}'; stat -c %a,%u /b /c"
    found = engine.docker("run", "--rm", *words, "busybox", "sh", "-c", script).split("\n")
    assert [line.strip() for line in found] == [
        "/a rw,nosuid,nodev,noexec,relatime",
        "/b rw,nosuid,nodev,relatime",
        "/c rw,nosuid,nodev,noexec,relatime",
        "1024",
        "2048",
        "700,5",
        "711,0",
    ]
    assert folders(engine) == []


def test_a_link_at_the_place_leads_nowhere_outside(engine: Engine):
    image = content_image(engine, "linked", extra={"up": "../../../../../../tmp/outside", "abs": "/tmp/inside"})
    script = "grep -c ' /tmp/outside ' /proc/self/mountinfo; grep -c ' /tmp/inside ' /proc/self/mountinfo; touch /up/x"
    assert engine.docker("run", "--rm", "-v", "vv:/up", "-v", "ww:/abs", image, "sh", "-c", script) == "1\n1"
    assert not Path("/tmp/outside").exists()
    assert os.listdir(engine.data_root / "volumes" / "vv" / "_data") == ["x"]


def test_a_restarted_container_finds_its_volumes(engine: Engine):
    script = "test -e /v/f && test -e /an/f && echo again; touch /v/f /an/f"
    engine.docker("run", "--name", "aa", "-v", "vv:/v", "-v", "/an", "busybox", "sh", "-c", script)
    assert engine.docker("start", "-a", "aa") == "again"


def test_200_containers_with_three_volumes_each_leave_nothing(engine: Engine, full: str):
    with contextlib.closing(Requests(engine)) as request:
        for number in range(200):
            body = {"Image": full, "Cmd": ["true"], "HostConfig": {"Binds": [f"vv{number}:/v"]}}
            status, text = request("POST", "/containers/create", body)
            assert status == 201, text
            made = json.loads(text)["Id"]
            if number % 5 == 0:
                assert request("POST", f"/containers/{made}/start")[0] == 204
            assert request("DELETE", f"/containers/{made}?v=1&force=1")[0] == 204
            assert request("DELETE", f"/volumes/vv{number}")[0] == 204
    assert engine.docker("volume", "ls", "-q") == ""
    assert folders(engine) == []
    assert f"{engine.data_root}/volumes" not in Path("/proc/self/mountinfo").read_text()
