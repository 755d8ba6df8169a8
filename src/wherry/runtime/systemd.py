"""Scope units over D-Bus (org.freedesktop.systemd1(5)): made by the process that is to live in one, changed, stopped.

    the container's first process                        systemd
       | -- StartTransientUnit UNIT, PIDs=[0] ... ------> |   0: whoever asks, so that a process in a pid namespace
       | <- the job ------------------------------------ |   of its own need not know its number
       |                                                  |   makes the group, moves the process into it
       | <- signal JobRemoved job, "done" -------------- |

A scope ends by itself when nobody is in its group any more, so a container that ends while no bus answers leaves
nothing; CollectMode= takes one away that failed, which otherwise would hold the name.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from wherry.runtime.dbus import Connection, Remote, Variant
from wherry.runtime.scope_properties import INFINITY, Property
from wherry.runtime.scopes import Scope

BUS = "/run/dbus/system_bus_socket"
PRIVATE = "/run/systemd/private"
"""systemd's own socket, for root: on a machine without a message bus."""
START_SECONDS = 30.0
STOP_SECONDS = 10.0

_NAME = "org.freedesktop.systemd1"
_OBJECT = "/org/freedesktop/systemd1"
_MANAGER = "org.freedesktop.systemd1.Manager"
_BUS_OBJECT = "/org/freedesktop/DBus"
_JOBS = f"type='signal',sender='{_NAME}',path='{_OBJECT}',interface='{_MANAGER}',member='JobRemoved'"
_NO_UNIT = f"{_NAME}.NoSuchUnit"
_UNIT_EXISTS = f"{_NAME}.UnitExists"


def version() -> str:
    """Return what systemd says its version is; raises OSError when it cannot be asked."""
    with _connect(START_SECONDS) as bus:
        wanted = (_MANAGER, "Version")
        return str(bus.call(_NAME, _OBJECT, "org.freedesktop.DBus.Properties.Get", "ss", wanted)[0])


def start(scope: Scope, limits: Sequence[Property], *, accounting: Sequence[str]) -> None:
    """Put the calling process into a new scope with these limits; raises OSError.

    accounting: properties such as "MemoryAccounting", which the container's statistics need. An ended scope of the
    same name is taken away first; the caller knows that nobody is in it.
    """
    properties: list[Property] = [
        ("Description", Variant("s", f"container {scope.unit.removesuffix('.scope')}")),
        ("Slice", Variant("s", scope.slice)),
        ("PIDs", Variant("au", [0])),
        ("Delegate", Variant("b", True)),
        ("DefaultDependencies", Variant("b", False)),
        ("CollectMode", Variant("s", "inactive-or-failed")),
        ("TasksMax", Variant("t", INFINITY)),  # otherwise the default of services, 15 % of the machine's
        *((name, Variant("b", True)) for name in accounting),
        *limits,
    ]
    with _connect(START_SECONDS) as bus:
        try:
            job = _start(bus, scope, properties)
        except Remote as error:
            if error.name != _UNIT_EXISTS:
                raise _told(error, scope, "start") from error
            _stop(bus, scope)
            try:
                job = _start(bus, scope, properties)
            except Remote as second:
                raise _told(second, scope, "start") from second
        result = _wait(bus, job)
        if result != "done":
            raise OSError(errno.EIO, f"systemd could not start the unit: the job ended with {result!r}", scope.unit)


def change(scope: Scope, limits: Sequence[Property]) -> None:
    """Change properties of a scope until the next boot; raises OSError, and none is changed then."""
    if not limits:
        return
    with _connect(START_SECONDS) as bus:
        try:
            _manager(bus, "SetUnitProperties", "sba(sv)", scope.unit, True, list(limits))
        except Remote as error:
            raise _told(error, scope, "change") from error


def stop(scope: Scope) -> None:
    """Have systemd forget a scope in which nobody is left; one that is not there is fine. Raises OSError."""
    with _connect(STOP_SECONDS) as bus:
        _stop(bus, scope)


def _connect(seconds: float) -> Connection:
    if not os.path.exists(BUS) and os.path.exists(PRIVATE):
        return Connection(PRIVATE, bus=False, seconds=seconds)
    bus = Connection(BUS, seconds=seconds)
    try:
        bus.call("org.freedesktop.DBus", _BUS_OBJECT, "org.freedesktop.DBus.AddMatch", "s", (_JOBS,))
    except OSError:
        bus.close()
        raise
    return bus


def _manager(bus: Connection, member: str, signature: str, *values: object) -> str:
    """Call a method of the manager; return what it answers, a job's path, or "" for nothing."""
    reply = bus.call(_NAME, _OBJECT, f"{_MANAGER}.{member}", signature, values)
    return str(reply[0]) if reply else ""


def _start(bus: Connection, scope: Scope, properties: list[Property]) -> str:
    return _manager(bus, "StartTransientUnit", "ssa(sv)a(sa(sv))", scope.unit, "replace", properties, [])


def _stop(bus: Connection, scope: Scope) -> None:
    try:
        _wait(bus, _manager(bus, "StopUnit", "ss", scope.unit, "replace"))
        _manager(bus, "ResetFailedUnit", "s", scope.unit)
    except Remote as error:
        if error.name != _NO_UNIT:
            raise _told(error, scope, "stop") from error


def _wait(bus: Connection, job: str) -> str:
    """Return how a job ended: "done", "failed", "canceled", "timeout", "dependency" or "skipped"."""
    return str(bus.signal("JobRemoved", lambda body: body[1] == job)[3])


def _told(error: Remote, scope: Scope, verb: str) -> OSError:
    return OSError(errno.EIO, f"systemd would not {verb} the unit: {error.strerror} ({error.name})", scope.unit)
