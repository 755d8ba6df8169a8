"""Starts of containers under volumes whose names another container exchanges: FS-09, FS-10, FS-11, RT-07, RT-08.

The numbers are those of docs/security.md. The thousand rounds are of the step of the runtime that decides, on the very
volume that a container attacks; whole containers are started a few times, and a thousand in the full form of ./test.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import mounttable, tars
from tests.engine import Engine, busybox_tar
from tests.forked import told
from tests.security.attackers import SECRET, exchanging, ways_to
from tests.volumes import Requests, remove_volumes
from wherry.kernel import const, mountapi
from wherry.kernel.fsio import trees
from wherry.kernel.fsio.copy import copy_tree
from wherry.kernel.namespaces import setns, unshare
from wherry.runtime import mountoptions
from wherry.runtime.ops_mounts import BindMount, MountFilesystem
from wherry.runtime.ops_volumes import OpenParts
from wherry.runtime.setup import Setup, SetupError
from wherry.runtime.sources import OpenSources

pytestmark = [pytest.mark.root, pytest.mark.engine]

ROUNDS = 1000
TURNS = 1000
"""Exchanges that there are at least during the rounds."""
MINE = "belongs to the container"


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """The volume that is attacked, with a directory to be exchanged in it."""
    (tmp_path / "v/part/sub").mkdir(parents=True)
    (tmp_path / "v/part/mine").write_text(MINE)
    return tmp_path / "v"


def setup_of(root: int = -1) -> Setup:
    setup = Setup(None, {}, None)  # type: ignore[arg-type]
    setup.root = root
    return setup


def in_child(work: Callable[[], dict[str, int]]) -> Counter[str]:
    """Return what `work` returns in a child with a mount namespace of its own, where nothing propagates out."""

    def job() -> dict[str, int]:
        unshare(const.CLONE_NEWNS)
        mountapi.mount("none", "/", "", const.MS_REC | const.MS_PRIVATE, "")
        return work()

    well, value = told(job)
    assert well, value
    return Counter(value)


class Rounds:
    """Mount namespaces for one round each: a root of a container, with the volume at /v and a procfs."""

    def __init__(self, root: Path, shared: Path) -> None:
        self.root = root
        mountapi.mount(str(root), str(root), "", const.MS_BIND, "")
        mountapi.mount(str(shared), f"{root}/v", "", const.MS_BIND, "")
        mountapi.mount("proc", f"{root}/proc", "proc", 0, "")
        self._base = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        self._before = Counter(_table())

    def __iter__(self) -> Iterator[int]:
        """Give descriptors of the root."""
        for _ in range(ROUNDS):
            setns(self._base, const.CLONE_NEWNS)
            unshare(const.CLONE_NEWNS)
            top = os.open(self.root, const.O_PATH | os.O_DIRECTORY)
            yield top
            os.close(top)

    def where(self) -> str:
        """Say where the round has mounted. Of other engines' mounts some go meanwhile, with their mount points."""
        (place,) = (Counter(_table()) - self._before).elements()
        for below, words in (("v", "in the volume"), ("proc", "in /proc"), ("", "elsewhere in the container")):
            if place.startswith(f"{self.root / below}/"):
                return words
        return place


def _table() -> list[str]:
    return [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]


def _mount_once(kind: str, source: Path, target: str, root: int) -> None:
    setup = setup_of(root)
    if kind == "tmpfs":
        MountFilesystem("tmpfs", "tmpfs", target, mountoptions.parse(())).run(setup)
        return
    path = str(source / "f" if kind == "file" else source)
    OpenSources(((0, path, target, False),)).run(setup)
    BindMount(0, path, target, mountoptions.parse(("bind", "rprivate"))).run(setup)


