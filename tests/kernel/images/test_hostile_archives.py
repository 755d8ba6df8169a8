"""Archives made to exhaust, confuse or deceive: an error in time and in little memory, and nothing is left."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import resource
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import tars
from tests.kernel.images.store import LAYER, UPPER, Store, layout
from tests.tars import config_of, digest, docker_archive, docker_archives, file
from tests.trash import settle
from wherry.errors import InvalidArgument, NotFound, SystemFailure

pytestmark = pytest.mark.root
ENTRY: dict[str, Any] = {"Config": "c.json", "RepoTags": ["a:1"], "Layers": ["l"]}


def with_manifest(manifest: Any, *more: tars.Member) -> bytes:
    text = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
    return tars.archive([file("c.json", config_of([LAYER])), file("l", LAYER), *more, file("manifest.json", text)])


def raw_config(text: str) -> bytes:
    """A config whose bytes are given, with LAYER's digest at %s."""
    return docker_archive([LAYER], ["a:1"], config=text.replace("%s", digest(LAYER)).encode())


ROOTFS = '"rootfs":{"type":"layers","diff_ids":["%s"]}'
DOCUMENTS = {
    "a number of a million digits": raw_config(f'{{{ROOTFS},"size":{"9" * 1_000_000}}}'.replace('"size"', '"created"')),
    "created is a huge number": raw_config(f'{{{ROOTFS},"created":1e999}}'),
    "not a number": raw_config(f'{{{ROOTFS},"created":NaN}}'),
    "nested a hundred thousand times": raw_config(f'{{{ROOTFS},"config":{"[" * 100_000}{"]" * 100_000}}}'),
    "objects nested": raw_config(f'{{{ROOTFS},"x":{"{" * 1}"a":{"[" * 50_000}{"]" * 50_000}}}}}'),
    "five mebibytes of blanks": raw_config(f'{{{ROOTFS}{" " * (5 << 20)}}}'),
    "half a surrogate pair": raw_config(f'{{{ROOTFS},"config":{{"Env":["A=\\ud800"]}}}}'),
    "not UTF-8": docker_archive([LAYER], ["a:1"], config=config_of([LAYER])[:-1] + b',"author":"\xff\xfe"}'),
    "a byte order mark": docker_archive([LAYER], ["a:1"], config=b"\xef\xbb\xbf" + config_of([LAYER])),
    "two documents": docker_archive([LAYER], ["a:1"], config=config_of([LAYER]) * 2),
    "diff ids that are no list": raw_config('{"rootfs":{"type":"layers","diff_ids":"%s"}}'),
    "126 layers": docker_archive([LAYER] * 126, ["a:1"]),
    "labels of numbers": raw_config(f'{{{ROOTFS},"config":{{"Labels":{{"a":1}}}}}}'),
    "ports that are a list": raw_config(f'{{{ROOTFS},"config":{{"ExposedPorts":["80/tcp"]}}}}'),
    "an interval that is a text": raw_config(f'{{{ROOTFS},"config":{{"Healthcheck":{{"Interval":"1s"}}}}}}'),
    "a digest in capitals": raw_config('{"rootfs":{"type":"layers","diff_ids":["' + digest(LAYER).upper() + '"]}}'),
    "another algorithm": raw_config('{"rootfs":{"type":"layers","diff_ids":["md5:d41d8cd98f00b204e9800998ecf8427e"]}}'),
    "a tag with a slash": with_manifest([ENTRY | {"RepoTags": ["a:b/c"]}]),
    "a tag with a line feed": with_manifest([ENTRY | {"RepoTags": ["a:1\n"]}]),
    "a name with a full-width letter": with_manifest([ENTRY | {"RepoTags": ["\uff41:1"]}]),
    "a name with a letter that only looks right": with_manifest([ENTRY | {"RepoTags": ["\u0430:1"]}]),
    "a name that goes up": with_manifest([ENTRY | {"RepoTags": ["../a:1"]}]),
    "an empty name": with_manifest([ENTRY | {"RepoTags": [""]}]),
    "a tag of 129 letters": with_manifest([ENTRY | {"RepoTags": ["a:" + "t" * 129]}]),
    "a name with a digest": with_manifest([ENTRY | {"RepoTags": [f"a@{digest(b'')}"]}]),
    "a layer that is a folder": with_manifest([ENTRY | {"Layers": ["d"]}], tars.folder("d")),
    "a layer that is a device": with_manifest([ENTRY | {"Layers": ["d"]}], tars.node("d", b"3", 1, 5)),
    "a config that is a link to a file of the machine": with_manifest(
        [ENTRY | {"Config": "k"}], tars.link("k", "/proc/self/environ")
    ),
    "a hard link out of the archive": with_manifest([ENTRY | {"Layers": ["k"]}], tars.hard("k", "../../../etc/shadow")),
    "a layer with a NUL in its name": with_manifest([ENTRY | {"Layers": ["l\0x"]}]),
    "a name of 100,000 letters": with_manifest([ENTRY | {"Layers": ["l" * 100_000]}]),
    "backslashes": with_manifest([ENTRY | {"Layers": ["..\\..\\l"]}]),
    "a second member of the same name, which is another": with_manifest([ENTRY], file("l", UPPER)),
    "compressed twice": docker_archive(
        [gzip.compress(gzip.compress(LAYER))], ["a:1"], config=config_of([LAYER])
    ),
    "a wrong gzip checksum": docker_archive(
        [gzip.compress(LAYER)[:-8] + b"\0" * 8], ["a:1"], config=config_of([LAYER])
    ),
    "layout with a negative size": layout(break_it=lambda m: m["layers"][0].update(size=-1)),
    "layout with a size beyond 64 bits": layout(break_it=lambda m: m["layers"][0].update(size=1 << 70)),
    "layout with a size that is a text": layout(break_it=lambda m: m["config"].update(size="1")),
    "layout whose layers are null": layout(break_it=lambda m: m.update(layers=None)),
}  # fmt: skip


