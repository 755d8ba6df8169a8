"""Which plugins there are: found by name, activated once, and asked again when they have been restarted."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from wherry.errors import NotFound, SystemFailure
from wherry.models.base import Model
from wherry.plugins import discovery
from wherry.plugins.api import Limits, PluginFailed, PluginSilent, Roots
from wherry.plugins.discovery import Address
from wherry.plugins.exchange import post

ACTIVATE = "Plugin.Activate"

Result = TypeVar("Result")


class Manifest(Model, frozen=True):
    """What a plugin says of itself."""

    implements: list[str] | None = None


class Failure(Model, frozen=True):
    """What an answer says when something could not be done."""

    err: str | None = None


class Nothing(Model, frozen=True):
    """An answer that says no more than that it was done."""


_failures = msgspec.json.Decoder(Failure)


@dataclass(frozen=True, slots=True)
class Plugin:
    """A plugin that can be asked."""

    name: str
    address: Address
    limits: Limits
    implements: frozenset[str] = frozenset()

    def call(self, method: str, request: Model | None, answer: type[Result]) -> Result:
        """Call a method ("NetworkDriver.Join") and return its answer.

        Raises PluginFailed when the plugin says why it could not, PluginSilent when it says nothing that can be read.
        """
        body = msgspec.json.encode(request) if request is not None else b""
        got = post(self.address, method, body, self.limits)
        reason = _reason(got.body)
        if got.status != 200:
            reason = reason or got.body[:1000].decode(errors="replace").strip() or f"status {got.status}"
            raise PluginFailed(f"{method}: {reason}", reason, got.status)
        if reason:
            raise PluginFailed(f"{method}: {reason}", reason, got.status)
        try:
            return msgspec.json.decode(got.body.strip() or b"{}", type=answer)
        except msgspec.DecodeError as error:
            raise PluginSilent(f"{method}: plugin {self.name} gave an answer that cannot be read: {error}") from error


def _reason(body: bytes) -> str:
    """Return what an answer says of a failure, "" when it says nothing of one, or nothing that is JSON."""
    try:
        return _failures.decode(body).err or ""
    except msgspec.DecodeError:
        return ""


class Plugins:
    """All plugins. Thread-safe; blocks."""

    def __init__(self, roots: Roots | None = None, limits: Limits | None = None) -> None:
        """Know none yet."""
        self._roots = roots or Roots()
        self._limits = limits or Limits()
        self._lock = threading.Lock()
        self._active: dict[str, Plugin] = {}
        self._pending: dict[str, Future[Plugin]] = {}

    def get(self, name: str, kind: str) -> Plugin:
        """Return a plugin that implements something. Who comes while it is being activated shares what comes of that.

        Raises NotFound, SystemFailure when it implements other things, PluginFailed, PluginSilent.
        """
        address = discovery.find(self._roots, name)
        with self._lock:
            plugin = self._active.get(name)
            current = plugin is not None and plugin.address == address
            pending = None if current else self._pending.get(name)
            mine: Future[Plugin] = Future()
            if not current and pending is None:
                self._pending[name] = mine
        if plugin is None or not current:
            plugin = pending.result() if pending is not None else self._activate(name, address, mine)
        if kind not in plugin.implements:
            raise SystemFailure(f"plugin {name} does not implement the requested driver {kind}")
        return plugin

    def _activate(self, name: str, address: Address, outcome: Future[Plugin]) -> Plugin:
        """Activate a plugin for all who wait for `outcome`."""
        try:
            plugin = self._activated(name, address)
        except BaseException as error:
            with self._lock:
                del self._pending[name]
            outcome.set_exception(error)
            raise
        with self._lock:
            self._active[name] = plugin
            del self._pending[name]
        outcome.set_result(plugin)
        return plugin

    def _activated(self, name: str, address: Address) -> Plugin:
        fresh = Plugin(name, address, self._limits)
        manifest = fresh.call(ACTIVATE, None, Manifest)
        return Plugin(name, address, self._limits, frozenset(manifest.implements or ()))

    def there(self) -> list[str]:
        """Return the names of all plugins that can be found, whatever they implement. Asks nobody."""
        return discovery.names(self._roots)

    def exists(self, name: str) -> bool:
        """Whether there is a plugin of that name, without asking it."""
        try:
            discovery.find(self._roots, name)
        except (NotFound, PluginSilent) as error:
            return isinstance(error, PluginSilent)
        return True

    def known(self, kind: str) -> list[str]:
        """Return the names of those that implement something and have been used, in order. Asks nobody."""
        with self._lock:
            return sorted(name for name, plugin in self._active.items() if kind in plugin.implements)
