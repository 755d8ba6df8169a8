"""How snapshots come and go in every storage driver: states, failures, kills, removal."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests import tars
from tests.conformance.drivers import Bench, chain, ingest
from tests.tars import file
from tests.trash import settle
from wherry.errors import Conflict, InvalidArgument, NotFound, SystemFailure
from wherry.snapshots.drivers.overlay2 import Overlay2

pytestmark = pytest.mark.root


def test_usage_of_a_container_counts_its_own_files(bench: Bench) -> None:
    top = bench.layer("a", "", file("x", b"1" * 1000))
    below = bench.driver.usage(top)
    assert (below.size, below.inodes) == (1000, 1)
    view = bench.view(top, key="own")
    before = bench.driver.usage("own")
    view.write("new", b"2" * 500)
    os.link(view.path("new"), view.path("again"))
    after = bench.driver.usage("own")
    assert (after.size - before.size, after.inodes - before.inodes) == (500, 1)


def test_stat_and_walk_name_parents(bench: Bench) -> None:
    lower = bench.layer("a", "", file("x"))
    top = bench.layer("b", lower, file("y"))
    bench.view(top, key="own")
    assert {(each.name, each.parent, each.committed) for each in bench.driver.walk()} == {
        (lower, "", True), (top, lower, True), ("own", top, False),
    }  # fmt: skip
    assert bench.driver.stat("own").parent == top
    with pytest.raises(NotFound):
        bench.driver.stat("nobody")


def test_what_is_needed_cannot_be_removed(bench: Bench) -> None:
    lower = bench.layer("a", "", file("x"))
    top = bench.layer("b", lower, file("y"))
    bench.driver.prepare("own", top)
    with pytest.raises(Conflict, match="needed by the layer"):
        bench.driver.remove(lower)
    with pytest.raises(Conflict, match="needed by the container own"):
        bench.driver.remove(top)
    for name in ("own", top, lower):
        bench.driver.remove(name)
        with pytest.raises(NotFound):
            bench.driver.stat(name)
    assert list(bench.driver.walk()) == []
    settle()
    assert not list((bench.root / "trash").iterdir())


def test_keys_and_parents_are_checked(bench: Bench) -> None:
    for bad in ("../x", "", "a/b", "x" * 200, ".hidden"):
        with pytest.raises(InvalidArgument):
            bench.driver.prepare(bad, "")
    with pytest.raises(InvalidArgument):
        bench.ingest("../../etc", "", io.BytesIO(tars.END))
    with pytest.raises(NotFound):
        bench.driver.prepare("own", chain("missing"))
    with pytest.raises(NotFound):
        bench.driver.mounts("missing")
    bench.driver.prepare("own", "")
    with pytest.raises(Conflict):
        bench.driver.prepare("own", "")


def test_an_existing_layer_is_not_read_again(bench: Bench) -> None:
    top = bench.layer("a", "", file("x", b"12"))

    class Untouchable(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise AssertionError("the layer was read")

    assert bench.ingest(top, "", Untouchable()).size == 2


def test_several_threads_ingest_the_same_layer(bench: Bench) -> None:
    content = tars.archive([file(f"f{n}", b"x") for n in range(300)])
    results: list[object] = []

    def work() -> None:
        try:
            results.append(bench.ingest(chain("a"), "", io.BytesIO(content)))
        except BaseException as error:
            results.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {str(each) for each in results} == {"Usage(size=300, inodes=300)"}
    assert not list((bench.root / "ingest").iterdir())


@pytest.mark.parametrize("cut", [100, 700, 1500, 2500])
def test_a_torn_layer_leaves_nothing(bench: Bench, cut: int) -> None:
    content = tars.archive([file("x", b"1" * 1000), file("y", b"2" * 1000)])[:cut]
    with pytest.raises(InvalidArgument):
        bench.ingest(chain("a"), "", io.BytesIO(content))
    assert list(bench.driver.walk()) == []
    assert not list((bench.root / "ingest").iterdir())


def test_a_source_that_fails_leaves_nothing(bench: Bench) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(512)
            if not data:
                raise OSError(errno.EIO, "the disk is gone")
            return data

    with pytest.raises(SystemFailure, match="the disk is gone"):
        bench.ingest(chain("a"), "", Failing(tars.archive([file("x", b"1" * 9000)])[:2048]))
    assert not list((bench.root / "ingest").iterdir())


def test_what_a_kill_interrupted_is_swept(bench: Bench, tmp_path: Path) -> None:
    """A process is killed while it unpacks, another driver object finds the folder."""
    bench.driver.flush()
    script = (
        "import os, sys, io; sys.path[:0] = ['src', '.'];"
        "from tests.conformance.drivers import DRIVERS, chain, ingest\n"
        "from tests import tars; from pathlib import Path\n"
        "class Killing(io.BytesIO):\n"
        "    def read(self, size=-1):\n"
        "        data = super().read(4096)\n"
        "        return data or os.kill(os.getpid(), 9)\n"
        f"root = Path('{bench.root}'); driver = DRIVERS['{bench.kind}'](root)\n"
        "content = tars.archive([tars.file(f'f{n}', b'x' * 3000) for n in range(50)])\n"
        "ingest(driver, root, chain('whole'), '', io.BytesIO(content))\n"
        "driver.flush()\n"
        "ingest(driver, root, chain('unsynced'), '', io.BytesIO(content))\n"
        "driver.prepare('own', chain('whole'))\n"
        "ingest(driver, root, chain('torn'), '', Killing(content[:100000]))\n"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2], check=False)
    assert result.returncode == -9
    assert len(list((bench.root / "ingest").iterdir())) == 1
    bench.driver.sweep()
    assert not list((bench.root / "ingest").iterdir())
    assert {each.name for each in bench.driver.walk()} == {chain("whole"), "own"}


def test_a_layer_is_durable_only_after_flush(bench: Bench) -> None:
    lower = bench.layer("a", "", file("x"))
    bench.driver.flush()
    upper = bench.layer("b", lower, file("y"))
    bench.driver.prepare("on-unsure", upper)
    bench.driver.sweep()
    assert {each.name for each in bench.driver.walk()} == {lower}


def test_a_removed_snapshot_with_a_deep_tree_is_deleted(bench: Bench) -> None:
    """Deeper than any path: a container makes it with chdir(2), and removal must neither fail nor recurse."""
    view = bench.view("", key="own")
    script = "import os\nfor _ in range(3000):\n os.mkdir('dd'); os.chdir('dd')\nopen('leaf', 'w').close()"
    subprocess.run([sys.executable, "-c", script], cwd=view.path(""), pass_fds=[view.fd], check=True)
    assert bench.driver.usage("own").inodes > 1000
    bench.close()
    bench.views.clear()
    bench.driver.remove("own")
    settle()
    assert not list((bench.root / "trash").iterdir())


def test_graph_data_is_what_docker_shows(tmp_path: Path) -> None:
    driver = Overlay2(tmp_path / "d")
    ingest(driver, tmp_path / "d", chain("a"), "", io.BytesIO(tars.END))
    ingest(driver, tmp_path / "d", chain("b"), chain("a"), io.BytesIO(tars.END))
    driver.prepare("own", chain("b"))
    data = driver.graph_data("own")
    assert list(data) == ["LowerDir", "MergedDir", "UpperDir", "WorkDir"]
    assert [Path(each).parent.name for each in data["LowerDir"].split(":")] == [chain("b"), chain("a")]
    assert Path(data["UpperDir"]).is_dir()
    assert "LowerDir" not in driver.graph_data(chain("a"))


def test_short_links_fit_120_layers_into_one_page(tmp_path: Path) -> None:
    """The form for kernels without lowerdir+: mount(8) of this Debian passes one string to mount(2)."""
    root = tmp_path / ("long" * 20)
    root.mkdir()
    driver = Overlay2(root / "driver", one_by_one=False)
    top = ""
    for number in range(120):
        ingest(driver, root, chain(str(number)), top, io.BytesIO(tars.archive([file(f"f{number}", b"x")])))
        top = chain(str(number))
    (mount,) = driver.prepare("k" * 64, top)
    options = ",".join(mount.options)
    assert len(options) < 4096
    script = f"cd {mount.source} && mount -i -t overlay overlay -o {options} {tmp_path} && ls {tmp_path} | wc -l"
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "120"
    driver.remove("k" * 64)
    driver.remove(top)
    assert not (root / "driver" / "l" / top[:24]).is_symlink()
    settle()


def test_prepare_costs_the_same_on_a_large_layer(tmp_path: Path) -> None:
    driver = Overlay2(tmp_path / "d")
    ingest(driver, tmp_path / "d", chain("a"), "", io.BytesIO(tars.archive([file(f"f{n}") for n in range(2000)])))
    start = time.perf_counter()
    driver.prepare("own", chain("a"))
    assert time.perf_counter() - start < 0.1
    assert driver.usage("own").inodes == 0
