"""--security-opt in all its forms. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from wherry.errors import InvalidArgument
from wherry.models import booleans

UNCONFINED = "unconfined"
BUILTIN = "builtin"


@dataclass(frozen=True, slots=True)
class SecurityOptions:
    """no_new_privileges: None = not said. seccomp: "" = not said, "unconfined", "builtin" or a profile's JSON."""

    no_new_privileges: bool | None = None
    writable_cgroups: bool = False
    seccomp: str = ""
    apparmor: str = ""
    labels: tuple[str, ...] = ()


def parse(options: Iterable[str]) -> SecurityOptions:
    """Return what the options say; raises InvalidArgument with dockerd's words."""
    found = SecurityOptions()
    for option in options:
        if option == "no-new-privileges":
            found = replace(found, no_new_privileges=True)
        elif option == "disable":
            found = replace(found, labels=(*found.labels, "disable"))
        else:
            found = _parse_pair(found, option)
    return found


def _parse_pair(found: SecurityOptions, option: str) -> SecurityOptions:
    key, separator, value = option.partition("=")
    if not separator:
        key, separator, value = option.partition(":")  # the form before Docker 1.11
    if not separator:
        raise InvalidArgument(f'invalid --security-opt 1: "{option}"')
    if key == "no-new-privileges":
        return replace(found, no_new_privileges=_flag(value, option))
    if key == "writable-cgroups":
        return replace(found, writable_cgroups=_flag(value, option))
    if key == "seccomp":
        return replace(found, seccomp=value)
    if key == "apparmor":
        return replace(found, apparmor=value)
    if key == "label":
        return replace(found, labels=(*found.labels, value))
    raise InvalidArgument(f'invalid --security-opt 2: "{option}"')


def _flag(value: str, option: str) -> bool:
    meant = booleans.parse(value)
    if meant is None:
        raise InvalidArgument(f'invalid --security-opt 2: "{option}"')
    return meant
