"""Mount options, sorted."""

import pytest

from wherry.kernel import const
from wherry.runtime.mountoptions import Options, known, parse
from wherry.runtime.ops_mounts import settings


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("ro nosuid", Options(attributes=const.MOUNT_ATTR_RDONLY | const.MOUNT_ATTR_NOSUID)),
        ("ro rw", Options(cleared=const.MOUNT_ATTR_RDONLY)),
        ("rw ro", Options(attributes=const.MOUNT_ATTR_RDONLY)),
        ("exec noexec", Options(attributes=const.MOUNT_ATTR_NOEXEC)),
        ("noatime", Options(attributes=const.MOUNT_ATTR_NOATIME, cleared=const.MOUNT_ATTR__ATIME)),
        ("noatime strictatime", Options(attributes=const.MOUNT_ATTR_STRICTATIME, cleared=const.MOUNT_ATTR__ATIME)),
        ("noatime relatime", Options(cleared=const.MOUNT_ATTR__ATIME)),
        ("rro rnosuid", Options(recursive_attributes=const.MOUNT_ATTR_RDONLY | const.MOUNT_ATTR_NOSUID)),
        ("rbind rslave", Options(bind=True, recursive=True, propagation=const.MS_SLAVE, propagation_recursive=True)),
        ("bind private", Options(bind=True, propagation=const.MS_PRIVATE)),
        ("size=4k mode=755 huge", Options(data=("size=4k", "mode=755", "huge"))),
        ("tmpcopyup nofail defaults", Options(copy_up=True)),
    ],
)
def test_parse(words, expected):
    assert parse(words.split()) == expected


def test_all_known_options_are_understood():
    for word in known():
        assert parse([word]).data == (), word


def test_lower_directories_become_one_setting_each():
    data = (r"lowerdir=/a\:b:/c\\d:/e", "upperdir=/u:x", "index=off", "volatile")
    assert settings("overlay", data) == [
        ("lowerdir+", "/a:b"), ("lowerdir+", "/c\\d"), ("lowerdir+", "/e"), ("upperdir", "/u:x"), ("index", "off"),
        ("volatile", None),
    ]  # fmt: skip
    assert settings("tmpfs", ("lowerdir=/a:b",)) == [("lowerdir", "/a:b")]
