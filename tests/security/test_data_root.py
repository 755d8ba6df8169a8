"""What other users of the host reach of the engine's folders: FS-12, FS-13. The numbers are those of docs/security.md.

The folder that the tests put an engine into is closed to others, which would prove nothing: it is opened first.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from tests.engine import Engine
from tests.forked import told
from tests.volumes import content_image, remove_volumes

pytestmark = [pytest.mark.root, pytest.mark.engine]

NOBODY = 65534
REMAPPED = 100000
"""What root of a container is on the host when its ids are mapped from here on, as subuid(5) has it by default."""


def as_user(uid: int, work: Callable[[], object]) -> object:
    """Return what `work` returns for a user of the host without groups and rights."""

    def job() -> object:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        return work()

    well, value = told(job)
    return value if well else value.splitlines()[-1]


@pytest.fixture
def lived_in(engine: Engine) -> Iterator[Engine]:
    """An engine with a container that runs, a volume with content, an image of layers, and a setuid file in each."""
    engine.root.chmod(0o755)
    content_image(engine, "content")
    engine.docker("run", "-d", "--name", "aa", "-v", "vv:/data", "-v", "/anonymous", "content", "sleep", "1000")
    made = "cp /bin/busybox /root-shell; cp /bin/busybox /data/root-shell; chmod 6755 /root-shell /data/root-shell"
    engine.docker("exec", "aa", "sh", "-c", made)
    yield engine
    remove_volumes(engine)
    engine.docker("rmi", "content")


def _everything(root: Path) -> list[str]:
    found = []
    for folder, folders, files in os.walk(root):
        found += [os.path.join(folder, name) for name in (*folders, *files)]
    return found


def test_fs12_nobody_comes_into_the_data_root(lived_in: Engine) -> None:
    """FS-12: neither by a walk, nor by paths that are known, to a file, a setuid program or a mount point."""
    root = lived_in.data_root
    assert stat.S_IMODE(root.stat().st_mode) == 0o710
    assert (root.stat().st_uid, root.stat().st_gid) == (0, 0)
    known = _everything(root)
    assert len(known) > 50
    setuid = [each for each in known if os.lstat(each).st_mode & stat.S_ISUID and os.path.isfile(each)]
    assert any(each.endswith("_data/root-shell") for each in setuid)
    assert any("/snapshots/" in each for each in setuid)

    def look() -> object:
        reached, executed = [], []
        for each in (str(root), *known):
            try:
                os.listdir(each)
            except PermissionError:
                pass
            except OSError as error:
                reached.append(f"{each}: {error}")
            else:
                reached.append(each)
            if each != str(root) and os.access(each, os.F_OK, follow_symlinks=False):
                reached.append(f"{each} can be seen")
        for each in setuid:
            try:
                os.posix_spawn(each, ["id"], {})
            except PermissionError:
                continue
            executed.append(each)
        return {"reached": reached, "executed": executed}

    assert as_user(NOBODY, look) == {"reached": [], "executed": []}


def test_fs12_nobody_sees_a_mount_of_a_container(lived_in: Engine) -> None:
    """FS-12: the host's mount table names no file system of a container; the folders for them are closed."""
    place = lived_in.docker("inspect", "-f", "{{.GraphDriver.Data.MergedDir}}", "aa")
    pid = lived_in.docker("inspect", "-f", "{{.State.Pid}}", "aa")
    lines = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(lived_in.root) in line]
    assert all(line.split()[4].endswith("/netns") or " - nsfs " in line for line in lines), lines
    known = _everything(lived_in.run_root)

    def look() -> object:
        reached = []
        for each in (f"/proc/{pid}/root/root-shell", f"/proc/{pid}/cwd/root-shell", place, *known):
            if each.startswith(f"{lived_in.run_root}/containers/") or not each.startswith(str(lived_in.run_root)):
                try:
                    os.stat(each)
                    reached.append(each)
                except OSError as error:
                    if error.errno not in (errno.EACCES, errno.EPERM, errno.ENOENT):
                        reached.append(f"{each}: {error}")
            elif os.access(each, os.W_OK) and not os.path.islink(each):
                reached.append(f"{each} can be written")
        return reached

    assert as_user(NOBODY, look) == []


def written(uid: int, folders: Iterable[Path]) -> object:
    """Return what a user of the host could write to or make in these folders, each of which is opened for him."""
    opened = {each: os.open(each, os.O_PATH | os.O_DIRECTORY) for each in folders}
    names = {each: os.listdir(each) for each in opened}

    def write() -> object:
        done = []
        for folder, fd in opened.items():
            for name in names[folder]:
                try:
                    os.close(os.open(name, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=fd))
                    done.append(f"{folder}/{name}")
                except OSError:
                    pass
            try:
                os.close(os.open("planted", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=fd))
                done.append(f"{folder}/planted")
            except OSError:
                pass
        return done

    try:
        return as_user(uid, write)
    finally:
        for fd in opened.values():
            os.close(fd)


CONTENT = re.compile(r"(volumes/[^/]+/_data|snapshots/[^/]+/.*/fs|snapshots/[^/]+/.*/diff)(/|$)")
"""What containers see of the data root, whose owners and modes are theirs."""


@pytest.mark.parametrize("uid", [NOBODY, REMAPPED, REMAPPED + 1000, 1000])
def test_fs13_who_is_root_in_a_container_writes_nothing_of_the_engines(lived_in: Engine, uid: int) -> None:
    """FS-13: not even one who got past the data root's own mode: each folder in it is opened for the user here.

    With userns-remap: test_userns_attacks.py.
    """
    root = lived_in.data_root
    assert "meta.db" in os.listdir(root)
    folders = [Path(folder) for folder, _, _ in os.walk(root)]
    closed = [each for each in folders if not CONTENT.match(str(each.relative_to(root)))]
    assert written(uid, closed) == []


def test_fs13_a_mapped_mount_gives_no_way_to_the_engines_files(lived_in: Engine, tmp_path: Path) -> None:
    """FS-13: with ids of the host mapped into a container, only what is mounted so is written, as those ids."""
    (tmp_path / "mine").mkdir()
    os.chown(tmp_path / "mine", REMAPPED, REMAPPED)
    before = {each: os.lstat(each).st_mtime_ns for each in _everything(lived_in.data_root / "content")}
    mapping = f"uids={REMAPPED}-0-65536;gids={REMAPPED}-0-65536"
    body = {
        "Image": "content", "Cmd": ["sh", "-c", "echo x >/x/f && mkdir /x/d && chown 5:6 /x/d"],
        "HostConfig": {"Mounts": [{"Type": "bind", "Source": f"{tmp_path}/mine", "Target": "/x",
                                   "BindOptions": {"IDMap": mapping}}]},
    }  # fmt: skip
    status, text = lived_in.api("POST", "/containers/create", json.dumps(body))
    assert status == 201, text
    made = json.loads(text)["Id"]
    lived_in.docker("start", "-a", made)
    states = [(tmp_path / "mine" / name).stat() for name in ("f", "d")]
    assert [(each.st_uid, each.st_gid) for each in states] == [(REMAPPED, REMAPPED), (REMAPPED + 5, REMAPPED + 6)]
    after = {each: os.lstat(each).st_mtime_ns for each in _everything(lived_in.data_root / "content")}
    assert after == before
