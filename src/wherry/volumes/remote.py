"""Volumes of other drivers: programs that keep them somewhere, asked by the Docker volume plugin protocol.

    VolumeDriver.Create  {Name, Opts}           Mount    {Name, ID} -> {Mountpoint}     List          -> {Volumes}
    VolumeDriver.Remove  {Name}                 Unmount  {Name, ID}                     Capabilities  -> {Scope}
    VolumeDriver.Get     {Name} -> {Volume}     Path     {Name} -> {Mountpoint}

ID says who mounts: the container's id, so that an engine that comes later unmounts for the same one. Every call takes
as long as the plugin likes, up to the time limit of `plugins.api.Limits`, and is made from a thread that waits for it.

https://docs.docker.com/engine/extend/plugins_volume/
"""

from __future__ import annotations

import logging
from typing import Any, TypeVar

from msgspec import field

from wherry.errors import EngineError, NotFound, SystemFailure
from wherry.models.base import Model
from wherry.plugins.api import VOLUME, PluginFailed, PluginSilent
from wherry.plugins.registry import Nothing, Plugin, Plugins
from wherry.volumes.records import LOCAL

log = logging.getLogger(__name__)
LOCAL_SCOPE = "local"
Result = TypeVar("Result")


class _Create(Model, frozen=True):
    name: str
    opts: dict[str, str] | None = None


class _Named(Model, frozen=True):
    name: str


class _Mount(Model, frozen=True):
    name: str
    id: str = field(name="ID")


class _Place(Model, frozen=True):
    mountpoint: str = ""


class Remote(Model, frozen=True):
    """A volume as its driver tells of it. mountpoint "" while it is mounted nowhere."""

    name: str = ""
    mountpoint: str = ""
    created_at: str = ""
    status: dict[str, Any] | None = None


class _Got(Model, frozen=True):
    volume: Remote | None = None


class _List(Model, frozen=True):
    volumes: list[Remote] | None = None


class _Scope(Model, frozen=True):
    scope: str = LOCAL_SCOPE


class _Capabilities(Model, frozen=True):
    capabilities: _Scope | None = None


class RemoteVolumes:
    """All volumes that plugins keep. Blocks; thread-safe. Errors: NotFound, SystemFailure, Unavailable."""

    def __init__(self, plugins: Plugins) -> None:
        self._plugins = plugins

    def _driver(self, name: str) -> Plugin:
        return self._plugins.get(name, VOLUME)

    def check(self, driver: str, volume: str) -> None:
        """Raise NotFound, with the text that clients match on, for a driver that is not there."""
        try:
            self._driver(driver)
        except NotFound as error:
            raise NotFound(f"create {volume}: error looking up volume plugin {driver}: {error.message}") from error

    def check_there(self, driver: str, volume: str) -> None:
        """As `check`, but asks nobody: whether a driver could be found."""
        if driver != LOCAL and not self._plugins.exists(driver):
            self.check(driver, volume)

    def there(self) -> list[str]:
        """Return the names of plugins that may be drivers: those that can be found. Asks nobody."""
        return self._plugins.there()

    def known(self) -> list[str]:
        """Return the drivers that have been used so far."""
        return self._plugins.known(VOLUME)

    def create(self, driver: str, name: str, options: dict[str, str] | None) -> bool:
        """Have a volume made; False when it is there already, which is fine."""
        self.check(driver, name)
        if self.get(driver, name) is not None:
            return False
        self._say(f"create {name}", driver, "Create", _Create(name, options or None))
        return True

    def remove(self, driver: str, name: str) -> None:
        """Have a volume removed."""
        self._say(f"remove {name}", driver, "Remove", _Named(name))

    def mount(self, driver: str, name: str, container: str) -> str:
        """Have a volume mounted for a container; return where, a path on the host."""
        what = f"error while mounting volume {name!r} of driver {driver}"
        answer = self._ask(what, driver, "Mount", _Mount(name, container), _Place)
        if not answer.mountpoint.startswith("/"):
            raise SystemFailure(f"{what}: the driver named no place")
        return answer.mountpoint

    def unmount(self, driver: str, name: str, container: str) -> None:
        """Say that a container does not need a volume any more."""
        what = f"error while unmounting volume {name!r} of driver {driver}"
        self._say(what, driver, "Unmount", _Mount(name, container))

    def get(self, driver: str, name: str) -> Remote | None:
        """Return a volume, None when the driver does not have it: it says so by an error."""
        try:
            return self._driver(driver).call(f"{VOLUME}.Get", _Named(name), _Got).volume
        except PluginFailed as error:
            if error.unknown:
                return self._listed(driver, name)
            return None

    def _listed(self, driver: str, name: str) -> Remote | None:
        """As `get`, of a driver from before there was that method."""
        return next((each for each in self.listing(driver) if each.name == name), None)

    def listing(self, driver: str) -> list[Remote]:
        """Return all volumes of a driver."""
        answer = self._driver(driver).call(f"{VOLUME}.List", None, _List)
        return [each for each in answer.volumes or () if each.name]

    def scope(self, driver: str) -> str:
        """Return "local" or "global"; a driver that does not say, or nothing that can be read, is local."""
        try:
            answer = self._driver(driver).call(f"{VOLUME}.Capabilities", None, _Capabilities)
        except (PluginFailed, PluginSilent) as error:
            log.warning("the scope of a volume driver is not known", extra={"driver": driver, "error": error.message})
            return LOCAL_SCOPE
        named: str = (answer.capabilities or _Scope()).scope
        return "global" if named.lower() == "global" else LOCAL_SCOPE

    def _say(self, what: str, driver: str, method: str, request: Model) -> None:
        self._ask(what, driver, method, request, Nothing)

    def _ask(self, what: str, driver: str, method: str, request: Model, answer: type[Result]) -> Result:
        try:
            return self._driver(driver).call(f"{VOLUME}.{method}", request, answer)
        except EngineError as error:
            kind = SystemFailure if isinstance(error, PluginFailed) else type(error)
            raise kind(f"{what}: {error.message}") from error
