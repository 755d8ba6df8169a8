"""The options of one endpoint (driver-opt), and the names of a container's interfaces. PURE.

    com.docker.network.endpoint.ifname=lan0                              the name of its interface
    com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.KEY=VALUE   sysctls of its interface, more after commas

The docker command writes options in small letters, IFNAME too. Options that nobody knows are kept, as with dockerd.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from wherry.errors import InvalidArgument

IFNAME = "com.docker.network.endpoint.ifname"
SYSCTLS = "com.docker.network.endpoint.sysctls"

_NAME = re.compile(r"(?!(?:\.|\.\.|lo|all|default)$)[A-Za-z0-9_.@-]{1,15}")
"""Part of what the kernel takes (net/core/dev.c, dev_valid_name): no blanks and nothing that is a path in /proc/sys."""

_SYSCTL = re.compile(r"net\.(ipv4|ipv6|mpls)\.([a-z0-9_]+)\.ifname\.([a-z0-9_]+)", re.IGNORECASE)


def check(options: Mapping[str, str]) -> None:
    """Raise InvalidArgument for an option whose value can never be met."""
    name = options.get(IFNAME, "")
    if name and not is_name(name):
        raise InvalidArgument(f"invalid {IFNAME} {name!r}: at most 15 letters, digits, '_', '.', '@' or '-'")
    sysctls(options, "eth0")


def is_name(name: str) -> bool:
    """Whether an interface can have that name."""
    return bool(_NAME.fullmatch(name))


def sysctls(options: Mapping[str, str], interface: str) -> dict[str, str]:
    """Return the sysctls of an endpoint with this interface, by path below /proc/sys. Raises InvalidArgument."""
    found = {}
    for text in filter(None, options.get(SYSCTLS, "").split(",")):
        name, equals, value = text.partition("=")
        if not equals:
            raise InvalidArgument(f"expected sysctl '{text}' to have format name=value")
        match = _SYSCTL.fullmatch(name)
        if match is None:
            raise InvalidArgument(f"expected sysctl '{text}' to have format net.X.Y.IFNAME.Z")
        family, folder, key = match.groups()
        found[f"net/{family}/{folder}/{interface}/{key}"] = value
    return found


def interfaces(wanted: Sequence[tuple[Mapping[str, str], str]], taken: Collection[str] = ()) -> list[str]:
    """Return the names of a container's new interfaces, in this order: those asked for, else the first free numbers.

    wanted: for each the options of the endpoint, and what its name begins with. taken: names of those that it has.
    Raises InvalidArgument when a name is asked for that another one has.
    """
    asked = [options.get(IFNAME, "") for options, _ in wanted]
    used = set(taken)
    for name in filter(None, asked):
        if name in used:
            raise InvalidArgument(f"interface name {name} is asked for, but another interface of the container has it")
        used.add(name)
    found = []
    for name, (_, prefix) in zip(asked, wanted, strict=True):
        chosen = name or next(each for n in range(len(used) + 1) if (each := f"{prefix}{n}") not in used)
        used.add(chosen)
        found.append(chosen)
    return found
