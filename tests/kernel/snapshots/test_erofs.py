"""The index of a layer: large and strange tars, what a kernel gets to see, and how much memory it takes."""

from __future__ import annotations

import io
import os
import random
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import tars, trees
from tests.conformance.drivers import Bench, chain
from tests.kernel.snapshots.erofsreader import Image, load
from tests.tars import END, Member, file, folder, hard, header, link, node, padded
from tests.trash import settle
from wherry.archive.tar import TarError
from wherry.errors import EngineError, InvalidArgument
from wherry.snapshots.erofs import folders
from wherry.snapshots.erofs.layer import Below, Layer

pytestmark = pytest.mark.root

NOTHING = Below((0o755, 0, 0), lambda: ())


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench("erofs", tmp_path / "driver")
    yield made
    made.close()
    made.driver.close()
    settle()


def index(data: bytes, tmp_path: Path) -> Image:
    with tempfile.TemporaryFile(dir=tmp_path) as made:
        Layer(made.fileno(), str(tmp_path), NOTHING).run(io.BytesIO(data), uuid=bytes(16), tag=b"x")
        made.seek(0)
        return Image(made.read(), len(data))


def pax(records: dict[str, str]) -> bytes:
    lines = b""
    for key, value in records.items():
        rest = f" {key}={value}\n".encode()
        length = len(rest) + 1
        while len(str(length)) + len(rest) != length:
            length += 1
        lines += str(length).encode() + rest
    return header(b"pax", size=len(lines), kind=b"x") + padded(lines)


def sparse(name: bytes, size: int, pieces: list[tuple[int, bytes]]) -> bytes:
    """A member in GNU's sparse format 0.1, whose pieces lie one behind the other without padding."""
    numbers = ",".join(f"{place},{len(piece)}" for place, piece in pieces)
    records = pax({"GNU.sparse.size": str(size), "GNU.sparse.map": numbers, "GNU.sparse.major": "0"})
    data = b"".join(piece for _, piece in pieces)
    return records + header(name, size=len(data)) + padded(data)


def members(rng: random.Random) -> list[Member]:
    """Some members that get into each other's way."""
    names = ["a", "b", "c", "d"]

    def path() -> str:
        return "/".join(rng.choice(names) for _ in range(rng.choice([1, 2])))

    def one() -> Member:
        name = path()
        above, slash, last = name.rpartition("/")
        return rng.choice([
            lambda: file(name, rng.randbytes(rng.choice([0, 5, 512, 700])), mode=rng.choice([0o600, 0o4755])),
            lambda: folder(name, mode=rng.choice([0o700, 0o755]), uid=rng.choice([0, 5])),
            lambda: folder(name),
            lambda: folder(rng.choice(names)),
            lambda: folder(rng.choice(names)),
            lambda: file(name, b"again"),
            lambda: link(name, rng.choice(["a", "../b", "/c", "b/../a", "nowhere", "d/x"])),
            lambda: hard(name, path()),
            lambda: node(name, tarfile.FIFOTYPE),
            lambda: node(name, tarfile.CHRTYPE, rng.choice([0, 1]), rng.choice([0, 3])),
            lambda: file(f"{above}{slash}.wh.{last}"),
            lambda: file(f"{above}{slash}.wh..wh..opq"),
        ])()  # fmt: skip

    made = [one() for _ in range(rng.randrange(1, 9))]
    for member in made:
        member[0].mtime = rng.choice([0, 77])
    return made


def tree(root: str) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for above, names, files in os.walk(root):
        for name in names + files:
            path = os.path.join(above, name)
            try:
                state = os.lstat(path)
            except FileNotFoundError:  # a whiteout of nothing, in a directory of one layer: overlayfs lists it
                found[os.path.relpath(path, root)] = ()
                continue
            content: object = os.readlink(path) if os.path.islink(path) else None
            if os.path.isfile(path) and not os.path.islink(path):
                content = Path(path).read_bytes()
            facts = (state.st_mode, state.st_uid, state.st_rdev, content)
            more = () if os.path.isdir(path) else (state.st_mtime, state.st_nlink)
            found[os.path.relpath(path, root)] = (*facts, *more)
    return found


