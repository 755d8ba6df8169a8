"""An interpreter of classic BPF over struct seccomp_data, written from bpf(4) and linux/seccomp.h for the tests."""

from __future__ import annotations

import struct

from wherry.kernel.seccomp_syscalls import AUDIT_ARCH

ALLOW = 0x7FFF0000
EPERM = 0x00050001
ENOSYS = 0x00050026
KILL = 0x80000000


def data(nr: int, machine: str, *args: int) -> bytes:
    """Return a struct seccomp_data."""
    padded = [*args, *([0] * (6 - len(args)))]
    return struct.pack("<IIQ6Q", nr, AUDIT_ARCH[machine], 0, *padded)


def run(program: bytes, packet: bytes) -> int:
    """Return the word that the program returns; raises AssertionError for what the kernel's checker refuses."""
    code = list(struct.iter_unpack("=HBBI", program))
    accumulator, counter = 0, 0
    while True:
        assert counter < len(code), "a jump leaves the program"
        operation, if_true, if_false, value = code[counter]
        counter += 1
        if operation == 0x06:
            return value
        if operation == 0x20:
            assert value % 4 == 0
            assert value < 64
            accumulator = struct.unpack_from("<I", packet, value)[0]
        elif operation == 0x54:
            accumulator &= value
        elif operation == 0x05:
            counter += value
        else:
            taken = {0x15: accumulator == value, 0x25: accumulator > value, 0x35: accumulator >= value}[operation]
            counter += if_true if taken else if_false
