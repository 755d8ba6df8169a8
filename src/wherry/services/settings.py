"""What the use cases need to know of the engine's configuration; made once by the composition root."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from wherry.models.container import HostConfig, Ulimit
from wherry.oci.build import cgroups_path
from wherry.runtime.idmaps import Ids


@dataclass(slots=True)
class Settings:
    """Defaults and places. Sizes in bytes, times in seconds. Only the reload of the daemon changes a field."""

    data_root: Path
    run_root: Path
    cgroup_parent: str = "/wherry"
    cgroup_driver: str = "cgroupfs"
    cgroupns_default: str = "host"
    cpu_rt_period: int = 0
    cpu_rt_runtime: int = 0
    runtimes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    default_runtime: str = "wherry"
    shm_size: int = 64 << 20
    stop_timeout: int = 10
    log_driver: str = "json-file"
    log_options: Mapping[str, str] = field(default_factory=dict)
    ulimits: tuple[Ulimit, ...] = ()
    no_new_privileges: bool = False
    init_by_default: bool = False
    live_restore: bool = True
    labels: tuple[str, ...] = ()
    ids: Ids | None = None
    """The ids of the host that those of containers are; None: the same ones (userns-remap is not set)."""
    firewall_backend: str = "nftables"
    debug: bool = False

    def ids_of(self, host: HostConfig) -> Ids | None:
        """Return the ids of a container, None when it lives in the host's user namespace."""
        return None if host.userns_mode == "host" else self.ids

    def runtime_command(self, name: str) -> tuple[str, ...] | None:
        """Return program and arguments of a runtime, () for our own, None for an unknown one.

        Unless they are configured, the names that dockerd's own runtime has are ours: they stand in many scripts.
        """
        if name in self.runtimes:
            return self.runtimes[name]
        return () if name in ("wherry", "runc", "io.containerd.runc.v2") else None

    def cgroups_path(self, host: HostConfig, container_id: str) -> str:
        """Return the OCI cgroupsPath of a container; raises InvalidArgument for a parent that the driver cannot use."""
        return cgroups_path(host.cgroup_parent or self.cgroup_parent, container_id, systemd=self.systemd_cgroup)

    @property
    def systemd_cgroup(self) -> bool:
        """Whether systemd makes the control groups."""
        return self.cgroup_driver == "systemd"

    def container_root(self, container_id: str) -> Path:
        """Return the container's folder in the data root: its log and its hosts, hostname and resolv.conf."""
        return self.data_root / "containers" / container_id

    def run_dir(self, container_id: str) -> Path:
        """Return the folder where the supervisor keeps pid, socket and exit record."""
        return self.run_root / "containers" / container_id

    @property
    def rootfs_path(self) -> Path:
        """Return where every container mounts its root, each in a mount namespace of its own."""
        return self.run_root / "rootfs"

    @property
    def init_path(self) -> Path:
        """Return the host path of the PID 1 that --init puts before the command."""
        return self.run_root / "init"
