"""What a client asks of a container: the ``Config``, ``HostConfig`` and ``NetworkingConfig`` of the Engine API.

Field meanings are those of the Engine API schema (v1.51). Sizes are bytes, cpu quotas microseconds,
``nano_cpus`` 1e-9 CPUs. ``None`` stands for the API's null: not given. Classes with ``omit_defaults`` are those
of which dockerd shows only the fields that are set.
"""

from __future__ import annotations

from typing import Any

from msgspec import field

from wherry.models.base import Model


class HealthConfig(Model, frozen=True, omit_defaults=True):
    """A health check; durations are nanoseconds, 0 means inherit."""

    test: list[str] | None = None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class ContainerConfig(Model, frozen=True):
    """The portable part of a container: what would also be true on another host."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: dict[str, dict[str, Any] | None] | None = None
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: list[str] | None = None
    cmd: list[str] | str | None = None
    healthcheck: HealthConfig | None = None
    args_escaped: bool | None = None
    image: str = ""
    volumes: dict[str, dict[str, Any] | None] | None = None
    working_dir: str = ""
    entrypoint: list[str] | str | None = None
    network_disabled: bool | None = None
    mac_address: str | None = None
    on_build: list[str] | None = None
    labels: dict[str, str] | None = None
    stop_signal: str | None = None
    stop_timeout: int | None = None
    shell: list[str] | None = None


class RestartPolicy(Model, frozen=True):
    """When to start a container again: no, always, unless-stopped, on-failure."""

    name: str = ""
    maximum_retry_count: int = 0


class LogConfig(Model, frozen=True):
    """The log driver and its options; an empty type means the daemon's default."""

    type: str = ""
    config: dict[str, str] | None = None


class Ulimit(Model, frozen=True):
    """One resource limit, setrlimit(2); -1 means unlimited."""

    name: str = ""
    soft: int = 0
    hard: int = 0


class DeviceMapping(Model, frozen=True):
    """A host device made visible in the container with cgroup permissions out of "rwm"."""

    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = ""


class DeviceRequest(Model, frozen=True):
    """A request to a device driver (GPUs, CDI)."""

    driver: str = ""
    count: int = 0
    device_ids: list[str] | None = field(default=None, name="DeviceIDs")
    capabilities: list[list[str]] | None = None
    options: dict[str, str] | None = None


class PortBinding(Model, frozen=True):
    """Where a container port is published; an empty port means an ephemeral one."""

    host_ip: str = ""
    host_port: str = ""


class BindOptions(Model, frozen=True, omit_defaults=True):
    """What a ``--mount type=bind`` says beside its places. idmap: ours, see services.owners."""

    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False
    idmap: str = field(default="", name="IDMap")


class DriverConfig(Model, frozen=True, omit_defaults=True):
    """Which driver is to make a volume, and what with."""

    name: str = ""
    options: dict[str, str] | None = None


class VolumeOptions(Model, frozen=True, omit_defaults=True):
    """What a ``--mount type=volume`` says beside its places. idmap: ours, see services.owners."""

    no_copy: bool = False
    labels: dict[str, str] | None = None
    driver_config: DriverConfig | None = None
    subpath: str = ""
    idmap: str = field(default="", name="IDMap")


class ImageOptions(Model, frozen=True, omit_defaults=True):
    """What a ``--mount type=image`` says beside its places."""

    subpath: str = ""


class TmpfsOptions(Model, frozen=True, omit_defaults=True):
    """What a ``--mount type=tmpfs`` says beside its place. mode: of permission bits; options: [["exec"]]."""

    size_bytes: int = 0
    mode: int = 0
    options: list[list[str]] | None = None


class MountPoint(Model, frozen=True, omit_defaults=True):
    """A ``--mount`` as the client sends it (HostConfig.Mounts)."""

    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    image_options: ImageOptions | None = None
    tmpfs_options: TmpfsOptions | None = None


class WeightDevice(Model, frozen=True):
    """A blkio weight for one device."""

    path: str = ""
    weight: int = 0


class ThrottleDevice(Model, frozen=True):
    """A blkio rate for one device, bytes or operations per second."""

    path: str = ""
    rate: int = 0


