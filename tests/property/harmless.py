"""Takes out of a request what could hurt the machine that the tests run on. Everything else is sent as it was made.

The engine has mount and network namespaces of its own, but the disk, the devices, the control groups and the other
namespaces are the machine's. So whatever is mounted from the host is the folder made for it, devices are those of
/dev/null's kind, no namespace is the host's, and the programs are few and tame (`programs`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

SCRIPT = ["sh", "-c", "echo a; echo b >&2; sleep 1"]
PROGRAMS = (["true"], ["sleep", "5"], ["sleep", "1000"], ["cat"], SCRIPT, ["nosuch"])
CHECKS = (["NONE"], ["CMD", "true"], ["CMD-SHELL", "exit 1"], [])


def harmless(value: Any, folder: str) -> Any:
    """Return a request's body with everything dangerous replaced. folder: what may be mounted."""
    if isinstance(value, list):
        return [harmless(each, folder) for each in value]
    if not isinstance(value, dict):
        return value
    return {key: RULES.get(key.lower(), _deeper)(each, folder) for key, each in value.items()}


def _deeper(value: Any, folder: str) -> Any:
    return harmless(value, folder)


def _bind(text: Any, folder: str) -> Any:
    if not isinstance(text, str) or not text.lstrip().startswith(("/", ".", "~")):
        return text
    return folder + text[len(text.partition(":")[0]) :]


def _binds(value: Any, folder: str) -> Any:
    return [_bind(each, folder) for each in value] if isinstance(value, list) else _bind(value, folder)


def _options(value: Any, folder: str) -> Any:
    """What a volume is made of: a file system in memory, the folder, or something that no driver knows."""
    if not isinstance(value, dict):
        return value
    return {
        key: _bind(each, folder)
        for key, each in value.items()
        if key.lower() not in ("type", "device", "o") or each in ("tmpfs", "size=1m", "none", "bind", folder)
    }


def _program(value: Any, folder: str) -> Any:
    """One of the programs, or something that is no program; a word of ours for any other word."""
    if isinstance(value, str) and value:
        return "true"
    words = isinstance(value, list) and value and all(isinstance(each, str) for each in value)
    return ["true", *value] if words and value not in PROGRAMS else value


def _check(value: Any, folder: str) -> Any:
    words = isinstance(value, list) and value and all(isinstance(each, str) for each in value)
    return ["CMD", "true", *value] if words and value not in CHECKS else value


def _namespace(value: Any, folder: str) -> Any:
    return "private" if isinstance(value, str) and "host" in value else value


def _device(value: Any, folder: str) -> Any:
    return "/dev/null" if isinstance(value, str) and value.startswith("/") else value


def _nowhere(value: Any, folder: str) -> Any:
    return "" if isinstance(value, str) else value


RULES: dict[str, Callable[[Any, str], Any]] = {
    "binds": _binds,
    "source": _bind,
    "options": _options,
    "driveropts": _options,
    "cmd": _program,
    "entrypoint": _program,
    "test": _check,
    "pathonhost": _device,
    "cgroupparent": _nowhere,
    **dict.fromkeys(("pidmode", "ipcmode", "utsmode", "usernsmode", "cgroupnsmode"), _namespace),
}
