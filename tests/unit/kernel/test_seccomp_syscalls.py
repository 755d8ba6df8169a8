"""The tables, against the headers of the kernel that this machine's C library was built with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from wherry.kernel.seccomp_syscalls import X32_BIT, numbers

HEADERS = Path("/usr/include/x86_64-linux-gnu/asm")


@pytest.mark.parametrize(("machine", "header", "base"), [
    ("x86_64", "unistd_64.h", 0), ("x86", "unistd_32.h", 0), ("x32", "unistd_x32.h", X32_BIT),
])  # fmt: skip
def test_numbers_are_those_of_the_headers(machine, header, base):
    text = (HEADERS / header).read_text()
    found = re.findall(r"#define __NR_(\w+)\s+\(?(?:__X32_SYSCALL_BIT \+ )?(\d+)\)?$", text, re.MULTILINE)
    assert len(found) > 300
    table = numbers(machine)
    for name, number in found:
        assert table[name] == int(number) | base, name


@pytest.mark.parametrize(("machine", "name", "number"), [
    ("aarch64", "openat", 56), ("aarch64", "clone", 220), ("aarch64", "execve", 221), ("aarch64", "mseal", 462),
    ("aarch64", "renameat", 38), ("aarch64", "getrlimit", 163), ("arm", "read", 3), ("arm", "arm_fadvise64_64", 270),
    ("arm", "sync_file_range2", 341), ("arm", "set_tls", 0xF0005), ("x86_64", "uretprobe", 335),
    ("x86_64", "file_setattr", 469), ("x86", "socketcall", 102), ("x86", "socket", 359), ("x86", "cachestat", 451),
])  # fmt: skip
def test_some_numbers_of_other_machines(machine, name, number):
    assert numbers(machine)[name] == number


@pytest.mark.parametrize("machine", ["x86_64", "x86", "x32", "aarch64"])
def test_a_number_has_one_name(machine):
    table = numbers(machine)
    assert len(set(table.values())) == len(table)


def test_x32_lacks_what_it_never_had():
    assert "uselib" in numbers("x86_64")
    assert "uselib" not in numbers("x32")
    assert numbers("x32")["execve"] == X32_BIT | 520
