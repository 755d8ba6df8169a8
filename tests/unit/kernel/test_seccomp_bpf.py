"""The compiled filters, run by an interpreter of classic BPF."""

from __future__ import annotations

import itertools
import struct

import pytest

from tests.unit.kernel.classic_bpf import ALLOW, ENOSYS, EPERM, KILL, data, run
from tests.unit.kernel.profile_table import expected_word
from wherry.kernel.seccomp_bpf import compile_filter
from wherry.kernel.seccomp_syscalls import X32_BIT, numbers
from wherry.oci.capabilities import DEFAULT
from wherry.oci.seccomp import default_profile, profile_for

ARCHES = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]


@pytest.fixture(autouse=True)
def _on_x86_64(monkeypatch):
    class Uname:
        machine = "x86_64"

    monkeypatch.setattr("wherry.kernel.seccomp_bpf.os.uname", Uname)


def profile(*rules, default="SCMP_ACT_ERRNO", **more):
    return {"defaultAction": default, "architectures": ARCHES, "syscalls": list(rules), **more}


def rule(*names, action="SCMP_ACT_ALLOW", **more):
    return {"names": list(names), "action": action, **more}


def argument(index, operator, value, two=0):
    return {"index": index, "op": f"SCMP_CMP_{operator}", "value": value, "valueTwo": two}


@pytest.mark.parametrize("machine", ["x86_64", "x86", "x32"])
def test_default_profile_number_by_number(machine):
    program = compile_filter(profile_for(default_profile(), frozenset(DEFAULT), "x86_64", "6.18.0"))
    base = X32_BIT if machine == "x32" else 0
    decided = 0
    for nr in range(base, base + 601):
        word = expected_word(machine, nr)
        if word is not None:
            assert run(program, data(nr, machine)) == word, (machine, nr)
            decided += 1
    assert decided > 590


def test_default_profile_is_small():
    """What the kernel must translate at each start: one comparison per call would be some 1500 instructions."""
    program = compile_filter(profile_for(default_profile(), frozenset(DEFAULT), "x86_64", "6.18.0"))
    assert len(program) // 8 < 420


def test_clone_without_new_namespaces():
    program = compile_filter(profile_for(default_profile(), frozenset(DEFAULT), "x86_64", "6.18.0"))
    clone = numbers("x86_64")["clone"]
    assert run(program, data(clone, "x86_64", 0x3D0F00)) == ALLOW
    for flag in (0x10000000, 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x20000000, 0x40000000):
        assert run(program, data(clone, "x86_64", 0x3D0F00 | flag)) == EPERM
    assert run(program, data(numbers("x86_64")["clone3"], "x86_64")) == ENOSYS


@pytest.mark.parametrize(
    ("family", "word"), [(2, ALLOW), (37, ALLOW), (38, EPERM), (39, ALLOW), (40, EPERM), (41, ALLOW)]
)
@pytest.mark.parametrize("upper", [0, 1 << 32, 0xFFFFFFFF << 32])
def test_socket_families_as_the_kernel_sees_them(family, word, upper):
    """socket(2) takes an int: what stands in the upper half of the register must not matter."""
    program = compile_filter(profile_for(default_profile(), frozenset(DEFAULT), "x86_64", "6.18.0"))
    assert run(program, data(numbers("x86_64")["socket"], "x86_64", family | upper)) == word


def test_personality_values():
    program = compile_filter(profile_for(default_profile(), frozenset(DEFAULT), "x86_64", "6.18.0"))
    for value in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF):
        assert run(program, data(numbers("x86_64")["personality"], "x86_64", value)) == ALLOW
    for value in (1, 0x20001, 0x100000008, 0xFFFFFFFFFFFFFFFF):
        assert run(program, data(numbers("x86_64")["personality"], "x86_64", value)) == EPERM


PYTHON_OPERATORS = {
    "EQ": lambda a, b: a == b,
    "NE": lambda a, b: a != b,
    "GT": lambda a, b: a > b,
    "GE": lambda a, b: a >= b,
    "LT": lambda a, b: a < b,
    "LE": lambda a, b: a <= b,
}
VALUES = [0, 1, 38, 0xFFFFFFFF, 1 << 32, (1 << 32) + 38, (38 << 32) + 1, (1 << 64) - 1]


@pytest.mark.parametrize("operator", PYTHON_OPERATORS)
def test_comparisons_of_64_bits(operator):
    for wanted, given in itertools.product(VALUES, VALUES):
        program = compile_filter(profile(rule("read", args=[argument(2, operator, wanted)])))
        allowed = run(program, data(0, "x86_64", 0, 0, given)) == ALLOW
        assert allowed == PYTHON_OPERATORS[operator](given, wanted), (operator, hex(given), hex(wanted))


def test_masked_comparison():
    mask, wanted = 0xFF000000F0, 0x12000000A0
    program = compile_filter(profile(rule("read", args=[argument(5, "MASKED_EQ", mask, wanted)])))
    for given in (wanted, wanted | 0xF, wanted | 1 << 63, wanted ^ 0x10, wanted ^ 1 << 37, 0):
        allowed = run(program, data(0, "x86_64", 0, 0, 0, 0, 0, given)) == ALLOW
        assert allowed == (given & mask == wanted), hex(given)


def test_conditions_on_different_arguments_must_all_hold():
    program = compile_filter(profile(rule("read", args=[argument(0, "EQ", 1), argument(1, "EQ", 2)])))
    assert run(program, data(0, "x86_64", 1, 2)) == ALLOW
    assert run(program, data(0, "x86_64", 1, 3)) == EPERM
    assert run(program, data(0, "x86_64", 3, 2)) == EPERM