@pytest.fixture
def mounted_under_attack(
    engine: Engine, tmp_path: Path, shared: Path, canary: Path
) -> Callable[[str, str, tuple[str, ...]], Counter[str]]:
    """Mount a thousand times at a place below /v/part, which is exchanged with links; return where that was."""
    root, source = tmp_path / "root", tmp_path / "source"
    for each in (root / "v", root / "proc", source):
        each.mkdir(parents=True)
    (source / "f").write_text(MINE)

    def rounds(kind: str, target: str) -> dict[str, int]:
        seen = Counter[str]()
        for top in (each := Rounds(root, shared)):
            try:
                _mount_once(kind, source, target, top)
                seen[each.where()] += 1
            except (OSError, SetupError) as error:
                seen[os.strerror(error.errno or 0) if isinstance(error, OSError) else str(error)] += 1
        return dict(seen)

    def attack(kind: str, target: str, links: tuple[str, ...]) -> Counter[str]:
        table, host = mounttable.lines(), sorted(os.listdir("/"))
        with exchanging(engine, tmp_path, "/v/part", links, words=("-v", f"{shared}:/v")) as attacker:
            turns = attacker.turns
            seen = in_child(lambda: rounds(kind, target))
            assert attacker.turns - turns > TURNS
        assert seen.total() == ROUNDS
        assert mounttable.lines() == table
        assert sorted(os.listdir("/")) == host
        assert [each.name for each in source.iterdir()] == ["f"]
        return seen

    return attack


def started(
    request: Requests, body: object, rounds: int, look: Callable[[int], str], refusals: tuple[int, ...]
) -> Counter[str]:
    """Start containers, so many or until two things were seen; return what `look` saw by their pids, and "refused"."""
    seen = Counter[str]()
    while seen.total() < rounds or (len(seen) < 2 and seen.total() < 20 * rounds):
        made = json.loads(request("POST", "/containers/create", body)[1])["Id"]
        status, text = request("POST", f"/containers/{made}/start")
        if status == 204:
            seen[look(json.loads(request("GET", f"/containers/{made}/json")[1])["State"]["Pid"])] += 1
        else:
            assert status in refusals, text
            seen["refused"] += 1
        assert request("DELETE", f"/containers/{made}?force=1&v=1")[0] == 204
    return seen


# RT-07, RT-08: where a mount goes

CHANGED = {
    os.strerror(each)
    for each in (errno.ENOENT, errno.ESTALE, errno.EAGAIN, errno.ELOOP, errno.EACCES, errno.EINVAL)
}
"""What is said to a mount whose way changes too fast, or leads to a magic link, or to what procfs does not let make,
or is not what it was when it was opened."""


@pytest.mark.parametrize("kind", ["tmpfs", "folder", "file"])
def test_rt08_a_mount_stays_in_the_container(mounted_under_attack, canary: Path, kind: str) -> None:
    """RT-08: /v/part/new is made and mounted on, while /v/part is a link to the host and back."""
    seen = mounted_under_attack(kind, f"/v/part/new-{kind}", ways_to(canary))
    inside = {"in the volume", "elsewhere in the container"}
    assert set(seen) <= inside | CHANGED, seen
    assert all(seen[each] > 0 for each in inside), seen


@pytest.mark.parametrize("kind", ["tmpfs", "folder"])
def test_rt07_no_mount_lands_in_procfs(mounted_under_attack, shared: Path, kind: str) -> None:
    """RT-07: /v/part/attr is /proc/self/attr half of the time, by which labels are set."""
    (shared / "part/attr").mkdir()
    seen = mounted_under_attack(kind, "/v/part/attr", ("/proc/self", "../proc/self", "/proc/1", "/proc/thread-self"))
    refused = "Operation not permitted"
    assert set(seen) <= {"in the volume", refused} | CHANGED, seen
    assert seen["in the volume"] > 0, seen
    assert seen[refused] > 0, seen


@pytest.mark.parametrize("rounds", [20, pytest.param(ROUNDS, marks=pytest.mark.slow)])
def test_rt07_rt08_containers_started_under_a_volume_that_is_exchanged(
    engine: Engine, tmp_path: Path, shared: Path, canary: Path, rounds: int
) -> None:
    """RT-07, RT-08 as their recipes say it: each container has the volume, and a mount below what is exchanged in it.

    Where it is, the container's own table says; that it has its label, attr/current of its own /proc.
    """
    table, host = mounttable.lines(), sorted(os.listdir("/"))
    links = (*ways_to(canary), "/proc/self")
    mounts = [{"Type": "bind", "Source": str(shared), "Target": "/v"}, {"Type": "tmpfs", "Target": "/v/part/attr"}]
    body = {"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": {"Mounts": mounts, "NetworkMode": "none"}}
    with (
        exchanging(engine, tmp_path, "/v/part", links, words=("-v", f"{shared}:/v")) as attacker,
        contextlib.closing(Requests(engine)) as request,
    ):
        turns = attacker.turns
        seen = started(request, body, rounds, _place_of_the_mount, refusals=(400, 500))
        assert attacker.turns - turns > TURNS
    assert seen["in the volume"] > 0, seen
    assert seen["elsewhere"] + seen["refused"] > 0, seen
    assert mounttable.lines() == table
    assert sorted(os.listdir("/")) == host


