"""What mounts mean to clients of older versions of the API."""

import pytest

from wherry.api import mounts
from wherry.errors import InvalidArgument
from wherry.models.container import (
    BindOptions,
    DriverConfig,
    HostConfig,
    MountPoint,
    VolumeOptions,
)

ALL = BindOptions(non_recursive=True, create_mountpoint=True)
FORCED = BindOptions(read_only_force_recursive=True)


def bind(options: BindOptions | None, *, read_only: bool = False) -> MountPoint:
    return MountPoint(type="bind", source="/tmp", target="/x", read_only=read_only, bind_options=options)


def volume(options: VolumeOptions | None = None) -> MountPoint:
    return MountPoint(type="volume", source="vv", target="/x", volume_options=options)


@pytest.mark.parametrize(
    ("version", "asked", "meant"),
    [
        ((1, 39), bind(ALL), bind(BindOptions())),
        ((1, 40), bind(ALL), bind(BindOptions(non_recursive=True))),
        ((1, 41), bind(ALL), bind(BindOptions(non_recursive=True))),
        ((1, 42), bind(ALL), bind(ALL)),
        ((1, 43), bind(None, read_only=True), bind(None, read_only=True)),
        ((1, 43), bind(BindOptions(), read_only=True), bind(BindOptions(read_only_non_recursive=True), read_only=True)),
        ((1, 44), bind(BindOptions(), read_only=True), bind(BindOptions(), read_only=True)),
        ((1, 44), bind(FORCED, read_only=True), bind(FORCED, read_only=True)),
        ((1, 45), volume(VolumeOptions(subpath="a")), volume(VolumeOptions(subpath="a"))),
        ((1, 48), MountPoint(type="image"), MountPoint(type="image")),
    ],
)
def test_fields_that_came_later_mean_nothing(version, asked, meant):
    assert mounts.adapted(HostConfig(mounts=[asked]), version).mounts == [meant]


@pytest.mark.parametrize(
    ("version", "asked", "text"),
    [
        ((1, 43), bind(FORCED), "BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer"),
        ((1, 44), volume(VolumeOptions(subpath="a")), "VolumeOptions.Subpath needs API v1.45 or newer"),
        ((1, 47), MountPoint(type="image"), 'Mount type "Image" needs API v1.48 or newer'),
    ],
)
def test_what_would_be_lost_is_refused(version, asked, text):
    with pytest.raises(InvalidArgument) as caught:
        mounts.adapted(HostConfig(mounts=[asked]), version)
    assert caught.value.message == text


@pytest.mark.parametrize(
    ("version", "driver", "mount", "told"),
    [
        ((1, 51), "local", volume(), True),
        ((1, 51), "local", volume(VolumeOptions(driver_config=DriverConfig())), True),
        ((1, 51), "local", volume(VolumeOptions(driver_config=DriverConfig(name="local"))), False),
        ((1, 51), "local", bind(None), False),
        ((1, 51), "", volume(), False),
        ((1, 47), "local", volume(), False),
    ],
)
def test_who_names_a_driver_for_all_hears_that_mounts_do_not_take_it(version, driver, mount, told):
    host = HostConfig(volume_driver=driver, mounts=[mount])
    assert bool(mounts.warnings(host, version)) is told
