"""KS-04: every system call number under the default profile, in a real process, on all three ABIs of x86_64.

No call runs: a first filter answers those whose sixth argument is MAGIC with errno PASSED, and the kernel gives an
allowed call the answer of the stricter filter, and of two equal actions that of the newer one.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import json
import mmap
import os
import platform
import socket
import struct

import pytest

from tests.unit.kernel.classic_bpf import ALLOW
from tests.unit.kernel.profile_table import expected_word
from wherry.kernel.seccomp_bpf import compile_filter, load_filter
from wherry.kernel.seccomp_syscalls import X32_BIT, numbers
from wherry.oci.capabilities import DEFAULT
from wherry.oci.seccomp import default_profile, profile_for

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="machine code of x86_64"),
]

MAGIC = 0x5EC0
PASSED = 777
UNFILTERED = {335, 336}
"""uretprobe and uprobe: the kernel makes these calls itself, in code it has put into the process, and since 6.14 lets
them pass whatever a filter says; made from elsewhere they end the process or fail."""
LIBC = ctypes.CDLL(None, use_errno=True)

# edi = number; int 0x80 takes ebx, ecx, edx, esi, edi, ebp: the sixth is MAGIC
INT80 = (
    bytes.fromhex("53 55 89f8 89f3 31c9 31d2 31f6 31ff bd") + struct.pack("<I", MAGIC) + bytes.fromhex("cd80 5d5b c3")
)


def harness():
    """A filter that answers PASSED where the sixth argument is MAGIC."""
    answer = struct.pack("=HBBI", 0x06, 0, 0, 0x00050000 | PASSED)
    allow = struct.pack("=HBBI", 0x06, 0, 0, ALLOW)
    return (
        struct.pack("=HBBI", 0x20, 0, 0, 16 + 5 * 8) + struct.pack("=HBBI", 0x15, 0, 1, MAGIC) + answer + allow
    )  # fmt: skip


def confined(action):
    """Run action() in a child under both filters and return its JSON."""
    program = compile_filter(profile_for(default_profile(), frozenset(DEFAULT), "x86_64", platform.release()))
    outer = harness()
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            load_filter(outer)
            load_filter(program)
            theirs.sendall(json.dumps(action()).encode() + b"\n")
        finally:
            os._exit(0)
    theirs.close()
    with ours, ours.makefile() as file:
        line = file.readline()
    os.waitpid(pid, 0)
    return json.loads(line)


def call(number, *arguments):
    padded = [*arguments, *[0] * (5 - len(arguments)), MAGIC]
    LIBC.syscall.restype = ctypes.c_long
    result = LIBC.syscall(*map(ctypes.c_long, [number, *padded]))
    assert result == -1
    return ctypes.get_errno()


def all_by_int80(memory):
    code = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))
    return [-code(number) for number in range(601)]


def wanted(machine, number):
    word = expected_word(machine, number)
    return PASSED if word == ALLOW else None if word is None else word & 0xFFFF


@pytest.mark.parametrize(("machine", "base"), [("x86_64", 0), ("x32", X32_BIT)])
def test_every_number(machine, base):
    seen = confined(lambda: [PASSED if base + number in UNFILTERED else call(base + number) for number in range(601)])
    differing = {
        number: (got, wanted(machine, base + number))
        for number, got in enumerate(seen)
        if wanted(machine, base + number) not in (None, got) and base + number not in UNFILTERED
    }
    assert differing == {}
    assert seen.count(PASSED) > 250


def test_every_number_of_32_bits():
    with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as memory:
        memory.write(INT80)
        seen = confined(functools.partial(all_by_int80, memory))
    if seen[20] == errno.ENOSYS:
        pytest.skip("the kernel has no 32-bit system calls")
    differing = {n: (got, wanted("x86", n)) for n, got in enumerate(seen) if wanted("x86", n) not in (None, got)}
    assert differing == {}
    assert seen.count(PASSED) > 250


def test_what_arguments_decide():
    table = numbers("x86_64")
    probes = {
        "clone3": (table["clone3"],),
        "unshare": (table["unshare"], 0x10000000),
        "clone user namespace": (table["clone"], 0x10000011),
        "clone": (table["clone"], 17),
        "AF_INET": (table["socket"], 2, 1, 0),
        "AF_ALG": (table["socket"], 38, 5, 0),
        "AF_ALG, upper half": (table["socket"], 38 | 1 << 32, 5, 0),
        "AF_VSOCK": (table["socket"], 40, 1, 0),
        "personality": (table["personality"], 0xFFFFFFFF),
        "personality READ_IMPLIES_EXEC": (table["personality"], 0x400000),
    }
    seen = confined(lambda: {name: call(*given) for name, given in probes.items()})
    assert seen == {
        "clone3": errno.ENOSYS,
        "unshare": errno.EPERM,
        "clone user namespace": errno.EPERM,
        "clone": PASSED,
        "AF_INET": PASSED,
        "AF_ALG": errno.EPERM,
        "AF_ALG, upper half": errno.EPERM,
        "AF_VSOCK": errno.EPERM,
        "personality": PASSED,
        "personality READ_IMPLIES_EXEC": errno.EPERM,
    }


def test_status_says_filtered():
    def status():
        with open("/proc/self/status", encoding="ascii") as file:
            return dict(line.strip().split(":\t", 1) for line in file if line.startswith(("Seccomp", "Speculation")))

    seen = confined(status)
    assert seen["Seccomp"] == "2"
    assert seen["Seccomp_filters"] == "2"


def test_upper_half_reaches_the_kernel_without_the_filter():
    """The reason for comparing int arguments as such: the kernel drops the upper half and makes the socket."""
    LIBC.syscall.restype = ctypes.c_long
    plain = LIBC.syscall(*map(ctypes.c_long, [numbers("x86_64")["socket"], socket.AF_UNIX | 1 << 32, 1, 0]))
    assert plain >= 0
    os.close(plain)
