"""Assemble one small program for x86_64 or aarch64 and wrap it into a static ELF executable.

The source is text, one instruction a line, ``;`` starts a comment, ``name = value`` names a register or a
number, ``name:`` marks a place and ``"text"`` lays down bytes. The instructions are those both machines have:

    set R N           move R S          add R N           address R LABEL      bit R N  (sets bit N)
    load R S N        store R S N       loadb R S N       storeb R S N         (S + N is the address)
    call NAME         system call: arguments in a0 to a3, the result in r; a0 to a3, r and t are lost
    jump LABEL        eq|ne|lt|ge|le|gt R S LABEL    branch; S is a register or a number, compared signed

Registers: a0-a3 arguments, r result, t scratch, v0-v7 survive a call, sp. r may be the same as a0.
Encodings: Intel SDM volume 2; Arm ARM DDI 0487 C6.2. ELF: elf(5).
"""

from __future__ import annotations

import errno
from struct import pack
from typing import ClassVar

BASE = 0x400000
HEADERS = 64 + 2 * 56

Fixup = tuple[int, str, str]  # where, kind, label


class Machine:
    """What both machines share: places, and the bytes laid down so far."""

    number = 0
    registers: ClassVar[dict[str, int]] = {}
    calls: ClassVar[dict[str, int]] = {}

    def __init__(self) -> None:
        self.code = bytearray()
        self.labels: dict[str, int] = {}
        self.fixups: list[Fixup] = []

    def assemble(self, source: str) -> bytes:
        """Return the code of the program."""
        names: dict[str, str] = {}
        for line in source.splitlines():
            words = line.partition(";")[0].split()
            if not words:
                continue
            if words[0].startswith('"'):
                self.code += line.strip()[1:-1].encode().decode("unicode_escape").encode() + b"\0"
            elif words[0].endswith(":"):
                self._place(words[0][:-1])
            elif words[1] == "=":
                names[words[0]] = words[2]
            else:
                self._emit(words[0], [names.get(word, word) for word in words[1:]])
        for where, kind, label in self.fixups:
            self.patch(where, kind, self.labels[label] - where)
        return bytes(self.code)

    def _place(self, label: str) -> None:
        if self.labels.setdefault(label, len(self.code)) != len(self.code):
            raise ValueError(f"label {label} is there twice")

    def _emit(self, operation: str, words: list[str]) -> None:
        if operation in ("jump", "address"):
            self._refer(operation, words)
        elif operation == "call":
            self.call(self.calls[words[0]])
        elif operation in ("load", "store", "loadb", "storeb"):
            self.memory(operation, self.registers[words[0]], self.registers[words[1]], int(words[2], 0))
        elif operation in ("set", "add", "bit"):
            getattr(self, operation)(self.registers[words[0]], int(words[1], 0))
        elif operation == "move":
            self.move(self.registers[words[0]], self.registers[words[1]])
        else:
            self._branch(operation, words)

    def _refer(self, operation: str, words: list[str]) -> None:
        where = self.address(self.registers[words[0]]) if operation == "address" else self.jump()
        self.fixups.append((where, operation, words[-1]))

    def _branch(self, condition: str, words: list[str]) -> None:
        left, right, label = words
        if right in self.registers:
            self.compare(self.registers[left], self.registers[right])
        else:
            self.compare_number(self.registers[left], int(right, 0))
        self.fixups.append((self.jump_if(condition), "branch", label))

    def word(self, value: int) -> None:
        """Lay down 32 bits."""
        self.code += pack("<I", value & 0xFFFFFFFF)

    def call(self, number: int) -> None:
        """System call `number`."""
        raise NotImplementedError

    def set(self, to: int, value: int) -> None:
        """to = value, sign-extended from 32 bits."""
        raise NotImplementedError

    def add(self, to: int, value: int) -> None:
        """to += value."""
        raise NotImplementedError

    def bit(self, to: int, number: int) -> None:
        """to |= 1 << number."""
        raise NotImplementedError

    def move(self, to: int, source: int) -> None:
        """to = source."""
        raise NotImplementedError

    def memory(self, operation: str, register: int, base: int, offset: int) -> None:
        """Load or store 64 bits, or one byte (zero-extended)."""
        raise NotImplementedError

    def compare(self, left: int, right: int) -> None:
        """Compare two registers for the branch that follows."""
        raise NotImplementedError

    def compare_number(self, left: int, number: int) -> None:
        """Compare a register with a number for the branch that follows."""
        raise NotImplementedError

    def address(self, to: int) -> int:
        """to = the address of a label; return where the distance goes."""
        raise NotImplementedError

    def jump(self) -> int:
        """Jump to a label; return where the distance goes."""
        raise NotImplementedError

    def jump_if(self, condition: str) -> int:
        """Jump to a label when the comparison came out so; return where the distance goes."""
        raise NotImplementedError

    def patch(self, where: int, kind: str, distance: int) -> None:
        """Fill in the distance to a label, counted from `where`."""
        raise NotImplementedError


