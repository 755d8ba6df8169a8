"""Where a container's output goes: the engine's defaults, its own options, and what its log tells of it."""

from __future__ import annotations

from pathlib import Path

from wherry.containers.record import Record
from wherry.errors import InvalidArgument
from wherry.logs import drivers, targets
from wherry.logs.origin import Origin
from wherry.models.container import LogConfig
from wherry.models.times import rfc3339
from wherry.runtime.wire import LogTarget
from wherry.services.settings import Settings


def check_defaults(settings: Settings) -> None:
    """Raise InvalidArgument for an engine's driver and options that no container could be made with."""
    try:
        drivers.check(settings.log_driver, settings.log_options)
        targets.build(settings.log_driver, settings.log_options, _NOBODY, settings.data_root)
    except InvalidArgument as error:
        raise InvalidArgument(f"failed to set log opts: {error.message}") from error


def with_defaults(asked: LogConfig, settings: Settings) -> LogConfig:
    """Return driver and options of a new container; raises InvalidArgument.

    The engine's options count for containers with the engine's driver; those about the copy (cache-...) for all.
    """
    driver = asked.type or settings.log_driver
    defaults = settings.log_options
    if driver != settings.log_driver:
        defaults = {name: value for name, value in defaults.items() if name.startswith("cache-")}
    options = {**(defaults if driver != drivers.NONE else {}), **(asked.config or {})}
    drivers.check(driver, options)
    return LogConfig(type=driver, config=options)


def target(record: Record, folder: Path) -> LogTarget:
    """Return where a container's output goes; raises InvalidArgument. folder: the container's own."""
    log = record.host_config.log_config
    return targets.build(log.type, log.config or {}, _origin(record), folder)


def file(record: Record, folder: Path) -> Path | None:
    """Return the file that docker logs reads, None when there is none to read."""
    log = record.host_config.log_config
    return targets.path(log.type, log.config or {}, folder, record.id)


_NOBODY = Origin("", "", "", "", (), "", {}, ())


def _origin(record: Record) -> Origin:
    return Origin(
        id=record.id,
        name=record.name,
        image_name=record.config.image,
        image_id=record.image_id,
        command=(record.path, *record.args),
        created=rfc3339(record.created),
        labels=record.config.labels or {},
        env=record.config.env or (),
    )
