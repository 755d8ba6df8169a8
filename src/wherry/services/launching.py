"""docker start, step by step: each step pushes its undo before the next begins."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from msgspec import structs

from wherry.containers.catalog import Catalog, Container
from wherry.containers.record import Record
from wherry.errors import Conflict, InvalidArgument, NotFound, SystemFailure
from wherry.failpoints import reach
from wherry.models.container import ExecConfig
from wherry.network import etcfiles
from wherry.network.api import Sandbox, SandboxRequest
from wherry.network.controller import Networks
from wherry.oci import apparmor, validate
from wherry.oci.build import SpecRequest, build_process, build_spec, exec_process
from wherry.oci.host import HostFacts
from wherry.runtime.cgroups import Cgroup, grant_realtime
from wherry.runtime.mounts import Mount, VolumeMount
from wherry.runtime.phases import Phases
from wherry.runtime.wire import Launch
from wherry.services import binds, containerlogs, endpoints, imagemounts, owners, ports, propagation
from wherry.services.attachments import Attachments
from wherry.services.confinement import Confinement
from wherry.services.links import Links
from wherry.services.pace import at_their_pace
from wherry.services.provision import Provision
from wherry.services.settings import Settings
from wherry.snapshots.api import Snapshotter
from wherry.snapshots.ephemeral import ephemeral
from wherry.supervision.supervision import Supervision
from wherry.supervision.task import Task

_BUFFER = 8192
"""Bytes for a file of /etc; said, open() does not ask whether it is a terminal."""


@dataclass(frozen=True, slots=True)
class Launching:
    """Turns a record into a running task."""

    settings: Settings
    catalog: Catalog
    snapshotter: Snapshotter
    networks: Networks
    supervision: Supervision
    facts: HostFacts
    attachments: Attachments
    provision: Provision
    confinement: Confinement
    links: Links

    async def launch(self, container: Container, phases: Phases) -> Task:
        """Start the container's first process; on failure nothing remains of the attempt.

        phases: those before; what begins here is added. Raises LaunchFailed (the runtime refused) or an EngineError.
        """
        attaches = self.attachments.take(container)
        async with AsyncExitStack() as undo, AsyncExitStack() as always:
            for attach in attaches:
                always.callback(os.close, attach.fd)
            run_dir, record = await self._prepare(container, undo)
            volumes = await self._sources(record, always)
            sandbox = await self._open_sandbox(record, phases)
            if sandbox is not None:
                undo.callback(self.networks.close_sandbox, record.id)
                always.callback(sandbox.close)
            reach("start.sandbox")
            _begin(phases, "files")
            files = self._write_files(record, sandbox)
            rootfs = self._rootfs(record, phases)
            _begin(phases, "spec")
            mounts = (*files, *self._mounts(record))
            spec = self.spec(record, mounts, private_network=sandbox is not None)
            _begin(phases, "hand-over")
            launch = Launch(
                id=record.id,
                run_dir=str(run_dir),
                spec=spec,
                rootfs=rootfs,
                log=containerlogs.target(record, self.settings.container_root(record.id)),
                open_stdin=record.config.open_stdin,
                stdin_once=record.config.stdin_once,
                netns=sandbox is not None,
                attaches=tuple(attach.options for attach in attaches),
                init_path=str(self.settings.init_path) if record.host_config.init else "",
                phases=tuple(phases),
                volumes=volumes,
                runtime=self._runtime(record),
                private_mounts=self._are_private(record, spec),
                netns_file=sandbox.file if sandbox else "",
            )
            reach("start.spec")
            netns, streams = sandbox.netns_fd if sandbox else None, [each.fd for each in attaches]
            task = await self.supervision.launch(launch, netns_fd=netns, attach_fds=streams)
            undo.push_async_callback(_abort, task)
            with suppress(Conflict):  # a program that has ended by now needs its ports no more
                await task.hold(ports.descriptors(sandbox))
            reach("start.launched")
            self.networks.started(sandbox)
            undo.pop_all()
            return task

    def _mounts(self, record: Record) -> Iterator[Mount]:
        ids = self.settings.ids_of(record.host_config)
        for each in record.mounts:
            yield self.provision.mount(each, ids)

    def _are_private(self, record: Record, spec: dict[str, Any]) -> bool:
        """Whether nobody else waits for the end of what is mounted in the container.

        Folders of volumes are the engine's; who waits for a container may want to unmount one of the host, or a file
        system. A container that may mount could have mounted either.
        """
        if "CAP_SYS_ADMIN" in spec["process"]["capabilities"]["bounding"]:
            return False
        return all(each.type == "volume" and self.provision.behind(each).plain for each in record.mounts)

    async def confine(self, record: Record) -> None:
        """See to it that the AppArmor profile of a container is there; raises SystemFailure."""
        profile = apparmor.profile_for(record.host_config, self.facts)
        if profile:
            await asyncio.to_thread(self.confinement.ensure, profile)

    async def _sources(self, record: Record, held: AsyncExitStack) -> tuple[VolumeMount, ...]:
        """See to it that what is mounted is there; return the volumes that the supervisor has to mount itself."""
        ids = self.settings.ids_of(record.host_config)
        if ids is not None:
            validate.check_user_namespace(record.host_config)  # it may have been made before there were any
        for each in record.mounts:
            binds.make_source(each, ids)
        propagation.check(record.mounts)
        images: tuple[VolumeMount, ...] = ()
        if any(each.type == "image" for each in record.mounts):
            images = await asyncio.to_thread(imagemounts.to_mount, record, self.snapshotter, ids)
        file_systems = self.provision.file_systems(record)
        await held.enter_async_context(self.provision.holding(file_systems))
        if not file_systems:
            return images
        return (*images, *await at_their_pace(self.provision.volume_mounts, record, file_systems))

    async def _mounted(self, container: Container, undo: AsyncExitStack) -> Record:
        """Have plugins mount their volumes, and write down where."""
        record = container.record
        if self.provision.plugin_mounts.of(record):
            found = await self.provision.plugin_mounts.mounted(record, undo)
            record = structs.replace(container.record, mounts=found.mounts)  # plugins take their time
            self.catalog.save(container, record)
        return record

    async def _prepare(self, container: Container, undo: AsyncExitStack) -> tuple[Path, Record]:
        """Make the run directory; see to the security profile, what the groups above need to have, plugins' volumes."""
        record = container.record
        self.links.check(record)
        await self.confine(record)
        run_dir = self._make_run_dir(record.id)
        undo.callback(shutil.rmtree, run_dir, ignore_errors=True)
        reach("start.run-dir")
        if self.settings.cpu_rt_period or self.settings.cpu_rt_runtime:
            await asyncio.to_thread(self._grant_realtime, record)
        return run_dir, await self._mounted(container, undo)

    def _rootfs(self, record: Record, phases: Phases) -> tuple[Mount, ...]:
        _begin(phases, "snapshot")
        mounts = self.snapshotter.mounts(record.id)
        mounts = ephemeral(mounts) if record.host_config.auto_remove else mounts
        ids = self.settings.ids_of(record.host_config)
        return tuple(replace(each, options=(*each.options, *owners.of_engine(ids))) for each in mounts)

    def _runtime(self, record: Record) -> tuple[str, ...]:
        command = self.settings.runtime_command(record.host_config.runtime)
        if command is None:
            raise InvalidArgument(f"unknown or invalid runtime name: {record.host_config.runtime}")
        if command and self.settings.ids_of(record.host_config) is not None:
            raise InvalidArgument(
                f"runtime {record.host_config.runtime} cannot be given a user namespace that is made before it starts: "
                "use the engine's own runtime, or --userns=host"
            )
        return command

    def _grant_realtime(self, record: Record) -> None:
        """Give the groups above the container's the real-time budget that the engine's configuration allows."""
        settings = self.settings
        path = os.path.dirname(Cgroup.open(settings.cgroups_path(record.host_config, record.id)).path)
        if path == "/":
            return
        try:
            grant_realtime(path, settings.cpu_rt_period, settings.cpu_rt_runtime)
        except OSError as error:
            raise SystemFailure(f"cannot give {path} a real-time budget: {error}") from error

    def _make_run_dir(self, container_id: str) -> Path:
        run_dir = self.settings.run_dir(container_id)
        try:
            try:
                run_dir.mkdir(mode=0o700)
            except FileExistsError:  # of the last run
                shutil.rmtree(run_dir, ignore_errors=True)
                run_dir.mkdir(mode=0o700)
        except OSError as error:
            raise SystemFailure(f"cannot make {run_dir}: {error.strerror}") from error
        return run_dir

    async def _open_sandbox(self, record: Record, phases: Phases) -> Sandbox | None:
        """Return the container's own network namespace; None when it shares another's."""
        _begin(phases, "sandbox")
        host = record.host_config
        if not host.own_network:
            return None
        asked = endpoints.requests(record)
        request = SandboxRequest(
            container_id=record.id,
            endpoints=asked,
            sysctls=host.sysctls or {},
            nameservers=etcfiles.Options.of(host).nameservers,
            name=record.name,
            ports=ports.wanted(record),
            ids=self.settings.ids_of(host),
        )
        try:
            if self.networks.at_hand(request) and not request.ports:
                return self.networks.open_sandbox(request)
            return await at_their_pace(self.networks.open_sandbox, request)
        except (Conflict, NotFound, SystemFailure) as error:
            text = error.message.removeprefix("failed to set up container networking: ")
            raise type(error)(f"failed to set up container networking: {text}") from error

    def _write_files(self, record: Record, sandbox: Sandbox | None) -> tuple[Mount, ...]:
        """Write hosts, hostname and resolv.conf and return their mounts, or those of the container shared with."""
        host = record.host_config
        owner = record.id
        if host.network_mode.startswith("container:"):
            owner = self._shared_with(host.network_mode).id
        root = self.settings.container_root(owner)
        if owner == record.id:
            options = etcfiles.Options.of(host)
            texts = etcfiles.render(
                hostname=record.config.hostname,
                domainname=record.config.domainname,
                addresses=etcfiles.addresses(sandbox.endpoints if sandbox else ()),
                resolution=self._resolution(record),
                options=replace(options, hosts=(*options.hosts, *self.links.hosts(record))),
                gateways=self.networks.host_gateways(),
            )
            for name, text in texts.items():
                _replace(root / name, text)
        reach("start.files")
        taken = {bind.destination for bind in record.mounts}
        shown = owners.of_engine(self.settings.ids_of(host))
        access = ("rbind", "rprivate", *(("ro",) if host.readonly_rootfs else ()), *shown)
        return tuple(
            Mount("bind", str(root / name), f"/etc/{name}", access)
            for name in ("resolv.conf", "hostname", "hosts")
            if f"/etc/{name}" not in taken
        )

    def _shared_with(self, network_mode: str) -> Container:
        """Return the container whose network namespace is shared; raises NotFound in dockerd's words."""
        try:
            return self.catalog.resolve(network_mode.removeprefix("container:"))
        except NotFound as error:
            raise NotFound(f"joining network namespace of container: {error.message}") from error

    def _resolution(self, record: Record) -> str:
        if record.host_config.network_mode == "host":
            return etcfiles.HOST
        return etcfiles.OURS if self.networks.has_names(record.id) else etcfiles.OTHERS

    def spec(self, record: Record, mounts: tuple[Mount, ...], *, private_network: bool) -> dict[str, Any]:
        """Return the OCI runtime spec of a container; mounts: all but the kernel's own and --tmpfs."""
        request = replace(
            self._request(record),
            mounts=mounts,
            namespace_paths=self._joined(record),
            own_network=private_network,
        )
        spec: dict[str, Any] = build_spec(request)
        return spec

    def exec_process(
        self, record: Record, config: ExecConfig, *, console_size: Sequence[int] | None = None
    ) -> dict[str, Any]:
        """Return the OCI process object of an exec, which starts from that of its container."""
        process: dict[str, Any] = exec_process(
            build_process(self._request(record)),
            config,
            console_size=console_size,
            privileged=config.privileged,
            available=self.facts.capabilities,
        )
        return process

    def _request(self, record: Record) -> SpecRequest:
        return SpecRequest(
            id=record.id,
            config=record.config,
            host_config=record.host_config,
            rootfs_path=str(self.settings.rootfs_path),
            cgroup_parent=self.settings.cgroup_parent,
            systemd_cgroup=self.settings.systemd_cgroup,
            ulimits=self.settings.ulimits,
            no_new_privileges=self.settings.no_new_privileges,
            init_path=str(self.settings.init_path),
            facts=self.facts,
            linked=self.links.environment(record),
            ids=self.settings.ids_of(record.host_config),
        )

    def _joined(self, record: Record) -> Mapping[str, str]:
        """Return the namespaces of other containers that this one shares, as /proc paths by OCI name."""
        host = record.host_config
        modes = {"network": host.network_mode, "ipc": host.ipc_mode, "pid": host.pid_mode}
        paths = {}
        for kind, mode in modes.items():
            if not mode.startswith("container:"):
                continue
            other = self.catalog.resolve(mode.removeprefix("container:"))
            _check_joinable(kind, other.record)
            paths[kind] = f"/proc/{other.record.state.pid}/ns/{'net' if kind == 'network' else kind}"
            if self.settings.ids_of(host) is not None:
                self._check_remapped(other.record)
                paths.setdefault("user", f"/proc/{other.record.state.pid}/ns/user")
        return paths

    def _check_remapped(self, other: Record) -> None:
        """Raise Conflict when the owner of namespaces that are to be shared lives in the host's user namespace."""
        ids = self.settings.ids
        if not other.state.ids:
            raise Conflict(
                f"container {other.name} is in the user namespace of the host, where a container that shares its "
                "namespaces must be too: use --userns=host"
            )
        if ids is not None and other.state.ids != ids.words:
            raise Conflict(
                f"container {other.name} runs with other ids than userns-remap gives now: restart it, and then start "
                "those that share its namespaces"
            )


def _begin(phases: Phases, name: str) -> None:
    phases.append((name, time.monotonic_ns()))


def _check_joinable(kind: str, other: Record) -> None:
    """Raise, in dockerd's words, when a container's namespace of that kind cannot be shared with another one."""
    if not other.state.alive and kind == "network":
        raise Conflict(
            f"cannot join network namespace of a non running container: container {other.name} is {other.state.status}"
        )
    if not other.state.alive:
        raise Conflict(f"failed to join {kind.upper()} namespace: container {other.id} is not running")
    if kind == "ipc" and other.host_config.ipc_mode in ("private", "none", ""):
        raise InvalidArgument(
            f"failed to join IPC namespace: container {other.id}: "
            "non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
        )


async def _abort(task: Task) -> None:
    """End a container whose start failed after its process was there."""
    await task.signal(signal.SIGKILL)
    await task.gone


def _replace(path: Path, text: str) -> None:
    """Write a small file in place of an older one; the inode stays, since a running container may have it mounted."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        with open(descriptor, "wb", buffering=_BUFFER) as file:
            file.write(text.encode())
    except OSError as error:
        raise SystemFailure(f"cannot write {path}: {error.strerror}") from error
