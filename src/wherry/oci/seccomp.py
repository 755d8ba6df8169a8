"""Docker's seccomp profiles: from the JSON that users write to the OCI spec's linux.seccomp of one container. Pure.

A profile is selective: blocks apply or not by capabilities in the bounding set, machine and kernel version, so that a
container that is given CAP_SYS_ADMIN also gets the calls that go with it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wherry.errors import InvalidArgument

GO_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
"""uname(2) machine to the names that profiles use."""
SCMP_MACHINES = {
    "amd64": "SCMP_ARCH_X86_64",
    "arm64": "SCMP_ARCH_AARCH64",
    "arm": "SCMP_ARCH_ARM",
    "386": "SCMP_ARCH_X86",
}

Profile = Mapping[str, Any]


@functools.cache
def default_profile() -> str:
    """Return the text of the profile that containers get unless told otherwise."""
    return Path(__file__).with_name("seccomp-default.json").read_text()


def kernel_version(release: str) -> tuple[int, int]:
    """Return major and minor of a kernel release such as "6.18.44-x"; (0, 0) when it is none."""
    parts = release.split("-")[0].split(".")
    try:
        return int(parts[0]), int(parts[1])
    except (IndexError, ValueError):
        return (0, 0)


@functools.lru_cache(maxsize=64)
def profile_for(text: str, capabilities: frozenset[str], machine: str, release: str) -> dict[str, Any] | None:
    """Return linux.seccomp for a profile, a bounding set, uname's machine and release; None for an empty profile.

    The result is shared between calls and must not be changed. Raises InvalidArgument for a profile that is malformed.
    """
    try:
        profile = json.loads(text)
    except ValueError as error:
        raise InvalidArgument(f"Decoding seccomp profile failed: {error}") from error
    if not isinstance(profile, dict):
        raise InvalidArgument("Decoding seccomp profile failed: it is not a JSON object")
    if not profile.get("defaultAction") and not profile.get("syscalls"):
        return None
    try:
        return _select(profile, capabilities, GO_MACHINES.get(machine, machine), kernel_version(release))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidArgument(f"Decoding seccomp profile failed: {error!r}") from error


def _select(profile: Profile, caps: frozenset[str], machine: str, kernel: tuple[int, int]) -> dict[str, Any]:
    selected: dict[str, Any] = {"defaultAction": profile["defaultAction"], "architectures": _machines(profile, machine)}
    for name in ("defaultErrnoRet", "flags", "listenerPath", "listenerMetadata"):
        if profile.get(name) is not None:
            selected[name] = profile[name]
    selected["syscalls"] = [
        _rule(block) for block in profile.get("syscalls") or () if _applies(block, caps, machine, kernel)
    ]
    return selected


def _machines(profile: Profile, machine: str) -> list[str]:
    if profile.get("architectures") and profile.get("archMap"):
        raise InvalidArgument(
            "both 'architectures' and 'archMap' are specified in the seccomp profile, use either 'architectures' or "
            "'archMap'"
        )
    if profile.get("architectures"):
        return list(profile["architectures"])
    native = SCMP_MACHINES.get(machine)
    for entry in profile.get("archMap") or ():
        if entry["architecture"] == native:
            return [native, *(entry.get("subArchitectures") or ())]
    return []


def _applies(block: Profile, caps: frozenset[str], machine: str, kernel: tuple[int, int]) -> bool:
    without, needs = block.get("excludes") or {}, block.get("includes") or {}
    if machine in (without.get("arches") or ()) or caps & set(without.get("caps") or ()):
        return False
    if without.get("minKernel") and kernel >= kernel_version(without["minKernel"]):
        return False
    if needs.get("arches") and machine not in needs["arches"]:
        return False
    if not caps >= set(needs.get("caps") or ()):
        return False
    return not needs.get("minKernel") or kernel >= kernel_version(needs["minKernel"])


def _rule(block: Profile) -> dict[str, Any]:
    if block.get("name") and block.get("names"):
        raise InvalidArgument(
            "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'"
        )
    rule: dict[str, Any] = {
        "names": list(block.get("names") or [block["name"]]),
        "action": block["action"],
    }
    if block.get("errnoRet") is not None:
        rule["errnoRet"] = block["errnoRet"]
    if block.get("args"):
        rule["args"] = [
            {key: argument[key] for key in ("index", "value", "valueTwo", "op") if key in argument}
            for argument in block["args"]
        ]
    return rule
