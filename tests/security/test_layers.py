"""Layers made to break out, to lie, or to wear the engine down: IM-01 to IM-06 of the attack catalogue.

Each attack runs against all drivers with a canary outside of the driver's folder, which must not change.
"""

from __future__ import annotations

import gzip
import io
import os
import resource
import stat
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests import tars
from tests.tars import Member, file, folder, hard, header, link, node, padded
from tests.trash import settle
from wherry.archive.compression import decompressed
from wherry.errors import EngineError, InvalidArgument, SystemFailure
from wherry.snapshots.api import Snapshotter
from wherry.snapshots.directories import DirectoryDriver
from wherry.snapshots.drivers.erofs import Erofs
from wherry.snapshots.drivers.overlay2 import Overlay2
from wherry.snapshots.drivers.vfs import Vfs

pytestmark = pytest.mark.root

LOWER = "1" * 64
UPPER = "2" * 64


class Field:
    """A driver, and beside it the canary."""

    def __init__(self, root: Path, make: Callable[[Path], Snapshotter]) -> None:
        self.held = ExitStack()
        self.root = root / "driver"
        self.driver = make(self.root)
        self.canary = root / "CANARY"
        self.canary.mkdir()
        (self.canary / "w").write_bytes(b"untouched")
        os.chmod(self.canary / "w", 0o600)
        os.utime(self.canary / "w", ns=(1, 1))
        self.before = self.look()

    def look(self) -> dict[str, tuple[object, ...]]:
        found: dict[str, tuple[object, ...]] = {}
        for path in (self.canary, *self.canary.iterdir()):
            state = path.lstat()
            content = path.read_bytes() if path.is_file() else sorted(os.listdir(path))
            attributes = os.listxattr(path)
            found[path.name] = (state.st_mode, state.st_uid, state.st_mtime_ns, state.st_nlink, content, attributes)
        return found

    def attack(self, *layers: list[Member] | bytes) -> Path | None:
        """Ingest one layer on the other; return the folder of the last one, None when one was refused."""
        parent = ""
        for number, layer in enumerate(layers, 1):
            data = layer if isinstance(layer, bytes) else tars.archive(layer)
            try:
                self.ingest(str(number) * 64, parent, data)
            except EngineError:
                assert not list((self.root / "ingest").iterdir())
                return None
            parent = str(number) * 64
        return self.seen(parent)

    def seen(self, chain_id: str) -> Path:
        """Where the driver sees a layer."""
        assert isinstance(self.driver, DirectoryDriver)
        return self.held.enter_context(self.driver.seen([chain_id]))[0]

    def ingest(self, chain_id: str, parent: str, data: bytes) -> None:
        blob = self.root.with_name("blob" + chain_id[0])
        blob.write_bytes(data)
        self.driver.ingest(chain_id, parent, io.BytesIO(data), blob)

    def up(self) -> str:
        """A relative path from the root of a layer to the canary, should ".." be followed."""
        return "../" * 30 + str(self.canary).lstrip("/")


@pytest.fixture(params=[Erofs, Overlay2, Vfs], ids=["erofs", "overlay2", "vfs"])
def field(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Field]:
    made = Field(tmp_path, request.param)
    yield made
    made.held.close()
    made.driver.close()
    settle()
    assert made.look() == made.before


def test_links_do_not_lead_out(field: Field) -> None:
    outside = str(field.canary)
    for target in (outside, "/", field.up(), "a/../" * 20 + field.up(), "/proc/self/root" + outside):
        below = "w" if target.endswith("CANARY") else f"{outside.lstrip('/')}/w"
        made = field.attack([link("a", target), file(f"a/{below}", b"pwned", mode=0o777)])
        assert made is None or not (made / "a").is_dir() or (made / "a").is_symlink()
        for name in (LOWER,):
            if any(info.name == name for info in field.driver.walk()):
                field.driver.remove(name)


def test_a_chain_of_links(field: Field) -> None:
    chain = [link(f"l{n}", f"l{n + 1}") for n in range(30)]
    field.attack([*chain, link("l30", str(field.canary)), file("l0/w", b"pwned")])


def test_endless_links_end(field: Field) -> None:
    assert field.attack([link("a", "b"), link("b", "a"), file("a/x", b"1")]) is None
    assert field.attack([link("c", "c/c"), file("c/x", b"1")]) is None


