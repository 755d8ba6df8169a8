"""What can be wrong with a container's limits and modes, in dockerd's words. Pure.

`validate` runs all checks in order; each raises InvalidArgument or returns warnings about what will be left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from wherry.errors import InvalidArgument
from wherry.models.container import ContainerConfig, HostConfig
from wherry.oci import build, capabilities, devices, security
from wherry.oci.host import HostFacts, read_host_facts
from wherry.oci.mounts import tmpfs_options

LEAST_MEMORY = 6 << 20
MOST_CPU = 8192
"""A bound on numbers in cpu sets: a list of a billion CPUs must not be made (CVE-2018-20699)."""
ULIMITS = frozenset(
    {"as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio"}
    | {"rttime", "sigpending", "stack"}
)
MILLISECOND = 1_000_000
"""Durations of health checks are nanoseconds."""

Check = Callable[[HostConfig, HostFacts], Iterable[str]]


def validate(config: ContainerConfig, host: HostConfig, facts: HostFacts | None = None) -> list[str]:
    """Return the warnings about a container; raises InvalidArgument for what it cannot be made with."""
    known = facts or read_host_facts()
    _check_config(config)
    warnings: list[str] = []
    for check in CHECKS:
        warnings += check(host, known)
    return warnings


def check_user_namespace(host: HostConfig) -> None:
    """Raise InvalidArgument, in dockerd's words, for what a container with a user namespace of its own cannot have."""
    if host.privileged:
        raise InvalidArgument(
            "privileged mode is incompatible with user namespaces.  "
            "You must run the container in the host namespace when running privileged mode"
        )
    if host.network_mode == "host":
        raise InvalidArgument("cannot share the host's network namespace when user namespaces are enabled")
    if host.pid_mode == "host":
        raise InvalidArgument("cannot share the host PID namespace when user namespaces are enabled")


def _check_config(config: ContainerConfig) -> None:
    if config.working_dir and not config.working_dir.startswith("/"):
        raise InvalidArgument(
            f"the working directory '{config.working_dir}' is invalid, it needs to be an absolute path"
        )
    health = config.healthcheck
    if health is None:
        return
    for name, value in (
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    ):
        if value and value < MILLISECOND:
            raise InvalidArgument(f"{name} in Healthcheck cannot be less than 1ms")
    if health.retries < 0:
        raise InvalidArgument("Retries in Healthcheck cannot be negative")


def _modes(host: HostConfig, facts: HostFacts) -> Iterable[str]:
    _one_of(host.ipc_mode, "IPC", ("", "none", "private", "shareable", "host"))
    _one_of(host.pid_mode, "PID", ("", "host"))
    if host.uts_mode not in ("", "host"):
        raise InvalidArgument(f"invalid UTS mode: {host.uts_mode}")
    if host.cgroupns_mode not in ("", "private", "host"):
        raise InvalidArgument(f"invalid cgroup namespace mode: {host.cgroupns_mode}")
    if host.userns_mode not in ("", "host"):
        raise InvalidArgument(f"invalid USER mode: {host.userns_mode}")
    if host.isolation not in ("", "default"):
        raise InvalidArgument(f"invalid isolation ({host.isolation}): linux only supports 'default'")
    if "" in (host.annotations or {}):
        raise InvalidArgument("invalid Annotations: the empty string is not permitted as an annotation key")
    return ()


def check_console_size(size: Sequence[int] | None) -> None:
    """Raise InvalidArgument for a terminal's height and width that the kernel's 16 bits do not hold, ioctl_tty(2)."""
    if size and (len(size) != 2 or not all(0 <= each < 1 << 16 for each in size)):
        raise InvalidArgument(f"invalid console size {list(size)}: height and width are 0 to 65535")


def _console(host: HostConfig, facts: HostFacts) -> Iterable[str]:
    check_console_size(host.console_size)
    return ()


def _one_of(mode: str, name: str, allowed: tuple[str, ...]) -> None:
    other = mode.removeprefix("container:")
    if mode not in allowed and (other == mode or not other):
        raise InvalidArgument(f"invalid {name} mode: {mode}")


def _memory(host: HostConfig, facts: HostFacts) -> Iterable[str]:
    if host.memory and host.memory < LEAST_MEMORY:
        raise InvalidArgument("Minimum memory limit allowed is 6MB")
    if host.memory > 0 and 0 < host.memory_swap < host.memory:
        raise InvalidArgument("Minimum memoryswap limit should be larger than memory limit, see usage")
    if host.memory == 0 and host.memory_swap > 0:
        raise InvalidArgument("You should always set the Memory limit when using Memoryswap limit, see usage")
    swappiness = host.memory_swappiness
    if swappiness is not None and not -1 <= swappiness <= 100:
        raise InvalidArgument(f"Invalid value: {swappiness}, valid memory swappiness range is 0-100")
    if 0 < host.memory_reservation < LEAST_MEMORY:
        raise InvalidArgument("Minimum memory reservation allowed is 6MB")
    if 0 < host.memory < host.memory_reservation:
        raise InvalidArgument("Minimum memory limit can not be less than memory reservation limit, see usage")
    if host.memory > 0 and host.memory_swap != -1 and not facts.swap_limit:
        yield (
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted. "
            "Memory limited without swap."
        )
    if swappiness is not None and swappiness >= 0 and facts.cgroup_version == 2:
        yield (
            "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. "
            "Memory swappiness discarded."
        )
    if host.kernel_memory:  # gone from the kernel with 6.1 (version 1), never in version 2
        yield (
            "Your kernel does not support kernel memory limit capabilities or the cgroup is not mounted. "
            "Limitation discarded."
        )
    if host.oom_kill_disable and not facts.oom_kill_disable:
        yield "Your kernel does not support OomKillDisable. OomKillDisable discarded."
    elif host.oom_kill_disable and host.memory == 0:
        yield (
            "OOM killer is disabled for the container, but no memory limit is set, "
            "this can result in the system running out of resources."
        )


