"""The options of a bridge network (-o), as dockerd names them. PURE."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping

from wherry.errors import InvalidArgument
from wherry.models import booleans
from wherry.network.config import BRIDGE_NAME

PREFIX = "com.docker.network.bridge."
NAME = f"{PREFIX}name"
ICC = f"{PREFIX}enable_icc"
MASQUERADE = f"{PREFIX}enable_ip_masquerade"
HOST_BINDING = f"{PREFIX}host_binding_ipv4"
HOST_BINDING6 = f"{PREFIX}host_binding_ipv6"
"""As HOST_BINDING; dockerd has no such option, and ignores it."""
INHIBIT_IPV4 = f"{PREFIX}inhibit_ipv4"
GATEWAY_MODE = f"{PREFIX}gateway_mode_ipv4"
GATEWAY_MODE6 = f"{PREFIX}gateway_mode_ipv6"
TRUSTED = f"{PREFIX}trusted_host_interfaces"
DEFAULT_BRIDGE = f"{PREFIX}default_bridge"
MTU = "com.docker.network.driver.mtu"
ENABLE_IPV4 = "com.docker.network.enable_ipv4"
ENABLE_IPV6 = "com.docker.network.enable_ipv6"

IFACE_PREFIX = "com.docker.network.container_iface_prefix"

ISOLATED = "isolated"
GATEWAY_MODES = ("nat", "nat-unprotected", "routed", ISOLATED)
_INTERFACE = re.compile(r"[^\s/:]{1,15}")
_LONGEST_PREFIX = 12
"""Of the 15 bytes of an interface's name, so that a number has room."""

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


def _host_bindings(options: Mapping[str, str]) -> None:
    for name, kind in ((HOST_BINDING, ipaddress.IPv4Address), (HOST_BINDING6, ipaddress.IPv6Address)):
        text = options.get(name, "")
        try:
            if text:
                kind("" if "%" in text else text)
        except ValueError:
            raise InvalidArgument(f"failed to parse {name} value: {text} (nil ip)") from None


def gateway_mode(options: Mapping[str, str], name: str, default: str = "nat") -> str:
    """Return how containers of one family are reached from outside; raises InvalidArgument."""
    mode = options.get(name) or default
    if mode not in GATEWAY_MODES:
        raise InvalidArgument(f"failed to parse {name} value: {mode} (unknown gateway mode {mode})")
    return mode


def trusted(options: Mapping[str, str]) -> tuple[str, ...]:
    """Return the links of the host from which every port of the containers can be reached; raises InvalidArgument."""
    names = tuple(name for name in options.get(TRUSTED, "").split(":") if name)
    for name in names:
        if not _INTERFACE.fullmatch(name):
            raise InvalidArgument(f"invalid {TRUSTED} {name!r}: not the name of a network interface")
    return names


def _iface_prefix(options: Mapping[str, str]) -> None:
    prefix = options.get(IFACE_PREFIX, "")
    if prefix and (len(prefix) > _LONGEST_PREFIX or not BRIDGE_NAME.fullmatch(prefix)):
        raise InvalidArgument(
            f"invalid {IFACE_PREFIX} {prefix!r}: at most {_LONGEST_PREFIX} letters, digits, '_', '.' or '-'"
        )


def check(options: Mapping[str, str], *, internal: bool = False) -> None:
    """Raise InvalidArgument for values that are none. A name that nobody knows is kept and shown, as dockerd does."""
    tests: tuple[Callable[[Mapping[str, str]], object], ...] = (
        _bridge,
        _host_bindings,
        _iface_prefix,
        trusted,
        lambda given: flag(given, INHIBIT_IPV4, False),
        lambda given: flag(given, ICC, True),
        lambda given: flag(given, MASQUERADE, True),
        lambda given: mtu(given, 0),
    )
    for test in tests:
        test(options)
    modes = [gateway_mode(options, name) for name in (GATEWAY_MODE, GATEWAY_MODE6)]
    if ISOLATED in modes and not internal:
        raise InvalidArgument("gateway mode 'isolated' can only be used for an internal network")