@pytest.mark.parametrize("name", DOCUMENTS)
def test_it_is_refused_in_time_and_leaves_nothing(store: Store, name: str) -> None:
    before = store.state()
    start = time.process_time()
    with pytest.raises(InvalidArgument) as caught:
        store.load(DOCUMENTS[name])
    assert time.process_time() - start < 5
    assert len(caught.value.message) < 1000
    assert store.state() == before


def test_a_good_image_before_a_bad_one_takes_no_name(store: Store) -> None:
    """Reference spoofing by a load that fails: kept:1 goes on meaning what it meant."""
    (kept,) = store.load(docker_archive([UPPER], ["kept:1"]))
    before = store.state()
    bad = ([UPPER], ["other:1"], config_of([b"another layer"]))
    with pytest.raises(InvalidArgument):
        store.load(docker_archives([([LAYER], ["kept:1"], config_of([LAYER])), bad]))
    assert store.state() == before
    assert store.images.resolve("kept:1").id == kept


def test_the_last_of_two_members_of_one_name_counts(store: Store) -> None:
    """As for tar(1), which unpacks both; what is checked is what is used."""
    data = tars.archive([
        file("l", UPPER), file("c.json", config_of([LAYER])), file("l", LAYER),
        file("manifest.json", json.dumps([ENTRY]).encode()),
    ])  # fmt: skip
    store.load(data)
    assert store.images.inspect("a:1")["RootFS"]["Layers"] == [digest(LAYER)]


def test_one_layer_many_times(store: Store) -> None:
    (image_id,) = store.load(docker_archive([LAYER] * 125, ["a:1"]))
    assert len(store.images.inspect("a:1")["RootFS"]["Layers"]) == 125
    assert len(os.listdir(store.root / "content/blobs/sha256")) == 2
    before = len(list(store.driver.walk()))
    assert before == 125
    with store.images.saved(["a:1"]) as (ids, chunks):
        assert ids == [image_id]
        assert sum(map(len, chunks)) < 10 * len(LAYER) + (1 << 20)
    store.remove("a:1")
    assert list(store.driver.walk()) == []


class Endless(io.RawIOBase):
    """A stream made piece by piece, so that only the reader can run out of memory."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        super().__init__()
        self._pieces = pieces
        self._rest = b""

    def read(self, size: int = -1, /) -> bytes:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._rest = piece
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


def grown(before: int) -> int:
    """KiB by which the most memory ever used has grown."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before


@pytest.mark.parametrize("name", [b"%d", b"same%.0s"])
def test_a_million_members_are_refused_early(store: Store, name: bytes) -> None:
    before, state = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, store.state()

    def members() -> Iterator[bytes]:
        for number in range(1_000_000):
            yield tars.header(name.replace(b"%.0s", b"") if b"same" in name else name % number)

    start = time.process_time()
    with pytest.raises(InvalidArgument, match="more than 20000 members"):
        store.images.load(Endless(members()), lambda _: None)  # type: ignore[arg-type]
    assert time.process_time() - start < 20
    assert grown(before) < 128 << 10
    assert store.state() == state


