"""The Dockerfile instructions that docker import --change and docker commit --change accept, applied to a config.

Each instruction is one function from (config so far, arguments) to nothing; the config is a dict in Docker's names.
"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from typing import Any

from wherry.errors import InvalidArgument
from wherry.images import words

Config = dict[str, Any]
_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/([a-z0-9]+))?\Z", re.IGNORECASE)
_PROTOCOLS = ("tcp", "udp", "sctp")
_DURATION = re.compile(r"(?:\d{1,10}(?:\.\d{1,9})?(?:h|ms|m|s|us|µs|ns))+\Z")
_PIECE = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s|us|µs|ns)")
_NANOSECONDS = {
    "h": 3_600_000_000_000, "m": 60_000_000_000, "s": 1_000_000_000, "ms": 1_000_000, "us": 1000, "µs": 1000, "ns": 1,
}  # fmt: skip
_HEALTH_FLAGS = {
    "--interval": "Interval", "--timeout": "Timeout", "--start-period": "StartPeriod",
    "--start-interval": "StartInterval", "--retries": "Retries",
}  # fmt: skip
SHELL = ["/bin/sh", "-c"]


def apply(config: Config, changes: list[str]) -> None:
    """Apply instructions in order. Raises InvalidArgument with Docker's texts."""
    lines = words.logical_lines("\n".join(changes))
    if changes and not lines:
        raise InvalidArgument("file with no instructions")
    seen = set()
    for line in lines:
        name, _, rest = line.partition(" ")
        instruction = INSTRUCTIONS.get(name.upper())
        if instruction is None:
            raise InvalidArgument(f"{name.upper()} is not a valid change command")
        instruction(config, rest.strip())
        seen.add(instruction)
        if instruction is _entrypoint and _cmd not in seen:
            config["Cmd"] = None  # it was meant for the entry point before


def _environment(config: Config) -> dict[str, str]:
    return dict(each.partition("=")[::2] for each in config.get("Env") or ())


def json_words(text: str) -> list[str] | None:
    """Return the strings of the JSON form of an instruction, None when it is not in that form."""
    if not text.startswith("["):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, list):
        return None
    if not all(isinstance(each, str) for each in value):
        raise InvalidArgument("when using JSON array syntax, arrays must be comprised of strings only")
    return value


def _command(text: str) -> list[str] | None:
    given = json_words(text)
    if given is not None:
        return given
    return [*SHELL, text] if text else None


def _pairs(name: str, config: Config, text: str) -> list[tuple[str, str]]:
    """Return KEY=VALUE pairs, or the one pair of the old form "KEY VALUE WITH BLANKS"."""
    parts = words.split(text)
    if not parts:
        raise InvalidArgument(f"{name} requires at least one argument")
    variables = _environment(config)
    if "=" not in parts[0]:
        key, blank, value = text.partition(" ")
        if not blank:
            raise InvalidArgument(f"{name} must have two arguments")
        return [(words.expand(key, variables), words.expand(value.strip(), variables))]
    pairs = []
    for part in parts:
        if "=" not in part:
            raise InvalidArgument(
                f"Syntax error - can't find = in \"{part}\". Must be of the form: name=value"
            )
        key, _, value = part.partition("=")
        pairs.append((words.expand(key, variables), words.expand(value, variables)))
    if not all(key for key, _ in pairs):
        raise InvalidArgument(f"{name} names can not be blank")
    return pairs


def _env(config: Config, text: str) -> None:
    environment = _environment(config) | dict(_pairs("ENV", config, text))
    config["Env"] = [f"{key}={value}" for key, value in environment.items()]


def _label(config: Config, text: str) -> None:
    config["Labels"] = (config.get("Labels") or {}) | dict(_pairs("LABEL", config, text))


def _cmd(config: Config, text: str) -> None:
    config["Cmd"] = _command(text) if text else list(SHELL)


def _entrypoint(config: Config, text: str) -> None:
    config["Entrypoint"] = _command(text)


def _expose(config: Config, text: str) -> None:
    ports = dict(config.get("ExposedPorts") or {})
    variables = _environment(config)
    parts = [words.expand(part, variables) for part in words.split(text)]
    if not parts:
        raise InvalidArgument("EXPOSE requires at least one argument")
    for part in parts:
        match = _PORT.match(part)
        first = int(match[1]) if match else 0
        last = int(match[2] or match[1]) if match else 0
        if match is None or not 0 < first <= last < 65536:
            raise InvalidArgument(f"Invalid containerPort: {part[:100]}")
        protocol = (match[3] or "tcp").lower()
        if protocol not in _PROTOCOLS:
            raise InvalidArgument(f"Invalid proto: {match[3][:100]}")
        ports |= {f"{number}/{protocol}": {} for number in range(first, last + 1)}
    config["ExposedPorts"] = ports


