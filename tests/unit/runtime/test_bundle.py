"""What a config.json may say, and the sentence for what it may not."""

from __future__ import annotations

import copy
import json
import os

import pytest

from wherry.runtime import bundle
from wherry.runtime.faults import Refused

GOOD = {
    "ociVersion": "1.2.0",
    "process": {"args": ["sh"], "cwd": "/", "env": ["A=b"], "user": {"uid": 0, "gid": 0}},
    "root": {"path": "rootfs"},
    "hostname": "x",
    "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
    "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "uts"}, {"type": "network"}]},
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "rootfs").mkdir()
    return tmp_path


def load(folder, spec):
    text = spec if isinstance(spec, str) else json.dumps(spec)
    (folder / "config.json").write_text(text)
    return bundle.load(str(folder))


def changed(path, value):
    spec = copy.deepcopy(GOOD)
    at = spec
    *parents, last = path.split(".")
    for key in parents:
        at = at.setdefault(key, {})
    at[last] = value
    return spec


def test_a_good_one_gets_an_absolute_root(folder):
    assert load(folder, GOOD)["root"]["path"] == f"{folder}/rootfs"


def test_a_relative_destination_is_taken_from_the_root(folder):
    spec = load(folder, changed("mounts", [{"destination": "data", "type": "tmpfs"}]))
    assert spec["mounts"][0]["destination"] == "/data"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("ociVersion", "2.0.0", "ociVersion must be a version 1 of the runtime specification, not '2.0.0'"),
        ("ociVersion", None, "ociVersion must be a version 1 of the runtime specification, not None"),
        ("process", None, "process property must not be empty"),
        ("process.cwd", "", "Cwd property must not be empty"),
        ("process.cwd", "tmp", "Cwd must be an absolute path"),
        ("process.args", [], "args must not be empty"),
        ("process.args", ["a\0b"], "args and env must be strings without a zero byte, not 'a\\x00b'"),
        ("process.env", [7], "args and env must be strings without a zero byte, not 7"),
        ("root", None, "root.path must not be empty: the runtime makes containers from a directory"),
        ("root.path", "nope", "invalid rootfs: stat {}/nope: no such file or directory"),
        ("root.path", "/etc/passwd", "invalid rootfs: /etc/passwd is not a directory"),
        ("root.path", "/", "invalid rootfs: it is the root directory of the host"),
        ("linux.namespaces", [{"type": "utsx"}], 'namespace {{"utsx" ""}} does not exist'),
        (
            "linux.namespaces",
            [{"type": "mount"}, {"type": "mount"}],
            'malformed spec file: duplicated ns {{"mount" ""}}',
        ),
        ("linux.namespaces", [{"type": "pid"}], "a mount namespace is needed: add one of type mount to linux."),
        (
            "linux.namespaces",
            [{"type": "mount"}, {"type": "uts"}, {"type": "user"}],
            "user namespace: a user namespace needs linux.uidMappings and linux.gidMappings",
        ),
        ("linux.namespaces", [{"type": "pid", "path": "x"}], "the path of the pid namespace must be absolute, not x"),
        ("linux.namespaces", [{"type": "mount"}], "unable to set hostname without a private UTS namespace"),
        (
            "linux.namespaces",
            [{"type": "mount"}, {"type": "uts", "path": "/proc/self/ns/uts"}],
            "unable to set hostname without a private UTS namespace",
        ),
        (
            "linux.uidMappings",
            [{"hostID": 1}],
            "linux.uidMappings and linux.gidMappings need a namespace of type user",
        ),
        ("linux.sysctl", {"kernel.panic": "1"}, 'sysctl "kernel.panic" is not in a separate kernel namespace'),
        ("linux.sysctl", {"kernel.sem": "1"}, 'sysctl "kernel.sem" is not in a separate kernel namespace'),
        ("linux.sysctl", {"fs.mqueue.x": "1"}, 'sysctl "fs.mqueue.x" is not in a separate kernel namespace'),
        ("hooks", {"later": []}, "hooks.later is unknown; there are prestart, createRuntime, createContainer, "),
        ("hooks", {"prestart": [{"path": "x"}]}, "hooks.prestart: the path must be absolute, not 'x'"),
        (
            "hooks",
            {"prestart": [{"path": "/x", "timeout": 0}]},
            "hooks.prestart: the timeout must be above zero",
        ),
        ("linux.cgroupsPath", "a/../../b", "cgroupsPath a/../../b leaves its parent"),
        ("process", "sh", "config.json is malformed: process: AttributeError"),
        ("linux", [1], "config.json is malformed: namespaces: AttributeError"),
    ],
)
def test_refusals(folder, path, value, message):
    with pytest.raises(Refused) as caught:
        load(folder, changed(path, value))
    assert str(caught.value).startswith(message.format(folder))


def test_sysctls_of_private_namespaces_are_let_through(folder):
    load(folder, changed("linux.sysctl", {"net.ipv4.ip_forward": "1", "kernel.domainname": "x"}))


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "config.json is not valid JSON"), ("[]", "does not hold a JSON object"), ("\xff", "is not valid JSON")],
)
def test_files_that_are_no_configuration(folder, text, message):
    with pytest.raises(Refused, match=message):
        load(folder, text)


def test_a_file_that_is_not_there_or_too_large(folder):
    with pytest.raises(Refused, match=r"JSON specification file config\.json not found"):
        bundle.load(str(folder))
    with open(folder / "config.json", "w") as file:
        os.truncate(file.fileno(), bundle.LIMIT + 1)
    with pytest.raises(Refused, match="larger than"):
        bundle.load(str(folder))


@pytest.mark.parametrize(
    ("path", "place"),
    [("", "/wherry/c1"), ("/a/b", "/a/b"), ("a/b", "/a/b"), ("/a//b/", "/a/b")],
)
def test_the_place_of_the_control_group(path, place):
    assert bundle.cgroup_path(changed("linux.cgroupsPath", path), "c1", systemd=False) == place


@pytest.mark.parametrize(("path", "place"), [("", ":wherry:c1"), ("a.slice:p:n", "a.slice:p:n")])
def test_the_scope(path, place):
    assert bundle.cgroup_path(changed("linux.cgroupsPath", path), "c1", systemd=True) == place


@pytest.mark.parametrize(
    ("path", "systemd", "message"),
    [
        ("a.slice:x:y", False, "cgroupsPath a.slice:x:y is for systemd's cgroup driver: give --systemd-cgroup"),
        ("/a/b", True, "cgroupsPath /a/b is not SLICE:PREFIX:NAME, as --systemd-cgroup wants it"),
    ],
)
def test_a_place_of_the_other_kind(path, systemd, message):
    with pytest.raises(Refused, match=message):
        bundle.cgroup_path(changed("linux.cgroupsPath", path), "c1", systemd=systemd)