def _place_of_the_mount(pid: int) -> str:
    """Say where the tmpfs is in a container; nowhere in its /proc."""
    lines = [line.split() for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
    (place,) = [words[4] for words in lines if words[4].endswith("/attr")]
    assert not place.startswith("/proc/"), place
    return "in the volume" if place.startswith("/v/") else "elsewhere"


# FS-09: parts of volumes


def test_fs09_a_part_that_is_exchanged_is_never_outside(
    engine: Engine, tmp_path: Path, shared: Path, canary: Path
) -> None:
    """FS-09: each round opens the part, or is refused."""
    found, refused = 0, Counter[str]()
    with exchanging(engine, tmp_path, "/v/part", (*ways_to(canary), ".."), words=("-v", f"{shared}:/v")) as attacker:
        turns = attacker.turns
        for _ in range(ROUNDS):
            setup = setup_of()
            try:
                OpenParts(((1, str(shared), "part"),)).run(setup)
            except SetupError as error:
                refused[error.message.partition(" /")[0].partition(",")[0]] += 1
                continue
            tree = setup.sources[1]
            try:
                assert sorted(os.listdir(f"/proc/self/fd/{tree}")) == ["mine", "sub"]
            finally:
                os.close(tree)
            found += 1
        assert attacker.turns - turns > TURNS
    assert set(refused) <= {"cannot access path", "path concatenation escapes the base directory"}
    assert found > 0
    assert refused.total() > 0


@pytest.mark.parametrize("rounds", [20, pytest.param(ROUNDS, marks=pytest.mark.slow)])
def test_fs09_containers_started_with_a_part_that_is_exchanged(
    engine: Engine, tmp_path: Path, canary: Path, rounds: int
) -> None:
    """FS-09, by the API: what a container has at /x is the part, or it does not start."""
    engine.docker("volume", "create", "vv")
    place = engine.data_root / "volumes" / "vv" / "_data"
    (place / "part").mkdir()
    (place / "part/mine").touch()
    mount = {"Type": "volume", "Source": "vv", "Target": "/x", "VolumeOptions": {"Subpath": "part", "NoCopy": True}}
    body = {"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": {"Mounts": [mount], "NetworkMode": "none"}}
    with (
        exchanging(engine, tmp_path, "/v/part", (*ways_to(canary), "/etc"), words=("-v", "vv:/v")) as attacker,
        contextlib.closing(Requests(engine)) as request,
    ):
        turns = attacker.turns
        seen = started(request, body, rounds, lambda pid: " ".join(os.listdir(f"/proc/{pid}/root/x")), refusals=(500,))
        assert attacker.turns - turns > TURNS
    assert set(seen) == {"mine", "refused"}, seen
    remove_volumes(engine)


@pytest.mark.parametrize("name", ["../x", "-rf", "x/y", "..", ".", "x" * 300, "a\0b", "é"])
def test_fs09_names_that_are_no_names(engine: Engine, name: str) -> None:
    """FS-09: refused, and nothing is made. An empty name asks for one that the engine makes up."""
    volumes = engine.data_root / "volumes"
    before = sorted(os.listdir(volumes)), sorted(os.listdir(engine.data_root))
    assert engine.api("POST", "/volumes/create", json.dumps({"Name": name}))[0] == 400
    assert engine.api("DELETE", f"/volumes/{engine.quote(name)}")[0] in (301, 400, 404)
    mount = {"Type": "volume", "Source": name, "Target": "/x"}
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"Mounts": [mount]}}
    assert engine.api("POST", "/containers/create", json.dumps(body))[0] == 400
    assert (sorted(os.listdir(volumes)), sorted(os.listdir(engine.data_root))) == before


def test_fs09_parts_of_the_whole_host_as_a_volume(engine: Engine, canary: Path) -> None:
    """FS-09: o=bind, device=a directory of the host: its parts are in it, whatever links and ".." say."""
    device = canary.parent / "device"
    (device / "in").mkdir(parents=True)
    (device / "up").symlink_to("../canary")
    (device / "there").symlink_to(canary)
    engine.docker("volume", "create", "-o", "type=none", "-o", "o=bind", "-o", f"device={device}", "vv")
    mount = "type=volume,src=vv,dst=/x,volume-subpath="
    assert engine.run("run", "--rm", "--mount", f"{mount}in", "busybox", "true").returncode == 0
    for part in ("up", "there", "in/../../canary", "../canary", str(canary)):
        refused = engine.run("run", "--rm", "--mount", f"{mount}{part}", "busybox", "cat", "/x/r")
        assert refused.returncode == 125, part
        assert SECRET not in refused.stdout + refused.stderr
    remove_volumes(engine)


