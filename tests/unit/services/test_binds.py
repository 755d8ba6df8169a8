"""Forms of -v, --mount, VOLUME and --volumes-from, good and bad."""

import pytest

from wherry.errors import InvalidArgument, SystemFailure
from wherry.models.container import (
    BindOptions,
    ContainerConfig,
    DriverConfig,
    HostConfig,
    ImageOptions,
    MountPoint,
    TmpfsOptions,
    VolumeOptions,
)
from wherry.services import binds

MADE = BindOptions(create_mountpoint=True)
FORCED = BindOptions(read_only_force_recursive=True)


def resolve(host=None, config=None, inherited=()):
    """The records of a container's mounts, by destination."""
    found = binds.resolve(host or HostConfig(), config or ContainerConfig(), inherited)
    return {each.record.destination: each.record for each in found}


def test_a_plain_bind_is_recursive_private_and_writable():
    bind = binds.parse_bind("/src:/dst").record
    assert (bind.source, bind.destination, bind.rw, bind.options) == ("/src", "/dst", True, ("rbind", "rprivate"))


def test_a_read_only_bind_is_recursively_read_only():
    bind = binds.parse_bind("/src:/dst:ro,rslave").record
    assert (bind.rw, bind.propagation, bind.options) == (False, "rslave", ("rbind", "rslave", "rro"))


@pytest.mark.parametrize(
    ("spec", "name", "mode", "rw", "copy"),
    [
        ("data:/d", "data", "z", True, True),
        ("data:/d/", "data", "z", True, True),
        ("data:/d:ro", "data", "ro", False, True),
        ("data:/d:nocopy", "data", "nocopy", True, False),
        ("data:/d:ro,nocopy,z", "data", "ro,nocopy,z", False, False),
        ("data:/d:", "data", "z", True, True),
        ("a..:/d", "a..", "z", True, True),
    ],
)
def test_a_name_is_a_volume(spec, name, mode, rw, copy):
    found = binds.parse_bind(spec).record
    assert (found.type, found.name, found.destination) == ("volume", name, "/d")
    assert (found.mode, found.rw, found.copy, found.anonymous) == (mode, rw, copy, False)


def test_a_place_alone_is_a_volume_that_nobody_named():
    first, second = binds.parse_bind("/only").record, binds.parse_bind("/only").record
    assert (first.type, first.destination, first.anonymous) == ("volume", "/only", True)
    assert len(first.name) == 64
    assert first.name != second.name


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("/src:dst", "mount path must be absolute"),
        ("/src:/", "destination can't be '/'"),
        ("/src:/../", "destination can't be '/'"),
        ("/src:/dst:weird", "invalid mode: weird"),
        ("/src:/dst:rro", "invalid mode: rro"),
        ("/src:/dst:ro,", "invalid mode: ro,"),
        ("/src:/dst:ro,rw", "invalid mode: ro,rw"),
        ("/src:/dst:z,Z", "invalid mode: z,Z"),
        ("/src:/dst:rshared,rslave", "invalid mode: rshared,rslave"),
        ("/a:/b:ro:x", "invalid volume specification: '/a:/b:ro:x'"),
        ("/a\0:/b", "invalid volume specification"),
        (":/b", "invalid volume specification: ':/b'"),
        ("", "invalid volume specification: ''"),
        ("name", "invalid mount path: 'name' mount path must be absolute"),
        ("name:/", "destination can't be '/'"),
        ("name:/x:rshared", "field BindOptions must not be specified"),
        ("/src:/x:nocopy", "field VolumeOptions must not be specified"),
        ("a:/x", "create a: volume name is too short, names should be at least two alphanumeric characters"),
        ("a/b:/x", 'create a/b: "a/b" includes invalid characters for a local volume name, only'),
        ("-x:/x", "If you intended to pass a host directory, use absolute path"),
    ],
)
def test_bad_binds_are_refused(spec, text):
    with pytest.raises(InvalidArgument) as caught:
        binds.parse_bind(spec)
    assert text in caught.value.message


def test_the_driver_is_that_of_volumes_alone():
    assert binds.parse_bind("vv:/x", "nod").record.driver == "nod"
    assert binds.parse_bind("/tmp:/x", "nod").record.type == "bind"


def test_mount_refuses_a_missing_source(tmp_path):
    missing = str(tmp_path / "missing")
    with pytest.raises(InvalidArgument, match=f"bind source path does not exist: {missing}"):
        binds.parse_mount(MountPoint(type="bind", source=missing, target="/x"))
    asked = binds.parse_mount(
        MountPoint(type="bind", source=missing, target="/x", bind_options=BindOptions(create_mountpoint=True))
    )
    binds.make_source(asked.record)
    assert (tmp_path / "missing").is_dir()


