"""Selection of blocks of Docker's seccomp profiles."""

from __future__ import annotations

import json

import pytest

from wherry.errors import InvalidArgument
from wherry.oci.capabilities import ALL, DEFAULT
from wherry.oci.seccomp import default_profile, kernel_version, profile_for


def select(profile, caps=DEFAULT, machine="x86_64", release="6.18.44-x"):
    return profile_for(json.dumps(profile), frozenset(caps), machine, release)


def names(selected):
    return [name for rule in selected["syscalls"] for name in rule["names"]]


def block(name, **more):
    return {"names": [name], "action": "SCMP_ACT_ALLOW", **more}


def profile(*blocks, **more):
    return {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": list(blocks), **more}


def default_names(caps, machine="x86_64"):
    return set(names(profile_for(default_profile(), frozenset(caps), machine, "6.18.0")))


def test_the_default_profile():
    selected = profile_for(default_profile(), frozenset(DEFAULT), "x86_64", "6.18.0")
    assert selected["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    assert (selected["defaultAction"], selected["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", 1)
    forbidden = {"mount", "unshare", "bpf", "keyctl", "add_key", "reboot", "ptrace_x", "io_uring_setup", "userfaultfd"}
    assert not forbidden & set(names(selected))
    assert {"chroot", "ptrace", "arch_prctl", "modify_ldt"} <= set(names(selected))
    assert {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38} in selected["syscalls"]


@pytest.mark.parametrize(
    ("capability", "allowed"),
    [
        ("CAP_SYS_ADMIN", {"mount", "unshare", "setns", "bpf", "clone3"}),
        ("CAP_SYS_BOOT", {"reboot"}),
        ("CAP_BPF", {"bpf"}),
        ("CAP_PERFMON", {"perf_event_open"}),
        ("CAP_SYSLOG", {"syslog"}),
        ("CAP_SYS_TIME", {"clock_settime", "settimeofday"}),
        ("CAP_DAC_READ_SEARCH", {"open_by_handle_at"}),
        ("CAP_SYS_MODULE", {"init_module", "finit_module", "delete_module"}),
        ("CAP_SYS_NICE", {"mbind", "set_mempolicy"}),
    ],
)
def test_capabilities_open_calls(capability, allowed):
    # clone3 is named without it too, to answer ENOSYS
    assert not (allowed - {"clone3"}) & default_names(DEFAULT)
    assert allowed <= default_names((*DEFAULT, capability))


def test_sys_admin_takes_the_clone_rules_away():
    selected = profile_for(default_profile(), frozenset(ALL), "x86_64", "6.18.0")
    clone = [rule for rule in selected["syscalls"] if "clone" in rule["names"]]
    assert [rule.get("args") for rule in clone] == [None]


def test_other_machines():
    assert "arch_prctl" not in default_names(DEFAULT, "aarch64")
    assert "arm_fadvise64_64" in default_names(DEFAULT, "aarch64")
    selected = profile_for(default_profile(), frozenset(DEFAULT), "aarch64", "6.18.0")
    assert selected["architectures"] == ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]


@pytest.mark.parametrize(("release", "chosen"), [("4.7.9", False), ("4.8.0-rc1", True), ("5.0", True), ("odd", False)])
def test_least_kernel(release, chosen):
    found = select(profile(block("ptrace", includes={"minKernel": "4.8"})), release=release)
    assert (names(found) == ["ptrace"]) is chosen
    found = select(profile(block("ptrace", excludes={"minKernel": "4.8"})), release=release)
    assert (names(found) == []) is chosen


def test_all_included_capabilities_are_needed_and_one_excluded_is_enough():
    both = {"caps": ["CAP_KILL", "CAP_BPF"]}
    assert names(select(profile(block("read", includes=both)))) == []
    assert names(select(profile(block("read", includes=both)), caps=["CAP_KILL", "CAP_BPF"])) == ["read"]
    assert names(select(profile(block("read", excludes=both)))) == []


def test_own_architectures_are_taken_as_they_are():
    assert select(profile(architectures=["SCMP_ARCH_X86"]))["architectures"] == ["SCMP_ARCH_X86"]


def test_name_of_old_profiles():
    assert names(select(profile({"name": "read", "action": "SCMP_ACT_ALLOW", "args": []}))) == ["read"]


def test_an_empty_profile_is_none():
    assert select({}) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("xx", "Decoding seccomp profile failed"),
        ("[]", "Decoding seccomp profile failed"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [5]}', "Decoding seccomp profile failed"),
        ('{"syscalls": [{"names": ["a"], "action": "x"}]}', "Decoding seccomp profile failed"),
        (
            json.dumps(profile({"name": "a", "names": ["b"], "action": "SCMP_ACT_ALLOW"})),
            "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'",
        ),
        (
            json.dumps(profile(architectures=["SCMP_ARCH_X86"], archMap=[{"architecture": "SCMP_ARCH_X86_64"}])),
            "both 'architectures' and 'archMap' are specified in the seccomp profile",
        ),
    ],
)
def test_what_is_refused(text, message):
    with pytest.raises(InvalidArgument, match=message):
        profile_for(text, frozenset(), "x86_64", "6.1")


def test_versions():
    assert [kernel_version(text) for text in ("6.18.44-fc", "4.8", "x", "")] == [(6, 18), (4, 8), (0, 0), (0, 0)]
