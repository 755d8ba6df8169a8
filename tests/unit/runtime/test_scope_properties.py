"""Limits as systemd takes them."""

from __future__ import annotations

import pytest

from wherry.runtime.dbus import Variant
from wherry.runtime.scope_properties import INFINITY, bitmap, limits

GROUPS = "Character devices:\n  1 mem\n  5 /dev/tty\n  5 /dev/console\n136 pts\n\nBlock devices:\n  8 sd\n"


def asked(resources, version, *, bfq=False):
    return [(name, *value) for name, value in limits(resources, version=version, bfq=bfq, groups=GROUPS)]


@pytest.mark.parametrize(
    ("resources", "old", "new"),
    [
        ({"memory": {"limit": 5}}, [("MemoryLimit", "t", 5)], [("MemoryMax", "t", 5)]),
        (
            {"memory": {"limit": -1}},
            [("MemoryLimit", "t", INFINITY)],
            [("MemorySwapMax", "t", INFINITY), ("MemoryMax", "t", INFINITY)],
        ),
        (
            {"memory": {"limit": 5, "swap": 9, "reservation": 3}},
            [("MemoryLimit", "t", 5)],
            [("MemorySwapMax", "t", 4), ("MemoryMax", "t", 5), ("MemoryLow", "t", 3)],
        ),
        ({"cpu": {"shares": 1024}}, [("CPUShares", "t", 1024)], [("CPUWeight", "t", 100)]),
        (
            {"cpu": {"quota": 50000}},
            [("CPUQuotaPerSecUSec", "t", 500000), ("CPUQuotaPeriodUSec", "t", 100000)],
            [("CPUQuotaPerSecUSec", "t", 500000), ("CPUQuotaPeriodUSec", "t", 100000)],
        ),
        (
            {"cpu": {"quota": 12345, "period": 50000}},
            [("CPUQuotaPerSecUSec", "t", 250000), ("CPUQuotaPeriodUSec", "t", 50000)],
            [("CPUQuotaPerSecUSec", "t", 250000), ("CPUQuotaPeriodUSec", "t", 50000)],
        ),
        (
            {"cpu": {"quota": -1, "period": 50000}},
            [("CPUQuotaPerSecUSec", "t", INFINITY), ("CPUQuotaPeriodUSec", "t", 50000)],
            [("CPUQuotaPerSecUSec", "t", INFINITY), ("CPUQuotaPeriodUSec", "t", 50000)],
        ),
        (
            {"cpu": {"cpus": "0-1,9", "mems": "0"}},
            [],
            [("AllowedCPUs", "ay", b"\x03\x02"), ("AllowedMemoryNodes", "ay", b"\x01")],
        ),
        ({"cpu": {"idle": 1}}, [], [("CPUWeight", "t", 0)]),
        ({"pids": {"limit": -1}}, [("TasksMax", "t", INFINITY)], [("TasksMax", "t", INFINITY)]),
        ({"pids": {"limit": 7}}, [("TasksMax", "t", 7)], [("TasksMax", "t", 7)]),
        ({"blockIO": {"weight": 500}}, [("BlockIOWeight", "t", 500)], [("IOWeight", "t", 4950)]),
        ({"hugepageLimits": [{"pageSize": "2MB", "limit": 1}]}, [], []),
    ],
)
def test_limits(resources, old, new):
    assert asked(resources, 1) == old
    assert asked(resources, 2) == new


@pytest.mark.parametrize(("weight", "property"), [(10, 10), (100, 100), (1000, 10000)])
def test_block_weights_of_bfq(weight, property):
    assert asked({"blockIO": {"weight": weight}}, 2, bfq=True) == [("IOWeight", "t", property)]


def test_unified():
    resources = {"unified": {"memory.high": "9", "memory.oom.group": "1", "cpu.max": "max 50000"}}
    period = ("CPUQuotaPeriodUSec", "t", 50000)
    assert asked(resources, 2) == [("MemoryHigh", "t", 9), ("CPUQuotaPerSecUSec", "t", INFINITY), period]


def test_devices_are_version_1s():
    rules = [{"allow": False, "access": "rwm"}, {"allow": True, "type": "b", "major": 8, "access": "r"}]
    assert asked({"devices": rules}, 2) == []
    policy, cleared, allowed = limits({"devices": rules}, version=1, bfq=False, groups=GROUPS)
    assert policy == ("DevicePolicy", Variant("s", "strict"))
    assert cleared == ("DeviceAllow", Variant("a(ss)", []))
    found = dict(allowed[1].value)
    assert found["block-sd"] == "r"
    assert found["char-pts"] == "rwm"
    assert found["/dev/char/1:3"] == "rwm"
    assert (found["char-*"], found["block-*"]) == ("m", "m")


def test_all_devices():
    found = asked({"devices": [{"allow": True, "access": "rwm"}]}, 1)
    assert found == [("DevicePolicy", "s", "auto"), ("DeviceAllow", "a(ss)", [])]


@pytest.mark.parametrize(("text", "bits"), [("0", b"\x01"), ("7", b"\x80"), ("8", b"\x00\x01"), ("0-2,4", b"\x17")])
def test_bitmap(text, bits):
    assert bitmap(text) == bits
