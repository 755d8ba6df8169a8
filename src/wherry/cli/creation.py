"""From the flags of run and create to the body of POST /containers/create."""

from __future__ import annotations

from wherry.cli import attaching, ports, values
from wherry.cli.failures import Rejected, UsageError
from wherry.cli.flags import Flag, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

CREATE_FLAGS = (
    Flag("--add-host", "Add a custom host-to-IP mapping (host:ip)", "list"),
    Flag("--annotation", "Add an annotation to the container", "list"),
    Flag("-a --attach", "Attach to STDIN, STDOUT or STDERR", "list"),
    Flag("--blkio-weight", "Block IO (relative weight), between 10 and 1000, or 0 to disable", "int"),
    Flag("--cap-add", "Add Linux capabilities", "list"),
    Flag("--cap-drop", "Drop Linux capabilities", "list"),
    Flag("--cgroup-parent", "Optional parent cgroup for the container", "text"),
    Flag("--cgroupns", "Cgroup namespace to use (host|private)", "text"),
    Flag("--cidfile", "Write the container ID to the file", "text"),
    Flag("--cpu-period", "Limit CPU CFS (Completely Fair Scheduler) period", "int"),
    Flag("--cpu-quota", "Limit CPU CFS (Completely Fair Scheduler) quota", "int"),
    Flag("-c --cpu-shares", "CPU shares (relative weight)", "int"),
    Flag("--cpus", "Number of CPUs", "text"),
    Flag("--cpuset-cpus", "CPUs in which to allow execution (0-3, 0,1)", "text"),
    Flag("--cpuset-mems", "MEMs in which to allow execution (0-3, 0,1)", "text"),
    Flag("--device", "Add a host device to the container", "list"),
    Flag("--device-cgroup-rule", "Add a rule to the cgroup allowed devices list", "list"),
    Flag("--dns", "Set custom DNS servers", "list"),
    Flag("--dns-option", "Set DNS options", "list"),
    Flag("--dns-search", "Set custom DNS search domains", "list"),
    Flag("--domainname", "Container NIS domain name", "text"),
    Flag("--entrypoint", "Overwrite the default ENTRYPOINT of the image", "text"),
    Flag("-e --env", "Set environment variables", "list"),
    Flag("--env-file", "Read in a file of environment variables", "list"),
    Flag("--expose", "Expose a port or a range of ports", "list"),
    Flag("--group-add", "Add additional groups to join", "list"),
    Flag("--health-cmd", "Command to run to check health", "text"),
    Flag("--health-interval", "Time between running the check (ms|s|m|h)", "text"),
    Flag("--health-retries", "Consecutive failures needed to report unhealthy", "int"),
    Flag("--health-start-period", "Start period before counting retries towards unstable (ms|s|m|h)", "text"),
    Flag("--health-timeout", "Maximum time to allow one check to run (ms|s|m|h)", "text"),
    Flag("-h --hostname", "Container host name", "text"),
    Flag("--init", "Run an init inside the container that forwards signals and reaps processes"),
    Flag("-i --interactive", "Keep STDIN open even if not attached"),
    Flag("--ipc", "IPC mode to use", "text"),
    Flag("-l --label", "Set meta data on a container", "list"),
    Flag("--label-file", "Read in a line delimited file of labels", "list"),
    Flag("--log-driver", "Logging driver for the container", "text"),
    Flag("--log-opt", "Log driver options", "list"),
    Flag("-m --memory", "Memory limit", "text"),
    Flag("--memory-reservation", "Memory soft limit", "text"),
    Flag("--memory-swap", "Swap limit equal to memory plus swap: '-1' to enable unlimited swap", "text"),
    Flag("--memory-swappiness", "Tune container memory swappiness (0 to 100)", "int"),
    Flag("--mount", "Attach a filesystem mount to the container", "list"),
    Flag("--name", "Assign a name to the container", "text"),
    Flag("--no-healthcheck", "Disable any container-specified HEALTHCHECK"),
    Flag("--oom-kill-disable", "Disable OOM Killer"),
    Flag("--oom-score-adj", "Tune host's OOM preferences (-1000 to 1000)", "int"),
    Flag("--pid", "PID namespace to use", "text"),
    Flag("--pids-limit", "Tune container pids limit (set -1 for unlimited)", "int"),
    Flag("--platform", "Set platform if the engine is multi-platform capable", "text"),
    Flag("--privileged", "Give extended privileges to this container"),
    Flag("--pull", "Pull image before running (always, missing, never)", "text", "missing"),
    Flag("-q --quiet", "Suppress the pull output"),
    Flag("--read-only", "Mount the container's root filesystem as read only"),
    Flag("--restart", "Restart policy to apply when a container exits", "text", "no"),
    Flag("--rm", "Automatically remove the container when it exits"),
    Flag("--runtime", "Runtime to use for this container", "text"),
    Flag("--security-opt", "Security Options", "list"),
    Flag("--shm-size", "Size of /dev/shm", "text"),
    Flag("--stop-signal", "Signal to stop the container", "text"),
    Flag("--stop-timeout", "Timeout (in seconds) to stop a container", "int"),
    Flag("--storage-opt", "Storage driver options for the container", "list"),
    Flag("--sysctl", "Sysctl options", "list"),
    Flag("--tmpfs", "Mount a tmpfs directory", "list"),
    Flag("-t --tty", "Allocate a pseudo-TTY"),
    Flag("--ulimit", "Ulimit options", "list"),
    Flag("-u --user", "Username or UID (format: <name|uid>[:<group|gid>])", "text"),
    Flag("--userns", "User namespace to use", "text"),
    Flag("--uts", "UTS namespace to use", "text"),
    Flag("-v --volume", "Bind mount a volume", "list"),
    Flag("--volume-driver", "Optional volume driver for the container", "text"),
    Flag("--volumes-from", "Mount volumes from the specified container(s)", "list"),
    Flag("-w --workdir", "Working directory inside the container", "text"),
    *attaching.FLAGS,
    *ports.FLAGS,
)


