"""From a driver's name, its options and the container to what the supervisor is told, `LogTarget`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wherry.errors import InvalidArgument
from wherry.logs import drivers, values
from wherry.logs.drivers import Options
from wherry.logs.origin import Origin
from wherry.models import booleans
from wherry.runtime.wire import LogTarget

DEFAULT_SIZE = 20 << 20
DEFAULT_FILES = 5
"""Logs are rotated unless told otherwise: at most 100 MiB per container (dockerd's json-file: no limit)."""
DEFAULT_BUFFER = 1 << 20
"""Bytes that wait in memory with mode=non-blocking, and with fluentd-async."""
FAILED = "failed to initialize logging driver: "
_FOR_EVER = (1 << 31) - 1
_READABLE = ("json-file", "local")


def path(driver: str, options: Options, folder: Path, container_id: str) -> Path | None:
    """Return the file that docker logs reads, None when the driver keeps none."""
    if driver == "json-file":
        return folder / f"{container_id}-json.log"
    if driver == "local":
        return folder / "local-logs" / "container.log"
    if driver == drivers.NONE or booleans.parse(options.get("cache-disabled", "false")):
        return None
    return folder / "container-cached.log"


def build(driver: str, options: Options, origin: Origin, folder: Path) -> LogTarget:
    """Return what a container's supervisor has to know of its log; raises InvalidArgument with dockerd's reason."""
    if driver == drivers.NONE:
        return LogTarget()
    try:
        return _build(driver, options, origin, folder)
    except InvalidArgument as error:
        raise InvalidArgument(FAILED + error.message) from error


def _build(driver: str, options: Options, origin: Origin, folder: Path) -> LogTarget:
    file = path(driver, options, folder, origin.id)
    settings: dict[str, Any] = {"driver": driver, "path": str(file) if file else "", "buffer": _buffer(options)}
    if driver == "json-file":
        settings |= _json_file(options) | {"attrs": _attributes(options, origin)}
    elif driver == "local":
        settings |= _local_file(options)
    else:
        cache = {name.removeprefix("cache-"): text for name, text in options.items() if name.startswith("cache-")}
        settings |= _local_file(cache)
        settings["options"] = _SENDERS[driver](options, origin)
        if driver == "fluentd" and values.flag(options, "fluentd-async"):
            limit = options.get("fluentd-buffer-limit")
            settings["buffer"] = (values.size(limit) if limit else 0) or DEFAULT_BUFFER
    return LogTarget(**settings)


def _buffer(options: Options) -> int:
    if options.get("mode") != "non-blocking":
        return 0
    return (values.size(options["max-buffer-size"]) if "max-buffer-size" in options else 0) or DEFAULT_BUFFER


def _attributes(options: Options, origin: Origin) -> dict[str, str]:
    tag = origin.tag(options) if options.get("tag") else ""
    return {**origin.attributes(options), **({"tag": tag} if tag else {})}


def _age(options: Options) -> int:
    if "max-age" not in options:
        return 0
    seconds = values.duration(options["max-age"], "invalid value for max-age: ", days=True)
    if seconds < 1:
        raise InvalidArgument("max-age must be at least 1s")
    return int(seconds * 1e9)


def _json_file(options: Options) -> dict[str, Any]:
    size, count = DEFAULT_SIZE, DEFAULT_FILES
    if "max-size" in options:
        size = _unlimited_or_size(options["max-size"])
        if size == 0 and options["max-size"] != "-1":
            raise InvalidArgument("max-size must be a positive number")
    if "max-file" in options:
        count = values.integer(options["max-file"])
        if count < 1:
            raise InvalidArgument("max-file cannot be less than 1")
    compress = values.flag(options, "compress")
    if compress and (count < 2 or size == 0):
        raise InvalidArgument("compress cannot be true when max-file is less than 2 or max-size is not set")
    return {"max_size": size, "max_file": count, "max_age": _age(options), "compress": compress}


def _unlimited_or_size(text: str) -> int:
    return 0 if text == "-1" else values.size(text)


def _local_file(options: Options) -> dict[str, Any]:
    size, count = DEFAULT_SIZE, DEFAULT_FILES
    if "max-size" in options:
        text = options["max-size"]
        size = values.size(text, f"invalid value for max-size: {text}: ") or DEFAULT_SIZE
    if "max-file" in options:
        text = options["max-file"]
        count = values.integer(text, f"invalid value for max-file: {text}: ")
        if count < 0:
            raise InvalidArgument("max file count cannot be less than 0")
        count = max(count, 1)
    compress = values.flag(options, "compress", True, "error reading compress log option: ")
    if compress and count < 2:
        raise InvalidArgument("compression cannot be enabled when max file count is 1")
    return {"max_size": size, "max_file": count, "max_age": _age(options), "compress": compress}


def _syslog(options: Options, origin: Origin) -> dict[str, Any]:
    network, address = drivers.syslog_address(options.get("syslog-address", ""))
    tls = {name: options.get(f"syslog-tls-{option}", "") for name, option in _TLS_FILES.items()}
    return {
        "network": network,
        "address": address,
        "tls": {**tls, "verify": "syslog-tls-skip-verify" not in options},
        "facility": drivers.syslog_facility(options.get("syslog-facility", "")),
        "format": options.get("syslog-format", ""),
        "tag": origin.tag(options),
    }


_TLS_FILES = {"ca": "ca-cert", "cert": "cert", "key": "key"}


def _journal_name(name: str) -> str:
    return re.sub(r"[^A-Z0-9_]", "_", name.upper()).lstrip("_")


def _journald(options: Options, origin: Origin) -> dict[str, Any]:
    tag = origin.tag(options)
    fields = {
        "CONTAINER_ID": origin.id[:12],
        "CONTAINER_ID_FULL": origin.id,
        "CONTAINER_NAME": origin.name,
        "CONTAINER_TAG": tag,
        "IMAGE_NAME": origin.image_name,
        "SYSLOG_IDENTIFIER": tag,
    }
    extra = origin.attributes(options, _journal_name)
    return {"fields": {name: text for name, text in {**fields, **extra}.items() if name}}


def _gelf(options: Options, origin: Origin) -> dict[str, Any]:
    network, address = drivers.gelf_address(options.get("gelf-address", ""))
    fields = {
        "_container_id": origin.id,
        "_container_name": origin.name,
        "_image_id": origin.image_id,
        "_image_name": origin.image_name,
        "_command": origin.command_line,
        "_tag": origin.tag(options),
        "_created": origin.created,
    }
    return {
        "network": network,
        "address": address,
        "compression": options.get("gelf-compression-type", "gzip"),
        "level": int(options.get("gelf-compression-level", "1")),
        "fields": {**fields, **origin.attributes(options, lambda name: name if name.startswith("_") else f"_{name}")},
        "max_reconnect": int(options.get("gelf-tcp-max-reconnect", "3")),
        "reconnect_delay": int(options.get("gelf-tcp-reconnect-delay", "1")),
    }


def _fluentd(options: Options, origin: Origin) -> dict[str, Any]:
    network, address = drivers.fluentd_address(options.get("fluentd-address", ""))
    fields = {"container_id": origin.id, "container_name": f"/{origin.name}", **origin.attributes(options)}
    return {
        "network": network,
        "address": address,
        "tls": {"verify": True},
        "tag": origin.tag(options),
        "fields": fields,
        "connect": not values.flag(options, "fluentd-async"),
        "max_retries": int(options.get("fluentd-max-retries", "0")) or _FOR_EVER,
        "retry_wait": values.duration(options.get("fluentd-retry-wait", "1s")) or 1.0,
        "precise": values.flag(options, "fluentd-sub-second-precision"),
        "ack": values.flag(options, "fluentd-request-ack"),
        "write_timeout": values.duration(options.get("fluentd-write-timeout", "0")),
        "reconnect_interval": values.duration(options.get("fluentd-async-reconnect-interval") or "0"),
    }


_SENDERS: Mapping[str, Any] = {"syslog": _syslog, "journald": _journald, "gelf": _gelf, "fluentd": _fluentd}
"""The drivers that send, and what each wants to know."""
