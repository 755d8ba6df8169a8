"""What is worked out of kernel text, without a kernel."""

from __future__ import annotations

from pathlib import Path

from wherry.kernel.netlink.nftlist import Chain, Rule
from wherry.kernel.procfs import parse_mount
from wherry.models.xray import Layer, Link
from wherry.xray import devices, firewall, limits, mounts, security, timeline

KNOWN = {"read": 0, "mount": 165, "clone": 56, "bpf": 321, "ptrace": 101}


def test_what_a_profile_blocks() -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [
            {"names": ["read", "nosuch"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]},
            {"names": ["ptrace"], "action": "SCMP_ACT_KILL"},
        ],
    }
    assert security.judge(profile, KNOWN) == (["bpf", "mount", "ptrace"], ["clone"], 1)
    lenient = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["bpf"], "action": "SCMP_ACT_ERRNO"}]}
    assert security.judge(lenient, KNOWN) == (["bpf"], [], 4)


def test_layers_of_both_forms_of_an_overlay() -> None:
    assert mounts.lower(("rw", "lowerdir+=/b", "lowerdir+=/a", "upperdir=/u")) == ["/b", "/a"]
    assert mounts.lower(("rw", "lowerdir=l/x:l/y", "upperdir=/u")) == ["l/x", "l/y"]
    assert mounts.lower(()) == []


def test_a_layer_is_named_by_the_chain_in_its_path() -> None:
    chain = "ab" * 32
    known = {chain: Layer(directory="", name="layer 1 of 1", digest="sha256:cd")}
    assert mounts.name_layer(f"/x/layers/{chain}/fs", known).name == "layer 1 of 1"
    assert mounts.name_layer(f"l/{chain[:24]}", known).digest == "sha256:cd"
    assert mounts.name_layer("/x/layers/other/fs", known).name == ""


def kind(line: str) -> str:
    return mounts.kind(parse_mount(line), {"/etc/hosts": "/data/c/hosts"}, None)


def test_what_a_mount_is_for() -> None:
    assert kind("1 2 0:4 /null /proc/keys rw - tmpfs tmpfs rw,mode=755") == "masked"
    assert kind("1 2 0:5 / /proc/acpi ro,relatime - tmpfs tmpfs ro,size=4k") == "masked"
    assert kind("1 2 0:6 /sys /proc/sys ro - proc proc rw") == "read-only"
    assert kind("1 2 0:6 /sys /proc/sys rw - proc proc rw") == "system"
    assert kind("1 2 254:0 /data/c/hosts /etc/hosts rw - ext4 /dev/vda rw") == "engine-file"
    assert kind("1 2 254:0 /other/hosts /etc/hosts rw - ext4 /dev/vda rw") == "bind"
    assert kind("1 2 0:7 / /scratch rw - tmpfs tmpfs rw,size=1024k") == "tmpfs"
    assert kind("1 2 0:8 / /dev/shm rw - tmpfs shm rw") == "system"


def test_a_limit_in_the_files_of_version_2(tmp_path: Path) -> None:
    for name, text in {
        "memory.max": "67108864", "memory.current": "4096", "memory.high": "max", "memory.swap.max": "max",
        "cpu.max": "150000 100000", "cpu.weight": "100", "pids.max": "max", "pids.current": "3",
        "io.max": "254:0 rbps=1048576 wbps=max riops=max wiops=max",
    }.items():  # fmt: skip
        (tmp_path / name).write_text(text + "\n")
    found = {
        each.file.rpartition("/")[2]: each
        for controller in ("memory", "cpu", "pids", "io")
        for each in limits.limits(limits.V2, controller, str(tmp_path))
    }
    assert (found["memory.max"].value, found["memory.max"].used, found["memory.max"].set) == (64 << 20, 4096, True)
    assert (found["memory.high"].value, found["memory.high"].set) == (-1, False)
    assert (found["cpu.max"].value, found["cpu.max"].set) == (150, True)
    assert not found["cpu.weight"].set
    assert (found["pids.max"].value, found["pids.max"].used, found["pids.max"].set) == (-1, 3, False)
    assert found["io.max"].set
    assert "cpuset.cpus" not in found


def test_a_limit_in_the_files_of_version_1(tmp_path: Path) -> None:
    for name, text in {
        "memory.limit_in_bytes": "9223372036854771712", "memory.usage_in_bytes": "8192", "cpu.cfs_quota_us": "-1",
        "cpu.cfs_period_us": "100000", "cpu.shares": "512", "memory.failcnt": "4",
        "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2",
    }.items():  # fmt: skip
        (tmp_path / name).write_text(text + "\n")
    found = {each.name: each for name in ("memory", "cpu") for each in limits.limits(limits.V1, name, str(tmp_path))}
    assert (found["memory"].value, found["memory"].used, found["memory"].set) == (-1, 8192, False)
    assert (found["processor time"].set, found["processor weight"].value) == (False, 512)
    assert found["processor weight"].set
    felt = {each.name: each.count for each in limits.events({"memory": str(tmp_path)})}
    assert felt == {"memory limit reached": 4, "killed for want of memory": 2}


def test_a_line_of_devices_list() -> None:
    rule = devices.parse("c 136:* rwm")
    assert (rule.type, rule.major, rule.minor, rule.access, rule.name) == ("c", 136, -1, "rwm", "pts")
    assert devices.parse("a *:* rwm").major == -1


def link(**fields) -> Link:
    base = {
        "name": "eth0", "index": 2, "kind": "veth", "mac": "", "mtu": 1500, "up": True, "rx_bytes": 0, "tx_bytes": 0,
        "rx_packets": 0, "tx_packets": 0, "addresses": ("172.17.0.2/16",), "peer": "veth1", "bridge": "br0",
    }  # fmt: skip
    return Link(**{**base, **fields})


class View:
    def __init__(self, *texts: str) -> None:
        self.chains = [Chain("ip", "t", "c", "filter", "forward", 0, "accept")]
        self.rules = [Rule("ip", "t", "c", number, text) for number, text in enumerate(texts)]


def why(text: str) -> list[str]:
    return [each.why for each in firewall.concerning([link()], View(), View(text), shared=False)]


def test_which_rules_concern_a_container() -> None:
    assert why('iifname "br0" accept') == ["bridge br0"]
    assert why('iifname "br01" accept') == []
    assert why('iifname "veth*" drop') == ["link veth1"]
    assert why("ip daddr 172.17.0.2 accept") == ["address 172.17.0.2"]
    assert why("ip daddr 172.17.0.20 accept") == []
    assert why("ip saddr 172.16.0.0/12 masquerade") == ["network 172.16.0.0/12"]
    assert why("tcp dport 8080 dnat to 172.17.0.2:80") == ["address 172.17.0.2"]
    assert why("ip saddr 10.0.0.0/8 drop") == []


def test_rules_of_its_own_namespace_all_concern_it() -> None:
    found = firewall.concerning([link()], View("tcp dport 53 accept"), View(), shared=False)
    assert [(each.where, each.hook, each.why) for each in found] == [("container", "forward", "in its own namespace")]


def test_phases_become_lengths() -> None:
    found = timeline.read([("resolve", 1000), ("spec", 1500), ("running", 4000)], 1)
    assert found
    assert found.lasted == 3000
    assert [(each.name, each.began, each.lasted) for each in found.phases] == [("resolve", 0, 500), ("spec", 500, 2500)]
    assert timeline.read([], 0) is None
