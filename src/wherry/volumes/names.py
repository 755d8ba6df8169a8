"""Names of volumes, and of the driver."""

from __future__ import annotations

import re

from wherry.errors import InvalidArgument, NotFound

DRIVER = "local"
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+\Z")
LONGEST = 255
"""NAME_MAX of Linux: a volume's name is that of its folder."""


def check(name: str) -> str:
    """Return a name that a volume may have; raises InvalidArgument with dockerd's text."""
    if len(name) == 1:
        raise InvalidArgument(
            f"create {name}: volume name is too short, names should be at least two alphanumeric characters"
        )
    if not NAME.match(name):
        raise InvalidArgument(
            f'create {name}: "{name}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. '
            "If you intended to pass a host directory, use absolute path"
        )
    if len(name) > LONGEST:
        raise InvalidArgument(f"create {name}: a volume name has at most {LONGEST} characters")
    return name


def check_driver(name: str, driver: str) -> None:
    """Raise NotFound, with the text that clients match on, for a driver that is not there."""
    if driver not in ("", DRIVER, "default"):
        raise NotFound(f'create {name}: error looking up volume plugin {driver}: plugin "{driver}" not found')
