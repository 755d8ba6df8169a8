"""Linux capabilities by name: which ones a container gets. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from wherry.errors import InvalidArgument
from wherry.kernel.caps import NAMES

ALL = NAMES
"""In the order of their numbers."""

DEFAULT = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL",
    "CAP_AUDIT_WRITE",
)  # fmt: skip
"""Those of every container, CapBnd 00000000a80425fb."""

EVERY = "ALL"


def normalize(names: Iterable[str], field: str, available: Sequence[str] = ALL) -> list[str]:
    """Return names with CAP_ and in capitals, or ALL; raises InvalidArgument for others, naming the field."""
    found = []
    for name in names:
        upper = name.upper()
        if upper == EVERY:
            found.append(EVERY)
            continue
        full = upper if upper.startswith("CAP_") else f"CAP_{upper}"
        if full not in ALL:
            raise InvalidArgument(f'invalid {field}: unknown capability: "{full}"')
        if full not in available:
            raise InvalidArgument(
                f"invalid {field}: capability not supported by your kernel or not available in the current "
                f'environment: "{full}"'
            )
        found.append(full)
    return found


def tweak(add: Iterable[str], drop: Iterable[str], available: Sequence[str], *, privileged: bool) -> tuple[str, ...]:
    """Return the bounding set of a container; available: what this engine has itself."""
    if privileged:
        return tuple(available)
    added, dropped = normalize(add, "CapAdd", available), normalize(drop, "CapDrop")
    if EVERY in added:
        return tuple(name for name in available if name not in dropped)
    base = [] if EVERY in dropped else [name for name in DEFAULT if name in available and name not in dropped]
    return tuple(dict.fromkeys([*base, *(name for name in added if name != EVERY)]))
