"""HostConfig's limits as the OCI spec's linux.resources. Pure, but for the numbers of devices named by path."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from wherry.errors import SystemFailure
from wherry.models.container import HostConfig, ThrottleDevice
from wherry.oci.devices import Look
from wherry.oci.host import HostFacts

Json = dict[str, Any]
NANO_PERIOD = 100_000
"""The period, in microseconds, that --cpus is a share of."""


def resources(host: HostConfig, facts: HostFacts, look: Look) -> Json:
    """Return all limits but the device rules. What the kernel lacks is left out, as `validate` has warned."""
    found: Json = {"memory": _memory(host, facts), "blockIO": _block(host, facts, look)}
    if cpu := _cpu(host):
        found["cpu"] = cpu
    if host.pids_limit is not None:
        found["pids"] = {"limit": host.pids_limit if host.pids_limit > 0 else -1}
    return found


def _memory(host: HostConfig, facts: HostFacts) -> Json:
    found: Json = {}
    if host.memory > 0:
        found["limit"] = host.memory
    if host.memory_reservation > 0:
        found["reservation"] = host.memory_reservation
    if facts.swap_limit and host.memory > 0 and host.memory_swap:
        found["swap"] = max(host.memory_swap, -1)
    elif facts.swap_limit and host.memory > 0:
        found["swap"] = 2 * host.memory
    if host.memory_swappiness is not None and host.memory_swappiness >= 0 and facts.cgroup_version == 1:
        found["swappiness"] = host.memory_swappiness
    if facts.oom_kill_disable:
        found["disableOOMKiller"] = bool(host.oom_kill_disable)
    return found


def _cpu(host: HostConfig) -> Json:
    found: Json = {}
    if host.cpu_shares:
        found["shares"] = max(host.cpu_shares, 2)  # the kernel's least
    if host.nano_cpus > 0:
        found["period"] = NANO_PERIOD
        # the kernel's least quota is 1 ms
        found["quota"] = max(host.nano_cpus * NANO_PERIOD // 1_000_000_000, 1000)
    if host.cpu_quota > 0:
        found["quota"] = host.cpu_quota
    if host.cpu_period:
        found["period"] = host.cpu_period
    if host.cpuset_cpus:
        found["cpus"] = host.cpuset_cpus
    if host.cpuset_mems:
        found["mems"] = host.cpuset_mems
    if host.cpu_realtime_runtime:
        found["realtimeRuntime"] = host.cpu_realtime_runtime
    if host.cpu_realtime_period:
        found["realtimePeriod"] = host.cpu_realtime_period
    return found


def _block(host: HostConfig, facts: HostFacts, look: Look) -> Json:
    found: Json = {}
    if host.blkio_weight and facts.blkio_weight:
        found["weight"] = host.blkio_weight
    if host.blkio_weight_device and facts.blkio_weight_device:
        found["weightDevice"] = [
            {**_numbers(each.path, look), "weight": each.weight} for each in host.blkio_weight_device
        ]
    for name, devices in (
        ("throttleReadBpsDevice", host.blkio_device_read_bps),
        ("throttleWriteBpsDevice", host.blkio_device_write_bps),
        ("throttleReadIOPSDevice", host.blkio_device_read_iops),
        ("throttleWriteIOPSDevice", host.blkio_device_write_iops),
    ):
        if devices:
            found[name] = _throttles(devices, look)
    return found


def _throttles(devices: Sequence[ThrottleDevice], look: Look) -> list[Json]:
    return [{**_numbers(each.path, look), "rate": each.rate} for each in devices]


def _numbers(path: str, look: Look) -> Json:
    try:
        device = look(path)
    except OSError as error:
        raise SystemFailure(f"stat {path}: {os.strerror(error.errno or 0).lower()}") from error
    if device is None or device.kind != "b":
        raise SystemFailure(f"{path}: not a block device")
    return {"major": device.major, "minor": device.minor}