def _cpu(host: HostConfig, facts: HostFacts) -> Iterable[str]:
    if host.nano_cpus and host.cpu_period:
        raise InvalidArgument("Conflicting options: Nano CPUs and CPU Period cannot both be set")
    if host.nano_cpus and host.cpu_quota:
        raise InvalidArgument("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
    if not 0 <= host.nano_cpus <= facts.cpu_count * 1_000_000_000:
        raise InvalidArgument(
            f"range of CPUs is from 0.01 to {facts.cpu_count}.00, as there are only {facts.cpu_count} CPUs available"
        )
    if host.cpu_shares < 0:
        raise InvalidArgument(f"invalid CPU shares ({host.cpu_shares}): value must be a positive integer")
    if host.cpu_period and not 1000 <= host.cpu_period <= 1_000_000:
        raise InvalidArgument("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if 0 < host.cpu_quota < 1000:
        raise InvalidArgument("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if host.cpu_percent > 0:
        yield "linux does not support CPU percent. Percent discarded."
    period, runtime = host.cpu_realtime_period, host.cpu_realtime_runtime
    if (period or runtime) and not facts.realtime:
        raise InvalidArgument("kernel does not support CPU real-time scheduler")
    if period and runtime > period:
        raise InvalidArgument("cpu real-time runtime cannot be higher than cpu real-time period")


def _cpusets(host: HostConfig, facts: HostFacts) -> Iterable[str]:
    for text, name, title, available in (
        (host.cpuset_cpus, "cpus", "CPUs", facts.cpus),
        (host.cpuset_mems, "mems", "memory nodes", facts.mems),
    ):
        if not text:
            continue
        try:
            wanted = parse_set(text)
        except ValueError as error:
            raise InvalidArgument(f"Invalid value {text} for cpuset {name}: {error}") from error
        if not wanted <= parse_set(available):
            raise InvalidArgument(f"Requested {title} are not available - requested {text}, available: {available}")
    return ()


def parse_set(text: str) -> frozenset[int]:
    """Return the numbers of a list such as "0-3,7"; raises ValueError for another form or a number over 8192."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        ends = (first, last) if dash else (first, first)
        if not all(end.isascii() and end.isdigit() for end in ends):
            raise ValueError(f"invalid format: {text}")
        low, high = (int(end) if len(end) < 8 else MOST_CPU + 1 for end in ends)
        if max(low, high) > MOST_CPU:
            raise ValueError(f"value of out range, maximum is {MOST_CPU}")
        if low > high:
            raise ValueError(f"invalid format: {text}")
        found.update(range(low, high + 1))
    return frozenset(found)


def _block(host: HostConfig, facts: HostFacts) -> Iterable[str]:
    if host.blkio_weight and not facts.blkio_weight:
        yield "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded."
    elif host.blkio_weight and not 10 <= host.blkio_weight <= 1000:
        raise InvalidArgument("Range of blkio weight is from 10 to 1000")
    if host.blkio_weight_device and not facts.blkio_weight_device:
        yield (
            "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. "
            "Weight-device discarded."
        )
    if host.io_maximum_bandwidth:
        raise InvalidArgument("invalid option: QoS maximum bandwidth configuration is not supported on linux")
    if host.io_maximum_iops:
        raise InvalidArgument("invalid option: QoS maximum IOPs configuration is not supported on linux")


def _process(host: HostConfig, facts: HostFacts) -> Iterable[str]:
    if not -1000 <= host.oom_score_adj <= 1000:
        raise InvalidArgument(f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]")
    for limit in host.ulimits or ():
        # refused here rather than at each start
        if limit.name.lower() not in ULIMITS:
            raise InvalidArgument(f"invalid ulimit type: {limit.name}")
        if 0 <= limit.hard < limit.soft or (limit.soft == -1 and limit.hard != -1):
            raise InvalidArgument(
                f"ulimit soft limit must be less than or equal to hard limit: {limit.soft} > {limit.hard}"
            )
    capabilities.normalize(host.cap_add or (), "CapAdd", facts.capabilities)
    capabilities.normalize(host.cap_drop or (), "CapDrop")
    return ()


def _labels(host: HostConfig, facts: HostFacts) -> Iterable[str]:
    options = security.parse(host.security_opt or ())
    if options.apparmor not in ("", security.UNCONFINED) and not facts.apparmor:
        yield f"Your kernel does not support AppArmor or it is not enabled. Profile {options.apparmor} discarded."
    if any(label != "disable" for label in options.labels):
        yield "SELinux labels are not supported. Labels discarded."


def _places(host: HostConfig, facts: HostFacts) -> Iterable[str]:
    if host.shm_size < 0:
        raise InvalidArgument("SHM size can not be less than 0")
    for target, options in (host.tmpfs or {}).items():
        if not target.startswith("/"):
            raise InvalidArgument(f"invalid mount path: '{target}' mount path must be absolute")
        if not target.strip("/"):
            raise InvalidArgument("invalid specification: destination can't be '/'")
        tmpfs_options(options)
    for rule in host.device_cgroup_rules or ():
        devices.parse_rule(rule)
    devices.check_requests(host.device_requests or ())
    build.cgroups_path(host.cgroup_parent or "/", "x")
    for option in host.storage_opt or {}:
        if option != "size":
            raise InvalidArgument(f"Unknown option {option}")
        raise InvalidArgument("--storage-opt is supported only for overlay over xfs with 'pquota' mount option")
    return ()


CHECKS: tuple[Check, ...] = (_modes, _memory, _cpu, _cpusets, _block, _process, _labels, _places, _console)
