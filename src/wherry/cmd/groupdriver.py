"""Who makes the containers' control groups: the engine itself (cgroupfs), or systemd at its request (systemd)."""

from __future__ import annotations

from dataclasses import dataclass

from wherry.cmd.config import Config
from wherry.errors import InvalidArgument, SystemFailure
from wherry.oci.build import cgroups_path
from wherry.runtime import systemd
from wherry.runtime.scopes import BOOTED, DEFAULT_SLICE, booted, is_slice

DEFAULT_PARENT = "/wherry"
_OPTION = "native.cgroupdriver="
_INSTEAD = "use native.cgroupdriver=cgroupfs"


@dataclass(frozen=True, slots=True)
class GroupDriver:
    """driver: "systemd" or "cgroupfs". parent: a slice, or an absolute path below the root of each hierarchy."""

    driver: str
    parent: str


def choose(config: Config, version: int) -> GroupDriver:
    """Return the driver that is configured, or the one for this machine, with the parent of all groups.

    As with dockerd: without a word systemd where it is the first process and control groups are of version 2, since
    there all of the tree is its own. A configured parent that is a path says cgroupfs. Raises InvalidArgument, and
    SystemFailure where systemd is asked for and cannot be had.
    """
    given = [option.removeprefix(_OPTION) for option in config.exec_opts if option.startswith(_OPTION)]
    parent = config.cgroup_parent
    driver = given[-1] if given else _usual(parent, version)
    if driver == "systemd":
        _check_systemd()
        parent = parent or DEFAULT_SLICE
        cgroups_path(parent, "x", systemd=True)
    else:
        parent = parent or DEFAULT_PARENT
        if not parent.startswith("/") or ".." in parent.split("/"):
            raise InvalidArgument(f"--cgroup-parent must be an absolute path without '..': {parent}")
    return GroupDriver(driver, parent)


def _usual(parent: str, version: int) -> str:
    return "systemd" if version == 2 and booted() and (not parent or is_slice(parent)) else "cgroupfs"


def _check_systemd() -> None:
    if not booted():
        raise SystemFailure(
            f"native.cgroupdriver=systemd: systemd does not run on this machine, there is no {BOOTED}: {_INSTEAD}"
        )
    try:
        systemd.version()
    except OSError as error:
        raise SystemFailure(
            f"native.cgroupdriver=systemd: systemd does not answer over D-Bus ({error}): "
            f"see to it that dbus is installed and runs, or {_INSTEAD}"
        ) from error
