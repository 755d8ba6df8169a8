"""What docs/lazy-start.md says of the kernel: files of an EROFS index whose data comes through FUSE when it is read."""

from __future__ import annotations

import errno
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import trees
from tests.arch.rules import ROOT
from tests.estargz import Estargz, estargz
from tests.kernel.snapshots.lazyfile import promised_tar
from tests.tars import file, folder, hard, link
from wherry.kernel import const, mountapi
from wherry.kernel.aside import aside
from wherry.kernel.namespaces import unshare
from wherry.snapshots.erofs.layer import Below, Layer
from wherry.snapshots.erofs.mounting import make_layer

pytestmark = pytest.mark.root

NOISE = bytes(i * i % 251 for i in range(700_000))
FAR = [file(f"far{number}", bytes([65 + number]) * 300_000) for number in range(4)]
LAYER = estargz(
    [
        folder("bin", mtime=1_700_000_000, uid=3),
        file("bin/sh", NOISE, mode=0o4755, xattrs={"user.a": "b"}),
        hard("bin/again", "bin/sh"),
        link("sh", "bin/sh"),
        file("empty"),
        *(file(f"n/{number}", b"%d" % number * 400) for number in range(40)),
        *FAR,
    ],
    chunk=100_000,
)


def _index(place: Path, tar: bytes) -> None:
    fd = os.open(place, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        below = Below((0o755, 0, 0), lambda: ())
        Layer(fd, str(place.parent), below).run(io.BytesIO(tar), uuid=bytes(16), tag=b"x")
    finally:
        os.close(fd)


def _attach(index: Path, tar: Path, place: Path) -> None:
    place.mkdir()
    tree, target = make_layer(str(index), str(tar)), os.open(place, os.O_PATH)
    mountapi.move_mount(tree, target, str(place))
    os.close(tree)
    os.close(target)


class Lazy:
    """A layer of which only the table is there: root/merged is an overlay over it."""

    def __init__(self, root: Path, layer: Estargz) -> None:
        self.root = root
        (root / "blob").write_bytes(layer.blob)
        (root / "table").write_bytes(layer.table)
        _index(root / "index", promised_tar(layer.table, layer.end))
        self.served = root / "served"
        self.served.touch()
        device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={device},rootmode=100000,user_id=0,group_id=0,allow_other"
        mountapi.mount("wherry", str(self.served), "fuse", const.MS_NOSUID | const.MS_NODEV, options)
        os.set_inheritable(device, True)
        self.server = subprocess.Popen(
            [sys.executable, "-m", "tests.kernel.snapshots.lazyfile", str(device), str(root / "blob"),
             str(root / "table"), str(layer.end)],
            stdout=subprocess.PIPE, close_fds=False, cwd=ROOT,
        )  # fmt: skip
        os.close(device)
        self.mounted = ["served"]
        try:
            self._mount()
        except BaseException:
            self.close()
            raise

    def _mount(self) -> None:
        root = self.root
        assert self.server.stdout is not None
        assert self.server.stdout.readline() == b"ready\n"
        _attach(root / "index", self.served, root / "lower")
        self.mounted = ["lower", "served"]
        for name in ("upper", "work", "merged"):
            (root / name).mkdir()
        self.merged = root / "merged"
        self.mounted = ["merged", "lower", "served"]
        options = f"lowerdir={root}/lower,upperdir={root}/upper,workdir={root}/work,xino=off"
        mountapi.mount("overlay", str(self.merged), "overlay", 0, options)

    def close(self) -> None:
        """End it as the engine would: nothing is left, whoever still waits."""
        self.server.kill()
        self.server.wait(10)
        assert self.server.stdout is not None
        self.server.stdout.close()
        self.unmount()

    def unmount(self) -> None:
        """Take the layer away."""
        for name in self.mounted:
            mountapi.umount2(str(self.root / name), const.MNT_DETACH)
        self.mounted = []

    @contextmanager
    def reader(self, *argv: str) -> Iterator[subprocess.Popen[bytes]]:
        """A process that waits for a byte of a file."""
        with subprocess.Popen(argv, cwd=self.merged, stdout=-1, stderr=-1) as process:
            deadline, waits = time.monotonic() + 10, 0
            while waits < 20:  # for a fifth of a second: a program that starts waits for the disk, too
                asleep = "disk sleep" in Path(f"/proc/{process.pid}/status").read_text()
                waits = waits + 1 if asleep else 0
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.01)
            yield process


def experiment(root: Path, work: Callable[[Lazy], None], layer: Estargz = LAYER) -> None:
    """Do it in a mount namespace of its own."""

    def inside() -> None:
        unshare(const.CLONE_FS | const.CLONE_NEWNS)
        mountapi.mount("", "/", "", const.MS_REC | const.MS_PRIVATE)
        lazy = Lazy(root, layer)
        try:
            work(lazy)
        finally:
            lazy.close()

    aside(inside)


