"""The daemon's configuration: flags and daemon.json, with dockerd's names.

A key that stands in both, with different values, is an error, as in dockerd: nobody should have to guess which wins.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from wherry.errors import InvalidArgument
from wherry.models import sizes
from wherry.models.container import Ulimit

OWN_RUNTIME = "wherry"
_MOST_CONCURRENT = 100
RUNTIME_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
DEFAULT_FILE = "/etc/wherry/daemon.json"
DEFAULT_HOST = "unix:///run/wherry.sock"
CGROUP_DRIVERS = ("systemd", "cgroupfs")
FIREWALL_BACKENDS = ("nftables", "iptables")
RELOADABLE = frozenset(
    {"debug", "log-level", "labels", "live-restore", "shutdown-timeout", "runtimes", "default-runtime"}
    | {"registry-mirrors", "insecure-registries", "max-download-attempts"}
)


@dataclass(frozen=True, slots=True)
class Config:
    """All settings of a daemon. Sizes in bytes, times in seconds; an empty text means: choose."""

    hosts: tuple[str, ...] = (DEFAULT_HOST,)
    data_root: str = "/var/lib/wherry"
    run_root: str = "/run/wherry"
    config_file: str = DEFAULT_FILE
    pidfile: str = ""
    group: str = "docker"
    debug: bool = False
    log_level: str = "info"
    bridge: str = ""
    bip: str = ""
    bip6: str = ""
    fixed_cidr: str = ""
    fixed_cidr_v6: str = ""
    default_gateway: str = ""
    host_gateway_ips: tuple[str, ...] = ()
    default_gateway_v6: str = ""
    default_address_pools: tuple[tuple[str, int], ...] = ()
    default_network_opts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    ipv6: bool = False
    icc: bool = True
    iptables: bool = True
    ip6tables: bool = True
    mtu: int = 0
    ip_masq: bool = True
    ip_forward: bool = True
    ip: str = ""
    userland_proxy: bool = False
    firewall_backend: str = "nftables"
    firewall_watch: bool = True
    respect_host_firewall: bool = False
    storage_driver: str = ""
    cgroup_parent: str = ""
    cpu_rt_period: int = 0
    cpu_rt_runtime: int = 0
    exec_opts: tuple[str, ...] = ()
    runtimes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    default_runtime: str = OWN_RUNTIME
    default_cgroupns_mode: str = ""
    default_shm_size: int = 64 << 20
    default_ulimits: tuple[Ulimit, ...] = ()
    log_driver: str = "json-file"
    log_opts: Mapping[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    registry_mirrors: tuple[str, ...] = ()
    insecure_registries: tuple[str, ...] = ()
    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: str = ""
    max_concurrent_downloads: int = 3
    max_concurrent_uploads: int = 5
    max_download_attempts: int = 5
    lazy_pull: bool = False
    init: bool = False
    no_new_privileges: bool = False
    userns_remap: str = ""
    live_restore: bool = True
    shutdown_timeout: int = 15


def _add_network_flags(add: Callable[..., Any]) -> None:
    add("-b", "--bridge", help="name of the default bridge (wherry0); none: no default network")
    add("--bip", help="address and prefix of the default bridge, such as 172.30.0.1/16")
    add("--bip6", help="the same for IPv6, such as fd00:30::1/64")
    add("--fixed-cidr", help="part of the default bridge's subnet that containers get addresses of")
    add("--fixed-cidr-v6", help="the same for IPv6")
    add("--default-gateway", help="default gateway of containers on the default bridge (the bridge)")
    add("--default-gateway-v6", help="the same for IPv6")
    add("--default-address-pool", action="append", dest="default_address_pools", metavar="base=SUBNET,size=BITS",
        help="addresses for networks that name no subnet, and the length of the prefix that each gets")  # fmt: skip
    add("--default-network-opt", action="append", dest="default_network_opts", metavar="DRIVER=KEY=VALUE",
        help="option of new networks that do not give it")  # fmt: skip
    add("--mtu", type=int)
    add("--ip", help="address of the host on which ports are published that name none (0.0.0.0)")
    add("--firewall-backend", choices=FIREWALL_BACKENDS, help="who keeps the rules of networks (nftables)")


def _add_container_flags(add: Callable[..., Any]) -> None:
    add("--default-runtime", help="runtime of containers that ask for none (wherry)")
    add("--default-shm-size", help="size of /dev/shm (64m)")
    add("--log-driver", help="default log driver (json-file)")
    add("--log-opt", action="append", dest="log_opts", metavar="KEY=VALUE")
    add("--label", action="append", dest="labels")
    add("--userns-remap", metavar="default|USER[:GROUP]",
        help="give containers a user namespace, with the ids that /etc/subuid has for this user")  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="wherryd", description="The Wherry container engine", allow_abbrev=False)
    add = parser.add_argument
    add("-H", "--host", action="append", dest="hosts", help="socket to listen on: unix://PATH or fd://")
    add("--data-root", help="where images, containers and volumes are kept (/var/lib/wherry)")
    add("--run-root", "--exec-root", dest="run_root", help="where sockets and running state are kept (/run/wherry)")
    add("--config-file", help=f"daemon configuration file ({DEFAULT_FILE})")
    add("-p", "--pidfile", help="write the daemon's process id there")
    add("-G", "--group", help="group that may use the socket (docker)")
    add("-D", "--debug", action="store_true", default=None, help="log more")
    add("-l", "--log-level", choices=("debug", "info", "warn", "error", "fatal"))
    _add_network_flags(add)
    add("-s", "--storage-driver", help="erofs, overlay2 or vfs")
    add("--cgroup-parent", help="where containers' control groups go (/wherry; with systemd system.slice)")
    add("--cpu-rt-period", type=int, help="period of the real-time budget that containers share, in microseconds")
    add("--cpu-rt-runtime", type=int, help="real-time budget that containers share, in microseconds (0: none)")
    add(
        *("--exec-opt",), action="append", dest="exec_opts",
        help="native.cgroupdriver=systemd or cgroupfs; not given: systemd where it runs on control groups version 2",
    )  # fmt: skip
    add("--default-cgroupns-mode", choices=("private", "host"))
    add("--add-runtime", action="append", dest="runtimes", metavar="NAME=PATH", help="another OCI runtime")
    _add_container_flags(add)
    add("--shutdown-timeout", type=int)
    add("--registry-mirror", action="append", dest="registry_mirrors", metavar="URL", help="mirror of Docker Hub")
    add("--insecure-registry", action="append", dest="insecure_registries", metavar="HOST[:PORT]|NETWORK",
        help="registry that may be used without a good certificate, or by http")  # fmt: skip
    add("--max-concurrent-downloads", type=int, help="layers that are pulled at the same time (3)")
    add("--max-concurrent-uploads", type=int, help="layers that are pushed at the same time (5)")
    add("--max-download-attempts", type=int, help="attempts at a layer before a pull fails (5)")
    add("--http-proxy", metavar="URL", help="proxy for http ($HTTP_PROXY)")
    add("--https-proxy", metavar="URL", help="proxy for https ($HTTPS_PROXY)")
    add("--no-proxy", metavar="HOSTS", help="hosts and networks that need none ($NO_PROXY)")
    for name in (
        *("ipv6", "icc", "iptables", "ip6tables", "ip-masq", "ip-forward"),
        *("userland-proxy", "init", "no-new-privileges", "live-restore", "respect-host-firewall"),
    ):
        add(f"--{name}", nargs="?", const="true", choices=("true", "false"), dest=name.replace("-", "_"))
    add("--lazy-pull", nargs="?", const="true", choices=("true", "false"),
        help="fetch and check the tables of contents of eStargz layers before all data (false)")  # fmt: skip
    add("--firewall-watch", nargs="?", const="true", choices=("true", "false"),
        help="put firewall rules back at once when another program removes them (true)")  # fmt: skip
    add("--host-gateway-ip", action="append", dest="host_gateway_ips", metavar="ADDRESS",
        help="what host-gateway of --add-host means, once per family (the default bridge)")  # fmt: skip
    add("-v", "--version", action="store_true", default=None)
    return parser


_SWITCHES = (
    *("ipv6", "icc", "iptables", "ip6tables", "firewall_watch", "respect_host_firewall"),
    *("ip_masq", "ip_forward", "userland_proxy", "init", "no_new_privileges", "live_restore", "lazy_pull"),
)
KEYS = {each.name.replace("_", "-"): each.name for each in fields(Config) if each.name != "config_file"}
KEYS |= {"exec-root": "run_root", "hosts": "hosts", "host-gateway-ip": "host_gateway_ips"}


def _size(text: Any) -> int:
    if isinstance(text, int):
        return text
    try:
        return sizes.parse(str(text))
    except ValueError as error:
        raise InvalidArgument(str(error)) from error


def _ulimits(value: Any) -> tuple[Ulimit, ...]:
    return tuple(
        Ulimit(name=name, soft=int(each.get("Soft", 0)), hard=int(each.get("Hard", 0)))
        for name, each in dict(value).items()
    )


def _runtimes(value: Any) -> dict[str, tuple[str, ...]]:
    """Return program and arguments by name, of a mapping as in daemon.json or of NAME=PATH entries."""
    if not isinstance(value, Mapping):
        value = {name: {"path": path} for name, _, path in (entry.partition("=") for entry in value)}
    found = {}
    for name, entry in value.items():
        if not RUNTIME_NAME.fullmatch(name) or name == OWN_RUNTIME:
            raise InvalidArgument(f"runtime name '{name}' is reserved or not a name")
        unknown = set(entry) - {"path", "runtimeArgs"} if isinstance(entry, Mapping) else {"not an object"}
        path = entry["path"] if not unknown and isinstance(entry.get("path"), str) else ""
        if not path:
            raise InvalidArgument(
                f"runtime {name}: give the path of an OCI runtime's program, and its arguments as runtimeArgs; "
                f"{', '.join(sorted(unknown)) or 'no path'} is not understood"
            )
        found[name] = (path if path.startswith("/") else shutil.which(path) or path, *entry.get("runtimeArgs", ()))
    return found


def _pools(value: Any) -> tuple[tuple[str, int], ...]:
    """Return base and size of each block, of objects as in daemon.json or of base=...,size=... entries."""
    found = []
    for entry in value:
        fields_ = entry if isinstance(entry, Mapping) else dict(each.partition("=")[::2] for each in entry.split(","))
        size = str(fields_.get("size", ""))
        if set(fields_) != {"base", "size"} or not (size.isdecimal() and size.isascii()):
            raise InvalidArgument(f"invalid default address pool {entry!r}: give base=SUBNET and size=BITS")
        found.append((str(fields_["base"]), int(size)))
    return tuple(found)


def _network_opts(value: Any) -> dict[str, dict[str, str]]:
    """Return options by driver, of objects as in daemon.json or of DRIVER=KEY=VALUE entries."""
    found: dict[str, dict[str, str]] = {}
    if isinstance(value, Mapping):
        value = [f"{driver}={key}={text}" for driver, options in value.items() for key, text in dict(options).items()]
    for entry in value:
        driver, _, option = entry.partition("=")
        key, equals, text = option.partition("=")
        if not driver or not key or not equals:
            raise InvalidArgument(f"invalid default network option {entry!r}: give DRIVER=KEY=VALUE")
        found.setdefault(driver, {})[key] = text
    return found


CONVERT: Mapping[str, Any] = {
    "hosts": tuple,
    "labels": tuple,
    "registry_mirrors": tuple,
    "insecure_registries": tuple,
    "exec_opts": tuple,
    "host_gateway_ips": lambda value: (value,) if isinstance(value, str) else tuple(value),
    "runtimes": _runtimes,
    "default_address_pools": _pools,
    "default_network_opts": _network_opts,
    "default_shm_size": _size,
    "default_ulimits": _ulimits,
}


def read_file(path: str, *, required: bool) -> dict[str, Any]:
    """Return the settings of a daemon.json by field name; raises InvalidArgument with what is wrong in it."""
    try:
        text = Path(path).read_text()
    except FileNotFoundError:
        if required:
            raise InvalidArgument(f"unable to configure the daemon with file {path}: no such file") from None
        return {}
    except OSError as error:
        raise InvalidArgument(f"unable to configure the daemon with file {path}: {error.strerror}") from error
    try:
        content = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"unable to configure the daemon with file {path}: {error}") from error
    if not isinstance(content, dict):
        raise InvalidArgument(f"unable to configure the daemon with file {path}: it must hold a JSON object")
    content = _proxies(content, path)
    unknown = [key for key in content if key not in KEYS]
    if unknown:
        raise InvalidArgument(
            f"unable to configure the daemon with file {path}: the following directives don't match any "
            f"configuration option: {', '.join(unknown)}"
        )
    return {KEYS[key]: _typed(KEYS[key], value, path) for key, value in content.items()}


def _proxies(content: dict[str, Any], path: str) -> dict[str, Any]:
    """Take the object "proxies" apart, as dockerd does."""
    proxies = content.get("proxies", {})
    names = ("http-proxy", "https-proxy", "no-proxy")
    if not isinstance(proxies, dict) or not all(isinstance(value, str) for value in proxies.values()):
        raise InvalidArgument(f"unable to configure the daemon with file {path}: proxies must be an object of texts")
    if unknown := [name for name in proxies if name not in names]:
        raise InvalidArgument(
            f"unable to configure the daemon with file {path}: proxies has no {', '.join(unknown)}; "
            f"only {', '.join(names)}"
        )
    return {name: value for name, value in content.items() if name != "proxies"} | proxies


def _typed(name: str, value: Any, path: str) -> Any:
    default = getattr(Config(), name)
    if name in CONVERT:
        return CONVERT[name](value)
    wanted = dict if isinstance(default, Mapping) else type(default)
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise InvalidArgument(
            f"unable to configure the daemon with file {path}: {name.replace('_', '-')} must be {wanted.__name__}"
        )
    return value


def _from_flags(arguments: argparse.Namespace) -> dict[str, Any]:
    given = {name: value for name, value in vars(arguments).items() if value is not None and name != "version"}
    for name in _SWITCHES:
        if name in given:
            given[name] = given[name] == "true"
    if "log_opts" in given:
        given["log_opts"] = dict(entry.partition("=")[::2] for entry in given["log_opts"])
    return {name: CONVERT[name](value) if name in CONVERT else value for name, value in given.items()}


def parse(argv: Sequence[str]) -> Config:
    """Return the configuration of a command line and its file; raises InvalidArgument."""
    arguments = _parser().parse_args(argv)
    flags = _from_flags(arguments)
    path = flags.get("config_file", DEFAULT_FILE)
    stored = read_file(path, required="config_file" in flags)
    twice = [name for name in stored if name in flags and stored[name] != flags[name]]
    if twice:
        shown = ", ".join(
            f"{name.replace('_', '-')}: (from flag: {flags[name]}, from file: {stored[name]})" for name in twice
        )
        raise InvalidArgument(
            f"unable to configure the daemon with file {path}: the following directives are specified both as a flag "
            f"and in the configuration file: {shown}"
        )
    return check(Config(**{**stored, **flags}))


def check(config: Config) -> Config:
    """Return the configuration with absolute roots; raises InvalidArgument for what cannot be."""
    for name in ("data_root", "run_root"):
        if not os.path.isabs(getattr(config, name)):
            raise InvalidArgument(f"--{name.replace('_', '-')} must be an absolute path: {getattr(config, name)}")
    _check_exec_opts(config.exec_opts)
    for name in ("max_concurrent_downloads", "max_concurrent_uploads", "max_download_attempts"):
        if not 0 < getattr(config, name) <= _MOST_CONCURRENT:
            flag = name.replace("_", "-")
            raise InvalidArgument(f"invalid {flag.replace('-', ' ')}: {getattr(config, name)}")
    if config.firewall_backend not in FIREWALL_BACKENDS:
        raise InvalidArgument(f"invalid firewall-backend {config.firewall_backend!r}: use nftables or iptables")
    if config.default_runtime not in (OWN_RUNTIME, *config.runtimes):
        raise InvalidArgument(f"specified default runtime '{config.default_runtime}' does not exist")
    return config


def _check_exec_opts(options: Sequence[str]) -> None:
    for option in options:
        name, _, value = option.partition("=")
        if name != "native.cgroupdriver":
            raise InvalidArgument(f"invalid option {option!r} of --exec-opt: only native.cgroupdriver is known")
        if value not in CGROUP_DRIVERS:
            raise InvalidArgument(f"native.cgroupdriver={value}: no such driver; use {' or '.join(CGROUP_DRIVERS)}")


def wants_version(argv: Sequence[str]) -> bool:
    """Return whether only the version was asked for."""
    return bool(_parser().parse_args(argv).version)
