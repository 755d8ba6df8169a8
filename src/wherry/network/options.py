"""The options of a bridge network (-o), as dockerd names them. PURE."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping

from wherry.errors import InvalidArgument, NotImplementedHere
from wherry.models import booleans
from wherry.network.config import BRIDGE_NAME

PREFIX = "com.docker.network.bridge."
NAME = f"{PREFIX}name"
ICC = f"{PREFIX}enable_icc"
MASQUERADE = f"{PREFIX}enable_ip_masquerade"
HOST_BINDING = f"{PREFIX}host_binding_ipv4"
DEFAULT_BRIDGE = f"{PREFIX}default_bridge"
MTU = "com.docker.network.driver.mtu"
ENABLE_IPV4 = "com.docker.network.enable_ipv4"
ENABLE_IPV6 = "com.docker.network.enable_ipv6"

_REFUSED = {
    f"{PREFIX}gateway_mode_ipv4": ("nat",),
    f"{PREFIX}inhibit_ipv4": booleans.FALSE,
    f"{PREFIX}trusted_host_interfaces": ("",),
    "com.docker.network.container_iface_prefix": ("eth",),
}
"""Options that dockerd has and this engine does not yet, with the values that ask for nothing."""


def flag(options: Mapping[str, str], name: str, default: bool) -> bool:
    """Return a yes-or-no option; raises InvalidArgument for anything else."""
    text = options.get(name)
    if text is None:
        return default
    value = booleans.parse(text)
    if value is None:
        raise InvalidArgument(
            f'failed to parse {name} value: {text} (strconv.ParseBool: parsing "{text}": invalid syntax)'
        )
    return value


def switch(options: Mapping[str, str], name: str, default: bool) -> bool:
    """Return a yes-or-no option of networks of every driver; raises InvalidArgument for anything else."""
    text = options.get(name)
    value = default if text is None else booleans.parse(text)
    if value is None:
        raise InvalidArgument(f'driver-opt "{name}" is not a valid bool')
    return value


def mtu(options: Mapping[str, str], default: int) -> int:
    """Return the MTU; raises InvalidArgument."""
    text = options.get(MTU)
    if not text:
        return default
    try:
        value = int(text)
    except ValueError:
        raise InvalidArgument(
            f'failed to parse {MTU} value: {text} (strconv.Atoi: parsing "{text}": invalid syntax)'
        ) from None
    if value == 0:
        return default
    if not 68 <= value <= 65535:
        raise InvalidArgument(f"invalid MTU number: {value}")
    return value


def _bridge(options: Mapping[str, str]) -> None:
    name = options.get(NAME, "")
    if name and not BRIDGE_NAME.fullmatch(name):
        raise InvalidArgument(f"invalid bridge name {name!r}: at most 15 letters, digits, '_', '.' or '-'")


def _host_binding(options: Mapping[str, str]) -> None:
    text = options.get(HOST_BINDING, "")
    try:
        if text:
            ipaddress.IPv4Address(text)
    except ValueError:
        raise InvalidArgument(f"failed to parse {HOST_BINDING} value: {text} (nil ip)") from None


def check(options: Mapping[str, str]) -> None:
    """Raise InvalidArgument for values that are none, NotImplementedHere for what is not there yet.

    A name that nobody knows is kept and shown, as dockerd does.
    """
    tests: tuple[Callable[[Mapping[str, str]], object], ...] = (
        _bridge,
        _host_binding,
        lambda given: flag(given, ICC, True),
        lambda given: flag(given, MASQUERADE, True),
        lambda given: mtu(given, 0),
    )
    for test in tests:
        test(options)
    for name, harmless in _REFUSED.items():
        if name in options and options[name] not in harmless:
            raise NotImplementedHere(f"the network option {name}={options[name]}: this engine does not have it yet")