def test_a_source_that_went_away_is_refused_at_the_start(tmp_path):
    (tmp_path / "a").mkdir()
    asked = binds.parse_mount(MountPoint(type="bind", source=str(tmp_path / "a"), target="/x"))
    (tmp_path / "a").rmdir()
    with pytest.raises(InvalidArgument, match="bind source path does not exist"):
        binds.make_source(asked.record)


def test_a_link_that_leads_nowhere_is_no_source(tmp_path):
    dangling = tmp_path / "link"
    dangling.symlink_to("nowhere")
    with pytest.raises(InvalidArgument, match="bind source path does not exist"):
        binds.parse_mount(MountPoint(type="bind", source=str(dangling), target="/x"))
    bind = binds.parse_bind(f"{dangling}:/x")
    with pytest.raises(SystemFailure, match=f"source path '{dangling}': mkdir {dangling}: file exists"):
        binds.make_source(bind.record)
    assert not (tmp_path / "nowhere").exists()


def test_v_makes_a_missing_source(tmp_path):
    bind = binds.parse_bind(f"{tmp_path}/a/b:/x")
    binds.make_source(bind.record)
    assert (tmp_path / "a" / "b").is_dir()


@pytest.mark.parametrize(
    ("options", "read_only", "expected"),
    [
        ({}, True, ("rbind", "rprivate", "rro")),
        ({"non_recursive": True}, False, ("bind", "rprivate")),
        ({"read_only_non_recursive": True}, True, ("rbind", "rprivate", "ro")),
        ({"read_only_force_recursive": True}, True, ("rbind", "rprivate", "rro")),
        ({"propagation": "rslave"}, False, ("rbind", "rslave")),
    ],
)
def test_options_of_a_bind_become_options_of_the_mount(options, read_only, expected):
    said = BindOptions(**options)
    asked = MountPoint(type="bind", source="/tmp", target="/x", read_only=read_only, bind_options=said)
    assert binds.parse_mount(asked).record.options == expected


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"type": "volume"}, "field Target must not be empty"),
        ({"type": "volume", "target": "/"}, "destination can't be '/'"),
        ({"type": "volume", "target": "x"}, "invalid mount path: 'x' mount path must be absolute"),
        ({"type": "tmpfs", "target": "/x\0"}, "has a NUL byte in it"),
        (
            {"type": "volume", "target": "/x", "read_only": True},
            "must not set ReadOnly mode when using anonymous",
        ),
        (
            {"type": "volume", "target": "/x", "volume_options": VolumeOptions(subpath="r")},
            "must not set Subpath when using",
        ),
        (
            {"type": "volume", "target": "/x", "source": "vv", "volume_options": VolumeOptions(subpath="/r")},
            "a relative path",
        ),
        (
            {"type": "volume", "target": "/x", "source": "vv", "volume_options": VolumeOptions(subpath="a/../../r")},
            "a relative",
        ),
        ({"type": "volume", "target": "/x", "source": "/abs"}, "includes invalid characters for a local volume name"),
        (
            {"type": "volume", "target": "/x", "bind_options": BindOptions()},
            "BindOptions must not be specified on mount type",
        ),
        ({"type": "bind", "target": "/x"}, "field Source must not be empty"),
        ({"type": "bind", "target": "/x", "source": "rel"}, "invalid mount path: 'rel' mount path must be absolute"),
        (
            {"type": "bind", "target": "/x", "source": "/tmp", "volume_options": VolumeOptions()},
            "VolumeOptions must not be",
        ),
        (
            {"type": "bind", "target": "/x", "source": "/tmp", "bind_options": BindOptions(propagation="zz")},
            "invalid propagation mode: zz",
        ),
        ({"type": "bind", "target": "/x", "source": "/dev/null/x"}, "stat /dev/null/x: not a directory"),
        (
            {"type": "bind", "target": "/x", "source": "/dev/null/x", "bind_options": MADE},
            "stat /dev/null/x: not a directory",
        ),
        ({"type": "bind", "target": "/x", "source": "/tmp/a\0b"}, "invalid argument"),
        (
            {"type": "bind", "target": "/x", "source": "/tmp", "bind_options": FORCED},
            "mount options conflict: !ReadOnly && BindOptions.ReadOnlyForceRecursive",
        ),
        ({"type": "tmpfs", "target": "/x", "source": "foo"}, "field Source must not be specified"),
        ({"type": "tmpfs", "target": "/x", "tmpfs_options": TmpfsOptions(size_bytes=-1)}, "must not be negative"),
        ({"type": "tmpfs", "target": "/x", "tmpfs_options": TmpfsOptions(mode=-1)}, "a number of 32 bits"),
        ({"type": "tmpfs", "target": "/x", "tmpfs_options": TmpfsOptions(options=[["uid", "3"]])}, "option: uid"),
        ({"type": "tmpfs", "target": "/x", "tmpfs_options": TmpfsOptions(options=[[]])}, "invalid option array length"),
        ({"type": "zzz", "target": "/x"}, 'invalid mount config for type "zzz": mount type unknown'),
        ({"target": "/x"}, "mount type unknown"),
        ({"type": "zzz"}, 'invalid mount config for type "zzz": field Target must not be empty'),
    ],
)
def test_bad_mounts_are_refused(fields, text):
    with pytest.raises(InvalidArgument) as caught:
        binds.parse_mount(MountPoint(**fields))
    assert text in caught.value.message


