"""System call filters: the OCI spec's linux.seccomp as classic BPF, and seccomp(2).

The kernel runs the program at each system call over struct seccomp_data (linux/seccomp.h):

    0 nr u32    4 arch u32    8 instruction_pointer u64    16 args[6] u64

and does what the returned word says. The shape of ours:

    arch?  ->  one section per machine (x86_64 and x32 share one and part at X32_BIT)
    nr     ->  a binary tree over ranges of numbers with the same answer
    leaf   ->  return a word; or compare arguments, chain after chain, then return a word

Constant answers are cached by the kernel per number (bitmap, 5.11), so what runs each time is only the way to a call
whose arguments matter. Any other machine's calls kill the process. Numbers above the newest call that the profile
names get ENOSYS where it would refuse them: a C library tries the new call, and must be told that it is not there
rather than forbidden, to fall back to the old one.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wherry.kernel.libc import bind_syscall, c_ulong, failure
from wherry.kernel.seccomp_syscalls import AUDIT_ARCH, NATIVE, X32_BIT, numbers

LOAD, ALU_AND, RETURN = 0x20, 0x54, 0x06  # BPF_LD|W|ABS, BPF_ALU|AND|K, BPF_RET|K
JA, JEQ, JGT, JGE = 0x05, 0x15, 0x25, 0x35
MAX_INSTRUCTIONS = 4096
LONGEST_JUMP = 255

RET_KILL_PROCESS = 0x80000000
RET_ERRNO = 0x00050000
ENOSYS_WORD = RET_ERRNO | errno.ENOSYS
ACTIONS = {
    "SCMP_ACT_KILL": 0,
    "SCMP_ACT_KILL_THREAD": 0,
    "SCMP_ACT_KILL_PROCESS": RET_KILL_PROCESS,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": RET_ERRNO,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
WITH_ERRNO = frozenset({"SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"})
REFUSING = frozenset(
    {"SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"}
)

MACHINES = {
    "SCMP_ARCH_X86_64": "x86_64",
    "SCMP_ARCH_X86": "x86",
    "SCMP_ARCH_X32": "x32",
    "SCMP_ARCH_AARCH64": "aarch64",
    "SCMP_ARCH_ARM": "arm",
}
PRIVATE = 0x0F0000
"""arm: numbers from here on are the machine's own calls, not newer ones."""

INT_ARGUMENTS = {"socket": frozenset({0, 1, 2})}
"""Arguments that are int in the kernel, which drops the upper half of the register. So must a comparison: with the
default profile's "domain > 40" on 64 bits, socket(38 | 1 << 32) would be allowed and reach the kernel as AF_ALG."""

FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1,
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 32,
}
SET_MODE_FILTER = 1
SYSCALL_NUMBERS = {"x86_64": 317, "aarch64": 277}
_seccomp = bind_syscall(c_ulong, c_ulong, ctypes.c_void_p)


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison of an argument; mask is that of MASKED_EQ."""

    index: int
    operator: str
    value: int
    mask: int = (1 << 64) - 1
    is_int: bool = False


@dataclass(slots=True)
class Answer:
    """What a system call gets: the word of the first chain whose conditions all hold, else the last word."""

    word: int
    chains: list[tuple[tuple[Condition, ...], int]] = field(default_factory=list)
    decided: bool = False


def _refuse(text: str) -> OSError:
    return OSError(errno.EINVAL, text, "seccomp")


def _word(action: str, number: int | None) -> int:
    if action == "SCMP_ACT_NOTIFY":
        raise OSError(errno.EOPNOTSUPP, "SCMP_ACT_NOTIFY needs a seccomp agent, which is not supported", "seccomp")
    if action not in ACTIONS:
        raise _refuse(f"unknown action {action!r}")
    if action not in WITH_ERRNO:
        return ACTIONS[action]
    return ACTIONS[action] | (errno.EPERM if number is None else number) & 0xFFFF


def _conditions(name: str, arguments: Sequence[Mapping[str, Any]]) -> list[tuple[Condition, ...]]:
    """Return the chains of one rule: its conditions must all hold, but those on one argument are alternatives."""
    found = []
    for each in arguments:
        index, operator, value = int(each["index"]), str(each["op"]), int(each["value"])
        mask = (1 << 64) - 1
        if operator == "SCMP_CMP_MASKED_EQ":
            mask, value = value, int(each.get("valueTwo") or 0)
        elif operator not in ("SCMP_CMP_EQ", "SCMP_CMP_NE", "SCMP_CMP_GT", "SCMP_CMP_GE", "SCMP_CMP_LT", "SCMP_CMP_LE"):
            raise _refuse(f"{name}: unknown comparison {operator!r}")
        if not 0 <= index <= 5 or not 0 <= value < 1 << 64 or not 0 <= mask < 1 << 64:
            raise _refuse(f"{name}: a condition's index is 0 to 5 and its values are 64 bits")
        found.append(Condition(index, operator, value, mask, index in INT_ARGUMENTS.get(name, ())))
    if len({each.index for each in found}) < len(found):
        return [(each,) for each in found]
    return [tuple(found)]


def _answers(machine: str, profile: Mapping[str, Any], default: int) -> dict[int, Answer]:
    """Return what is decided per number; names that the machine lacks are skipped."""
    table = numbers(machine)
    answers: dict[int, Answer] = {}
    for rule in profile.get("syscalls") or ():
        word = _word(rule["action"], rule.get("errnoRet"))
        if word == default:
            continue
        for name in rule["names"]:
            if name not in table:
                continue
            answer = answers.setdefault(table[name], Answer(default))
            if rule.get("args"):
                answer.chains += [(chain, word) for chain in _conditions(name, rule["args"])]
            elif not answer.decided:
                answer.word, answer.decided = word, True
    for answer in answers.values():
        if answer.decided:
            # as libseccomp has it, which profiles are written for: a rule for all arguments outweighs one for some
            answer.chains = []
    return answers


def _newest(machine: str, profile: Mapping[str, Any]) -> int:
    table = numbers(machine)
    named = [table[name] for rule in profile.get("syscalls") or () for name in rule["names"] if name in table]
    return max((number for number in named if number < PRIVATE or machine != "arm"), default=0)


def _ranges(machine: str, profile: Mapping[str, Any], default: int) -> list[tuple[int, Answer]]:
    """Return the first number and the answer of each range of equal answers, from 0 up."""
    answers = _answers(machine, profile, default)
    newest = _newest(machine, profile)
    ranges: list[tuple[int, Answer]] = [(0, Answer(default))]

    def start(number: int, answer: Answer) -> None:
        first, last = ranges[-1]
        if first == number:
            ranges.pop()
        elif (last.word, last.chains) == (answer.word, answer.chains):
            return
        ranges.append((number, answer))

    for number in sorted(answers):
        start(number, answers[number])
        if number + 1 not in answers:
            start(number + 1, Answer(default))
    if profile["defaultAction"] in REFUSING and newest:
        kept = [each for each in ranges if each[0] <= newest]
        private = [each for each in ranges if machine == "arm" and each[0] >= PRIVATE]
        between = [(PRIVATE, Answer(default))] if machine == "arm" and not any(n == PRIVATE for n, _ in private) else []
        ranges = [*kept, (newest + 1, Answer(ENOSYS_WORD)), *between, *private]
    return ranges


class _Assembler:
    """Builds a program from its end: every jump of BPF goes forward, so that its target is already there.

    A label is the place of an instruction counted from the end. Returns are shared as far as a jump reaches.
    """

    def __init__(self) -> None:
        self._backward: list[bytes] = []
        self._returns: dict[int, int] = {}

    def program(self) -> bytes:
        if len(self._backward) > MAX_INSTRUCTIONS:
            raise _refuse(f"the profile needs {len(self._backward)} instructions, the kernel takes {MAX_INSTRUCTIONS}")
        return b"".join(reversed(self._backward))

    def emit(self, code: int, value: int, if_true: int = 0, if_false: int = 0) -> int:
        self._backward.append(struct.pack("=HBBI", code, if_true, if_false, value))
        return len(self._backward) - 1

    def answer(self, word: int) -> int:
        label = self._returns.get(word)
        if label is None or self._distance(label) > LONGEST_JUMP:
            label = self._returns[word] = self.emit(RETURN, word)
        return label

    def branch(self, code: int, value: int, then: int, otherwise: int) -> int:
        then, otherwise = self._near(then), self._near(otherwise)
        return self.emit(code, value, self._distance(then), self._distance(otherwise))

    def jump(self, label: int) -> int:
        return self.emit(JA, self._distance(label))

    def _distance(self, label: int) -> int:
        return len(self._backward) - label - 1

    def _near(self, label: int) -> int:
        """Return a label that a branch reaches; leaves room for the other side's long jump in between."""
        if self._distance(label) < LONGEST_JUMP:
            return label
        return self.jump(label)

    def tree(self, ranges: Sequence[tuple[int, Answer]]) -> int:
        """A holds the number; every way through ends in a return."""
        if len(ranges) == 1:
            return self._leaf(ranges[0][1])
        middle = len(ranges) // 2
        then = self.tree(ranges[middle:])
        otherwise = self.tree(ranges[:middle])
        return self.branch(JGE, ranges[middle][0], then, otherwise)

    def _leaf(self, answer: Answer) -> int:
        label = self.answer(answer.word)
        for chain, word in reversed(answer.chains):
            fails, holds = label, self.answer(word)
            for condition in reversed(chain):
                label = holds = self._condition(condition, holds, fails)
        return label

    def _condition(self, condition: Condition, holds: int, fails: int) -> int:
        label = holds
        for code, value, if_true, if_false in reversed(_steps(condition)):
            if code in (JEQ, JGT, JGE):
                targets = {NEXT: label, HOLDS: holds, FAILS: fails}
                label = self.branch(code, value, targets[if_true], targets[if_false])
            else:
                label = self.emit(code, value)
        return label


