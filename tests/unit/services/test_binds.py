"""Forms of -v and --mount, good and bad."""

import pytest

from wherry.errors import InvalidArgument, NotImplementedHere
from wherry.models.container import HostConfig, MountPoint
from wherry.services import binds


def test_a_plain_bind_is_recursive_private_and_writable():
    bind = binds.parse_bind("/src:/dst")
    assert (bind.source, bind.destination, bind.rw, bind.options) == ("/src", "/dst", True, ("rbind", "rprivate"))


def test_a_read_only_bind_is_recursively_read_only():
    bind = binds.parse_bind("/src:/dst:ro,rslave")
    assert (bind.rw, bind.propagation, bind.options) == (False, "rslave", ("rbind", "rslave", "rro"))


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("/src:dst", "mount path must be absolute"),
        ("/src:/", "destination can't be '/'"),
        ("/src:/../", "destination can't be '/'"),
        ("/src:/dst:weird", "invalid mode: weird"),
        ("/a:/b:ro:x", "invalid volume specification"),
    ],
)
def test_bad_binds_are_refused(spec, text):
    with pytest.raises(InvalidArgument, match=text):
        binds.parse_bind(spec)


@pytest.mark.parametrize("spec", ["name:/dst", "/only"])
def test_volumes_are_refused_in_words_until_they_are_there(spec):
    with pytest.raises(NotImplementedHere, match="host directory"):
        binds.parse_bind(spec)


def test_mount_refuses_a_missing_source(tmp_path):
    missing = str(tmp_path / "missing")
    with pytest.raises(InvalidArgument, match=f"bind source path does not exist: {missing}"):
        binds.parse_mount(MountPoint(type="bind", source=missing, target="/x"))


def test_v_makes_a_missing_source(tmp_path):
    bind = binds.parse_bind(f"{tmp_path}/a/b:/x")
    binds.make_source(bind)
    assert (tmp_path / "a" / "b").is_dir()


def test_a_tmpfs_mount_carries_its_size_and_mode():
    record = binds.parse_mount(MountPoint(type="tmpfs", target="/t", tmpfs_options={"SizeBytes": 4096, "Mode": 0o1777}))
    assert record.options == ("noexec", "nosuid", "nodev", "rprivate", "size=4096", "mode=1777")


def test_two_mounts_on_one_place_are_refused_and_parents_come_first(tmp_path):
    with pytest.raises(InvalidArgument, match="Duplicate mount point: /a"):
        binds.resolve(HostConfig(binds=["/x:/a", "/y:/a"]))
    found = binds.resolve(HostConfig(binds=["/x:/a/b/c", "/y:/a"]))
    assert [each.destination for each in found] == ["/a", "/a/b/c"]