def checked(flags: Parsed, key: str, convert: Callable[[str], Any]) -> Any:
    """The converted value of a flag, or None when it was not given; a bad one names the flag."""
    if key not in flags.given:
        return None
    given = flags[key]
    try:
        return [convert(item) for item in given] if isinstance(given, list) else convert(given)
    except (ValueError, OSError) as error:
        names = next(flag.names for flag in CREATE_FLAGS if flag.key == key)
        shown = given[0] if isinstance(given, list) else given
        raise UsageError(f'invalid argument "{shown}" for "{", ".join(names.split())}" flag: {error}') from error


def attached(flags: Parsed, *, detach: bool = False) -> tuple[bool, bool, bool]:
    """Which of stdin, stdout and stderr the client takes part in."""
    if detach:
        return False, False, False
    names = {name.lower() for name in flags["attach"]}
    if names - {"stdin", "stdout", "stderr"}:
        reason = "valid streams are STDIN, STDOUT and STDERR"
        raise UsageError(f'invalid argument "{flags["attach"][0]}" for "-a, --attach" flag: {reason}')
    if names:
        return "stdin" in names, "stdout" in names, "stderr" in names
    return bool(flags["interactive"]), True, True


def _one_variable(entry: str) -> list[str]:
    return values.environment([entry])


def _config(flags: Parsed, image: str, command: list[str], detach: bool) -> dict[str, Any]:
    stdin, stdout, stderr = attached(flags, detach=detach)
    files = [line for lines in checked(flags, "env-file", values.read_env_file) or [] for line in lines]
    labels = [line for lines in checked(flags, "label-file", values.read_env_file) or [] for line in lines]
    entrypoint = flags["entrypoint"]
    config: dict[str, Any] = {
        "Hostname": flags["hostname"],
        "Domainname": flags["domainname"],
        "User": flags["user"],
        "AttachStdin": stdin,
        "AttachStdout": stdout,
        "AttachStderr": stderr,
        "Tty": flags["tty"],
        "OpenStdin": flags["interactive"],
        "StdinOnce": flags["interactive"] and not detach and stdin,
        "Env": files + [line for lines in checked(flags, "env", _one_variable) or [] for line in lines],
        "Cmd": command or None,
        "Image": image,
        "WorkingDir": flags["workdir"],
        "Entrypoint": ([entrypoint] if entrypoint else [""]) if "entrypoint" in flags.given else None,
        "Labels": values.pairs(labels + flags["label"]),
        "StopSignal": flags["stop-signal"] or None,
        "StopTimeout": flags["stop-timeout"],
        "ExposedPorts": _exposed(flags) or None,
        "Healthcheck": _health(flags),
        "Volumes": {each: {} for each in flags["volume"] if ":" not in each} or None,
    }
    return {key: value for key, value in config.items() if value is not None}


def _exposed(flags: Parsed) -> dict[str, Any]:
    named = checked(flags, "expose", lambda each: ports.exposed([each])) or []
    published = checked(flags, "publish", ports.parse) or []
    keys = [key for each in named for key in each] + [key for each in published for key, _ in each]
    return {key: {} for key in keys}


