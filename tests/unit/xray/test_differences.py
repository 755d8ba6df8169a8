"""Asked and found, side by side."""

from __future__ import annotations

from pathlib import Path

import pytest

from wherry.models.xray import ControlGroup, GroupPath, Limit, Mount, Mounts, Namespace, Namespaces
from wherry.xray import differences
from wherry.xray.subject import Subject

SUBJECT = Subject(id="c", pid=1, start_time=1, cgroup_path="/wherry/c", modes={"net": "container:aa", "pid": "private"})


def group(folder: Path, **files: str) -> ControlGroup:
    limits = []
    for name, text in files.items():
        path = folder / name.replace("__", ".")
        path.write_text(text + "\n")
        controller = path.name.partition(".")[0]
        limits.append(
            Limit(controller=controller, name=path.name, unit="", value=0, set=True, used=0, file=str(path), text=text)
        )
    path = GroupPath(version=2, controllers=(), path="/wherry/c", directory=str(folder))
    return ControlGroup(version=2, paths=(path,), limits=tuple(limits))


@pytest.mark.parametrize(
    ("resources", "file", "same", "other"),
    [
        ({"memory": {"limit": 5000}}, "memory__max", "4096", "8192"),
        ({"memory": {"limit": 4096, "swap": -1}}, "memory__swap__max", "max", "4096"),
        ({"pids": {"limit": 20}}, "pids__max", "20", "max"),
        ({"cpu": {"quota": 50000, "period": 100000}}, "cpu__max", "50000 100000", "max 100000"),
        (
            {"blockIO": {"throttleReadBpsDevice": [{"major": 254, "minor": 0, "rate": 1000}]}},
            "io__max",
            "254:0 rbps=1000 wbps=max",
            "254:0 rbps=2000 wbps=max",
        ),
    ],
)
def test_limits_of_version_2(tmp_path: Path, resources: dict, file: str, same: str, other: str) -> None:
    spec = {"linux": {"resources": resources}}
    assert list(differences.of_groups(group(tmp_path, **{file: same}), SUBJECT, spec)) == []
    found = list(differences.of_groups(group(tmp_path, **{file: other}), SUBJECT, spec))
    assert [(each.what, each.found) for each in found] == [(file.replace("__", "."), other)]


def namespaces(**kinds: tuple[bool, tuple[str, ...]]) -> Namespaces:
    entries = [
        Namespace(kind=kind, inode=1, shared_with_host=host, shared_with=names) for kind, (host, names) in kinds.items()
    ]
    return Namespaces(entries=tuple(entries))


def test_namespaces() -> None:
    assert list(differences.of_namespaces(namespaces(net=(False, ("aa",)), pid=(False, ())), SUBJECT)) == []
    found = list(differences.of_namespaces(namespaces(net=(False, ("bb",)), pid=(True, ())), SUBJECT))
    assert [(each.what, each.asked, each.found) for each in found] == [
        ("net namespace", "container:aa", "shared with bb"),
        ("pid namespace", "private", "host"),
    ]


def mounts(*entries: Mount, left_out: int = 0) -> Mounts:
    return Mounts(
        storage="overlay", writable=True, layers=(), upper="", work="", entries=entries, left_out=left_out
    )  # fmt: skip


def entry(target: str, kind: str, *, writable: bool) -> Mount:
    return Mount(
        id=1, parent=1, target=target, kind=kind, type="tmpfs", source="", root="/", device="", options=(),
        super_options=(), propagation=(), writable=writable,
    )  # fmt: skip


def test_mounts() -> None:
    spec = {
        "root": {"readonly": True},
        "mounts": [
            {"destination": "/data", "options": ["ro"]},
            {"destination": "/gone", "options": []},
        ],
        "linux": {"maskedPaths": ["/proc/keys", "/proc/nosuch"], "readonlyPaths": ["/proc/sys"]},
    }
    there = mounts(entry("/data", "bind", writable=True), entry("/proc/sys", "system", writable=True))
    found = {each.what: each.found for each in differences.of_mounts(there, SUBJECT, spec)}
    assert found == {"root file system": "writable", "mount at /data": "writable", "mount at /gone": "not there"}
    masks = differences.of_masks(there, spec, ["/proc/keys", "/proc/sys"])
    assert {each.what: each.found for each in masks} == {"/proc/keys": "visible", "/proc/sys": "writable"}


def test_what_was_not_looked_at_is_not_missing() -> None:
    spec = {"mounts": [{"destination": "/gone"}], "linux": {"maskedPaths": ["/proc/keys"]}}
    assert list(differences.of_mounts(mounts(left_out=1), SUBJECT, spec)) == []
    assert list(differences.of_masks(mounts(left_out=1), spec, ["/proc/keys"])) == []
