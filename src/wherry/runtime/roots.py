"""A root file system for the engine itself, that looks into it or changes it: mounted nowhere, by descriptor."""

from __future__ import annotations

import os

from wherry.kernel import const, mountapi
from wherry.kernel.aside import aside
from wherry.kernel.namespaces import setns, unshare
from wherry.runtime import mountoptions
from wherry.runtime.mounts import Mount
from wherry.runtime.ops_mounts import make_filesystem
from wherry.runtime.ops_root import made_root

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def make_root(mount: Mount, namespace: int) -> int:
    """Return a descriptor of a root that a driver describes. namespace: the driver's mount namespace, or -1.

    The root is gone when it is closed. Raises OSError.
    """
    if mount.type == "bind":
        return os.open(mount.source, _FOLDER)
    options = mountoptions.parse(mount.options)

    def make() -> int:
        return make_filesystem(mount.type, mount.source, options.data, options.attributes)

    def make_there() -> int:
        unshare(const.CLONE_FS)
        setns(namespace, const.CLONE_NEWNS)
        return make()

    def make_by_names() -> int:
        unshare(const.CLONE_FS | const.CLONE_NEWNS)
        mountapi.mount("", "/", "", const.MS_REC | const.MS_PRIVATE)
        return made_root(mount.type, mount.source, options)

    if options.layers:
        return aside(make_there)
    return aside(make_by_names) if mount.source.startswith("/") else make()