def test_image_mounts_are_read_only_and_stay_in_the_image():
    record = binds.parse_mount(MountPoint(type="image", source="busybox", target="/x")).record
    assert (record.type, record.image, record.rw, record.options[-1]) == ("image", "busybox", False, "rro")
    with pytest.raises(InvalidArgument, match="subpath must be a relative path"):
        binds.parse_mount(
            MountPoint(type="image", source="busybox", target="/x", image_options=ImageOptions(subpath="a/../../b"))
        )


def test_a_tmpfs_mount_carries_its_size_mode_and_exec():
    options = TmpfsOptions(size_bytes=4096, mode=0o1777, options=[["exec"]])
    record = binds.parse_mount(MountPoint(type="tmpfs", target="/t", tmpfs_options=options)).record
    assert record.options == ("noexec", "nosuid", "nodev", "rprivate", "exec", "size=4096", "mode=1777")


def test_a_volume_mount_carries_what_the_volume_shall_be():
    driver = DriverConfig(name="local", options={"type": "tmpfs", "device": "tmpfs"})
    options = VolumeOptions(no_copy=True, labels={"a": "b"}, subpath="q/r", driver_config=driver)
    asked = MountPoint(type="volume", source="vv", target="/x", read_only=True, volume_options=options)
    wanted = binds.parse_mount(asked)
    assert (wanted.record.copy, wanted.record.subpath, wanted.record.rw) == (False, "q/r", False)
    assert wanted.labels == {"a": "b"}
    assert wanted.options == {"type": "tmpfs", "device": "tmpfs"}


@pytest.mark.parametrize(
    "host",
    [
        HostConfig(binds=["/x:/a", "/y:/a"]),
        HostConfig(binds=["vv:/a", "ww:/a/"]),
        HostConfig(binds=["vv:/a"], tmpfs={"/a": ""}),
        HostConfig(binds=["vv:/a"], mounts=[MountPoint(type="volume", target="/a")]),
        HostConfig(mounts=[MountPoint(type="tmpfs", target="/a"), MountPoint(type="volume", target="/a/")]),
    ],
)
def test_two_mounts_on_one_place_are_refused(host):
    with pytest.raises(InvalidArgument, match="Duplicate mount point: /a"):
        resolve(host)


def test_parents_come_before_what_is_in_them():
    assert list(resolve(HostConfig(binds=["/x:/a/b/c", "/y:/a", "vv:/a/b"]))) == ["/a", "/a/b", "/a/b/c"]


def test_volumes_of_the_image_yield_to_all_others():
    config = ContainerConfig(volumes={"/a": {}, "/b": {}, "/c/../d": {}})
    found = resolve(HostConfig(binds=["vv:/a"], tmpfs={"/b": ""}), config)
    assert found["/a"].name == "vv"
    assert "/b" not in found
    assert found["/d"].anonymous


def test_mounts_of_another_container_yield_to_own_ones_and_can_be_read_only():
    theirs = [binds.parse_bind(spec).record for spec in ("one:/a", "two:/b:ro", "/tmp:/c", "/anon")]
    inherited = [binds.inherit(each, writable=False) for each in theirs]
    found = resolve(HostConfig(binds=["own:/a"]), None, inherited)
    assert [found[place].name for place in ("/a", "/b")] == ["own", "two"]
    assert [found[place].rw for place in ("/a", "/b", "/c")] == [True, False, False]
    assert found["/c"].options == ("rbind", "rprivate", "rro")
    assert found["/anon"].anonymous
    assert not found["/anon"].copy


@pytest.mark.parametrize(
    ("spec", "expected"), [("a", ("a", True)), ("a:ro", ("a", False)), ("a:rw", ("a", True)), ("a:z", ("a", True))]
)
def test_volumes_from_names_a_container_and_a_mode(spec, expected):
    assert binds.parse_volumes_from(spec) == expected


@pytest.mark.parametrize("spec", ["", "a:zz", "a:nocopy", "a:rshared"])
def test_bad_volumes_from_is_refused(spec):
    with pytest.raises(InvalidArgument):
        binds.parse_volumes_from(spec)
