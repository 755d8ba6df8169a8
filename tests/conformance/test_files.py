"""Every kind of file that a layer can hold, compared with a plain extraction of the same tar."""

from __future__ import annotations

import io
import os
import random
import socket
import stat
import struct
import tarfile
from pathlib import Path

import pytest

from tests import tars, trees
from tests.conformance.drivers import Bench, chain
from tests.tars import Member, file, folder, hard, link, node
from wherry.packing.unpack import Unpacker

pytestmark = pytest.mark.root

CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)  # cap_net_bind_service+ep
ACL = struct.pack("<IHHIHHIHHIHHIHHI", 2, 1, 7, 0xFFFFFFFF, 2, 4, 1000, 4, 5, 0xFFFFFFFF, 16, 5, 0xFFFFFFFF,
                  32, 4, 0xFFFFFFFF)  # fmt: skip


def text(value: bytes) -> str:
    """A value as tarfile writes it into pax records, which are bytes."""
    return value.decode("utf-8", "surrogateescape")


def check(bench: Bench, tmp_path: Path, *members: Member) -> None:
    """A layer as a container sees it is what unpacking its tar makes, name by name."""
    data = tars.archive([folder(".", mtime=5), *members])
    plain = tmp_path / "plain"
    plain.mkdir()
    fd = os.open(plain, os.O_RDONLY)
    try:
        Unpacker(fd).run(io.BytesIO(data))
    finally:
        os.close(fd)
    bench.ingest(chain("layer"), "", io.BytesIO(data))
    view = bench.view(chain("layer"))
    assert trees.differences(str(plain), view.path("").rstrip("/"), but=(".",)) == []
    with bench.driver.seen([chain("layer")]) as (root,):  # type: ignore[attr-defined]
        assert trees.differences(str(plain), str(root) + "/", but=(".",)) == []


def test_modes_of_all_bits(bench: Bench, tmp_path: Path) -> None:
    modes = [0, 0o1, 0o444, 0o600, 0o755, 0o4755, 0o2755, 0o1777, 0o7777]
    members = [file(f"f{mode}", b"x", mode=mode) for mode in modes]
    check(bench, tmp_path, *members, *[folder(f"d{mode}", mode=mode) for mode in modes])


def test_owners_beyond_16_bits(bench: Bench, tmp_path: Path) -> None:
    members = [file("a", uid=65536, gid=70000), folder("d", uid=2**32 - 3, gid=2**31), link("l", "a", uid=99999)]
    check(bench, tmp_path, *members)


def test_times_to_the_nanosecond(bench: Bench, tmp_path: Path) -> None:
    times = ["0", "1.5", "1234567890.123456789", "2147483648.000000001", "4294967296.999999999", "-1.25"]
    members = []
    for number, time in enumerate(times):
        for made in (file(f"f{number}", b"x"), folder(f"d{number}"), link(f"l{number}", "f0")):
            made[0].pax_headers["mtime"] = time
            members.append(made)
    check(bench, tmp_path, *members)


def test_sizes_around_a_block(bench: Bench, tmp_path: Path) -> None:
    rng = random.Random(1)
    sizes = [0, 1, 2, 511, 512, 513, 1023, 1024, 1025, 4095, 4096, 4097, 65535, 65536, 65537, 1 << 20, (1 << 20) + 1]
    check(bench, tmp_path, *[file(f"f{size}", rng.randbytes(size)) for size in sizes])


def test_names_of_255_bytes_and_in_no_encoding(bench: Bench, tmp_path: Path) -> None:
    odd = [bytes([byte]) for byte in range(1, 256) if byte not in (ord("/"), ord("."))]
    names = [*odd, b"\xff\xfe" * 127, b"a" * 255, b"b" * 254 + b"\x80", b" ", b"\n", b"..a", b"...", b"a.", b"-"]
    members = [file(os.fsdecode(name), name) for name in names]
    check(bench, tmp_path, *members, folder("d" * 255), file(f"{'d' * 255}/{'e' * 255}", b"deep"))


def test_paths_near_the_longest(bench: Bench, tmp_path: Path) -> None:
    parts = ["d" * 200] * 17
    check(bench, tmp_path, *[folder("/".join(parts[:n])) for n in range(1, 18)], file("/".join([*parts, "end"]), b"x"))


def test_symbolic_links_of_all_lengths(bench: Bench, tmp_path: Path) -> None:
    lengths = [1, 2, 59, 60, 100, 255, 256, 383, 384, 385, 447, 448, 449, 511, 512, 513, 1000, 4000, 4095]
    members = [link(f"l{length}", "x" * length) for length in lengths]
    check(bench, tmp_path, *members, link("odd", os.fsdecode(b"\xff\x00"[:1] * 30)), link("up", "../../../etc"))


