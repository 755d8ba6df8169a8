"""Builds the engine out of its parts, by constructor only: what a part needs, it is given here, once."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import uuid
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from wherry.api.backends import Backends
from wherry.cmd import groupdriver, subids
from wherry.cmd.config import Config
from wherry.containers.catalog import Catalog, Container
from wherry.errors import EngineError, NotModified
from wherry.events import Bus
from wherry.images.images import Images
from wherry.models.container import HostConfig
from wherry.network.config import NetworkConfig
from wherry.network.controller import Networks
from wherry.oci import apparmor
from wherry.oci.host import HostFacts, read_host_facts
from wherry.plugins.api import Roots
from wherry.plugins.registry import Plugins
from wherry.registry.api import RegistryConfig
from wherry.registry.client import Registries
from wherry.runtime import tinyinit
from wherry.runtime.cgroups import remove_empty
from wherry.runtime.wire import Exit
from wherry.services import containerlogs
from wherry.services.attachments import Attachments
from wherry.services.backups import Backups
from wherry.services.check import CheckService
from wherry.services.committing import Committing
from wherry.services.confinement import Confinement
from wherry.services.containers import Containers
from wherry.services.copying import Copying
from wherry.services.creation import Creation
from wherry.services.execs import Execs
from wherry.services.images import ImageService
from wherry.services.launching import Launching
from wherry.services.lifecycle import Lifecycle, delete_folder
from wherry.services.links import Links
from wherry.services.looks import Looks
from wherry.services.mounting import Mounting
from wherry.services.networks import NetworkService
from wherry.services.pluginmounts import PluginMounts
from wherry.services.population import Population
from wherry.services.ports import Ports
from wherry.services.provision import Provision
from wherry.services.pulling import Pulling
from wherry.services.pushing import Pushing
from wherry.services.registries import RegistryService
from wherry.services.settings import Settings
from wherry.services.statistics import Statistics
from wherry.services.strangers import Strangers
from wherry.services.streams import Streams
from wherry.services.system import SystemService
from wherry.services.updating import Updating
from wherry.services.volumes import VolumeService
from wherry.services.xray import XrayService
from wherry.snapshots.api import Snapshotter
from wherry.snapshots.choice import choose
from wherry.store.database import Database
from wherry.supervision.background import settle, spawn
from wherry.supervision.remains import open_namespace
from wherry.supervision.supervision import Supervision
from wherry.supervision.task import Task
from wherry.volumes.local import Volumes
from wherry.volumes.remote import RemoteVolumes

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Engine:
    """The parts that the daemon starts, reloads and stops."""

    settings: Settings
    catalog: Catalog
    lifecycle: Lifecycle
    networks: Networks
    volumes: Volumes
    snapshotter: Snapshotter
    supervision: Supervision
    backends: Backends
    registries: Registries
    shutdown_timeout: int
    engine_id: str

    def reload(self, fresh: Config) -> None:
        """Take over the settings that may change while containers run. Raises InvalidArgument, and takes none then."""
        self.registries.reload(_registry_config(fresh))
        self.shutdown_timeout = fresh.shutdown_timeout
        self.settings.live_restore = fresh.live_restore
        self.settings.labels = fresh.labels
        self.settings.debug = fresh.debug
        self.settings.runtimes = dict(fresh.runtimes)
        self.settings.default_runtime = fresh.default_runtime
        attributes = {
            "name": platform.node(),
            "debug": str(fresh.debug).lower(),
            "labels": "[" + ",".join(fresh.labels) + "]",
            "live-restore": str(fresh.live_restore).lower(),
            "log-driver": self.settings.log_driver,
            "shutdown-timeout": str(fresh.shutdown_timeout),
        }
        self.lifecycle.bus.publish("daemon", "reload", self.engine_id, attributes)

    def refresh_firewall(self) -> None:
        """Begin to put back what somebody may have flushed; the administrator who did says so with SIGHUP."""
        spawn(self._refresh_firewall(), "firewall refresh")

    async def _refresh_firewall(self) -> None:
        try:
            await asyncio.to_thread(self.networks.refresh_firewall)
        except EngineError as error:
            log.error("firewall not restored", extra={"error": error.message})

    async def restore(self) -> None:
        """Join what the store says with what runs: adopt the living, record the ended, tidy up after a crash."""
        for sentence in self.catalog.load():
            log.error("container skipped", extra={"error": sentence})
        for sentence in self.volumes.load():
            log.error("volume without its record", extra={"error": sentence})
        # before containers are taken up: those that ended meanwhile may be removed with their volumes
        with self.volumes.recording(await asyncio.to_thread(self.volumes.sweep)):
            pass
        alive = []
        for container in self.catalog:
            found = await self.supervision.restore(
                container.id, self.settings.run_dir(container.id), self.lifecycle.cgroup_path(container)
            )
            if isinstance(found, Task):
                alive.append(container.id)
            self._take_up(container, found)
        await asyncio.to_thread(self.networks.restore, alive, self._open_network_namespace)
        await asyncio.to_thread(self.lifecycle.launching.links.let_pass)
        await asyncio.to_thread(self._sweep)
        self.lifecycle.provision.plugin_mounts.take_up(self.catalog)
        Backups(self.lifecycle).thaw_left()
        self.lifecycle.resume()
        log.info("restored", extra={"containers": len(self.catalog), "running": len(alive)})

    def _open_network_namespace(self, container_id: str) -> int | None:
        state = self.catalog.resolve(container_id).record.state
        return open_namespace(state.pid, state.start_time, "net") if state.alive else None

    def _take_up(self, container: Container, found: Task | Exit | None) -> None:
        if isinstance(found, Task):
            self.lifecycle.adopt(container, found)
        elif container.record.state.alive:
            self.lifecycle.ended_meanwhile(container, found)

    def _sweep(self) -> None:
        """Remove what belongs to no container: leftovers of a creation or a removal that was cut off."""
        for info in tuple(self.snapshotter.walk()):
            if not info.committed and info.name not in self.catalog:
                self.snapshotter.remove(info.name)
        self.snapshotter.sweep()
        for folder in (self.settings.data_root / "containers", self.settings.run_root / "containers"):
            for entry in folder.iterdir():
                if entry.name not in self.catalog:
                    delete_folder(entry)

    async def shut_down(self) -> None:
        """Stop the containers, unless they are meant to outlive the engine, and then the engine's own parts."""
        self.lifecycle.restarts.close()
        running = [each for each in self.catalog if each.record.state.alive]
        if running and not self.settings.live_restore:
            await asyncio.gather(*(self._stop(container) for container in running))
        for container in self.catalog:
            if container.record.state.alive and container.watcher is not None:
                self.lifecycle.health.end(container)
                container.watcher.cancel()  # it runs on; the next engine takes it up
        await settle(2.0)
        if not self.settings.systemd_cgroup and not any(each.record.state.alive for each in self.catalog):
            remove_empty(self.settings.cgroup_parent)

    async def _stop(self, container: Container) -> None:
        try:
            await self.lifecycle.stop(container, signal_name="", timeout=self.shutdown_timeout)
        except NotModified:
            return
        except EngineError as error:
            log.error("container not stopped", extra={"container": container.id, "error": error.message})