# One step of a comparison: code, value, where to when true, where to when false. NEXT: the step after it. HOLDS: the
# next condition. FAILS: past the chain.
NEXT, HOLDS, FAILS = 0, 1, 2
Step = tuple[int, int, int, int]


def _steps(condition: Condition) -> list[Step]:
    """Compare upper and lower half in turn, as BPF has 32 bits; the address is of a little-endian machine."""
    low_at = 16 + 8 * condition.index
    high, low = condition.value >> 32, condition.value & 0xFFFFFFFF
    mask_high, mask_low = condition.mask >> 32, condition.mask & 0xFFFFFFFF
    load_high, load_low = (LOAD, low_at + 4, NEXT, NEXT), (LOAD, low_at, NEXT, NEXT)
    operator = condition.operator.removeprefix("SCMP_CMP_")
    if operator == "MASKED_EQ":
        masks = [(ALU_AND, mask_high, NEXT, NEXT), (ALU_AND, mask_low, NEXT, NEXT)]
        upper = [load_high, masks[0], (JEQ, high, NEXT, FAILS)]
        lower = [load_low, masks[1], (JEQ, low, HOLDS, FAILS)]
    else:
        upper = [load_high, *UPPER[operator](high)]
        lower = [load_low, LOWER[operator](low)]
    return lower if condition.is_int and not high else [*upper, *lower]