def _health(flags: Parsed) -> dict[str, Any] | None:
    if flags["no-healthcheck"]:
        return {"Test": ["NONE"]}
    health = {
        "Test": ["CMD-SHELL", flags["health-cmd"]] if flags["health-cmd"] else None,
        "Interval": checked(flags, "health-interval", values.nanoseconds),
        "Timeout": checked(flags, "health-timeout", values.nanoseconds),
        "StartPeriod": checked(flags, "health-start-period", values.nanoseconds),
        "Retries": flags["health-retries"],
    }
    given = {key: value for key, value in health.items() if value is not None}
    return given or None


def _resources(flags: Parsed) -> dict[str, Any]:
    return {
        "Memory": checked(flags, "memory", values.byte_size),
        "MemoryReservation": checked(flags, "memory-reservation", values.byte_size),
        "MemorySwap": checked(flags, "memory-swap", values.swap_size),
        "MemorySwappiness": flags["memory-swappiness"],
        "OomKillDisable": flags["oom-kill-disable"] or None,
        "NanoCpus": checked(flags, "cpus", values.nano_cpus),
        "CpuShares": flags["cpu-shares"],
        "CpuPeriod": flags["cpu-period"],
        "CpuQuota": flags["cpu-quota"],
        "CpusetCpus": flags["cpuset-cpus"],
        "CpusetMems": flags["cpuset-mems"],
        "PidsLimit": flags["pids-limit"],
        "BlkioWeight": flags["blkio-weight"],
        "Devices": checked(flags, "device", values.device),
        "DeviceCgroupRules": flags["device-cgroup-rule"],
        "Ulimits": checked(flags, "ulimit", values.ulimit),
        "CgroupParent": flags["cgroup-parent"],
    }


def _namespaces_and_rights(flags: Parsed) -> dict[str, Any]:
    return {
        "NetworkMode": attaching.networks(flags)[0][0],
        "PidMode": flags["pid"],
        "IpcMode": flags["ipc"],
        "UTSMode": flags["uts"],
        "UsernsMode": flags["userns"],
        "CgroupnsMode": flags["cgroupns"],
        "Privileged": flags["privileged"],
        "CapAdd": flags["cap-add"],
        "CapDrop": flags["cap-drop"],
        "GroupAdd": flags["group-add"],
        "SecurityOpt": checked(flags, "security-opt", values.security_option),
        "Sysctls": values.pairs(flags["sysctl"]),
        "OomScoreAdj": flags["oom-score-adj"],
    }


def restart_policy(text: str) -> dict[str, Any]:
    """no, always, unless-stopped or on-failure[:TIMES]."""
    name, colon, count = text.partition(":")
    if colon and (name != "on-failure" or not count.isdigit()):
        raise UsageError(f"invalid restart policy: {text}")
    return {"Name": name, "MaximumRetryCount": int(count or 0)}


def _host_config(flags: Parsed) -> dict[str, Any]:
    host: dict[str, Any] = {
        "Binds": [each for each in checked(flags, "volume", values.bind) or [] if ":" in each],
        "Mounts": checked(flags, "mount", values.mount),
        "Tmpfs": {path: options for path, _, options in (entry.partition(":") for entry in flags["tmpfs"])},
        "VolumesFrom": flags["volumes-from"],
        "VolumeDriver": flags["volume-driver"],
        "ReadonlyRootfs": flags["read-only"],
        "ShmSize": checked(flags, "shm-size", values.byte_size),
        "StorageOpt": values.pairs(flags["storage-opt"]),
        "AutoRemove": flags["rm"],
        "RestartPolicy": restart_policy(flags["restart"]),
        "LogConfig": {"Type": flags["log-driver"], "Config": values.pairs(flags["log-opt"])},
        "PortBindings": ports.bindings(flags["publish"]),
        "PublishAllPorts": flags["publish-all"],
        "Dns": checked(flags, "dns", values.ip_address),
        "DnsOptions": flags["dns-option"],
        "DnsSearch": flags["dns-search"],
        "ExtraHosts": checked(flags, "add-host", values.extra_host),
        "Links": checked(flags, "link", attaching.link),
        "Runtime": flags["runtime"],
        "Init": flags["init"] if "init" in flags.given else None,
        "ContainerIDFile": flags["cidfile"],
        "Annotations": values.pairs(flags["annotation"]),
        **_resources(flags),
        **_namespaces_and_rights(flags),
    }
    return {key: value for key, value in host.items() if value not in (None, "", [], {})}


def create_body(flags: Parsed, *, detach: bool = False) -> dict[str, Any]:
    """The whole body; flags.words are the image and the command."""
    if flags["rm"] and flags["restart"] not in ("", "no"):
        raise Rejected("conflicting options: cannot specify both --restart and --rm", 125)
    body = _config(flags, flags.words[0], flags.words[1:], detach)
    body["HostConfig"] = _host_config(flags)
    if endpoints := attaching.endpoints(flags):
        body["NetworkingConfig"] = {"EndpointsConfig": endpoints}
    return body
