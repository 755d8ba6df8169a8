"""The files of sandboxes: what is mounted when, and that none holds a namespace whose container has ended."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kernel.isolation import command, inside, isolated, new_namespace
from tests.waiting import until
from wherry.kernel import const, mountapi, namespaces
from wherry.kernel.aside import aside
from wherry.models.network import CreateNetwork
from wherry.network.api import EndpointRequest, SandboxRequest
from wherry.network.sandboxfiles import SandboxFiles
from wherry.runtime.holding import Holding

pytestmark = pytest.mark.root

ID, OTHER = "0123456789ab" + "c" * 52, "fedcba987654" + "c" * 52


def mounts(folder: Path) -> list[str]:
    """The mount points in a folder, in this mount namespace."""
    lines = Path("/proc/thread-self/mountinfo").read_text().splitlines()
    return sorted(line.split()[4] for line in lines if line.split()[4].startswith(f"{folder}/"))


@pytest.fixture
def files(tmp_path: Path) -> Iterator[SandboxFiles]:
    found = SandboxFiles(tmp_path)
    found.open()
    yield found
    found.remove([ID, OTHER])
    found.close()
    assert os.listdir(tmp_path) == mounts(tmp_path) == []


def nobody(container: str) -> int | None:
    raise AssertionError(f"asked for {container}")


@contextmanager
def mount_namespace() -> Iterator[Callable[[Callable[[], None]], None]]:
    """A mount namespace that is copied from ours now and receives mounts, as that of supervisors; it works there."""
    with subprocess.Popen(["unshare", "--mount", "--propagation", "slave", "sleep", "100"]) as holder:
        until(lambda: Path(f"/proc/{holder.pid}/comm").read_text() == "sleep\n")

        def do(work: Callable[[], None]) -> None:
            def run() -> None:
                fd = os.open(f"/proc/{holder.pid}/ns/mnt", os.O_RDONLY)
                namespaces.unshare(const.CLONE_FS)
                namespaces.setns(fd, const.CLONE_NEWNS)
                os.close(fd)
                work()

            aside(run)

        try:
            yield do
        finally:
            holder.kill()


@pytest.fixture
def netns_fd() -> Iterator[int]:
    fd = new_namespace()
    yield fd
    os.close(fd)


def test_a_namespace_is_mounted_when_somebody_asks(files: SandboxFiles, netns_fd: int):
    files.make(ID)
    path = Path(files.path(ID))
    assert (path.name, path.parent.name, path.stat().st_size) == (ID[:12], "netns", 0)
    files.show_soon(ID, netns_fd)
    assert str(path) not in mounts(path.parent)
    assert files.shown(ID) == str(path)
    assert os.path.samestat(os.fstat(netns_fd), os.stat(path))
    names = command("nsenter", f"--net={path}", "ip", "-o", "link")
    assert names == inside(netns_fd, lambda: command("ip", "-o", "link"))


def test_a_namespace_is_mounted_a_moment_after_the_start(files: SandboxFiles, netns_fd: int):
    files.make(ID)
    assert files.next_chore() == (None, None)
    files.show_soon(ID, netns_fd)
    job, pause = files.next_chore()
    assert job is None
    assert pause is not None
    job = until(lambda: files.next_chore()[0])
    job(None)
    assert files.path(ID) in mounts(Path(files.path(ID)).parent)
    assert files.next_chore() == (None, None)


@pytest.mark.parametrize("copied", [False, True])
def test_a_supervisor_takes_the_mount_away_from_where_it_is(files: SandboxFiles, netns_fd: int, copied: bool):
    """Whether its own mount namespace was copied while the mount was there, or before."""
    files.make(ID)
    files.show_soon(ID, netns_fd)
    path = Path(files.path(ID))

    def end() -> None:
        assert (str(path) in mounts(path.parent)) == copied, "what is mounted there stays in our mount namespace"
        Holding(str(path)).delete_netns_file()

    if copied:
        assert files.shown(ID)
    with mount_namespace() as elsewhere:
        assert files.shown(ID)
        assert str(path) in mounts(path.parent)
        elsewhere(end)
        assert not path.exists()
        assert str(path) not in mounts(path.parent)


def test_nothing_is_mounted_on_what_a_supervisor_has_deleted(files: SandboxFiles, netns_fd: int):
    files.make(ID)
    files.show_soon(ID, netns_fd)
    Holding(files.path(ID)).delete_netns_file()
    assert files.shown(ID) == ""
    assert not Path(files.path(ID)).exists()
    Holding(files.path(ID)).delete_netns_file()
    files.remove([ID])
    Holding("").delete_netns_file()


def test_the_next_engine_keeps_what_lives_and_deletes_the_rest(tmp_path: Path, files: SandboxFiles, netns_fd: int):
    for each in (ID, OTHER):
        files.make(each)
    files.show_soon(ID, netns_fd)
    assert files.shown(ID)
    folder = Path(files.path(ID)).parent
    after = SandboxFiles(tmp_path)
    after.open()
    assert mounts(tmp_path) == sorted([str(folder), str(folder / "default"), str(folder / ID[:12])])
    after.restore({ID: "c1"}, lambda container: os.dup(netns_fd))
    assert sorted(os.listdir(folder)) == sorted([ID[:12], "default"])
    mountapi.umount2(str(folder / ID[:12]))
    os.unlink(folder / ID[:12])
    after.restore({ID: "c1"}, lambda container: os.dup(netns_fd))
    assert os.path.samestat(os.fstat(netns_fd), os.stat(folder / ID[:12])), "made again"
    after.close()
    assert (folder / ID[:12]).exists(), "an engine that ends leaves what runs"
    after.restore({}, nobody)
    assert os.listdir(folder) == ["default"]


def test_a_namespace_ends_with_its_container_though_it_was_mounted(files: SandboxFiles):
    """Also where another mount namespace has a copy of the mount."""
    netns_fd = new_namespace()
    inside(netns_fd, lambda: command("ip", "link", "add", "one", "type", "veth", "peer", "name", "two"))
    inode = os.fstat(netns_fd).st_ino
    files.make(ID)
    files.show_soon(ID, netns_fd)
    os.close(netns_fd)
    assert os.stat(files.shown(ID)).st_ino == inode
    with mount_namespace() as elsewhere:
        copied: list[bool] = []
        elsewhere(lambda: copied.append(files.path(ID) in mounts(Path(files.path(ID)).parent)))
        files.remove([ID])
        elsewhere(lambda: copied.append(files.path(ID) in mounts(Path(files.path(ID)).parent)))
        assert copied == [True, False]


@isolated
def test_sandboxes_have_files_from_the_start_to_the_end(engine, tmp_path: Path):
    networks = engine(stock=2)
    until(lambda: networks.ready() == {"bridge": 2, "none": 2})
    folder = tmp_path / "a/netns"
    assert len(os.listdir(folder)) == 5
    assert mounts(folder) == [str(folder / "default")], "what is in stock is not mounted"
    box = networks.open_sandbox(SandboxRequest("c1", (EndpointRequest("bridge"),)))
    assert box.file == str(folder / box.sandbox_id[:12])
    networks.started(box)
    until(lambda: box.file in mounts(folder))
    assert networks.sandbox("c1") == (box.sandbox_id, box.file)
    assert os.path.samestat(os.fstat(box.netns_fd), os.stat(box.file))
    networks.connect("c1", box.netns_fd, EndpointRequest(networks.create(CreateNetwork(name="n")).name))
    networks.disconnect("c1", box.netns_fd, networks.resolve("n").id)
    assert networks.settle()
    assert os.path.exists(box.file), "a network that a container leaves takes nothing along"
    box.close()
    networks.close_sandbox("c1")
    assert networks.sandbox("c1") == ("", "")
    until(lambda: not os.path.exists(box.file))
    assert mounts(folder) == [str(folder / "default")]
    networks.stop(remove=True)
    assert not folder.exists()