UPPER: dict[str, Callable[[int], list[Step]]] = {
    "EQ": lambda high: [(JEQ, high, NEXT, FAILS)],
    "NE": lambda high: [(JEQ, high, NEXT, HOLDS)],
    "GT": lambda high: [(JGT, high, HOLDS, NEXT), (JEQ, high, NEXT, FAILS)],
    "GE": lambda high: [(JGT, high, HOLDS, NEXT), (JEQ, high, NEXT, FAILS)],
    "LT": lambda high: [(JGT, high, FAILS, NEXT), (JEQ, high, NEXT, HOLDS)],
    "LE": lambda high: [(JGT, high, FAILS, NEXT), (JEQ, high, NEXT, HOLDS)],
}
LOWER: dict[str, Callable[[int], Step]] = {
    "EQ": lambda low: (JEQ, low, HOLDS, FAILS),
    "NE": lambda low: (JEQ, low, FAILS, HOLDS),
    "GT": lambda low: (JGT, low, HOLDS, FAILS),
    "GE": lambda low: (JGE, low, HOLDS, FAILS),
    "LT": lambda low: (JGE, low, FAILS, HOLDS),
    "LE": lambda low: (JGT, low, FAILS, HOLDS),
}


def _machines(profile: Mapping[str, Any]) -> list[str]:
    """Return the machines that the profile is for, the native one first.

    Calls of machines without a table, or of another family than this one's, cannot be made here.
    """
    native = NATIVE.get(os.uname().machine)
    if native is None:
        raise OSError(errno.EOPNOTSUPP, f"no system call table for {os.uname().machine}", "seccomp")
    named = [MACHINES[name] for name in profile.get("architectures") or () if name in MACHINES]
    return list(dict.fromkeys([native, *named]))


def _assemble(machines: Sequence[str], profile: Mapping[str, Any], default: int) -> bytes:
    build = _Assembler()
    entry = build.answer(RET_KILL_PROCESS)
    for machine in reversed([each for each in machines if each != "x32"]):
        other = entry
        shares = machine == "x86_64" and "x32" in machines
        x32 = build.tree(_ranges("x32", profile, default)) if shares else build.answer(RET_KILL_PROCESS)
        tree = build.tree(_ranges(machine, profile, default))
        if machine == "x86_64":
            build.branch(JGE, X32_BIT, x32, tree)
        else:
            build.jump(tree)
        section = build.emit(LOAD, 0)
        entry = build.branch(JEQ, AUDIT_ARCH[machine], section, other)
    build.emit(LOAD, 4)
    return build.program()


def compile_filter(profile: Mapping[str, Any]) -> bytes:
    """Return the program of an OCI linux.seccomp object: an array of struct sock_filter.

    Raises OSError: EINVAL for what the object may not hold, or a program over 4096 instructions; EOPNOTSUPP for
    SCMP_ACT_NOTIFY and for a machine without a table. Takes some milliseconds: keep the result.
    """
    try:
        default = _word(profile["defaultAction"], profile.get("defaultErrnoRet"))
        return _assemble(_machines(profile), profile, default)
    except (KeyError, TypeError, ValueError) as error:
        raise _refuse(f"malformed profile: {error!r}") from error


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def load_filter(program: bytes, flags: Sequence[str] = ()) -> None:
    """Put the calling thread and its children under a program, for good.

    flags: OCI names; none stands for SPEC_ALLOW alone, without which every store of the process pays for the
    speculative store bypass mitigation (Documentation/userspace-api/spec_ctrl.rst; the default of others too).
    Raises OSError: EACCES without no_new_privs or CAP_SYS_ADMIN, EINVAL for a program or flag the kernel refuses.
    """
    names = flags or ["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]
    unknown = [name for name in names if name not in FLAGS]
    if unknown:
        raise _refuse(f"unknown flags {unknown}")
    bits = sum({FLAGS[name] for name in names})
    header = _Program(len(program) // 8, program)
    number = SYSCALL_NUMBERS[os.uname().machine]
    # Not only below 0: with TSYNC it is the thread that could not follow
    if _seccomp(number, SET_MODE_FILTER, bits, ctypes.byref(header)) != 0:
        raise failure("seccomp(SET_MODE_FILTER)", "seccomp")
