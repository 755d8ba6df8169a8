"""Hierarchies as /proc/self/mountinfo shows them."""

from __future__ import annotations

from wherry.kernel.cgroup import Hierarchy, parse_mountinfo

HYBRID = """\
22 1 8:1 / / rw - ext4 /dev/sda1 rw
31 23 0:28 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
32 31 0:29 / /sys/fs/cgroup/unified rw,nosuid shared:5 - cgroup2 cgroup2 rw,nsdelegate
33 31 0:30 / /sys/fs/cgroup/systemd rw shared:6 - cgroup cgroup rw,xattr,name=systemd
34 31 0:31 / /sys/fs/cgroup/cpu,cpuacct rw shared:7 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw shared:8 - cgroup cgroup rw,memory
36 31 0:32 / /mnt/with\\040space rw shared:8 - cgroup cgroup rw,memory
"""


def test_hybrid():
    assert parse_mountinfo(HYBRID) == (
        Hierarchy("/sys/fs/cgroup/unified", (), unified=True),
        Hierarchy("/sys/fs/cgroup/systemd", ("name=systemd",)),
        Hierarchy("/sys/fs/cgroup/cpu,cpuacct", ("cpu", "cpuacct")),
        Hierarchy("/sys/fs/cgroup/memory", ("memory",)),
    )


def test_a_place_with_a_space():
    lines = [line for line in HYBRID.splitlines() if "040" in line]
    assert parse_mountinfo("\n".join(lines)) == (Hierarchy("/mnt/with space", ("memory",)),)


def test_version_2():
    text = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
    assert parse_mountinfo(text) == (Hierarchy("/sys/fs/cgroup", (), unified=True),)


def test_nothing_mounted():
    assert parse_mountinfo("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n") == ()
