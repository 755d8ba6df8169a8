"""Names of volumes, and of the driver."""

from __future__ import annotations

import re

from wherry.errors import InvalidArgument
from wherry.volumes.records import LOCAL

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+\Z")
LONGEST = 255
"""NAME_MAX of Linux: a volume's name is that of its folder."""


def check(name: str) -> str:
    """Return a name that a volume may have; raises InvalidArgument with dockerd's text."""
    if len(name.encode()) == 1:
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


def driver(name: str) -> str:
    """Return the driver that a client means; whether it is there, `remote` knows."""
    return LOCAL if name in ("", "default") else name
