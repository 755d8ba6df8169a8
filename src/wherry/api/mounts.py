"""What the mounts of a new container mean in a version of the API: older clients cannot know of later fields.

    below 1.40  NonRecursive is nothing                     below 1.45  a Subpath of a volume is refused
    below 1.42  CreateMountpoint is nothing                 below 1.48  images as mounts are refused, and nobody is
    below 1.44  read-only binds with options are not        told that the driver for all volumes is not for mounts
                recursively so, and cannot ask for it
"""

from __future__ import annotations

from msgspec import structs

from wherry.api.versions import Version
from wherry.errors import InvalidArgument
from wherry.models.container import HostConfig, MountPoint

IMAGES = (1, 48)
SUBPATH = (1, 45)
READ_ONLY = (1, 44)
CREATE = (1, 42)
NON_RECURSIVE = (1, 40)
NOT_THE_DRIVER = (
    "WARNING: the container-wide volume-driver configuration is ignored for volumes specified via 'mount'. "
    "Use '--mount type=volume,volume-driver=...' instead"
)


def adapted(host: HostConfig, version: Version) -> HostConfig:
    """Return what a client of an older version means, in terms of the newest. Raises InvalidArgument."""
    if version >= IMAGES or not host.mounts:
        return host
    meant = [_bind(each, version) for each in host.mounts]
    if version < SUBPATH and any(each.volume_options and each.volume_options.subpath for each in meant):
        raise InvalidArgument("VolumeOptions.Subpath needs API v1.45 or newer")
    if any(each.type == "image" for each in meant):
        raise InvalidArgument('Mount type "Image" needs API v1.48 or newer')
    return structs.replace(host, mounts=meant)


def _bind(mount: MountPoint, version: Version) -> MountPoint:
    options = mount.bind_options
    if options is None or mount.type != "bind":
        return mount
    if version < NON_RECURSIVE:
        options = structs.replace(options, non_recursive=False)
    if version < CREATE:
        options = structs.replace(options, create_mountpoint=False)
    if version < READ_ONLY:
        if options.read_only_force_recursive:
            raise InvalidArgument("BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer")
        options = structs.replace(options, read_only_non_recursive=options.read_only_non_recursive or mount.read_only)
    return structs.replace(mount, bind_options=options)


def warnings(host: HostConfig, version: Version) -> list[str]:
    """Return what a client is to be told of its mounts."""
    if version < IMAGES or not host.volume_driver:
        return []
    return [NOT_THE_DRIVER] if any(_driverless(each) for each in host.mounts or ()) else []


def _driverless(mount: MountPoint) -> bool:
    driver = mount.volume_options and mount.volume_options.driver_config
    return mount.type == "volume" and not (driver and driver.name)