def test_devices_and_fifos(bench: Bench, tmp_path: Path) -> None:
    numbers = [(0, 1), (1, 3), (8, 0), (255, 255), (256, 256), (4095, 1048575)]
    members = [node(f"c{major}.{minor}", tarfile.CHRTYPE, major, minor) for major, minor in numbers]
    members += [node(f"b{major}.{minor}", tarfile.BLKTYPE, major, minor, uid=7) for major, minor in numbers]
    check(bench, tmp_path, *members, node("pipe", tarfile.FIFOTYPE, mode=0o622))


def test_extended_attributes_of_all_kinds(bench: Bench, tmp_path: Path) -> None:
    check(
        bench,
        tmp_path,
        file("capable", b"x", mode=0o755, xattrs={"security.capability": text(CAPABILITY)}),
        file("acl", b"x", mode=0o754, xattrs={"system.posix_acl_access": text(ACL)}),
        folder("acls", mode=0o754, xattrs={f"system.posix_acl_{kind}": text(ACL) for kind in ("access", "default")}),
        file("user", b"x" * 600, xattrs={"user.a": "1", "user.b": "", "user." + "n" * 250: "v" * 300}),
        file("many", b"x", xattrs={f"user.n{number}": "v" * number for number in range(60)}),
        folder("large", xattrs={"user.large": "v" * 2000}),
        file("large/odd", b"x", xattrs={"user.odd": text(bytes(range(1, 10)) + b"\xff")}),
    )


def test_hard_links_of_everything(bench: Bench, tmp_path: Path) -> None:
    check(
        bench,
        tmp_path,
        file("a", b"data" * 300, xattrs={"user.x": "1"}), folder("d"), hard("d/b", "a"), hard("c", "d/b"),
        link("sym", "a"), hard("sym2", "sym"), node("pipe", tarfile.FIFOTYPE), hard("d/pipe", "pipe"),
        node("null", tarfile.CHRTYPE, 1, 3), hard("null2", "./null"), link("way", "d"), hard("again", "way/b"),
    )  # fmt: skip


def test_a_later_entry_replaces_an_earlier_one_of_any_kind(bench: Bench, tmp_path: Path) -> None:
    kinds = {
        "file": lambda name: [file(name, b"1" * 1000)],
        "other": lambda name: [file(name, b"2" * 10)],
        "folder": lambda name: [folder(name, mode=0o711), file(f"{name}/in", b"3")],
        "link": lambda name: [link(name, "nowhere")],
        "pipe": lambda name: [node(name, tarfile.FIFOTYPE)],
        "hard": lambda name: [hard(name, "base")],
    }
    members = [file("base", b"base")]
    for first, one in kinds.items():
        for second, other in kinds.items():
            members += one(f"{first}-{second}") + other(f"{first}-{second}")
    for member in members:
        member[0].mtime = 77
    check(bench, tmp_path, *members)


def test_links_in_the_middle_of_names(bench: Bench, tmp_path: Path) -> None:
    members = [
        folder("usr"), folder("usr/lib"), link("lib", "usr/lib"), file("lib/a", b"1"), link("usr/up", "../../../usr"),
        file("usr/up/lib/b", b"2"), link("absolute", "/usr/lib"), file("absolute/c", b"3"), folder("run"),
        link("loop1", "lib/../lib"), file("loop1/d", b"4"), folder("lib/e"), file("usr/lib/e/f", b"5"),
        link("hop", "absolute"), file("hop/e/g", b"6"),
    ]  # fmt: skip
    check(bench, tmp_path, *members)


def test_a_directory_of_many_names(bench: Bench, tmp_path: Path) -> None:
    names = random.Random(3).sample(range(10**6), 3000)
    members = [file(f"d/{number:x}" + "n" * (number % 90), str(number).encode()) for number in names]
    check(bench, tmp_path, folder("d"), *members)


def test_sockets_are_in_no_layer(bench: Bench) -> None:
    """A tar has no form for them: what a container makes is left out, of docker commit too."""
    view = bench.view(bench.layer("a", "", folder("run")), key="own")
    here = os.open(view.path("run"), os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"/proc/self/fd/{here}/s")
    os.close(here)
    assert stat.S_ISSOCK(view.stat("run/s").st_mode)
    assert "/run/s" in {each.path for each in bench.driver.changes("own")}
    with tarfile.open(fileobj=io.BytesIO(b"".join(bench.driver.layer("own")))) as archive:
        assert archive.getnames() == ["run"]