def _settings(config: Config, facts: HostFacts) -> Settings:
    groups = groupdriver.choose(config, facts.cgroup_version)
    return Settings(
        data_root=Path(config.data_root),
        run_root=Path(config.run_root),
        cgroup_parent=groups.parent,
        cgroup_driver=groups.driver,
        cgroupns_default=config.default_cgroupns_mode or ("private" if facts.cgroup_version == 2 else "host"),
        runtimes=dict(config.runtimes),
        default_runtime=config.default_runtime,
        cpu_rt_period=config.cpu_rt_period,
        cpu_rt_runtime=config.cpu_rt_runtime,
        shm_size=config.default_shm_size,
        log_driver=config.log_driver,
        log_options=dict(config.log_opts),
        ulimits=config.default_ulimits,
        no_new_privileges=config.no_new_privileges,
        init_by_default=config.init,
        live_restore=config.live_restore,
        labels=config.labels,
        firewall_backend=config.firewall_backend,
        debug=config.debug,
        ids=subids.read(config.userns_remap),
    )


def _make_places(settings: Settings) -> None:
    for folder, mode in (
        (settings.data_root / "containers", 0o710),
        (settings.data_root / "tmp", 0o700),
        (settings.run_root / "containers", 0o700),
        (settings.rootfs_path, 0o700),
    ):
        folder.mkdir(mode=mode, exist_ok=True)
    tinyinit.write(str(settings.init_path))
    if settings.ids is not None:
        subids.check(settings.ids, settings.data_root)


def _engine_id(database: Database) -> str:
    rows = database.query("SELECT value FROM meta WHERE key = 'engine-id'")
    if rows:
        return str(rows[0][0])
    fresh = str(uuid.uuid4())
    database.execute("INSERT INTO meta (key, value) VALUES ('engine-id', ?)", (fresh,))
    return fresh


async def _confine(facts: HostFacts) -> Confinement:
    """Load the profile of containers; what hinders that is told now, and again to whom it keeps from a start."""
    confinement = Confinement(facts)
    if warning := confinement.warning():
        log.warning(warning.removeprefix("WARNING: "))
    try:
        await asyncio.to_thread(confinement.ensure, apparmor.profile_for(HostConfig(), facts))
    except EngineError as error:
        log.error("AppArmor profile not loaded", extra={"error": error.message})
    return confinement


def _provision(
    settings: Settings, volumes: Volumes, catalog: Catalog, population: Population, bus: Bus, remote: RemoteVolumes
) -> Provision:
    mounts = PluginMounts(volumes, remote, settings.run_root / "plugin-mounts")
    return Provision(volumes, catalog, population, bus, remote, Strangers(remote), mounts)