class X86_64(Machine):
    """AMD64, System V system call convention: rdi rsi rdx r10, number and result in rax; rcx and r11 are lost."""

    number = 62
    registers: ClassVar = {
        "r": 0, "a0": 7, "a1": 6, "a2": 2, "a3": 10, "t": 1, "sp": 4,
        "v0": 3, "v1": 5, "v2": 12, "v3": 13, "v4": 14, "v5": 15, "v6": 8, "v7": 9,
    }  # fmt: skip
    calls: ClassVar = {
        "write": 1, "close": 3, "rt_sigaction": 13, "rt_sigprocmask": 14, "ioctl": 16, "getpid": 39, "recvmsg": 47,
        "clone": 56, "execve": 59, "wait4": 61, "kill": 62, "fcntl": 72, "setpgid": 109, "setsid": 112,
        "rt_sigtimedwait": 128, "chdir": 80, "prctl": 157, "exit_group": 231, "readlinkat": 267, "unshare": 272,
        "dup3": 292,
    }  # fmt: skip
    conditions: ClassVar = {"eq": 4, "ne": 5, "lt": 12, "ge": 13, "le": 14, "gt": 15}
    opcodes: ClassVar = {"load": b"\x8b", "store": b"\x89", "loadb": b"\x0f\xb6", "storeb": b"\x88"}

    def _rex(self, register: int, base: int, *, wide: bool = True) -> None:
        self.code.append(0x40 | wide << 3 | register >> 3 << 2 | base >> 3)

    def _registers(self, opcode: bytes, register: int, base: int) -> None:
        self._rex(register, base)
        self.code += opcode + bytes([0xC0 | (register & 7) << 3 | base & 7])

    def _immediate(self, extension: int, register: int, value: int) -> None:
        if -128 <= value < 128:  # opcode 83: a byte, sign-extended
            self._registers(b"\x83", extension, register)
            self.code += pack("<b", value)
        else:
            self._registers(b"\x81", extension, register)
            self.code += pack("<i", value)

    def call(self, number: int) -> None:
        """Mov eax, number; syscall."""
        self.set(0, number)
        self.code += b"\x0f\x05"

    def set(self, to: int, value: int) -> None:
        """Mov r64, imm32 sign-extended."""
        self._registers(b"\xc7", 0, to)
        self.code += pack("<i", value)

    def add(self, to: int, value: int) -> None:
        """Add r64, imm."""
        self._immediate(0, to, value)

    def bit(self, to: int, number: int) -> None:
        """Bts r64, imm8."""
        self._registers(b"\x0f\xba", 5, to)
        self.code.append(number)

    def move(self, to: int, source: int) -> None:
        """Mov r64, r64."""
        self._registers(b"\x89", source, to)

    def memory(self, operation: str, register: int, base: int, offset: int) -> None:
        """Mov, or movzx for a byte; rsp and r12 as base need a SIB byte."""
        self._rex(register, base, wide=not operation.endswith("b"))
        short = -128 <= offset < 128
        self.code += self.opcodes[operation]
        self.code.append((0x40 if short else 0x80) | (register & 7) << 3 | base & 7)
        if base & 7 == 4:
            self.code.append(0x24)
        self.code += pack("<b" if short else "<i", offset)

    def compare(self, left: int, right: int) -> None:
        """Cmp r64, r64."""
        self._registers(b"\x39", right, left)

    def compare_number(self, left: int, number: int) -> None:
        """Cmp r64, imm."""
        self._immediate(7, left, number)

    def address(self, to: int) -> int:
        """Lea r64, [rip + distance]."""
        self._rex(to, 0)
        self.code += bytes([0x8D, 0x05 | (to & 7) << 3])
        self.word(0)
        return len(self.code)

    def jump(self) -> int:
        """Jmp rel32."""
        self.code.append(0xE9)
        self.word(0)
        return len(self.code)

    def jump_if(self, condition: str) -> int:
        """Jcc rel32."""
        self.code += bytes([0x0F, 0x80 | self.conditions[condition]])
        self.word(0)
        return len(self.code)

    def patch(self, where: int, kind: str, distance: int) -> None:
        """Every distance is 32 bits wide and counts from the end of its instruction."""
        self.code[where - 4 : where] = pack("<i", distance)


