"""The device filter of control groups version 2: a program of type BPF_PROG_TYPE_CGROUP_DEVICE, and bpf(2).

The kernel runs it for every open and mknod of a device with a context of three words (linux/bpf.h, struct
bpf_cgroup_dev_ctx): access_type = access << 16 | type, major, minor. It returns 1 to allow, 0 to deny. Instructions
are 8 bytes: opcode, registers (source << 4 | destination), offset s16, immediate s32 (RFC 9669).

    r2 = type, r3 = access, r4 = major, r5 = minor, r6 = major << 32 | minor
    for each type:  if it is another, jump over its entries
        for each entry:  if it does not match, jump to the next;  return its answer
    return the default

Major and minor are compared as one number: compared apart, each entry would leave the verifier with one more thing
that it knows of the major, and its time would grow with the square of their number (5 s for 200 entries).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Sequence

from wherry.kernel.libc import bind_syscall, c_int, c_uint, check

BPF_PROG_LOAD, BPF_PROG_ATTACH, BPF_PROG_GET_FD_BY_ID, BPF_OBJ_GET_INFO_BY_FD, BPF_PROG_QUERY = 5, 8, 13, 15, 16
BPF_PROG_TYPE_CGROUP_DEVICE = 15
BPF_CGROUP_DEVICE = 6
BPF_F_ALLOW_MULTI, BPF_F_REPLACE = 2, 4  # replace: kernel 5.6
BPF_DEVCG_DEV_BLOCK, BPF_DEVCG_DEV_CHAR = 1, 2
ACCESS = {"m": 1, "r": 2, "w": 4}
MAX_PROGRAMS = 64

LOAD32 = 0x61  # BPF_LDX | BPF_MEM | BPF_W
AND32, RSH32, MOV32, MOV32_REG = 0x54, 0x74, 0xB4, 0xBC
JEQ, JNE, JNE_REG = 0x15, 0x55, 0x5D
MOV64_REG, LSH64, OR64_REG, LOAD_IMMEDIATE64 = 0xBF, 0x67, 0x4F, 0x18
EXIT = 0x95
LONGEST_JUMP = 32767

NUMBERS = {"x86_64": 321, "aarch64": 280}
_bpf_call = bind_syscall(c_int, ctypes.c_void_p, c_uint)

Entry = tuple[tuple[str, int, int], str]


def _instruction(code: int, destination: int = 0, source: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    # majors and minors are unsigned; the immediate has the same 32 bits
    return struct.pack("<BBhI", code, source << 4 | destination, offset, immediate & 0xFFFFFFFF)


def _answer(allow: bool) -> bytes:
    return _instruction(MOV32, 0, immediate=int(allow)) + _instruction(EXIT)


def program(allow_all: bool, entries: Sequence[Entry]) -> bytes:
    """Return the program that answers `allow_all`, and the opposite for the entries ((type, major, minor), access).

    A number of -1 stands for any. With allow_all an entry denies an access that has any of its letters; otherwise it
    allows one that has no letter but its own.
    """
    code = [
        _instruction(LOAD32, 2, 1, 0),
        _instruction(MOV32_REG, 3, 2),
        _instruction(AND32, 2, immediate=0xFFFF),
        _instruction(RSH32, 3, immediate=16),
        _instruction(LOAD32, 4, 1, 4),
        _instruction(LOAD32, 5, 1, 8),
        _instruction(MOV64_REG, 6, 4),
        _instruction(LSH64, 6, immediate=32),
        _instruction(OR64_REG, 6, 5),
    ]
    for kind, number in (("c", BPF_DEVCG_DEV_CHAR), ("b", BPF_DEVCG_DEV_BLOCK)):
        block = b"".join(_entry(entry, allow=not allow_all) for entry in entries if entry[0][0] == kind)
        if len(block) // 8 > LONGEST_JUMP:
            raise OSError(errno.E2BIG, f"{len(entries)} device rules are too many for one program", "devices")
        code += [_instruction(JNE, 2, 0, len(block) // 8, number), block] if block else []
    code.append(_answer(allow_all))
    return b"".join(code)


def _entry(entry: Entry, *, allow: bool) -> bytes:
    (_, major, minor), access = entry
    mask = sum(ACCESS[letter] for letter in set(access))
    before, after = b"", _answer(allow)
    leaves = []  # each jumps to the next entry: code, destination, source, immediate
    if mask != sum(ACCESS.values()):
        before += _instruction(MOV32_REG, 1, 3) + _instruction(AND32, 1, immediate=mask)
        # more is asked than it allows; nothing is asked that it denies
        leaves.append((JNE_REG, 1, 3, 0) if allow else (JEQ, 1, 0, 0))
    if major >= 0 and minor >= 0:
        before += _instruction(LOAD_IMMEDIATE64, 7, immediate=minor) + _instruction(0, immediate=major)
        leaves.append((JNE_REG, 6, 7, 0))
    else:
        leaves += [(JNE, register, 0, number) for register, number in ((4, major), (5, minor)) if number >= 0]
    body = b""
    for place, (code, destination, source, immediate) in enumerate(leaves, 1):
        over = len(leaves) - place + len(after) // 8
        body += _instruction(code, destination, source, over, immediate)
    return before + body + after


def _bpf(command: int, attributes: bytes, path: str = "") -> int:
    """bpf(2); attributes is the union bpf_attr, its unused rest zero."""
    buffer = ctypes.create_string_buffer(attributes, max(len(attributes), 128))
    return check(_bpf_call(NUMBERS[os.uname().machine], command, buffer, len(buffer)), f"bpf({command})", path)


def load(code: bytes) -> int:
    """Load a program and return its descriptor (CLOEXEC).

    Raises OSError: EPERM without CAP_BPF or CAP_SYS_ADMIN, EINVAL or EACCES when the verifier refuses, ENOSYS.
    """
    instructions = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    return _bpf(
        BPF_PROG_LOAD,
        struct.pack(
            "=IIQQ",
            BPF_PROG_TYPE_CGROUP_DEVICE,
            len(code) // 8,
            ctypes.addressof(instructions),
            ctypes.addressof(licence),
        ),
    )


def attached(directory: int) -> list[int]:
    """Return the ids of the device programs attached to the group of a directory descriptor itself."""
    ids = (ctypes.c_uint32 * MAX_PROGRAMS)()
    query = ctypes.create_string_buffer(
        struct.pack("=IIIIQI", directory, BPF_CGROUP_DEVICE, 0, 0, ctypes.addressof(ids), MAX_PROGRAMS), 128
    )
    check(_bpf_call(NUMBERS[os.uname().machine], BPF_PROG_QUERY, query, len(query)), "bpf(PROG_QUERY)")
    count = struct.unpack_from("=I", query, 24)[0]
    return list(ids[:count])


def attach(path: str, code: bytes) -> None:
    """Make a program the device filter of the group at path, in place of the one that is there.

    BPF_F_ALLOW_MULTI: the parents' programs go on to apply, and one below can only take away more. An older program
    is replaced in one step, so that at no moment none applies; with several (another's work) ours is added, which
    also only takes away. Raises OSError as load does, EBADF or EINVAL for a path that is no version 2 group.
    """
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    opened = [directory]
    try:
        new = load(code)
        opened.append(new)
        old = attached(directory)
        flags, replaced = BPF_F_ALLOW_MULTI, 0
        if len(old) == 1:
            replaced = _bpf(BPF_PROG_GET_FD_BY_ID, struct.pack("=III", old[0], 0, 0), path)
            opened.append(replaced)
            flags |= BPF_F_REPLACE
        _bpf(BPF_PROG_ATTACH, struct.pack("=IIIII", directory, new, BPF_CGROUP_DEVICE, flags, replaced), path)
    finally:
        for descriptor in opened:
            os.close(descriptor)


def information(program_id: int) -> tuple[str, int]:
    """Return the tag (a hash that bpftool(8) shows as well) and the size in instructions of a loaded program.

    Raises OSError ENOENT when there is none of that id. The size is that of the translated program, 8 bytes each.
    """
    descriptor = _bpf(BPF_PROG_GET_FD_BY_ID, struct.pack("=III", program_id, 0, 0))
    try:
        # struct bpf_prog_info: type, id, tag[8], jited_prog_len, xlated_prog_len, then more than is asked for
        answer = ctypes.create_string_buffer(64)
        _bpf(BPF_OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", descriptor, len(answer), ctypes.addressof(answer)))
    finally:
        os.close(descriptor)
    return answer.raw[8:16].hex(), int(struct.unpack_from("=I", answer.raw, 20)[0]) // 8