def test_conditions_on_one_argument_are_alternatives():
    program = compile_filter(profile(rule("read", args=[argument(0, "EQ", 1), argument(0, "EQ", 2)])))
    assert [run(program, data(0, "x86_64", value)) for value in (1, 2, 3)] == [ALLOW, ALLOW, EPERM]


def test_rule_for_all_arguments_outweighs():
    """Whatever the order, as with libseccomp, for which profiles are written."""
    some = rule("read", action="SCMP_ACT_KILL_PROCESS", args=[argument(0, "EQ", 1)])
    for rules in ([some, rule("read")], [rule("read"), some]):
        assert run(compile_filter(profile(*rules)), data(0, "x86_64", 1)) == ALLOW


@pytest.mark.parametrize(
    ("action", "number", "word"),
    [
        ("SCMP_ACT_KILL", None, 0),
        ("SCMP_ACT_KILL_THREAD", None, 0),
        ("SCMP_ACT_KILL_PROCESS", None, 0x80000000),
        ("SCMP_ACT_TRAP", None, 0x30000),
        ("SCMP_ACT_ERRNO", None, 0x50001),
        ("SCMP_ACT_ERRNO", 0, 0x50000),
        ("SCMP_ACT_ERRNO", 13, 0x5000D),
        ("SCMP_ACT_TRACE", 7, 0x7FF00007),
        ("SCMP_ACT_LOG", None, 0x7FFC0000),
    ],
)
def test_actions(action, number, word):
    given = rule("read", action=action) | ({} if number is None else {"errnoRet": number})
    assert run(compile_filter(profile(given, default="SCMP_ACT_ALLOW")), data(0, "x86_64")) == word


def test_default_that_allows_has_no_enosys():
    program = compile_filter(profile(rule("read", action="SCMP_ACT_ERRNO"), default="SCMP_ACT_ALLOW"))
    assert run(program, data(9999, "x86_64")) == ALLOW


def test_calls_newer_than_the_profile_are_not_there():
    program = compile_filter(profile(rule("read", "write", "close"), defaultErrnoRet=13))
    assert run(program, data(2, "x86_64")) == 0x5000D
    assert run(program, data(4, "x86_64")) == ENOSYS
    assert run(program, data(4 | X32_BIT, "x32")) == ENOSYS


def test_x32_is_refused_when_the_profile_lacks_it():
    program = compile_filter({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": []})
    assert run(program, data(1, "x86_64")) == ALLOW
    assert run(program, data(1 | X32_BIT, "x32")) == KILL
    assert run(program, data(1, "x86")) == KILL


def test_other_machines_are_killed():
    program = compile_filter(profile(rule("read")))
    assert run(program, data(0, "aarch64")) == KILL


def test_arm_has_calls_of_its_own_far_up(monkeypatch):
    class Uname:
        machine = "aarch64"

    monkeypatch.setattr("wherry.kernel.seccomp_bpf.os.uname", Uname)
    program = compile_filter({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        "syscalls": [rule("read", "write", "cacheflush")],
    })  # fmt: skip
    assert run(program, data(63, "aarch64")) == ALLOW
    assert run(program, data(3, "arm")) == ALLOW
    assert run(program, data(0xF0002, "arm")) == ALLOW
    assert run(program, data(0xF0001, "arm")) == EPERM
    assert run(program, data(5, "arm")) == ENOSYS
    assert run(program, data(470, "arm")) == ENOSYS


def test_long_jumps():
    """A program of some thousand instructions still answers right everywhere."""
    names = sorted(numbers("x86_64"), key=numbers("x86_64").__getitem__)
    rules = [rule(name, args=[argument(i, "EQ", n) for i in range(3)]) for n, name in enumerate(names) if n % 3 == 0]
    program = compile_filter({"defaultAction": "SCMP_ACT_ERRNO", "architectures": [], "syscalls": rules})
    assert len(program) // 8 > 1500
    for n, name in enumerate(names[:-3]):
        packet = data(numbers("x86_64")[name], "x86_64", n, n, n)
        assert run(program, packet) == (ALLOW if n % 3 == 0 else EPERM), name


def test_too_long_is_refused():
    rules = [rule(name, args=[argument(i, "GT", n) for i in range(6)]) for name, n in numbers("x86_64").items()]
    with pytest.raises(OSError, match="the kernel takes 4096"):
        compile_filter(profile(*rules))


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (profile(rule("read", action="SCMP_ACT_NOTIFY")), "seccomp agent"),
        (profile(rule("read", action="FOO")), "unknown action 'FOO'"),
        (profile(rule("read", args=[argument(6, "EQ", 0)])), "index is 0 to 5"),
        (profile(rule("read", args=[argument(0, "EQ", 1 << 64)])), "64 bits"),
        (profile(rule("read", args=[argument(0, "XX", 0)])), "unknown comparison"),
        ({"syscalls": []}, "malformed profile"),
        (profile({"names": ["read"]}), "malformed profile"),
    ],
)
def test_what_is_refused(bad, text):
    with pytest.raises(OSError, match=text):
        compile_filter(bad)


def test_every_jump_goes_forward():
    program = compile_filter(profile_for(default_profile(), frozenset(DEFAULT), "x86_64", "6.18.0"))
    code = list(struct.iter_unpack("=HBBI", program))
    assert code[-1][0] == 0x06
    for place, (operation, if_true, if_false, value) in enumerate(code):
        reach = value if operation == 0x05 else max(if_true, if_false)
        assert place + reach < len(code)