class AArch64(Machine):
    """Arm, 64 bits, little-endian: arguments in x0 to x3, the number in x8, the result in x0."""

    number = 183
    registers: ClassVar = {
        "r": 0, "a0": 0, "a1": 1, "a2": 2, "a3": 3, "t": 9, "sp": 31,
        "v0": 19, "v1": 20, "v2": 21, "v3": 22, "v4": 23, "v5": 24, "v6": 25, "v7": 26,
    }  # fmt: skip
    calls: ClassVar = {
        "dup3": 24, "fcntl": 25, "ioctl": 29, "chdir": 49, "close": 57, "write": 64, "readlinkat": 78, "exit_group": 94,
        "unshare": 97, "kill": 129,
        "rt_sigaction": 134, "rt_sigprocmask": 135, "rt_sigtimedwait": 137, "setpgid": 154, "setsid": 157,
        "prctl": 167, "getpid": 172, "recvmsg": 212, "clone": 220, "execve": 221, "wait4": 260,
    }  # fmt: skip
    conditions: ClassVar = {"eq": 0, "ne": 1, "ge": 10, "lt": 11, "gt": 12, "le": 13}
    opcodes: ClassVar = {"load": 0xF8400000, "store": 0xF8000000, "loadb": 0x38400000, "storeb": 0x38000000}

    def call(self, number: int) -> None:
        """Movz x8, number; svc 0."""
        self.set(8, number)
        self.word(0xD4000001)

    def set(self, to: int, value: int) -> None:
        """Movz or movn for the low 16 bits, movk for the next 16 when they differ from the fill."""
        low, high = value & 0xFFFF, value >> 16 & 0xFFFF
        if value >= 0:
            self.word(0xD2800000 | low << 5 | to)
        else:
            self.word(0x92800000 | (low ^ 0xFFFF) << 5 | to)
        if high != (0 if value >= 0 else 0xFFFF):
            self.word(0xF2A00000 | high << 5 | to)

    def _arithmetic(self, plus: int, minus: int, register: int, value: int) -> None:
        size = abs(value)
        shifted = size > 0xFFF
        if (shifted and size & 0xFFF) or size > 0xFFFFFF:
            raise ValueError(f"{value} does not fit an immediate of 12 bits, shifted or not")
        field = size >> 12 if shifted else size
        self.word((plus if value >= 0 else minus) | shifted << 22 | field << 10 | register << 5)

    def add(self, to: int, value: int) -> None:
        """Add or sub, immediate."""
        self._arithmetic(0x91000000 | to, 0xD1000000 | to, to, value)

    def bit(self, to: int, number: int) -> None:
        """Orr with a bit mask of one bit: rotated right by 64 - number."""
        self.word(0xB2400000 | (64 - number) % 64 << 16 | to << 5 | to)

    def move(self, to: int, source: int) -> None:
        """Add 0, as that form alone takes sp for register 31."""
        self.word(0x91000000 | source << 5 | to)

    def memory(self, operation: str, register: int, base: int, offset: int) -> None:
        """Ldur and stur: nine bits of signed offset, unscaled."""
        if not -256 <= offset < 256:
            raise ValueError(f"offset {offset} does not fit nine bits")
        self.word(self.opcodes[operation] | (offset & 0x1FF) << 12 | base << 5 | register)

    def compare(self, left: int, right: int) -> None:
        """Subs xzr, left, right."""
        self.word(0xEB00001F | right << 16 | left << 5)

    def compare_number(self, left: int, number: int) -> None:
        """Subs xzr, or adds xzr for a negative number."""
        self._arithmetic(0xF100001F, 0xB100001F, left, number)

    def address(self, to: int) -> int:
        """Adr: 21 bits of signed distance."""
        self.word(0x10000000 | to)
        return len(self.code) - 4

    def jump(self) -> int:
        """B: 26 bits of signed distance, in instructions."""
        self.word(0x14000000)
        return len(self.code) - 4

    def jump_if(self, condition: str) -> int:
        """B.cond: 19 bits of signed distance, in instructions."""
        self.word(0x54000000 | self.conditions[condition])
        return len(self.code) - 4

    def patch(self, where: int, kind: str, distance: int) -> None:
        """Or the distance into the field that this kind of instruction has for it."""
        if kind == "address":
            field = (distance & 3) << 29 | (distance >> 2 & 0x7FFFF) << 5
        elif kind == "jump":
            field = distance >> 2 & 0x3FFFFFF
        else:
            field = (distance >> 2 & 0x7FFFF) << 5
        word = int.from_bytes(self.code[where : where + 4], "little") | field
        self.code[where : where + 4] = pack("<I", word)


MACHINES: dict[str, type[Machine]] = {"x86_64": X86_64, "aarch64": AArch64}


def elf(machine: type[Machine], code: bytes) -> bytes:
    """Return a static executable: one segment, read and execute, and a stack that is not executable."""
    size = HEADERS + len(code)
    identity = b"\x7fELF\x02\x01\x01" + bytes(9)  # 64 bits, little-endian, version 1, System V
    header = pack("<HHIQQQIHHHHHH", 2, machine.number, 1, BASE + HEADERS, 64, 0, 0, 64, 56, 2, 64, 0, 0)
    # p_align 64 KiB, the largest page an aarch64 kernel may be built with.
    load = pack("<IIQQQQQQ", 1, 5, 0, BASE, BASE, size, size, 0x10000)
    stack = pack("<IIQQQQQQ", 0x6474E551, 6, 0, 0, 0, 0, 0, 16)  # PT_GNU_STACK
    return identity + header + load + stack + code


def executable(machine: str, source: str) -> bytes:
    """Return a program for a machine, named as uname(2) names it; raises OSError (ENOEXEC) for an unknown one."""
    try:
        target = MACHINES[machine]
    except KeyError:
        raise OSError(errno.ENOEXEC, "no small program can be made for this machine", machine) from None
    return elf(target, target().assemble(source))