class HostConfig(Model, frozen=True):
    """The part of a container that depends on this host."""

    binds: list[str] | None = None
    container_id_file: str = field(default="", name="ContainerIDFile")
    log_config: LogConfig = LogConfig()
    network_mode: str = ""
    port_bindings: dict[str, list[PortBinding] | None] | None = None
    restart_policy: RestartPolicy = RestartPolicy()
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: list[str] | None = None
    console_size: list[int] = field(default_factory=lambda: [0, 0])
    annotations: dict[str, str] | None = None
    cap_add: list[str] | None = None
    cap_drop: list[str] | None = None
    cgroupns_mode: str = ""
    dns: list[str] | None = None
    dns_options: list[str] | None = None
    dns_search: list[str] | None = None
    extra_hosts: list[str] | None = None
    group_add: list[str] | None = None
    ipc_mode: str = ""
    cgroup: str = ""
    links: list[str] | None = None
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: list[str] | None = None
    storage_opt: dict[str, str] | None = None
    tmpfs: dict[str, str] | None = None
    uts_mode: str = field(default="", name="UTSMode")
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: dict[str, str] | None = None
    runtime: str = ""
    isolation: str = ""
    cpu_shares: int = 0
    memory: int = 0
    nano_cpus: int = 0
    cgroup_parent: str = ""
    blkio_weight: int = 0
    blkio_weight_device: list[WeightDevice] | None = None
    blkio_device_read_bps: list[ThrottleDevice] | None = None
    blkio_device_write_bps: list[ThrottleDevice] | None = None
    blkio_device_read_iops: list[ThrottleDevice] | None = field(default=None, name="BlkioDeviceReadIOps")
    blkio_device_write_iops: list[ThrottleDevice] | None = field(default=None, name="BlkioDeviceWriteIOps")
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    devices: list[DeviceMapping] | None = None
    device_cgroup_rules: list[str] | None = None
    device_requests: list[DeviceRequest] | None = None
    kernel_memory: int = 0
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool | None = None
    pids_limit: int | None = None
    ulimits: list[Ulimit] | None = None
    cpu_count: int = 0
    cpu_percent: int = 0
    io_maximum_iops: int = field(default=0, name="IOMaximumIOps")
    io_maximum_bandwidth: int = field(default=0, name="IOMaximumBandwidth")
    mounts: list[MountPoint] | None = None
    masked_paths: list[str] | None = None
    readonly_paths: list[str] | None = None
    init: bool | None = None

    @property
    def own_network(self) -> bool:
        """Whether it has a network namespace of its own."""
        return self.network_mode != "host" and not self.network_mode.startswith("container:")

    @property
    def in_networks(self) -> bool:
        """Whether it is in networks, and ports can lead to it."""
        return self.own_network and self.network_mode != "none"


class EndpointIPAMConfig(Model, frozen=True, omit_defaults=True):
    """Addresses that the client wants for an endpoint."""

    ipv4_address: str = field(default="", name="IPv4Address")
    ipv6_address: str = field(default="", name="IPv6Address")
    link_local_ips: list[str] | None = field(default=None, name="LinkLocalIPs")


class EndpointSettings(Model, frozen=True):
    """One endpoint: what the client asks for and, in answers, what it got."""

    ipam_config: EndpointIPAMConfig | None = field(default=None, name="IPAMConfig")
    links: list[str] | None = None
    aliases: list[str] | None = None
    mac_address: str = ""
    driver_opts: dict[str, str] | None = None
    gw_priority: int = 0
    network_id: str = field(default="", name="NetworkID")
    endpoint_id: str = field(default="", name="EndpointID")
    gateway: str = ""
    ip_address: str = field(default="", name="IPAddress")
    ip_prefix_len: int = field(default=0, name="IPPrefixLen")
    ipv6_gateway: str = field(default="", name="IPv6Gateway")
    global_ipv6_address: str = field(default="", name="GlobalIPv6Address")
    global_ipv6_prefix_len: int = field(default=0, name="GlobalIPv6PrefixLen")
    dns_names: list[str] | None = field(default=None, name="DNSNames")


class NetworkingConfig(Model, frozen=True):
    """Endpoints wanted at create, by network name or id."""

    endpoints_config: dict[str, EndpointSettings | None] | None = None


class CreateContainer(Model, frozen=True):
    """The body of POST /containers/create, split into its three parts."""

    config: ContainerConfig
    host_config: HostConfig = HostConfig()
    networking_config: NetworkingConfig = NetworkingConfig()


class ExecConfig(Model, frozen=True):
    """The body of POST /containers/ID/exec."""

    user: str = ""
    privileged: bool = False
    tty: bool = False
    console_size: list[int] | None = None
    attach_stdin: bool = False
    attach_stderr: bool = False
    attach_stdout: bool = False
    detach: bool = False
    detach_keys: str = ""
    env: list[str] | None = None
    working_dir: str = ""
    cmd: list[str] | None = None


class ExecStart(Model, frozen=True):
    """The body of POST /exec/ID/start."""

    detach: bool = False
    tty: bool = False
    console_size: list[int] | None = None
