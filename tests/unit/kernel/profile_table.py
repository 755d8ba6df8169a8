"""What the default profile says of each number, read from its JSON without the code under test."""

from __future__ import annotations

import functools
import json

from tests.unit.kernel.classic_bpf import ALLOW, ENOSYS, EPERM
from wherry.kernel.seccomp_syscalls import numbers
from wherry.oci.capabilities import DEFAULT
from wherry.oci.seccomp import default_profile


def _applies(block):
    needs, without = block.get("includes") or {}, block.get("excludes") or {}
    if not set(needs.get("caps") or ()) <= set(DEFAULT) or set(without.get("caps") or ()) & set(DEFAULT):
        return False
    return "amd64" in needs.get("arches", ["amd64"]) and "amd64" not in without.get("arches", [])


@functools.cache
def _rules(machine):
    """The blocks that apply, by number; and the newest number they name."""
    table = numbers(machine)
    found = {}
    for block in filter(_applies, json.loads(default_profile())["syscalls"]):
        for name in block["names"]:
            if name in table:
                found.setdefault(table[name], []).append(block)
    return found, max(found)


def expected_word(machine, nr):
    """The word that a filter must return; None where arguments decide."""
    rules, newest = _rules(machine)
    if nr > newest:
        return ENOSYS
    matching = rules.get(nr)
    if not matching:
        return EPERM
    if any(block.get("args") for block in matching):
        return None
    action = matching[0]["action"]
    return ALLOW if action == "SCMP_ACT_ALLOW" else 0x00050000 | matching[0]["errnoRet"]