def _one(name: str, config: Config, text: str) -> str:
    parts = words.split(text)
    if len(parts) != 1:
        raise InvalidArgument(f"{name} requires exactly one argument")
    return words.expand(parts[0], _environment(config))


def _user(config: Config, text: str) -> None:
    config["User"] = _one("USER", config, text)


def _volume(config: Config, text: str) -> None:
    given = json_words(text)
    variables = _environment(config)
    paths = [words.expand(part, variables) for part in (words.split(text) if given is None else given)]
    if not paths:
        raise InvalidArgument("VOLUME requires at least one argument")
    if not all(path.strip() for path in paths):
        raise InvalidArgument("VOLUME specified can not be an empty string")
    config["Volumes"] = (config.get("Volumes") or {}) | {path: {} for path in paths}


def _workdir(config: Config, text: str) -> None:
    if not text:
        raise InvalidArgument("WORKDIR requires exactly one argument")
    path = words.expand(text, _environment(config))
    parts: list[str] = []
    for part in (path if path.startswith("/") else f"{config.get('WorkingDir') or '/'}/{path}").split("/"):
        if part == "..":
            parts[-1:] = []
        elif part not in ("", "."):
            parts.append(part)
    config["WorkingDir"] = "/" + "/".join(parts)


def _stop_signal(config: Config, text: str) -> None:
    name = _one("STOPSIGNAL", config, text)
    bare = name.upper().removeprefix("SIG")
    known = {each.name.removeprefix("SIG") for each in signal.Signals}
    real_time = re.fullmatch(r"RTM(?:IN\+([1-9]|1[0-5])|AX-([1-9]|1[0-4]))", bare)
    number = name.isdigit() and 0 < int(name[:4]) < 65
    if not (bare in known or real_time or number):
        raise InvalidArgument(f"invalid signal: {name[:100]}")
    config["StopSignal"] = name


def duration(text: str) -> int:
    """Return a Go duration ("1m30s") in ns. Raises InvalidArgument."""
    if text == "0":
        return 0
    if not _DURATION.match(text):
        raise InvalidArgument(f'time: invalid duration "{text[:100]}"')
    return sum(int(float(number) * _NANOSECONDS[unit]) for number, unit in _PIECE.findall(text))


def _health_flags(text: str) -> tuple[dict[str, int], str]:
    found: dict[str, int] = {}
    while text.startswith("--"):
        flag, _, text = text.partition(" ")
        text = text.lstrip()
        name, _, value = flag.partition("=")
        if name not in _HEALTH_FLAGS:
            raise InvalidArgument(f"unknown flag: {name[:100]}")
        found[_HEALTH_FLAGS[name]] = _retries(value) if name == "--retries" else _interval(name, value)
    return found, text


def _retries(value: str) -> int:
    if not re.match(r"-?\d{1,9}\Z", value, re.ASCII):
        raise InvalidArgument(f'strconv.ParseInt: parsing "{value[:100]}": invalid syntax')
    if value.startswith("-"):
        raise InvalidArgument(f"--retries cannot be negative ({value})")
    return int(value)


def _interval(name: str, value: str) -> int:
    length = -duration(value[1:]) if value.startswith("-") else duration(value)
    if length and length < 1_000_000:
        raise InvalidArgument(f'Interval "{name[2:]}" cannot be less than 1ms')
    return length


def _healthcheck(config: Config, text: str) -> None:
    flags, rest = _health_flags(text)
    kind, _, command = rest.partition(" ")
    command = command.strip()
    if kind.upper() == "NONE":
        if command:
            raise InvalidArgument("HEALTHCHECK NONE takes no arguments")
        config["Healthcheck"] = {"Test": ["NONE"]}
        return
    if kind.upper() != "CMD":
        raise InvalidArgument(f'Unknown type "{kind[:100].upper()}" in HEALTHCHECK (try CMD)' if kind else
                              "HEALTHCHECK requires at least one argument")
    if not command:
        raise InvalidArgument("Missing command after HEALTHCHECK CMD")
    given = json_words(command)
    config["Healthcheck"] = {"Test": ["CMD-SHELL", command] if given is None else ["CMD", *given], **flags}


def _onbuild(config: Config, text: str) -> None:
    trigger = text.partition(" ")[0].upper()
    if not trigger:
        raise InvalidArgument("ONBUILD requires at least one argument")
    if trigger in ("ONBUILD", "MAINTAINER", "FROM"):
        what = "Chaining ONBUILD via `ONBUILD ONBUILD`" if trigger == "ONBUILD" else trigger
        raise InvalidArgument(f"{what} isn't allowed as an ONBUILD trigger" if trigger != "ONBUILD" else
                              f"{what} isn't allowed")
    config["OnBuild"] = [*(config.get("OnBuild") or ()), text]


INSTRUCTIONS: dict[str, Callable[[Config, str], None]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _onbuild,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