def test_a_hard_link_out_of_the_root(field: Field) -> None:
    for target in (str(field.canary / "w"), field.up() + "/w", "../w"):
        assert field.attack([hard("pwn", target), file("pwn", b"pwned")]) is None


def test_a_hard_link_by_way_of_a_link(field: Field) -> None:
    assert field.attack([link("d", str(field.canary)), hard("pwn", "d/w"), file("pwn", b"pwned")]) is None
    made = field.attack([link("s", str(field.canary / "w")), hard("pwn", "s"), file("pwn", b"mine")])
    assert made is not None
    assert (made / "pwn").read_bytes() == b"mine"  # the link was linked, then replaced; never followed
    assert (made / "s").is_symlink()


def test_a_hard_link_to_a_directory(field: Field) -> None:
    assert field.attack([folder("d"), hard("again", "d")]) is None


def test_writing_through_a_hard_link_of_the_layer_below(field: Field) -> None:
    """The file below keeps its content: a new file takes the name."""
    made = field.attack([file("x", b"below")], [file("x", b"above")])
    assert made is not None
    assert (field.seen(LOWER) / "x").read_bytes() == b"below"


def test_a_directory_swapped_for_a_link(field: Field) -> None:
    attack = [folder("d"), file("d/a", b"1"), link("d", str(field.canary)), file("d/w", b"pwned", mode=0o777)]
    field.attack(attack)


def test_a_directory_swapped_between_two_layers(field: Field) -> None:
    field.attack([link("d", str(field.canary))], [file("d/w", b"pwned")])


def test_a_deep_parent_swapped_while_it_is_open(field: Field) -> None:
    field.attack(
        [folder("a"), folder("a/b"), file("a/b/x"), link("a", str(field.canary.parent)), file("a/CANARY/w", b"pwned")]
    )


def test_names_that_lead_out(field: Field) -> None:
    for name in ("../CANARY/w", "./../x", "a/../../x", f"a/{field.up()}/w", field.up()):
        assert field.attack([file(name, b"pwned")]) is None
        long = padded(name.encode())
        gnu = header(b"././@LongLink", size=len(name), kind=b"L") + long + header(b"x") + tars.END
        assert field.attack(gnu) is None
    made = field.attack([file("/etc/x", b"1"), file("b\\..\\..\\y", b"2")])
    assert made is not None
    assert sorted(os.listdir(made)) == ["b\\..\\..\\y", "etc"]


def test_attributes_are_not_set_through_a_link(field: Field) -> None:
    """CVE-2021-32760: owner, mode, time and attributes of what a link points at."""
    attributes = {"user.pwned": "1", "security.capability": "x" * 20}
    target = str(field.canary / "w")
    field.attack([link("l", target, mode=0o4777, uid=7, gid=7, mtime=99)])
    field.attack([link("m", target, mode=0o4777, uid=7, xattrs=attributes)])
    field.attack([link("d", str(field.canary)), folder("d", mode=0o777, uid=7, mtime=99)])
    field.attack([folder("e"), link("e", str(field.canary)), folder("e/f", mode=0o777, uid=7)])


def test_late_attributes_of_a_directory_that_became_a_link(field: Field) -> None:
    made = field.attack([folder("d", mode=0o777, uid=7, mtime=99), link("d", str(field.canary))])
    assert made is not None
    assert (made / "d").is_symlink()


def test_whiteouts_that_reach_out(field: Field) -> None:
    below = [folder("d"), file("d/x"), link("out", str(field.canary)), file("x")]
    for name in (".wh..", ".wh...", "d/.wh..", "d/.wh...", ".wh."):
        assert field.attack(below, [file(name)]) is None, name
        field.driver.remove(LOWER)
    for name in ("out/.wh.w", "out/.wh..wh..opq", ".wh.out", "d/../.wh.x", ".wh..wh.aufs", "d/.wh.../"):
        field.attack(below, [file(name)])
        for each in (UPPER, LOWER):
            if any(info.name == each for info in field.driver.walk()):
                field.driver.remove(each)


def test_a_forged_whiteout_device_only_hides(field: Field) -> None:
    made = field.attack([file("x", b"1"), file("y", b"2")], [node("x", tarfile.CHRTYPE, 0, 0)])
    assert made is not None
    assert (field.seen(LOWER) / "x").read_bytes() == b"1"


