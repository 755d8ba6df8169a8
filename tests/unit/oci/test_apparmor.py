"""The profile docker-default: which paths its patterns cover, and who gets it."""

from __future__ import annotations

import re

import pytest

from wherry.models.container import HostConfig
from wherry.oci import apparmor
from wherry.oci.host import HostFacts

HERE = HostFacts(apparmor=True, apparmor_parser="/sbin/apparmor_parser")


def denied(path: str, access: str = "w") -> bool:
    """Read the rules as AppArmor does: no star, question mark or class takes a slash, two stars do."""
    for pattern, letters in re.findall(r"^  deny (/\S+) ([rwklx]+),$", apparmor.text(abi=True), re.MULTILINE):
        expression = pattern.replace("{,/**}", "(/.+)?").replace("/**", "/.+").replace("?*", "[^/]+")
        expression = re.sub(r"(?<![+\]])\*|(?<=\])\*", "[^/]*", expression)
        if access in letters and re.fullmatch(expression, path):
            return True
    return False


@pytest.mark.parametrize(
    "path",
    [
        "/proc/sysrq-trigger", "/proc/kcore", "/proc/x", "/proc/acpi/x", "/proc/sysvipc/shm", "/proc/scsi/scsi",
        "/proc/s/x", "/proc/irq/1/smp_affinity",
        "/proc/fs/x/y", "/proc/sys/vm/drop_caches", "/proc/sys/net/ipv4/ip_forward",
        "/proc/sys/kernel/hostname", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/sem", "/proc/sys/kernel/s",
        "/proc/sys/kernel/random/uuid", "/proc/sys/fs/file-max", "/proc/sys/user/max_user_namespaces",
        "/sys/kernel/mm/x", "/sys/f/x", "/sys/firmware/x", "/sys/fs/x", "/sys/fs/bpf/x", "/sys/fs/cgroups", "/sys/fsx",
        "/sys/fs/cgrou/x", "/sys/module/x/parameters/y", "/sys/fs/ext4/x",
    ],
)  # fmt: skip
def test_what_may_not_be_written(path):
    assert denied(path)


@pytest.mark.parametrize(
    "path",
    [
        "/proc/1/oom_score_adj", "/proc/4711/attr/apparmor/exec", "/proc/1/task/1/comm", "/proc/sys/kernel/shmmax",
        "/proc/sys/kernel/shm_rmid_forced", "/sys/fs/cgroup/x", "/sys/fs/cgroup/memory/a/b", "/etc/passwd", "/procx/y",
        "/sysx", "/dev/null",
    ],
)  # fmt: skip
def test_what_may(path):
    assert not denied(path)


@pytest.mark.parametrize(
    "path", ["/proc/kcore", "/proc/sysrq-trigger", "/sys/firmware/acpi/tables/DSDT", "/sys/kernel/security/x"]
)
def test_what_may_not_even_be_read(path):
    assert denied(path, "r")
    assert not denied("/proc/meminfo", "r")


def test_the_text():
    text = apparmor.text(abi=True, peers=("wherryd", 'no"name'))
    assert text.startswith("abi <abi/3.0>,\n\nprofile docker-default flags=(attach_disconnected, mediate_deleted) {\n")
    assert "  deny mount,\n" in text
    assert "  deny network alg,\n" in text
    assert '  signal (receive) peer="wherryd",\n' in text
    assert "no" + '"name' not in text
    assert "abi <" not in apparmor.text(abi=False)


@pytest.mark.parametrize(
    ("options", "privileged", "profile"),
    [
        ([], False, "docker-default"),
        ([], True, "unconfined"),
        (["apparmor=unconfined"], False, "unconfined"),
        (["apparmor=other"], True, "other"),
        (["apparmor:other"], False, "other"),
    ],
)
def test_who_gets_which(options, privileged, profile):
    host = HostConfig(security_opt=options, privileged=privileged)
    assert apparmor.profile_for(host, HERE) == profile
    assert apparmor.profile_for(host, HostFacts()) == ""


def test_without_a_parser_there_is_none_of_ours():
    facts = HostFacts(apparmor=True)
    assert apparmor.profile_for(HostConfig(), facts) == ""
    assert apparmor.profile_for(HostConfig(security_opt=["apparmor=other"]), facts) == "other"
