"""Flag values as text to API values: sizes, CPUs, limits, environment, mounts, devices."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


def byte_size(text: str) -> int:
    """64m, 1.5g, 1048576, 512KiB: bytes."""
    number = text.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
    suffix = text[len(number) :].strip().lower()
    unit = suffix.removesuffix("ib") if suffix.endswith("ib") else suffix.removesuffix("b") or suffix
    if unit not in _UNITS:
        raise ValueError(f"invalid suffix: '{text[len(number) :].strip()}'")
    try:
        value = float(number)
    except ValueError:
        raise ValueError(f"invalid size: '{text}'") from None
    if value < 0:
        raise ValueError(f"invalid size: '{text}'")
    return int(value * _UNITS[unit])


def swap_size(text: str) -> int:
    """A size, or -1 for unlimited."""
    return -1 if text == "-1" else byte_size(text)


def nano_cpus(text: str) -> int:
    """1.5 CPUs as 1500000000."""
    whole, _, part = text.partition(".")
    if not (whole + part).isdigit():
        raise ValueError(f"failed to parse {text} as a rational number")
    if len(part) > 9:
        raise ValueError("value is too precise")
    return int(whole or "0") * 10**9 + int(part.ljust(9, "0") or "0")


def nanoseconds(text: str) -> int:
    """A Go duration such as 1m30s, as nanoseconds."""
    rest, total = text, 0.0
    while rest:
        number = rest[: len(rest) - len(rest.lstrip("0123456789."))]
        rest = rest[len(number) :]
        unit = rest[: len(rest) - len(rest.lstrip("hmsuµn"))]
        if not number or unit not in _SECONDS:
            raise ValueError(f'time: invalid duration "{text}"')
        total += float(number) * _SECONDS[unit]
        rest = rest[len(unit) :]
    return round(total * 1e9)


def ulimit(text: str) -> dict[str, Any]:
    """nofile=1024:2048 or nofile=1024."""
    name, equals, limits = text.partition("=")
    if not equals:
        raise ValueError(f"invalid ulimit argument: {text}")
    soft, _, hard = limits.partition(":")
    try:
        low, high = int(soft), int(hard or soft)
    except ValueError:
        raise ValueError(f"invalid ulimit argument: {text}") from None
    if high != -1 and (low > high or low == -1):
        raise ValueError(f"ulimit soft limit must be less than or equal to hard limit: {low} > {high}")
    return {"Name": name, "Soft": low, "Hard": high}


def device(text: str) -> dict[str, str]:
    """HOST[:CONTAINER][:rwm]."""
    parts = text.split(":")
    mode = parts.pop() if len(parts) > 1 and parts[-1] and not set(parts[-1]) - set("rwm") else "rwm"
    if len(parts) > 2 or not parts[0]:
        raise ValueError(f"invalid device specification: {text}")
    return {"PathOnHost": parts[0], "PathInContainer": parts[-1], "CgroupPermissions": mode}


def read_env_file(path: str) -> list[str]:
    """NAME=VALUE lines; a bare NAME takes its value from our environment."""
    lines = []
    with open(path, encoding="utf-8") as source:
        for line in source:
            line = line.rstrip("\n").lstrip()
            if line and not line.startswith("#"):
                lines.append(line)
    return environment(lines)


def environment(entries: list[str]) -> list[str]:
    """Fill bare names from our environment; a name that is not set there is left out."""
    found = []
    for entry in entries:
        name, equals, _ = entry.partition("=")
        if not name:
            raise ValueError(f"invalid environment variable: {entry}")
        if equals:
            found.append(entry)
        elif name in os.environ:
            found.append(f"{name}={os.environ[name]}")
    return found


def pairs(entries: list[str]) -> dict[str, str]:
    """KEY=VALUE entries as a map; a bare key has an empty value."""
    found = {}
    for entry in entries:
        key, _, value = entry.partition("=")
        found[key] = value
    return found


def bind(text: str) -> str:
    """SOURCE:TARGET[:MODE] with a relative source made absolute, as the engine wants it."""
    source, colon, rest = text.partition(":")
    if colon and source.startswith((".", "~")):
        source = os.path.abspath(os.path.expanduser(source))
    return source + colon + rest


def _idmap(value: str) -> str:
    """The ids of a mount: "owner" when the key stands alone, else the mapping."""
    return "owner" if value in ("true", "1") else value


_MOUNT_WORDS = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}


_SEVERAL = ("volume-label", "volume-opt")


def comma_separated(text: str) -> list[str]:
    """The fields of one line of CSV: '"' around a field keeps its commas, as in '"volume-opt=o=addr=a,rw"'."""
    if '"' not in text:
        return text.split(",")
    import csv

    return next(csv.reader([text], strict=True), [])


def mount(text: str) -> dict[str, Any]:
    """A --mount value: type=bind,source=/a,target=/b,readonly."""
    fields: dict[str, str] = {}
    for part in comma_separated(text):
        key, equals, value = part.partition("=")
        key = key.strip().lower()
        if key in _SEVERAL and key in fields:
            value = f"{fields[key]}\0{value}"
        fields[_MOUNT_WORDS.get(key, key)] = value if equals else "true"
    result: dict[str, Any] = {"Type": fields.pop("type", "volume"), "Target": fields.pop("target", "")}
    if not result["Target"]:
        raise ValueError("target is required")
    if "source" in fields:
        source = fields.pop("source")
        result["Source"] = os.path.abspath(source) if result["Type"] == "bind" and source.startswith(".") else source
    if fields.pop("readonly", "false") in ("true", "1"):
        result["ReadOnly"] = True
    if "idmap" in fields:
        fields[f"{result['Type']}-idmap"] = fields.pop("idmap")
    _mount_options(result, fields)
    return result


def _yes(value: str) -> bool:
    return value in ("true", "1")


def _mount_options(result: dict[str, Any], fields: dict[str, str]) -> None:
    parts = {
        "BindOptions": _bind_options(fields),
        "VolumeOptions": _volume_options(fields),
        "TmpfsOptions": _tmpfs_options(fields),
        "ImageOptions": {"Subpath": fields.pop("image-subpath")} if "image-subpath" in fields else {},
    }
    for name in fields:
        raise ValueError(f"unexpected key '{name}' in '{name}={fields[name]}'")
    result.update({name: options for name, options in parts.items() if options})


_RECURSIVE = {
    "enabled": {},
    "disabled": {"NonRecursive": True},
    "writable": {"ReadOnlyNonRecursive": True},
    "readonly": {"ReadOnlyForceRecursive": True},
}


def _bind_options(fields: dict[str, str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if "bind-propagation" in fields:
        options["Propagation"] = fields.pop("bind-propagation")
    if _yes(fields.pop("bind-nonrecursive", "false")):
        options["NonRecursive"] = True
    if "bind-idmap" in fields:
        options["IDMap"] = _idmap(fields.pop("bind-idmap"))
    recursive = fields.pop("bind-recursive", "enabled")
    if recursive not in _RECURSIVE:
        raise ValueError(f"invalid value for bind-recursive: {recursive} (must be one of {', '.join(_RECURSIVE)})")
    return options | _RECURSIVE[recursive]


def _volume_options(fields: dict[str, str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    driver: dict[str, Any] = {}
    if _yes(fields.pop("volume-nocopy", "false")):
        options["NoCopy"] = True
    if "volume-idmap" in fields:
        options["IDMap"] = _idmap(fields.pop("volume-idmap"))
    if "volume-subpath" in fields:
        options["Subpath"] = fields.pop("volume-subpath")
    if "volume-driver" in fields:
        driver["Name"] = fields.pop("volume-driver")
    for key, target in (("volume-label", options), ("volume-opt", driver)):
        if key in fields:
            target["Labels" if target is options else "Options"] = pairs(fields.pop(key).split("\0"))
    return options | ({"DriverConfig": driver} if driver else {})


def _tmpfs_options(fields: dict[str, str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if "tmpfs-size" in fields:
        options["SizeBytes"] = byte_size(fields.pop("tmpfs-size"))
    if "tmpfs-mode" in fields:
        options["Mode"] = int(fields.pop("tmpfs-mode"), 8)
    return options


def security_option(text: str) -> str:
    """A seccomp profile given by path travels as its content: the engine may be elsewhere."""
    key, equals, value = text.partition("=")
    if key == "seccomp" and equals and value not in ("unconfined", "builtin") and not value.startswith("{"):
        with open(value, encoding="utf-8") as profile:
            return f"seccomp={profile.read()}"
    return text


def ip_address(text: str) -> str:
    """An IPv4 or IPv6 address."""
    import socket

    try:
        socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text.strip())
    except OSError:
        raise ValueError(f"IP address is not correctly formatted: {text}") from None
    return text.strip()


def extra_host(text: str) -> str:
    """HOST:ADDRESS or HOST=ADDRESS, an IPv6 one also in brackets, as the engine wants it."""
    at = min((text.index(each) for each in ":=" if each in text), default=0)
    host, address = text[:at], text[at + 1 :]
    if not host:
        raise ValueError(f'bad format for add-host: "{text}"')
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    if address != "host-gateway":
        try:
            ip_address(address)
        except ValueError:
            raise ValueError(f'invalid IP address in add-host: "{address}"') from None
    return f"{host}:{address}"