# FS-10: what an image has, into a volume


def test_fs10_a_copy_into_a_volume_whose_names_are_exchanged(
    engine: Engine, tmp_path: Path, shared: Path, canary: Path
) -> None:
    """FS-10: each round copies an image's directory into a volume, in which its name becomes a link to the host.

    Owner and mode are set through descriptors of what was made: the canary keeps its own.
    """
    source = tmp_path / "image"
    (source / "part").mkdir(parents=True)
    for name in ("r", "b"):
        (source / "part" / name).write_text("of the image")
        (source / "part" / name).chmod(0o4777)
    os.link(source / "part/r", source / "part/z")
    os.mkfifo(source / "part/fifo", 0o777)
    os.chown(source / "part", 1000, 1000)
    seen = Counter[str]()
    origin, volume = (os.open(each, os.O_RDONLY | os.O_DIRECTORY) for each in (source, shared))
    try:
        with exchanging(engine, tmp_path, "/v/part", (str(canary),), words=("-v", f"{shared}:/v")) as attacker:
            turns = attacker.turns
            for _ in range(ROUNDS):
                try:
                    copy_tree(origin, volume)
                    seen["copied"] += 1
                except OSError as error:
                    seen[os.strerror(error.errno or 0)] += 1
                seen["exchanged"] += _emptied(shared, volume, canary)
            assert attacker.turns - turns > TURNS
    finally:
        os.close(origin)
        os.close(volume)
    assert seen["copied"] > 0, seen
    assert seen["exchanged"] > 0, seen


def _emptied(shared: Path, volume: int, canary: Path) -> bool:
    """Remove what a round has copied; the link goes back to its name. Return whether the names were exchanged.

    With one of the two names gone the attacker can do nothing until the next round.
    """
    while True:
        with os.scandir(shared) as entries:
            links = {each.name: each.is_symlink() for each in entries}
        folders = [name for name, link in links.items() if not link]
        if not folders:
            break
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # exchanged since it was read
            trees.remove(volume, folders[0])
    if "part" in links:
        os.rename(shared / "part", shared / "link0")
    elif not links:  # the link was at the place of what was removed
        os.symlink(canary, shared / "link0")
    return "part" in links


def test_fs10_only_what_is_in_the_root_is_copied(engine: Engine, canary: Path) -> None:
    """FS-10: places of an image that are links to "/", up, to procfs and to the host; owners are kept."""
    members = [
        tars.link("whole", "/"), tars.link("up", "../" * 20), tars.link("magic", "/proc/self/root/etc"),
        tars.link("host", str(canary)), tars.folder("data", mode=0o1770, uid=5, gid=6),
        tars.link("data/out", str(canary / "r")), tars.file("data/f", b"f", mode=0o4755, uid=7, gid=8),
    ]  # fmt: skip
    buffer = io.BytesIO(busybox_tar())
    with tarfile.open(fileobj=buffer, mode="a") as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    engine.docker("import", "-c", "CMD true", "-", "links", input=buffer.getvalue())
    volumes = engine.data_root / "volumes"
    for place in ("whole", "up", "magic", "host", "data"):
        engine.docker("create", "-v", f"{place}:/{place}", "links")
    for place in ("whole", "up"):
        mine = set(os.listdir(volumes / place / "_data"))
        assert {"bin", "data", "whole"} <= mine
        assert mine <= {*".dockerenv bin data dev etc home host magic proc root sys tmp up whole".split()}  # noqa: SIM905
    for place in ("magic", "host"):
        assert os.listdir(volumes / place / "_data") == []
    data = volumes / "data/_data"
    states = [(each.stat(follow_symlinks=False)) for each in (data, data / "f")]
    assert [(each.st_uid, each.st_gid, each.st_mode & 0o7777) for each in states] == [(5, 6, 0o1770), (7, 8, 0o4755)]
    assert os.readlink(data / "out") == str(canary / "r")
    remove_volumes(engine)
    engine.docker("rmi", "links")
