"""Backups of volumes: the archive, what is in one that adds to another, and what is done with a bad one."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from wherry.archive.tar import TarError
from wherry.errors import Conflict, InvalidArgument, SystemFailure
from wherry.kernel.fsio.holes import extents
from wherry.packing import pack
from wherry.volumes.backup import archive, digest, ledger, manifest
from wherry.volumes.backup.archive import Head
from wherry.volumes.backup.digest import ContentDigest
from wherry.volumes.backup.ledger import Spool
from wherry.volumes.backup.manifest import Line

pytestmark = pytest.mark.root
FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """One of each kind of file, with everything that a file can have."""
    root = tmp_path / "volume"
    (root / "a" / "deep").mkdir(parents=True)
    (root / "a" / "file").write_bytes(os.urandom(3 << 20))
    (root / "a.b").write_text("between a and a/ in the order of bytes, after both in that of the walk")
    (root / "empty").touch()
    os.link(root / "a" / "file", root / "z hard")
    (root / "link").symlink_to("a/file")
    (root / "dangling").symlink_to("../../../etc/passwd")
    os.mkfifo(root / "pipe", 0o640)
    os.mknod(root / "null", 0o600 | 0o020000, os.makedev(1, 3))
    (root / os.fsdecode(b"not utf-8 \xff")).write_text("x")
    (root / ("long " * 50)).touch()
    os.chown(root / "a.b", 1000, 2000)
    os.chmod(root / "a.b", 0o4711)
    os.setxattr(root / "a.b", "user.color", b"blue\0")
    os.setxattr(root / "a.b", "user.50%=half%3D", b"a=b")
    os.utime(root / "a.b", ns=(1, 1234567890123456789))
    os.utime(root / "a", ns=(1, 999_999_999))
    os.chmod(root, 0o1777)
    os.utime(root, ns=(1, 5_000_000_005))
    return root


def saved(root: Path, scratch: Path, since: bytes = b"") -> bytes:
    base = Spool(scratch)
    base.write(manifest_of(since) if since else b"")
    head = Head("v", 1, base=base.id)
    return b"".join(archive.taken(os.open(root, FLAGS), head, base, scratch))


def manifest_of(data: bytes) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found = tar.extractfile("wherry-manifest.jsonl")
        assert found is not None
        return found.read()


def members(data: bytes) -> set[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return set(tar.getnames())


class Target:
    """A directory that backups are restored in."""

    def __init__(self, root: Path, scratch: Path) -> None:
        self.root, self._scratch = root, scratch
        root.mkdir()
        self.base, self.id = Spool(scratch), ""

    def restore(self, data: bytes) -> None:
        fd = os.open(self.root, FLAGS)
        try:
            _, self.id, base = archive.restore(fd, io.BytesIO(data), self.base, self.id, self._scratch)
            self.base.close()
            self.base = base
        finally:
            os.close(fd)


@pytest.fixture
def target(tmp_path: Path, scratch: Path) -> Iterator[Target]:
    made = Target(tmp_path / "target", scratch)
    yield made
    made.base.close()


def facts(root: Path) -> dict[str, tuple[object, ...]]:
    """What lstat, readlink, read and getxattr say of everything below."""
    found = {}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files, "."):
            path = os.path.join(folder, name)
            state = os.lstat(path)
            link = os.readlink(path) if os.path.islink(path) else ""
            regular = os.path.isfile(path) and not link
            found[os.path.relpath(path, root)] = (
                state.st_mode, state.st_uid, state.st_gid, state.st_mtime_ns, state.st_rdev, link,
                state.st_nlink if regular else 0, Path(path).read_bytes() if regular else b"",
                [(each, os.getxattr(path, each)) for each in os.listxattr(path)] if regular else [],
            )  # fmt: skip
    return found


def age() -> None:
    """Wait until files may be taken for unchanged by their ctime."""
    time.sleep(ledger.FRESH / 1e9 + 0.05)


def test_a_volume_comes_back_as_it_was_to_the_nanosecond(volume: Path, scratch: Path, target: Target) -> None:
    target.restore(saved(volume, scratch))
    assert facts(target.root) == facts(volume)
    assert os.stat(target.root / "z hard").st_ino == os.stat(target.root / "a" / "file").st_ino


def test_any_tar_program_reads_it(volume: Path, scratch: Path, tmp_path: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(saved(volume, scratch))) as tar:
        tar.extractall(tmp_path / "by tar", filter="fully_trusted")
        names = tar.getnames()
    assert (names[0], names[-1]) == ("wherry-volume.json", "wherry-manifest.jsonl")
    assert (tmp_path / "by tar" / "content" / "a" / "file").read_bytes() == (volume / "a" / "file").read_bytes()
    assert json.loads((tmp_path / "by tar" / "wherry-volume.json").read_text())["volume"] == "v"


def data_of(path: Path) -> list[tuple[int, int]]:
    """What `extents` says of a file."""
    with path.open("rb") as file:
        return list(extents(file.fileno(), path.stat().st_size))


def write_at(path: Path, places: dict[int, bytes]) -> None:
    with path.open("r+b" if path.exists() else "wb") as file:
        for offset, data in places.items():
            file.seek(offset)
            file.write(data)


def test_a_hole_of_a_terabyte_costs_nothing(scratch: Path, target: Target, tmp_path: Path) -> None:
    root = tmp_path / "sparse"
    root.mkdir()
    write_at(root / "disk", {0: b"begin", 5 << 30: b"some", (700 << 30) + 12345: b"odd", (1 << 40) - 3: b"end"})
    (root / "hole").touch()
    os.truncate(root / "hole", (3 << 20) + 1)
    whole = saved(root, scratch)
    assert len(whole) < 1 << 20
    target.restore(whole)
    for name in ("disk", "hole"):
        assert data_of(target.root / name) == data_of(root / name)
        assert (target.root / name).stat().st_size == (root / name).stat().st_size
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        assert (tar.getmember("content/disk").size, tar.getmember("content/hole").size) == (1 << 40, (3 << 20) + 1)
    write_at(root / "disk", {300 << 30: b"more"})
    more = saved(root, scratch, whole)
    assert "content/hole" not in members(more)
    target.restore(more)
    with (target.root / "disk").open("rb") as file:
        file.seek(300 << 30)
        assert file.read(5) == b"more\0"


def test_a_file_with_more_holes_than_a_map_may_have(
    scratch: Path, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack, "LONGEST_MAP", 100)
    root = tmp_path / "sparse"
    root.mkdir()
    write_at(root / "many", {number * (200_000 + 1000 * number): b"x" for number in range(30)})
    target.restore(saved(root, scratch))
    assert (target.root / "many").read_bytes() == (root / "many").read_bytes()
    assert len(data_of(target.root / "many")) < len(data_of(root / "many")) == 30


@pytest.mark.parametrize("seed", range(20))
def test_a_digest_is_of_the_content_however_it_comes(seed: int) -> None:
    random = Random(seed)
    block = digest.BLOCK
    content = bytearray()
    for _ in range(random.randrange(6)):
        kind = random.randrange(3)
        size = random.choice([1, 5, block // 2, block - 1, block, block + 1, 2 * block])
        content += b"x" * size if kind == 0 else bytes(size) if kind == 1 else b"\0" * (size - 1) + b"y"
    zeros = [not any(content[at : at + block]) for at in range(0, len(content) - block + 1, block)]
    found = set()
    for _ in range(4):
        made, at = ContentDigest(), 0
        while at < len(content):
            piece = bytes(content[at : at + random.choice([1000, block // 3, block, 3 * block])])
            made.hole(len(piece)) if not any(piece) and random.random() < 0.7 else made.feed(piece)
            at += len(piece)
        found.add(made.hexdigest())
    assert len(found) == 1
    assert (found == {hashlib.sha256(content).hexdigest()}) is not any(zeros)


def test_one_that_adds_to_another_has_what_changed_and_no_more(volume: Path, scratch: Path, target: Target) -> None:
    age()
    first = saved(volume, scratch)
    (volume / "a.b").write_text("changed")
    (volume / "fresh").write_text("fresh")
    (volume / "empty").unlink()
    (volume / "pipe").unlink()
    (volume / "pipe").mkdir()
    (volume / "link").unlink()
    (volume / "link").symlink_to("elsewhere")
    os.chmod(volume / "a" / "deep", 0o700)
    second = saved(volume, scratch, first)
    assert len(second) < len(first) // 50
    assert {"content/a.b", "content/fresh", "content/pipe"} <= members(second)
    assert "content/a/file" not in members(second)
    target.restore(first)
    target.restore(second)
    assert facts(target.root) == facts(volume)


def test_a_chain_of_many_with_all_that_can_happen_to_names(volume: Path, scratch: Path, target: Target) -> None:
    before = saved(volume, scratch)
    target.restore(before)
    for change in (
        lambda: os.rename(volume / "a", volume / "b"),
        lambda: (volume / "b" / "file").write_bytes(b"shorter"),
        lambda: os.unlink(volume / "z hard"),
        lambda: os.link(volume / "b" / "file", volume / "0 hard"),
        lambda: os.rename(volume / "a.b", volume / "b" / "deep" / "a.b"),
        lambda: (volume / "a.b").mkdir(),
        lambda: (volume / "a.b" / "in").write_text("a directory where a file was"),
        lambda: os.utime(volume, ns=(1, 77)),
    ):
        change()
        after = saved(volume, scratch, before)
        target.restore(after)
        assert facts(target.root) == facts(volume)
        before = after


def test_what_was_written_at_once_after_a_backup_is_in_the_next(volume: Path, scratch: Path, target: Target) -> None:
    """Within one tick of the clock the ctime stays the same, and so may size and mtime."""
    path = volume / "empty"
    path.write_text("one")
    os.utime(path, ns=(1, 1))
    first = saved(volume, scratch)
    with path.open("r+") as file:
        file.write("two")
    os.utime(path, ns=(1, 1))
    second = saved(volume, scratch, first)
    target.restore(first)
    target.restore(second)
    assert (target.root / "empty").read_text() == "two"


def test_on_another_machine_content_is_compared_by_its_digest(volume: Path, scratch: Path, target: Target) -> None:
    first = saved(volume, scratch)
    target.restore(first)
    again = saved(target.root, scratch, first)
    with tarfile.open(fileobj=io.BytesIO(again)) as tar:
        assert not [each.name for each in tar if each.isfile() and each.name.startswith("content/")]


def test_the_wrong_base_is_refused_before_anything_is_touched(volume: Path, scratch: Path, target: Target) -> None:
    first = saved(volume, scratch)
    (volume / "fresh").touch()
    second = saved(volume, scratch, first)
    with pytest.raises(Conflict, match=r"this backup adds to backup [0-9a-f]{12}, but the volume is new"):
        target.restore(second)
    target.restore(first)
    before = facts(target.root)
    with pytest.raises(Conflict, match="this backup is a whole one, for a new volume, but the volume has backup"):
        target.restore(first)
    assert facts(target.root) == before


def test_one_byte_that_is_wrong_is_noticed(volume: Path, scratch: Path, target: Target) -> None:
    data = bytearray(saved(volume, scratch))
    place = data.index((volume / "a" / "file").read_bytes()[:100])
    data[place] ^= 1
    with pytest.raises(SystemFailure, match="what was restored is not what was saved: a/file has another digest"):
        target.restore(bytes(data))


@pytest.mark.parametrize("keep", [0, 100, 512, 1536, 100_000, -512, -3000])
def test_a_backup_that_is_cut_off_is_refused(volume: Path, scratch: Path, target: Target, keep: int) -> None:
    data = saved(volume, scratch)
    cut = data[: len(data) - 1024][:keep] if keep < 0 else data[:keep]
    with pytest.raises((InvalidArgument, ValueError)):
        target.restore(cut)


def test_other_archives_are_refused(scratch: Path, target: Target, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    for names in (["f"], ["wherry-volume.json"], ["wherry-volume.json", "../../f"]):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name in names:
                tar.add(tmp_path / "f", name)
        with pytest.raises(InvalidArgument):
            target.restore(buffer.getvalue())
    assert os.listdir(target.root) == []


@pytest.mark.parametrize(
    ("name", "fields", "text"),
    [
        ("content/more", {}, "more is only in one of them"),
        ("content/h", {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"}, "cannot be made"),
        ("content/" + "n" * 256, {}, "cannot be made"),
        ("content/u", {"uid": 1 << 40}, "a number that no file can have"),
        ("content/l/x", {}, "nowhere is only in one of them"),
        ("content/../../x", {}, "leads out of the archive"),
    ],
)
def test_a_member_that_was_put_in(
    scratch: Path, target: Target, tmp_path: Path, name: str, fields: dict[str, object], text: str
) -> None:
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume" / "l").symlink_to("nowhere")
    buffer = io.BytesIO()
    added = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(added, field, value)
    with (
        tarfile.open(fileobj=io.BytesIO(saved(tmp_path / "volume", scratch))) as before,
        tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as after,
    ):
        for each in before:
            if each.name == "wherry-manifest.jsonl":
                after.addfile(added)
            after.addfile(each, before.extractfile(each) if each.isfile() else None)
    with pytest.raises((InvalidArgument, SystemFailure, TarError)) as caught:
        target.restore(buffer.getvalue())
    assert text in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [b"{}\n", b"[]\n", b"nonsense\n", b'{"kind":"file","path":"a"}', b'{"kind":"file","path":"a"}\n' * 2,
     b'{"kind":"file","path":"b"}\n{"kind":"file","path":"a"}\n', b'{"kind":"file","path64":"!"}\n',
     b'{"kind":"file","path":"' + b"x" * 70_000 + b'"}\n'],
)  # fmt: skip
def test_bad_manifests_are_refused(scratch: Path, text: bytes) -> None:
    with closing(Spool(scratch)) as spool:
        spool.write(text)
        with pytest.raises(InvalidArgument, match="manifest"):
            list(spool.lines())


def test_a_manifest_cannot_lead_out_of_the_volume() -> None:
    for path in ("../x", "a/../b", "/etc", "a//b", "./a"):
        with pytest.raises(InvalidArgument, match="a path that cannot be"):
            list(ledger.checked([Line("file", path)]))


def test_lines_come_in_the_order_of_the_walk() -> None:
    names = [b"", b"a", b"a/x", b"a/x/y", b"a.b", b"b"]
    assert sorted(names, key=manifest.place) == names
