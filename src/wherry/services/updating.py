"""docker update: other limits and another restart policy for a container, running or not."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from msgspec import structs

from wherry.containers import restart
from wherry.containers.catalog import Container
from wherry.errors import Conflict, InvalidArgument, SystemFailure
from wherry.models.container import HostConfig
from wherry.oci import validate
from wherry.oci.resources import resources
from wherry.runtime.cgroups import Cgroup
from wherry.services.lifecycle import OF_THE_VALUE, Lifecycle

Json = Any

CHANGEABLE = (
    "blkio_weight", "cpu_shares", "nano_cpus", "cpu_period", "cpu_quota", "cpuset_cpus", "cpuset_mems", "memory",
    "memory_swap", "memory_reservation", "cpu_realtime_period", "cpu_realtime_runtime", "pids_limit",
)  # fmt: skip
"""What dockerd changes; 0 and "" in a request leave a value as it is."""
_EXCLUSIVE = (
    ("nano_cpus", "cpu_period", "Nano CPUs cannot be updated as CPU Period has already been set"),
    ("nano_cpus", "cpu_quota", "Nano CPUs cannot be updated as CPU Quota has already been set"),
    ("cpu_period", "nano_cpus", "CPU Period cannot be updated as NanoCPUs has already been set"),
    ("cpu_quota", "nano_cpus", "CPU Quota cannot be updated as NanoCPUs has already been set"),
)


def merge(held: HostConfig, asked: HostConfig) -> HostConfig:
    """Return the configuration after the update; raises InvalidArgument and Conflict with dockerd's texts. PURE."""
    changes = {name: value for name in CHANGEABLE if (value := getattr(asked, name)) not in (None, 0, "")}
    if asked.pids_limit is not None:  # 0 takes the limit away
        changes["pids_limit"] = asked.pids_limit
    for wanted, other, text in _EXCLUSIVE:
        if getattr(asked, wanted) > 0 and getattr(held, other) > 0:
            raise Conflict(f"Conflicting options: {text}")
    if asked.restart_policy.name:
        restart.check(asked.restart_policy)
        changes["restart_policy"] = asked.restart_policy
        if held.auto_remove and asked.restart_policy.name != "no":
            raise Conflict("Restart policy cannot be updated because AutoRemove is enabled for the container")
    return structs.replace(held, **changes)


def check_memory(held: HostConfig, asked: HostConfig) -> None:
    """Raise Conflict when a new memory limit needs a new limit of memory and swap. PURE."""
    if asked.memory > 0 and not asked.memory_swap and asked.memory > held.memory_swap >= 0:
        raise Conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
        )


@dataclass(frozen=True, slots=True)
class Updating:
    """Changes what a container may use."""

    lifecycle: Lifecycle

    async def update(self, container: Container, asked: HostConfig) -> Json:
        """Write the limits into the control group of a container that runs, and into its record."""
        async with container.lock:
            self.lifecycle.catalog.check_is_there(container)
            record = container.record
            if record.state.status in ("removing", "dead"):
                raise Conflict(f'container {container.id} is marked for removal and cannot be "update"')
            try:
                merged = merge(record.host_config, asked)
                warnings = validate.validate(record.config, merged)
                check_memory(record.host_config, asked)
            except Conflict as error:
                raise Conflict(f"Cannot update container {container.id}: {error.message}") from error
            if record.state.alive:
                await asyncio.to_thread(self._apply, container, merged)
            # the record may have moved on meanwhile: an end is recorded without the lock
            self.lifecycle.catalog.save(container, structs.replace(container.record, host_config=merged))
        self.lifecycle.publish(container, "update")
        return {"Warnings": warnings}

    def _apply(self, container: Container, merged: HostConfig) -> None:
        group = Cgroup.open(self.lifecycle.cgroup_path(container))
        try:
            group.update(self._limits(merged))
        except OSError as error:
            try:
                group.update(self._limits(container.record.host_config))
            except OSError as second:
                error.add_note(f"and the limits before could not be written again: {second}")
            why = f"{error.strerror} ({error.filename})" if error.filename else str(error)
            kind = InvalidArgument if error.errno in OF_THE_VALUE else SystemFailure
            raise kind(f"Cannot update container {container.id}: {why}") from error

    def _limits(self, host: HostConfig) -> Json:
        unthrottled = structs.replace(
            host,
            blkio_weight_device=None,
            blkio_device_read_bps=None,
            blkio_device_write_bps=None,
            blkio_device_read_iops=None,
            blkio_device_write_iops=None,
        )
        return resources(unthrottled, self.lifecycle.launching.facts, lambda path: None)
