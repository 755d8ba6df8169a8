"""Which log drivers there are, and which options each takes. Errors are dockerd's."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from wherry.errors import InvalidArgument
from wherry.logs import values
from wherry.models import booleans

Options = Mapping[str, str]

NONE = "none"
BUILT_IN = frozenset(
    {"mode", "max-buffer-size", "cache-disabled", "cache-max-size", "cache-max-file", "cache-compress"}
)
"""Options that every driver takes."""
_ATTRIBUTES = frozenset({"labels", "labels-regex", "env", "env-regex", "tag"})
_FILE = frozenset({"max-size", "max-file", "max-age", "compress"})

FACILITIES = (
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
    "", "", "", "", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
)  # fmt: skip
SYSLOG_FORMATS = ("", "rfc3164", "rfc5424", "rfc5424micro")
SYSLOG_NETWORKS = ("udp", "tcp", "tcp+tls", "unix", "unixgram")


def check(driver: str, options: Options) -> None:
    """Raise InvalidArgument for a driver or an option that is not there, and for values that cannot be."""
    if driver == NONE:
        return
    if driver not in CHECKS:
        raise InvalidArgument(f'error looking up logging plugin {driver}: plugin "{driver}" not found')
    _check_mode(options)
    disabled = options.get("cache-disabled")
    if disabled is not None and booleans.parse(disabled) is None:
        raise InvalidArgument(f"invalid value for option cache-disabled: {disabled}")
    known, further = CHECKS[driver]
    own = {name: value for name, value in options.items() if name not in BUILT_IN}
    if driver == "gelf":  # dockerd looks at the address first
        further(own)
    for name in sorted(own):
        if name not in known:
            words = f"log driver {driver}" if driver == "local" else f"{driver} log driver"
            raise InvalidArgument(f"unknown log opt '{name}' for {words}")
    further(own)


def _check_mode(options: Options) -> None:
    mode = options.get("mode", "")
    if mode not in ("", "blocking", "non-blocking"):
        raise InvalidArgument(f"logger: logging mode not supported: {mode}")
    if "max-buffer-size" in options:
        if mode != "non-blocking":
            raise InvalidArgument("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
        values.size(options["max-buffer-size"], "error parsing option max-buffer-size: ")


def _nothing(options: Options) -> None:
    """All that can be wrong is found when the target is built."""


def _check_syslog(options: Options) -> None:
    syslog_address(options.get("syslog-address", ""))
    syslog_facility(options.get("syslog-facility", ""))
    if options.get("syslog-format", "") not in SYSLOG_FORMATS:
        raise InvalidArgument("Invalid syslog format")


def syslog_facility(text: str) -> int:
    """Return the number of a facility, 3 (daemon) for none; raises InvalidArgument."""
    if text in FACILITIES:
        return FACILITIES.index(text or "daemon")
    if text.isdecimal() and int(text) < len(FACILITIES):
        return int(text)
    raise InvalidArgument("invalid syslog facility")


def syslog_address(text: str) -> tuple[str, list[str | int]]:
    """Return network and address of a receiver, ("", []) for the machine's own; raises InvalidArgument."""
    if not text:
        return "", []
    network, host, port, path = _url(text, "")
    if network not in SYSLOG_NETWORKS:
        raise InvalidArgument(f"unsupported scheme: '{network}'")
    if network in ("unix", "unixgram"):
        if not path or not os.path.exists(path):
            raise InvalidArgument(f"stat {path}: no such file or directory")
        return network, [path]
    return network, [host or "localhost", port or 514]


def _url(text: str, label: str) -> tuple[str, str, int, str]:
    try:
        parts = urlsplit(text)
        return parts.scheme, parts.hostname or "", parts.port or 0, parts.path
    except ValueError as error:
        port = re.search(r":([^:/]*)(?:/|$)", text.partition("://")[2])
        shown = f'invalid port ":{port[1]}" after host' if port else str(error)
        raise InvalidArgument(f'{label}parse "{text}": {shown}') from error


def gelf_address(text: str) -> tuple[str, list[str | int]]:
    """Return network and address; raises InvalidArgument."""
    if not text:
        raise InvalidArgument("gelf-address is a required parameter")
    network, host, port, _ = _url(text, "")
    if network not in ("udp", "tcp"):
        raise InvalidArgument("gelf: endpoint needs to be TCP or UDP")
    if not host or not port:
        raise InvalidArgument("gelf: please provide gelf-address as proto://host:port")
    return network, [host, port]