def test_repeated_markers_take_linear_time(field: Field) -> None:
    """CVE-2026-95838: each marker walked the directory again."""
    below = [folder("d"), *(file(f"d/{n}") for n in range(500))]
    marker = header(b"d/.wh..wh..opq")
    root_marker = header(b".wh..wh..opq")
    data = tars.archive([folder("d"), *(file(f"d/new{n}") for n in range(500))])[:-10240]
    start = time.process_time()
    made = field.attack(below, data.rstrip(b"\0") + bytes(-len(data.rstrip(b"\0")) % 512) + marker * 60_000
                        + root_marker * 40_000 + tars.END)  # fmt: skip
    assert time.process_time() - start < 10
    assert made is not None


def test_nested_markers_take_linear_time(field: Field) -> None:
    deep = ["/".join(["d"] * n) for n in range(1, 300)]
    below = [folder(name) for name in deep]
    above = [folder(name) for name in deep] + [file(f"{name}/.wh..wh..opq") for name in reversed(deep)]
    start = time.process_time()
    assert field.attack(below, above) is not None
    assert time.process_time() - start < 5


def test_devices_are_kept_as_what_they_are(field: Field) -> None:
    made = field.attack([node("sda", tarfile.BLKTYPE, 8, 0), node("mem", tarfile.CHRTYPE, 1, 1)])
    assert made is not None
    assert stat.S_ISBLK((made / "sda").lstat().st_mode)
    assert (made / "mem").lstat().st_rdev == os.makedev(1, 1)


def test_an_unknown_type_is_refused(field: Field) -> None:
    assert field.attack(header(b"x", kind=b"M") + tars.END) is None
    assert field.attack(header(b".", kind=b"0") + tars.END) is None


def test_a_sparse_file_of_a_tebibyte_takes_no_room(field: Field) -> None:
    block = bytearray(header(b"huge", size=512, kind=b"S"))
    block[257:265] = b"ustar  \0"
    block[386:410] = b"%011o\0%011o\0" % (0, 512)
    block[483:495] = b"\x80" + (1 << 40).to_bytes(11, "big")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    made = field.attack(bytes(block) + b"x" * 512 + tars.END)
    assert made is not None
    assert (made / "huge").stat().st_size == 1 << 40
    taken = sum(path.lstat().st_blocks * 512 for path in (field.root / "layers" / LOWER).rglob("*"))
    assert taken < 2 << 20


def test_a_bomb_of_zeros_stops_at_the_reserve(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    """10 GiB of zeros in 10 MiB: stopped by the reserve, in little memory, and nothing is left."""
    free = os.statvfs(field.root)
    monkeypatch.setattr("wherry.kernel.fsio.space.RESERVE", free.f_bavail * free.f_frsize - (300 << 20))
    compressor = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    pieces = [compressor.compress(header(b"zeros", size=10 << 30))]
    pieces += [compressor.compress(bytes(1 << 20)) for _ in range(1000)]
    bomb = b"".join([*pieces, compressor.flush()])
    assert len(bomb) < 10 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    source, _ = decompressed(io.BytesIO(bomb))
    # Without unpacking nothing is written here: what writes the tar to the disk has stopped before (images/spool.py)
    refusal = (SystemFailure, "MiB are free") if field.driver.unpacks else (InvalidArgument, "unexpected end")
    with pytest.raises(refusal[0], match=refusal[1]):
        field.driver.ingest(LOWER, "", source, field.root / "none")  # type: ignore[arg-type]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10
    assert not list((field.root / "ingest").iterdir())


def test_many_small_files_stay_in_little_memory(field: Field) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    made = field.attack(b"".join(header(b"d%d/f%d" % (n % 400, n)) for n in range(5000)) + tars.END)
    assert made is not None
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


def test_a_path_longer_than_the_kernel_takes(field: Field) -> None:
    assert field.attack([file("/".join(["d"] * 3000), b"1")]) is None
    assert field.attack([file("x" * 300, b"1")]) is None


def test_nothing_but_the_root_may_be_the_root(field: Field) -> None:
    assert field.attack([link(".", str(field.canary))]) is None
    assert field.attack([link("a/..", str(field.canary))]) is None


def test_a_compressed_layer_where_a_plain_one_is_due(field: Field) -> None:
    with pytest.raises(InvalidArgument):
        field.ingest(LOWER, "", gzip.compress(tars.archive([file("x")])))
