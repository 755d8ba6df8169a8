"""Text to API values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from wherry.cli import values

GOOD = [
    (values.byte_size, "64m", 64 << 20),
    (values.byte_size, "1.5g", 3 << 29),
    (values.byte_size, "1048576", 1 << 20),
    (values.byte_size, "512KiB", 512 << 10),
    (values.byte_size, "10MB", 10 << 20),
    (values.byte_size, "100b", 100),
    (values.swap_size, "-1", -1),
    (values.nano_cpus, "0.5", 500_000_000),
    (values.nano_cpus, "2", 2_000_000_000),
    (values.nano_cpus, ".25", 250_000_000),
    (values.nanoseconds, "1m30s", 90_000_000_000),
    (values.nanoseconds, "100ms", 100_000_000),
    (values.ulimit, "nofile=1024:2048", {"Name": "nofile", "Soft": 1024, "Hard": 2048}),
    (values.ulimit, "core=-1", {"Name": "core", "Soft": -1, "Hard": -1}),
    (values.device, "/dev/a", {"PathOnHost": "/dev/a", "PathInContainer": "/dev/a", "CgroupPermissions": "rwm"}),
    (values.device, "/dev/a:/dev/b:r", {"PathOnHost": "/dev/a", "PathInContainer": "/dev/b", "CgroupPermissions": "r"}),
    (values.device, "/dev/a:rw", {"PathOnHost": "/dev/a", "PathInContainer": "/dev/a", "CgroupPermissions": "rw"}),
    (values.bind, "/a:/b:ro", "/a:/b:ro"),
    (values.bind, "named:/b", "named:/b"),
    (values.mount, "type=bind,src=/a,dst=/b,ro", {"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": True}),
    (
        values.mount,
        "type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1770",
        {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o1770}},
    ),
    (
        values.mount,
        "src=vv,dst=/x,volume-nocopy,volume-subpath=a/b,volume-driver=local,volume-label=a=b,volume-label=c",
        {
            "Type": "volume",
            "Source": "vv",
            "Target": "/x",
            "VolumeOptions": {
                "NoCopy": True,
                "Subpath": "a/b",
                "Labels": {"a": "b", "c": ""},
                "DriverConfig": {"Name": "local"},
            },
        },
    ),
    (
        values.mount,
        'src=vv,dst=/x,volume-opt=type=nfs,volume-opt=device=:/x,"volume-opt=o=addr=1.2.3.4,rw"',
        {
            "Type": "volume",
            "Source": "vv",
            "Target": "/x",
            "VolumeOptions": {
                "DriverConfig": {"Options": {"type": "nfs", "device": ":/x", "o": "addr=1.2.3.4,rw"}},
            },
        },
    ),
    (
        values.mount,
        "type=bind,src=/a,dst=/b,readonly,bind-recursive=writable,bind-propagation=rslave",
        {
            "Type": "bind",
            "Source": "/a",
            "Target": "/b",
            "ReadOnly": True,
            "BindOptions": {"Propagation": "rslave", "ReadOnlyNonRecursive": True},
        },
    ),
    (values.security_option, "no-new-privileges", "no-new-privileges"),
    (values.security_option, "seccomp=unconfined", "seccomp=unconfined"),
]
BAD = [
    (values.byte_size, "1x"),
    (values.byte_size, "-5m"),
    (values.byte_size, ""),
    (values.nano_cpus, "x"),
    (values.nano_cpus, "-1"),
    (values.nano_cpus, "0.1234567891"),
    (values.nanoseconds, "5"),
    (values.nanoseconds, "5y"),
    (values.ulimit, "nofile"),
    (values.ulimit, "nofile=10:5"),
    (values.ulimit, "nofile=-1:5"),
    (values.device, "a:b:c:d"),
    (values.mount, "type=bind,src=/a"),
    (values.mount, "type=bind,target=/a,foo=1"),
    (values.mount, "type=bind,src=/a,target=/a,bind-recursive=maybe"),
]


@pytest.mark.parametrize(("convert", "text", "value"), GOOD)
def test_good_values(convert: Callable[[str], object], text: str, value: object) -> None:
    assert convert(text) == value


@pytest.mark.parametrize(("convert", "text"), BAD)
def test_bad_values_are_refused(convert: Callable[[str], object], text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        convert(text)


def test_a_relative_source_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert values.bind("./x:/y") == f"{tmp_path}/x:/y"


def test_a_bare_name_takes_its_value_from_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIVEN", "1")
    monkeypatch.delenv("ABSENT", raising=False)
    assert values.environment(["A=b", "GIVEN", "ABSENT", "E="]) == ["A=b", "GIVEN=1", "E="]


def test_an_environment_file_has_comments(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("# comment\nA=1\n\n  B=2 # kept\n")
    assert values.read_env_file(str(file)) == ["A=1", "B=2 # kept"]


def test_a_seccomp_profile_travels_as_its_content(tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    file.write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')
    assert values.security_option(f"seccomp={file}") == 'seccomp={"defaultAction": "SCMP_ACT_ALLOW"}'