def bomb(size: int) -> Iterator[bytes]:
    """A gzip stream of an archive whose one layer is `size` zeros."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, 31)
    yield deflate.compress(tars.header(b"layer.tar", size=size))
    zeros = bytes(1 << 20)
    for _ in range(size >> 20):
        yield deflate.compress(zeros)
    yield deflate.flush()


def test_a_bomb_stops_at_the_reserve_of_the_disk(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    state = os.statvfs(store.root)
    free = state.f_bavail * state.f_frsize
    monkeypatch.setattr("wherry.kernel.fsio.space.RESERVE", free - (256 << 20))
    before, clean = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, store.state()
    for load in (
        lambda source: store.images.load(source, lambda _: None),
        lambda source: store.images.import_(source, repo="a", tag="", message="", changes=[], platform=""),
    ):
        with pytest.raises(SystemFailure, match="MiB are free"):
            load(Endless(bomb(8 << 30)))
        assert store.state() == clean
    assert grown(before) < 64 << 10
    monkeypatch.undo()
    store.load(docker_archive([LAYER], ["a:1"]))


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Store]:
    """A store on a file system of 260 MiB."""
    room = tmp_path / "small"
    room.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=260m", "none", str(room)], check=True)
    made = Store(room)
    try:
        yield made
    finally:
        made.close()
        subprocess.run(["umount", "--lazy", str(room)], check=True)


@pytest.mark.parametrize("reserve", [True, False])
def test_a_disk_that_is_full(small: Store, reserve: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the engine's reserve, and without, so that it is the kernel that says ENOSPC."""
    (kept,) = small.load(docker_archive([UPPER], ["kept:1"]))
    before = small.state()
    if not reserve:
        monkeypatch.setattr("wherry.kernel.fsio.space.Reserve.spend", lambda *_: None)
    big = tars.archive([file(f"f{number}", os.urandom(8 << 20)) for number in range(18)])
    with pytest.raises(SystemFailure, match="MiB are free" if reserve else "No space left on device"):
        small.load(docker_archive([big], ["big:1"]))
    with pytest.raises(SystemFailure, match="MiB are free" if reserve else "No space left on device"):
        small.put(big, repo="big")
    settle()
    assert small.state() == before
    assert small.images.resolve("kept:1").id == kept
    monkeypatch.undo()
    small.load(docker_archive([LAYER], ["a:1"]))


def test_a_kill_at_any_moment(store: Store) -> None:
    """Killed after a random time, again and again: what is there then is whole, and nothing more."""
    clean = store.state()
    store.database.close()
    rng = random.Random(5)
    script = (
        "import sys; from pathlib import Path; from tests import tars; from tests.kernel.images.store import Store\n"
        "store = Store(Path(sys.argv[1])); print('ready', flush=True)\n"
        "layers = [tars.archive([tars.file('f%d' % n, bytes([n]) * 200_000)]) for n in range(6)]\n"
        "while True:\n"
        "    store.load(tars.docker_archive(layers, ['a:1', 'b:1'])); store.put(layers[0], repo='c')\n"
        "    [store.remove(name) for name in ('a:1', 'b:1', 'c')]\n"
    )
    for _ in range(12):
        child = subprocess.Popen(
            [sys.executable, "-c", script, str(store.root)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]
        )
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        time.sleep(rng.uniform(0, 0.4))
        child.kill()
        child.wait()
        child.stdout.close()
        store.open()
        store.driver.sweep()
        assert [each.finding for each in store.images.audit(deep=True)] == []
        for name in store.tags():
            assert len(store.images.inspect(name)["RootFS"]["Layers"]) in (1, 6)
            store.remove(name)
        store.images.prune({}, users=lambda _: [])
        assert store.state() == clean
        store.database.close()
    store.open()


def test_damage_to_manifests_and_indexes_is_an_error_and_nothing_more(store: Store) -> None:
    rng = random.Random(7)
    before = store.state()
    manifest = json.dumps([ENTRY]).encode()
    index = layout(name="docker.io/library/oci:1")
    at = index.index(b'{"schemaVersion"')
    for turn in range(2000):
        if turn % 2:
            data = bytearray(index)
            data[rng.randrange(at, at + 1500)] = rng.randrange(256)
        else:
            broken = bytearray(manifest)
            for _ in range(rng.randrange(1, 4)):
                broken[rng.randrange(len(broken))] = rng.randrange(256)
            data = bytearray(with_manifest(bytes(broken)))
        try:
            for image_id in store.load(bytes(data)):
                store.remove(image_id, force=True)
        except (InvalidArgument, NotFound):
            pass
    assert store.state() == before