def test_random_layers_show_what_unpacked_ones_show(bench: Bench, tmp_path: Path) -> None:
    """Up to three layers of entries that replace, hide and link each other; where one driver refuses, both do."""
    other = Bench("overlay2", tmp_path / "other" / "driver")
    refused = 0
    for seed in range(120):
        rng = random.Random(seed)
        tops = ["", ""]
        for number in range(rng.randrange(1, 4)):
            data = tars.archive(members(rng))
            name = chain(f"{seed}-{number}")
            answers: list[object] = []
            for place, each in enumerate((bench, other)):
                try:
                    answers.append(each.ingest(name, tops[place], io.BytesIO(data)))
                except EngineError:
                    answers.append(None)
            assert (answers[0] is None) == (answers[1] is None), (seed, number, answers)
            if answers[0] is None:
                refused += 1
                break
            assert answers[0] == answers[1], (seed, number)
            load(bench.root / "layers" / name).check()
            tops = [name, name]
        seen = [tree(each.view(tops[0]).path("")) for each in (bench, other)]
        bench.close()
        other.close()
        assert seen[0] == seen[1], seed
    assert 10 < refused < 100


def test_a_hostile_tar_makes_an_index_within_bounds_or_none(tmp_path: Path) -> None:
    """Bytes of good tars changed at random: whatever is accepted points at nothing but the tar's own bytes."""
    rng = random.Random(5)
    start = tars.archive([file("a", b"x" * 700, xattrs={"user.a": "b"}), folder("d"), link("d/l", "x" * 300),
                          hard("d/h", "a"), node("c", tarfile.CHRTYPE, 5, 1)])  # fmt: skip
    taken = 0
    for _ in range(400):
        data = bytearray(sparse(b"s", 9000, [(100, b"1" * 50), (4096, b"2" * 4096)]) + start)
        for _ in range(rng.randrange(1, 4)):
            block = rng.randrange(len(data) // 512) * 512
            at = block + rng.choice([rng.randrange(512), rng.randrange(100, 160), rng.randrange(124, 136)])
            data[at] = rng.choice([0, 0x80, 0xFF, 48, 49, 55, rng.randrange(256)])
            data[block + 148 : block + 156] = b" " * 8
            data[block + 148 : block + 156] = b"%06o\0 " % sum(data[block : block + 512])
        try:
            made = index(bytes(data), tmp_path)
        except (TarError, OSError):
            continue
        made.check()
        taken += 1
    assert taken > 40


def test_pieces_of_sparse_files_that_fit_no_block(bench: Bench) -> None:
    rng = random.Random(9)
    cases = {}
    for number in range(40):
        size, place, pieces = rng.randrange(1, 300_000), 0, []
        while (place := place + rng.choice([0, 1, 511, 512, 4096, 5000])) < size and len(pieces) < 20:
            piece = rng.randbytes(min(rng.choice([1, 512, 700, 4096, 20_000]), size - place))
            pieces.append((place, piece))
            place += len(piece)
        cases[f"f{number}"] = size, pieces
    data = b"".join(sparse(name.encode(), *case) for name, case in cases.items()) + END
    bench.ingest(chain("a"), "", io.BytesIO(data))
    view = bench.view(chain("a"))
    for name, (size, pieces) in cases.items():
        wanted = bytearray(size)
        for place, piece in pieces:
            wanted[place : place + len(piece)] = piece
        assert view.read(name) == bytes(wanted), name
    load(bench.root / "layers" / chain("a")).check()


def test_a_sparse_file_of_a_terabyte_has_a_short_index(bench: Bench) -> None:
    size = 1 << 40
    data = sparse(b"f", size, [(3, b"start"), (size // 2 + 1, b"middle"), (size - 3, b"end")]) + END
    bench.ingest(chain("a"), "", io.BytesIO(data))
    made = bench.root / "layers" / chain("a") / "index"
    assert made.stat().st_blocks * 512 < 4 << 20
    with open(bench.view(chain("a")).path("f"), "rb") as seen:
        found = []
        for place in (3, size // 2 + 1, size - 3):
            seen.seek(place)
            found.append(seen.read(6).rstrip(b"\0"))
    assert found == [b"start", b"middle", b"end"]
    with pytest.raises(InvalidArgument, match="a sparse file of"):
        bench.ingest(chain("b"), "", io.BytesIO(sparse(b"f", 1 << 60, [(0, b"x")]) + END))


def test_a_file_of_more_than_four_gigabytes(bench: Bench, tmp_path: Path) -> None:
    """The tar is itself a file with a hole, whose last bytes are looked at, and a file behind it."""
    size = (5 << 30) + 77
    tar = tmp_path / "large.tar"
    behind = header(b"behind", size=3) + padded(b"abc") + END
    with open(tar, "wb") as made:
        made.write(header(b"large", size=size))
        made.seek(512 + size - 4)
        made.write(b"last" + bytes(-size % 512) + behind)
    with open(tar, "rb") as source:
        bench.driver.ingest(chain("a"), "", source, tar)
    view = bench.view(chain("a"))
    with open(view.path("large"), "rb") as large:
        large.seek(size - 4)
        assert large.read(10) == b"last"
        large.seek(4 << 30)
        assert large.read(4096) == bytes(4096)
    assert (view.stat("large").st_size, view.read("behind")) == (size, b"abc")


def test_a_directory_of_a_hundred_thousand_names(bench: Bench) -> None:
    data = b"".join(header(b"d/%d" % number) for number in range(100_000)) + END
    bench.ingest(chain("a"), "", io.BytesIO(data))
    view = bench.view(chain("a"))
    assert sorted(map(int, view.names("d"))) == list(range(100_000))
    assert all(view.has(f"d/{number}") for number in (0, 9, 99_999, 50_000))
    assert not view.has("d/100000")


def test_attributes_larger_than_a_disk_takes(bench: Bench) -> None:
    values = {f"user.{number}": "v" * 60_000 for number in range(4)}
    top = bench.layer("a", "", file("f", b"x", xattrs=values), folder("d", xattrs=values))
    (root,) = [bench.root_of(top)]
    for name in ("f", "d"):
        assert {key: os.getxattr(root / name, key) for key in os.listxattr(root / name)} == {
            key: value.encode() for key, value in values.items()
        }
    with pytest.raises(InvalidArgument, match="bytes of extended attributes"):
        bench.layer("b", "", file("f", b"x", xattrs=values | {"user.x": "v" * 60_000}))


@pytest.mark.parametrize(
    "bad",
    [
        header(b"f") + header(b"f/x"),
        pax({"uid": str(2**32 - 1)}) + header(b"f"),
        pax({"linkpath": "x" * 4096}) + header(b"l", kind=b"2"),
        header(b"l", kind=b"2"),
        header(b"h", kind=b"1", link=b"h"),
        header(b"h", kind=b"1", link=b"nothing"),
        header(b"d/", kind=b"5") + header(b"h", kind=b"1", link=b"d"),
        header(b"a", kind=b"2", link=b"b") + header(b"b", kind=b"2", link=b"a") + header(b"a/x"),
        header(b"z", kind=b"Z"),
        pax({"SCHILY.xattr.user.": "x"}) + header(b"f"),
    ],
)  # fmt: skip
def test_what_no_disk_could_hold_is_refused(bench: Bench, bad: bytes) -> None:
    with pytest.raises(InvalidArgument):
        bench.ingest(chain("a"), "", io.BytesIO(bad + END))
    assert list(bench.driver.walk()) == []


def test_a_damaged_index_is_no_mount(bench: Bench) -> None:
    top = bench.layer("a", "", file("f", b"x"))
    made = bench.root / "layers" / top / "index"
    data = bytearray(made.read_bytes())
    data[1024 + 40] ^= 1
    made.write_bytes(data)
    with pytest.raises(EngineError, match="cannot mount the layers"):
        bench.view(top)


def test_a_tar_that_lost_bytes_is_no_mount(bench: Bench) -> None:
    """The kernel would show zeros instead of them."""
    top = bench.layer("a", "", file("f", b"x" * 5000))
    tar = (bench.root / "layers" / top / "tar").resolve()
    os.truncate(tar, tar.stat().st_size - 512)
    with pytest.raises(EngineError, match="has lost bytes"):
        bench.view(top)
    tar.unlink()
    with pytest.raises(EngineError, match="wherry system check"):
        bench.driver.mounts("container1")


def test_directories_that_leave_memory_come_back_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(2)
    names = [f"{rng.randrange(40)}/{rng.randrange(40)}/{rng.randrange(10**6)}".encode() for _ in range(5000)]
    data = b"".join(header(name) for name in names) + END
    wanted = {path for path in index(data, tmp_path).check()}
    monkeypatch.setattr(folders.Folders.__init__, "__kwdefaults__", {"held": 50})
    assert {path for path in index(data, tmp_path).check()} == wanted
    assert set(names) < wanted


def test_directories_that_take_turns_do_not_all_stay_in_memory(tmp_path: Path) -> None:
    with folders.Folders(str(tmp_path), held=100) as made:
        numbers = [made.make(0, (0o755, 0, 0, 0)).number for _ in range(5)]
        for name in range(200):
            for number in numbers:
                made.get(number).names[b"%d" % name] = name
                made.grown()
        assert sum(len(folder.names) for folder in made._hot.values()) <= 300
        assert [len(made.get(number).names) for number in numbers] == [200] * 5


@pytest.mark.slow
def test_a_tree_of_this_machine_comes_out_the_same(bench: Bench, tmp_path: Path) -> None:
    """Some 57,000 files as tar(1) packs them, compared with what it unpacks: names, facts, attributes and bytes."""
    trees_ = [each for each in ("share", "lib/python3", "include") if Path("/usr", each).is_dir()]
    tar, plain = tmp_path / "layer.tar", tmp_path / "plain"
    subprocess.run(["tar", "--xattrs", "--format=posix", "-cf", tar, "-C", "/usr", *trees_], check=True)
    plain.mkdir()
    subprocess.run(["tar", "--xattrs", "--xattrs-include=*", "-xpf", tar, "-C", plain], check=True)
    with open(tar, "rb") as source:
        bench.driver.ingest(chain("a"), "", source, tar)
    (root,) = [bench.root_of(chain("a"))]
    assert trees.differences(str(plain), f"{root}/", but=(".", "lib")) == []
    found = load(bench.root / "layers" / chain("a")).check()
    assert len(found) == sum(1 for _ in trees.walk(str(plain)))
    if fsck := newer_fsck():
        command = [fsck, "--extract", f"--device={tar}", bench.root / "layers" / chain("a") / "index"]
        subprocess.run(command, check=True)


def newer_fsck() -> str:
    """Where fsck.erofs is, if it knows blocks of 512 bytes; Debian 12's (1.5) takes those of a page only."""
    found = shutil.which("fsck.erofs") or ""
    version = subprocess.run([found, "-V"], capture_output=True, text=True).stdout if found else ""
    numbers = re.findall(r"(\d+)\.(\d+)", version)
    return found if numbers and tuple(map(int, numbers[0])) >= (1, 7) else ""


class _Million:
    """A tar of a million files in a hundred directories that take turns, made as it is read."""

    def __init__(self) -> None:
        self.left = 10**6

    def read(self, size: int, /) -> bytes:
        count = min(self.left, size // 512)
        start = 10**6 - self.left
        self.left -= count
        return b"".join(header(b"d%d/file-%d" % (n % 10_000 // 100, n)) for n in range(start, start + count))


@pytest.mark.slow
def test_a_million_entries_take_little_memory(tmp_path: Path) -> None:
    script = (
        "import resource, sys, tempfile; sys.path[:0] = ['src', '.']\n"
        "from tests.kernel.snapshots.test_erofs import *\n"
        "from tests.kernel.snapshots.test_erofs import _Million\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"with tempfile.TemporaryFile(dir='{tmp_path}') as made:\n"
        f"    layer = Layer(made.fileno(), '{tmp_path}', NOTHING)\n"
        "    layer.run(_Million(), uuid=bytes(16), tag=b'x')\n"
        "print(layer.inodes, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[3], capture_output=True, text=True)
    inodes, grown = map(int, run.stdout.split())
    assert inodes == 10**6
    assert grown < 60 << 10