def test_a_table_is_enough_for_the_tree_and_what_is_read_comes_when_it_is_read(tmp_path: Path) -> None:
    """The same tree as that of the real tar, which has an index of its own."""
    (tmp_path / "tar").write_bytes(LAYER.tar)
    _index(tmp_path / "real", LAYER.tar)

    def work(lazy: Lazy) -> None:
        _attach(tmp_path / "real", tmp_path / "tar", tmp_path / "plain")
        try:
            # the root's facts are those of the upper directory
            found = trees.differences(str(tmp_path / "plain"), str(lazy.merged), but=(".",))
            assert found == ["'stargz.index.json' is missing"]
        finally:
            mountapi.umount2(str(tmp_path / "plain"), const.MNT_DETACH)

    experiment(tmp_path, work)


def test_a_program_runs_from_it(tmp_path: Path) -> None:
    program = shutil.which("busybox")
    assert program
    layer = estargz([file("busybox", Path(program).read_bytes(), mode=0o755)], chunk=100_000)

    def work(lazy: Lazy) -> None:
        ran = subprocess.run([lazy.merged / "busybox", "echo", "hi"], capture_output=True, timeout=20)
        assert ran.stdout == b"hi\n"

    experiment(tmp_path, work, layer)


def test_what_is_written_is_copied_up_from_it(tmp_path: Path) -> None:
    def work(lazy: Lazy) -> None:
        with (lazy.merged / "n/7").open("ab") as end:
            end.write(b"more")
        assert (tmp_path / "upper/n/7").read_bytes() == b"7" * 400 + b"more"

    experiment(tmp_path, work)


def test_a_server_that_says_eio_gives_eio_until_it_says_something_else(tmp_path: Path) -> None:
    def work(lazy: Lazy) -> None:
        lazy.server.send_signal(signal.SIGUSR2)
        with pytest.raises(OSError, match="Input/output error") as caught:
            (lazy.merged / "far3").read_bytes()
        assert caught.value.errno == errno.EIO
        lazy.server.send_signal(signal.SIGUSR2)
        assert (lazy.merged / "far3").read_bytes() == FAR[3][1]

    experiment(tmp_path, work)


FAULT = "import mmap, os; mmap.mmap(os.open('far1', os.O_RDONLY), 4096, prot=mmap.PROT_READ)[0]"


@pytest.mark.parametrize("argv", [("head", "-c1", "far1"), (sys.executable, "-c", FAULT)], ids=["read", "fault"])
def test_who_waits_for_a_server_that_is_silent_can_be_killed(tmp_path: Path, argv: tuple[str, ...]) -> None:
    def work(lazy: Lazy) -> None:
        lazy.server.send_signal(signal.SIGUSR1)
        with lazy.reader(*argv) as process:
            process.kill()
            assert process.wait(5) == -signal.SIGKILL

    experiment(tmp_path, work)


def test_the_servers_death_ends_all_waiting_and_what_was_read_stays(tmp_path: Path) -> None:
    def work(lazy: Lazy) -> None:
        assert (lazy.merged / "n/3").read_bytes() == b"3" * 400
        lazy.server.send_signal(signal.SIGUSR1)
        with lazy.reader("head", "-c1", "far1") as process:
            lazy.server.kill()
            assert process.wait(5) == 1
            assert process.stderr is not None
            assert b"Input/output error" in process.stderr.read()
        with pytest.raises(OSError, match="Input/output error"):
            (lazy.merged / "far2").read_bytes()
        assert (lazy.merged / "n/3").read_bytes() == b"3" * 400

    experiment(tmp_path, work)


def test_the_server_ends_with_the_last_who_has_the_layer(tmp_path: Path) -> None:
    """Nothing is left of it, and nobody has to tell it."""

    def work(lazy: Lazy) -> None:
        with (lazy.merged / "far1").open("rb") as held:
            lazy.unmount()
            assert held.read() == FAR[1][1]
            assert lazy.server.poll() is None
        assert lazy.server.wait(5) == 0

    experiment(tmp_path, work)


def test_data_with_another_digest_than_the_tables_is_shown_to_nobody(tmp_path: Path) -> None:
    """The server of the experiment ends; ours should answer EIO and say why."""
    wrong = estargz(FAR, change=lambda content: content["entries"][1].update(chunkDigest="sha256:" + "0" * 64))

    def work(lazy: Lazy) -> None:
        with pytest.raises(OSError, match="Input/output error"):
            (lazy.merged / "far1").read_bytes()

    experiment(tmp_path, work, wrong)