async def compose(config: Config, stack: AsyncExitStack) -> Engine:
    """Make and start all parts; the stack undoes it in reverse."""
    facts = read_host_facts()
    settings = _settings(config, facts)
    containerlogs.check_defaults(settings)
    _make_places(settings)
    database = Database(settings.data_root / "meta.db")
    stack.callback(database.close)
    chosen = choose(config.storage_driver, settings.data_root / "snapshots")
    stack.callback(chosen.snapshotter.close)
    images = Images(database, settings.data_root, chosen.snapshotter)
    plugins = Plugins(Roots(sockets=(settings.run_root / "plugins", Path("/run/docker/plugins"))))
    networks = Networks(database, replace(NetworkConfig.of(config), ids=settings.ids), settings.run_root, plugins)
    await asyncio.to_thread(networks.start)
    catalog = Catalog(database)
    stack.callback(lambda: networks.stop(remove=not any(each.record.state.alive for each in catalog)))
    supervision = Supervision(settings.run_root, chosen.snapshotter.mount_namespace)
    await supervision.start()
    stack.push_async_callback(supervision.stop)
    bus = Bus()
    attachments = Attachments()
    stack.callback(attachments.close)
    volumes = Volumes(database, settings.data_root / "volumes")
    population = Population(volumes, chosen.snapshotter)
    provision = _provision(settings, volumes, catalog, population, bus, RemoteVolumes(plugins))
    confinement = await _confine(facts)
    links = Links(settings, catalog, networks)
    launching = Launching(
        settings, catalog, chosen.snapshotter, networks, supervision, facts, attachments, provision, confinement, links
    )
    lifecycle = Lifecycle(settings, catalog, chosen.snapshotter, images, networks, launching, bus)
    engine_id = _engine_id(database)
    registries = Registries(_registry_config(config))
    pulling = Pulling(images, registries, bus, lazy=config.lazy_pull)
    registry_service = RegistryService(registries, pulling, Pushing(images, registries, bus))
    stack.push_async_callback(asyncio.to_thread, registry_service.close)
    backends = _backends(lifecycle, images, engine_id, chosen.reason, registry_service)
    return Engine(
        settings=settings,
        catalog=catalog,
        lifecycle=lifecycle,
        networks=networks,
        volumes=volumes,
        snapshotter=chosen.snapshotter,
        supervision=supervision,
        backends=backends,
        registries=registries,
        shutdown_timeout=config.shutdown_timeout,
        engine_id=engine_id,
    )


def _registry_config(config: Config) -> RegistryConfig:
    return RegistryConfig(
        mirrors=config.registry_mirrors,
        insecure=config.insecure_registries,
        http_proxy=config.http_proxy or _environment("HTTP_PROXY"),
        https_proxy=config.https_proxy or _environment("HTTPS_PROXY"),
        no_proxy=config.no_proxy or _environment("NO_PROXY"),
        downloads=config.max_concurrent_downloads,
        uploads=config.max_concurrent_uploads,
        attempts=config.max_download_attempts,
    )


def _environment(name: str) -> str:
    return os.environ.get(name) or os.environ.get(name.lower(), "")


def _backends(
    life: Lifecycle, images: Images, engine_id: str, driver_reason: str, registries: RegistryService
) -> Backends:
    """Make the use cases that the API offers, around the lifecycle of containers."""
    launching = life.launching
    execs = Execs(life.catalog, life)
    looks = Looks(
        life.settings, life.catalog, images, life.snapshotter, life.networks, execs.running_ids, launching.links
    )
    image_service = ImageService(images, life.catalog, life.bus)
    volume_service = VolumeService(life.provision)
    return Backends(
        system=SystemService(
            settings=life.settings,
            engine_id=engine_id,
            catalog=life.catalog,
            images=image_service,
            volumes=volume_service,
            looks=looks,
            snapshotter=life.snapshotter,
            facts=launching.facts,
            bus=life.bus,
            driver_reason=driver_reason,
            warnings=tuple(filter(None, (launching.confinement.warning(),))),
            registries=registries.registries,
        ),
        containers=Containers(
            catalog=life.catalog,
            creation=Creation(
                life.settings, life.catalog, images, life.snapshotter, life.networks, life.bus, life.provision
            ),
            lifecycle=life,
            streams=Streams(life.settings, life, launching.attachments),
            looks=looks,
            updating=Updating(life),
            statistics=Statistics(life),
            copying=Copying(life),
            committing=Committing(life, images),
        ),
        execs=execs,
        images=image_service,
        registries=registries,
        networks=NetworkService(life.settings, life.networks, life.catalog, life.bus),
        xray=XrayService(life.settings, life, images, life.networks),
        volumes=volume_service,
        backups=Backups(life),
        mounts=Mounting(life),
        ports=Ports(life.catalog, life.networks, life.bus),
        check=CheckService(life, images, life.provision.volumes),
    )