def _check_gelf(options: Options) -> None:
    network, _ = gelf_address(options.get("gelf-address", ""))
    compression = [name for name in ("gelf-compression-type", "gelf-compression-level") if name in options]
    if network == "tcp" and compression:
        raise InvalidArgument("compression is only supported on UDP")
    if options.get("gelf-compression-type", "none") not in ("gzip", "zlib", "none"):
        raise _unknown_value("gelf-compression-type", options, "gelf")
    if not re.fullmatch(r"-1|[0-9]", options.get("gelf-compression-level", "1"), re.ASCII):
        raise _unknown_value("gelf-compression-level", options, "gelf")
    for name in ("gelf-tcp-max-reconnect", "gelf-tcp-reconnect-delay"):
        if name in options:
            if network == "udp":
                raise InvalidArgument(f'"{name}" is only valid for TCP')
            if not re.fullmatch(r"\d{1,9}", options[name], re.ASCII):
                raise InvalidArgument(f'"{name}" must be a positive integer')


def _unknown_value(name: str, options: Options, driver: str) -> InvalidArgument:
    return InvalidArgument(f'unknown value "{options[name]}" for log opt "{name}" for {driver} log driver')


def fluentd_address(text: str) -> tuple[str, list[str | int]]:
    """Return network and address of a receiver, 127.0.0.1:24224 by default; raises InvalidArgument."""
    label = f"invalid fluentd-address ({text}): "
    network, host, port, path = _url(text if "://" in text else f"tcp://{text}", label)
    if network == "unix":
        if not path:
            raise InvalidArgument(f"{label}path is empty")
        return network, [path]
    if network not in ("tcp", "tls"):
        raise InvalidArgument(f"{label}unsupported scheme: '{network}'")
    if path:
        raise InvalidArgument(f"{label}should not contain a path element")
    return network, [host or "127.0.0.1", port or 24224]


def _check_fluentd(options: Options) -> None:
    for name in ("fluentd-async", "fluentd-sub-second-precision", "fluentd-request-ack"):
        values.flag(options, name)
    if "fluentd-buffer-limit" in options:
        values.size(options["fluentd-buffer-limit"], "")
    if "fluentd-retry-wait" in options:
        values.duration(options["fluentd-retry-wait"], "")
    retries = options.get("fluentd-max-retries", "0")
    if not re.fullmatch(r"\d{1,9}", retries, re.ASCII):
        raise InvalidArgument(f'strconv.ParseUint: parsing "{retries}": invalid syntax')
    if "fluentd-write-timeout" in options:
        label = "invalid value for fluentd-write-timeout: value must be a duration"
        if values.duration(options["fluentd-write-timeout"], f"{label}: ") < 0:
            raise InvalidArgument(f"{label} that is non-negative")
    if interval := options.get("fluentd-async-reconnect-interval"):
        label = "invalid value for fluentd-async-reconnect-interval: "
        if not 0.1 <= values.duration(interval, label) <= 10:
            raise InvalidArgument(f'{label}value ("{interval}") must be between 100ms and 10s')
    fluentd_address(options.get("fluentd-address", ""))


CHECKS: Mapping[str, tuple[frozenset[str], Callable[[Options], None]]] = {
    "json-file": (_ATTRIBUTES | _FILE, _nothing),
    "local": (_FILE, _nothing),
    "syslog": (
        _ATTRIBUTES
        | {"syslog-address", "syslog-facility", "syslog-format", "syslog-tls-ca-cert", "syslog-tls-cert"}
        | {"syslog-tls-key", "syslog-tls-skip-verify"},
        _check_syslog,
    ),
    "journald": (_ATTRIBUTES, _nothing),
    "gelf": (
        _ATTRIBUTES
        | {"gelf-address", "gelf-compression-type", "gelf-compression-level"}
        | {"gelf-tcp-max-reconnect", "gelf-tcp-reconnect-delay"},
        _check_gelf,
    ),
    "fluentd": (
        _ATTRIBUTES
        | {"fluentd-address", "fluentd-async", "fluentd-async-reconnect-interval", "fluentd-buffer-limit"}
        | {"fluentd-max-retries", "fluentd-request-ack", "fluentd-retry-wait", "fluentd-sub-second-precision"}
        | {"fluentd-write-timeout"},
        _check_fluentd,
    ),
}
NAMES = tuple(sorted(CHECKS))
"""What docker info lists."""
