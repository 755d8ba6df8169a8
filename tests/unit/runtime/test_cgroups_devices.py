"""Device rules: the emulation, its version 1 text, and its version 2 program run by an interpreter of eBPF."""

from __future__ import annotations

import itertools
import struct

import pytest

from wherry.kernel import bpf_device
from wherry.oci.devices import DEFAULT_RULES
from wherry.runtime.cgroups_devices import permissions

DENY_ALL = {"allow": False, "access": "rwm"}


def allow(kind, major, minor, access="rwm"):
    return {"allow": True, "type": kind, "major": major, "minor": minor, "access": access}


def deny(kind, major, minor, access="rwm"):
    return {**allow(kind, major, minor, access), "allow": False}


COMPUTE = {
    0xB4: lambda destination, source, immediate: immediate,
    0xBC: lambda destination, source, immediate: source & 0xFFFFFFFF,
    0xBF: lambda destination, source, immediate: source,
    0x54: lambda destination, source, immediate: destination & immediate,
    0x74: lambda destination, source, immediate: destination >> immediate,
    0x67: lambda destination, source, immediate: destination << immediate & 0xFFFFFFFFFFFFFFFF,
    0x4F: lambda destination, source, immediate: destination | source,
}
JUMP = {
    0x15: lambda destination, source, immediate: destination == immediate,
    0x55: lambda destination, source, immediate: destination != immediate,
    0x5D: lambda destination, source, immediate: destination != source,
}


def run(program, kind, major, minor, access):
    """Run an eBPF program as the kernel does, as far as ours go."""
    code = list(struct.iter_unpack("<BBhI", program))
    bits = sum(bpf_device.ACCESS[letter] for letter in access) << 16 | {"b": 1, "c": 2}[kind]
    context = struct.pack("<III", bits, major, minor)
    registers = [0] * 11
    counter = 0
    while (operation := code[counter][0]) != 0x95:
        _, pair, offset, immediate = code[counter]
        destination, source = pair & 15, pair >> 4
        counter += 1
        given = (registers[destination], registers[source], immediate)
        if operation in JUMP:
            counter += offset if JUMP[operation](*given) else 0
        elif operation == 0x61:
            registers[destination] = struct.unpack_from("<I", context, offset)[0]
        elif operation == 0x18:
            registers[destination] = immediate | code[counter][3] << 32
            counter += 1
        else:
            registers[destination] = COMPUTE[operation](*given)
    return bool(registers[0])


def test_default_rules_as_version_1():
    """What devices.list of a container of dockerd 28.5 shows."""
    whole, entries = permissions(DEFAULT_RULES).texts()
    assert whole == "devices.deny"
    nodes = ("1:3", "1:5", "1:7", "1:8", "1:9", "5:0", "5:1", "5:2", "10:200", "136:*")
    assert set(entries) == {"b *:* m", "c *:* m", *(f"c {node} rwm" for node in nodes)}
    assert len(entries) == 12


def test_no_rules_allow_nothing():
    """A missing list once meant everything (GHSA-g54h-m393-cpwq)."""
    state = permissions([], defaults=False)
    assert state.texts() == ("devices.deny", ())
    assert not state.allows("c", 1, 3, "r")


def test_users_cannot_take_the_defaults_away():
    assert permissions([*DEFAULT_RULES, deny("c", 1, 3)]).allows("c", 1, 3, "rw")


def test_accesses_add_up():
    state = permissions([DENY_ALL, allow("c", 10, 1, "r"), allow("c", 10, 1, "w")], defaults=False)
    assert state.texts()[1] == ("c 10:1 rw",)
    assert state.allows("c", 10, 1, "rw")
    assert not state.allows("c", 10, 1, "rm")


def test_denying_takes_letters_away():
    state = permissions([DENY_ALL, allow("c", 10, 1), deny("c", 10, 1, "w")], defaults=False)
    assert state.texts()[1] == ("c 10:1 rm",)


def test_denying_a_wildcard_takes_what_it_covers():
    state = permissions([DENY_ALL, allow("c", 10, 1), allow("c", 11, 1), deny("c", 10, -1)], defaults=False)
    assert state.texts()[1] == ("c 11:1 rwm",)


def test_no_hole_in_a_wildcard():
    """Version 1 keeps the wildcard and drops the rule without a word; the device would stay open."""
    with pytest.raises(OSError, match="makes a hole in"):
        permissions([DENY_ALL, allow("c", 10, -1), deny("c", 10, 229)], defaults=False)


def test_everything_but():
    state = permissions([{"allow": True}, deny("b", 8, 0, "w")], defaults=False)
    assert state.texts() == ("devices.allow", ("b 8:0 w",))
    assert state.allows("b", 8, 0, "r")
    assert not state.allows("b", 8, 0, "rw")


@pytest.mark.parametrize("rule", [{"type": "x"}, {"access": "rx"}, {"type": "p", "access": "r"}])
def test_malformed(rule):
    with pytest.raises(OSError, match="type is a, b or c"):
        permissions([rule])


RULE_SETS = {
    "default": (DEFAULT_RULES, True),
    "nothing": ((), False),
    "privileged": ((*DEFAULT_RULES, {"allow": True, "access": "rwm"}), True),
    "some": ((DENY_ALL, allow("c", 10, 229, "rw"), allow("b", 7, -1, "r"), allow("c", 4, 64)), True),
    "all but": (({"allow": True}, deny("b", 8, -1), deny("c", 1, 11, "w"), deny("c", 10, 229, "rm")), False),
    "big numbers": ((DENY_ALL, allow("c", 511, 1048575), allow("b", 4095, 0, "w")), False),
}
NODES = [(1, 3), (1, 11), (4, 64), (5, 1), (7, 0), (7, 5), (8, 0), (8, 1), (10, 200), (10, 229), (136, 9)]
BIG_NODES = [(511, 1048575), (4095, 0), (0, 0)]
PROBES = [
    (kind, major, minor, access)
    for kind, (major, minor), access in itertools.product(
        "bc",
        [*NODES, *BIG_NODES],
        ["r", "w", "m", "rw", "rm", "rwm"],
    )
]


@pytest.mark.parametrize("name", RULE_SETS)
def test_the_program_of_version_2_agrees(name):
    rules, defaults = RULE_SETS[name]
    state = permissions(rules, defaults=defaults)
    program = bpf_device.program(state.allow_all, list(state.entries.items()))
    answers = {probe: run(program, *probe) for probe in PROBES}
    assert answers == {probe: state.allows(*probe) for probe in PROBES}
