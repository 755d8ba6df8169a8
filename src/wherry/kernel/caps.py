"""Capabilities: their names, and the five sets of the calling process. capabilities(7), capset(2)."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from wherry.kernel import const
from wherry.kernel.libc import bind_syscall, buffer, c_char_p, check
from wherry.kernel.process import prctl

NAMES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
    "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
)  # fmt: skip
BITS = {name: bit for bit, name in enumerate(NAMES)}

_VERSION_3 = 0x20080522  # two 32-bit words per set, since 2.6.26
_HEADER = struct.pack("Ii", _VERSION_3, 0)
_capget = bind_syscall(c_char_p, c_char_p)
_capset = bind_syscall(c_char_p, c_char_p)
_CAPGET = const.syscall_number("capget")
_CAPSET = const.syscall_number("capset")


def mask(names: Iterable[str]) -> int:
    """Return the set of capability names as a bit mask. Raises OSError EINVAL for a name that is none."""
    result = 0
    for name in names:
        bit = BITS.get(name)
        if bit is None:
            raise OSError(22, "unknown capability", name)
        result |= 1 << bit
    return result


def names(bits: int) -> list[str]:
    """Return the names of the capabilities in a bit mask; bits that have no name are left out."""
    return [name for bit, name in enumerate(NAMES) if bits >> bit & 1]


def get() -> tuple[int, int, int]:
    """Return the effective, permitted and inheritable sets of the calling thread."""
    data = buffer(24)
    check(_capget(_CAPGET, _HEADER, data), "capget")
    low = struct.unpack("6I", data.raw)
    return low[0] | low[3] << 32, low[1] | low[4] << 32, low[2] | low[5] << 32


def set_sets(effective: int, permitted: int, inheritable: int) -> None:
    """Set the three sets of the calling thread. Raises OSError EPERM for permitted bits that it does not have."""
    word = 0xFFFFFFFF
    data = struct.pack(
        "6I",
        effective & word, permitted & word, inheritable & word,
        effective >> 32, permitted >> 32, inheritable >> 32,
    )  # fmt: skip
    check(_capset(_CAPSET, _HEADER, data), "capset")


def bounding() -> int:
    """Return the bounding set, which ends where this kernel knows no more capabilities (EINVAL)."""
    result = 0
    for bit in range(64):
        try:
            result |= prctl(const.PR_CAPBSET_READ, bit) << bit
        except OSError:
            break
    return result


def limit_bounding(keep: int) -> None:
    """Drop everything but `keep` from the bounding set; needs CAP_SETPCAP.

    One prctl(2) per capability that goes; those newer than `NAMES` go as well. Raises OSError EPERM.
    """
    for bit in range(64):
        if keep >> bit & 1:
            continue
        try:
            prctl(const.PR_CAPBSET_DROP, bit)
        except OSError as error:
            if error.errno == 22:  # past the last capability of this kernel
                return
            raise


def clear_ambient() -> None:
    """Empty the ambient set of the calling thread."""
    prctl(const.PR_CAP_AMBIENT, const.PR_CAP_AMBIENT_CLEAR_ALL)


def raise_ambient(bits: int) -> None:
    """Add to the ambient set. Raises OSError EPERM for bits that are not both permitted and inheritable."""
    for bit in range(bits.bit_length()):
        if bits >> bit & 1:
            prctl(const.PR_CAP_AMBIENT, const.PR_CAP_AMBIENT_RAISE, bit)
