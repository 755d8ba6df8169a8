"""wherry xray against what other tools say of the same container: readlink, ip, nft, /proc, the files of cgroups."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.engine import Engine
from tests.waiting import until
from wherry.kernel import bpf_device

pytestmark = [pytest.mark.root, pytest.mark.engine]

KINDS = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
UNIFIED = Path("/sys/fs/cgroup/unified")


def look(engine: Engine, name: str) -> dict[str, Any]:
    status, body = engine.api("GET", f"/wherry/v1/containers/{name}/xray")
    assert status == 200, body
    answer: dict[str, Any] = json.loads(body)
    assert answer["Notes"] == []
    return answer


def start(engine: Engine, name: str, *flags: str, command: tuple[str, ...] = ("sleep", "1000")) -> int:
    engine.docker("run", "-d", "--name", name, *flags, "busybox", *command)
    return pid_of(engine, name)


def pid_of(engine: Engine, name: str) -> int:
    return int(engine.docker("inspect", "-f", "{{.State.Pid}}", name))


def told(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def limit(answer: dict[str, Any], file: str) -> dict[str, Any]:
    found = [each for each in answer["ControlGroup"]["Limits"] if each["File"].endswith(f"/{file}")]
    assert len(found) == 1, file
    return found[0]


def kinds_where(answer: dict[str, Any], name: str) -> set[str]:
    return {each["Kind"] for each in answer["Namespaces"]["Entries"] if name in each["SharedWith"]}


def differences(engine: Engine, name: str) -> dict[str, tuple[str, str]]:
    return {each["What"]: (each["Asked"], each["Found"]) for each in look(engine, name)["Differences"]}


# What it sees


def test_namespaces_and_who_shares_them(engine: Engine):
    first = start(engine, "aa")
    second = start(engine, "bb", "--network", "container:aa", "--pid", "container:aa")
    start(engine, "cc", "--network", "host", "--pid", "host", "--ipc", "host", "--uts", "host")
    for name, pid in (("aa", first), ("bb", second)):
        found = {each["Kind"]: each["Inode"] for each in look(engine, name)["Namespaces"]["Entries"]}
        assert found == {kind: int(os.readlink(f"/proc/{pid}/ns/{kind}").strip(f"{kind}:[]")) for kind in KINDS}
    assert kinds_where(look(engine, "aa"), "bb") == {"net", "pid"}
    assert kinds_where(look(engine, "bb"), "aa") == {"net", "pid"}
    assert look(engine, "bb")["Network"]["Mode"] == "container:aa"
    with_host = {each["Kind"] for each in look(engine, "cc")["Namespaces"]["Entries"] if each["SharedWithHost"]}
    assert with_host == {"cgroup", "ipc", "net", "pid", "user", "uts"}
    for name in ("aa", "bb", "cc"):
        assert look(engine, name)["Differences"] == []


def test_mounts_layers_masks_and_binds(engine: Engine, tmp_path: Path):
    folder = tmp_path / "a b"
    folder.mkdir()
    pid = start(engine, "aa", "-v", f"{folder}:/data:ro", "--tmpfs", "/scratch:size=1m", "--read-only")
    answer = look(engine, "aa")
    mounts = {each["Target"]: each for each in answer["Mounts"]["Entries"]}
    own = engine.docker("exec", "aa", "cat", "/proc/1/mountinfo").splitlines()
    assert sorted(mounts) == sorted({line.split()[4] for line in own})
    assert (mounts["/data"]["Kind"], mounts["/data"]["Writable"]) == ("bind", False)
    assert str(folder).endswith(mounts["/data"]["Root"].removeprefix("/"))
    assert (mounts["/scratch"]["Kind"], mounts["/scratch"]["Writable"]) == ("tmpfs", True)
    assert mounts["/etc/hosts"]["Kind"] == "engine-file"
    assert mounts["/proc/keys"]["Kind"] == "masked"
    assert mounts["/proc/sys"]["Kind"] == "read-only"
    assert answer["Mounts"]["Writable"] is False
    image = json.loads(engine.docker("image", "inspect", "busybox"))[0]
    assert [each["Digest"] for each in answer["Mounts"]["Layers"]] == image["RootFS"]["Layers"]
    place = Path(answer["Mounts"]["Layers"][0]["Directory"])
    assert place.is_dir()  # mounted there for the engine only; beside it is the layer's tar
    names = subprocess.run(["tar", "-tf", place.with_name("tar")], capture_output=True, text=True, check=True).stdout
    assert "bin/busybox" in names.split()
    assert f"upperdir={answer['Mounts']['Upper']}" in Path(f"/proc/{pid}/mountinfo").read_text()


# What it can use


def test_limits_are_those_of_the_control_groups(engine: Engine):
    pid = start(engine, "aa", "-m", "64m", "--cpus", "0.5", "--pids-limit", "20", "--cpu-shares", "512",
                command=("sh", "-c", "sleep 1000 & sleep 1001"))  # fmt: skip
    answer = look(engine, "aa")
    group = answer["ControlGroup"]
    lines = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    assert {(",".join(each["Controllers"]), each["Path"]) for each in group["Paths"] if each["Version"] == 1} == {
        (names, path) for _, names, path in lines if names
    }
    assert [each["Path"] for each in group["Paths"] if each["Version"] == 2] == [p for _, n, p in lines if not n]
    for each in group["Limits"]:
        assert Path(each["File"]).read_text().startswith(each["Text"].split(" of ")[0])
    assert limit(answer, "memory.limit_in_bytes")["Value"] == 64 << 20
    assert limit(answer, "cpu.cfs_quota_us")["Value"] == 50
    assert limit(answer, "cpu.shares")["Value"] == 512
    assert (limit(answer, "pids.max")["Value"], limit(answer, "pids.max")["Used"]) == (20, 2)
    assert limit(answer, "memory.limit_in_bytes")["Used"] > 0
    assert not limit(answer, "memory.soft_limit_in_bytes")["Set"]
    assert answer["Differences"] == []


def test_devices_are_those_of_the_list(engine: Engine):
    start(engine, "aa")
    start(engine, "bb", "--privileged")
    answer = look(engine, "aa")
    folder = next(p["Directory"] for p in answer["ControlGroup"]["Paths"] if p["Controllers"] == ["devices"])
    shown = {
        f"{r['Type']} {'*' if r['Major'] < 0 else r['Major']}:{'*' if r['Minor'] < 0 else r['Minor']} {r['Access']}"
        for r in answer["Devices"]["Rules"]
    }
    assert shown == set(Path(folder, "devices.list").read_text().splitlines())
    assert [each["Type"] for each in look(engine, "bb")["Devices"]["Rules"]] == ["a"]
    Path(folder, "devices.allow").write_text("c 10:229 rw")
    assert differences(engine, "aa") == {"device": ("not allowed", "c 10:229 rw is allowed")}


def test_a_group_of_version_2_beside_those_of_version_1(engine: Engine):
    if not UNIFIED.is_dir():
        pytest.skip("no hybrid machine")
    pid = start(engine, "aa")
    group = UNIFIED / f"wherry-xray-{engine.tag}"
    group.mkdir()
    try:
        (group / "cgroup.procs").write_text(str(pid))
        bpf_device.attach(str(group), bpf_device.program(True, []))
        answer = look(engine, "aa")
        own = next(each for each in answer["ControlGroup"]["Paths"] if each["Version"] == 2)
        assert (own["Path"], own["Directory"]) == (f"/{group.name}", str(group))
        assert len(answer["Devices"]["Programs"]) == 1
        assert answer["Devices"]["Programs"][0]["Instructions"] > 2
        assert answer["Devices"]["Programs"][0]["Tag"] != "0" * 16
        assert answer["ControlGroup"]["Version"] == 1
        pages = group / "hugetlb.2MB.max"
        if pages.exists():
            pages.write_text(str(4 << 20))
            assert limit(look(engine, "aa"), pages.name)["Value"] == 4 << 20
    finally:
        engine.docker("rm", "-f", "aa")
        group.rmdir()


# What it can do


def status_of(engine: Engine, name: str) -> dict[str, str]:
    lines = engine.docker("exec", name, "cat", "/proc/1/status").splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--cap-drop", "ALL", "--user", "1000"),
        ("--privileged",),
        ("--security-opt", "seccomp=unconfined"),
        ("--security-opt", "no-new-privileges", "--cap-add", "NET_ADMIN", "--oom-score-adj", "300"),
        ("--ulimit", "nofile=77:88", "--user", "web"),
    ],
)
def test_rights_are_those_that_the_container_reads_itself(engine: Engine, flags: tuple[str, ...]):
    pid = start(engine, "aa", *flags)
    answer, own = look(engine, "aa"), status_of(engine, "aa")
    found = answer["Security"]
    masks = {
        "Bounding": "CapBnd",
        "Effective": "CapEff",
        "Permitted": "CapPrm",
        "Inheritable": "CapInh",
        "Ambient": "CapAmb",
    }
    for name, key in masks.items():
        assert len(found["Capabilities"][name]) == int(own[key], 16).bit_count(), name
    assert found["Seccomp"]["Mode"] == {"0": "disabled", "2": "filter"}[own["Seccomp"]]
    assert found["Seccomp"]["Filters"] == int(own["Seccomp_filters"])
    assert found["NoNewPrivileges"] == (own["NoNewPrivs"] == "1")
    assert found["Uids"] == [int(each) for each in own["Uid"].split()]
    assert found["OomScoreAdjust"] == int(Path(f"/proc/{pid}/oom_score_adj").read_text())
    files = next(each for each in found["ResourceLimits"] if each["Name"] == "open files")
    assert f"{files['Soft']:<21}{files['Hard']}" in Path(f"/proc/{pid}/limits").read_text()
    assert answer["Differences"] == []


def test_what_the_filter_is_said_to_refuse_is_refused(engine: Engine):
    start(engine, "aa", "--cap-add", "SYS_ADMIN")
    start(engine, "bb")
    blocked = set(look(engine, "bb")["Security"]["Seccomp"]["Blocked"])
    assert {"mount", "unshare", "bpf"} <= blocked
    assert "mount" not in look(engine, "aa")["Security"]["Seccomp"]["Blocked"]
    assert engine.run("exec", "bb", "unshare", "-u", "true").returncode != 0
    assert engine.run("exec", "aa", "unshare", "-u", "true").returncode == 0


# Whom it can talk to


def test_links_addresses_and_routes_are_those_of_ip(engine: Engine):
    pid = start(engine, "aa")
    answer = look(engine, "aa")["Network"]
    inside = {each["ifname"]: each for each in json.loads(told("nsenter", "-t", str(pid), "-n", "ip", "-j", "addr"))}
    outside = {each["ifname"]: each for each in json.loads(told("ip", "-j", "addr"))}
    own = next(each for each in answer["Links"] if each["Name"] == "eth0")
    assert own["Mac"] == inside["eth0"]["address"]
    assert own["Addresses"] == [f"{a['local']}/{a['prefixlen']}" for a in inside["eth0"]["addr_info"]]
    assert (own["Index"], own["PeerIndex"]) == (inside["eth0"]["ifindex"], inside["eth0"]["link_index"])
    peer = outside[own["Peer"]]
    assert (peer["ifindex"], peer["link_index"], peer["address"]) == (own["PeerIndex"], own["Index"], own["PeerMac"])
    assert own["Bridge"] == engine.bridge == peer["master"]
    assert own["BridgeAddresses"] == [
        f"{a['local']}/{a['prefixlen']}" for a in outside[engine.bridge]["addr_info"] if a["family"] == "inet"
    ]
    routes = json.loads(told("nsenter", "-t", str(pid), "-n", "ip", "-j", "route"))
    assert [each["Via"] for each in answer["Routes"] if each["Destination"] == "default"] == [
        each["gateway"] for each in routes if each["dst"] == "default"
    ]
    names = next(each["Text"] for each in answer["Files"] if each["Target"] == "/etc/resolv.conf")
    assert names.strip() == engine.docker("exec", "aa", "cat", "/etc/resolv.conf").strip()


def test_rules_are_those_of_nft(engine: Engine):
    start(engine, "aa")
    shown = told("nft", "list", "table", "ip", f"wherry-{engine.bridge}")
    rules = look(engine, "aa")["Network"]["Rules"]
    for each in rules:
        words = each["Text"].replace("counter", f"counter packets {each['Packets']} bytes {each['Bytes']}")
        assert words.removeprefix("element ") in shown, each
    assert len(rules) == 5
    address = engine.docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "aa")
    try:
        told("nft", "add table ip xraytest; add chain ip xraytest c")
        told("nft", f"add rule ip xraytest c ip daddr {address} tcp dport 81 drop")
        told("nft", "add rule ip xraytest c ip daddr 192.0.2.1 drop")
        fresh = [each for each in look(engine, "aa")["Network"]["Rules"] if each["Table"] == "xraytest"]
        assert [(each["Text"], each["Why"]) for each in fresh] == [
            (f"ip daddr {address} tcp dport 81 drop", f"address {address}")
        ]
    finally:
        told("nft", "delete table ip xraytest")


def test_what_listens_and_who_holds_it(engine: Engine):
    start(engine, "aa", command=("nc", "-l", "-p", "8080"))
    deadline = time.monotonic() + 10
    while not (found := look(engine, "aa")["Network"]["Sockets"]):
        assert time.monotonic() < deadline
    assert [(each["Protocol"].rstrip("6"), each["Port"]) for each in found] == [("tcp", 8080)]
    assert found[0]["Pids"] == [pid_of(engine, "aa")]
    start(engine, "bb", "--network", "none")
    answer = look(engine, "bb")["Network"]
    assert [each["Name"] for each in answer["Links"]] == ["lo"]
    assert (answer["Routes"], answer["Sockets"], answer["Rules"]) == ([], [], [])


# What runs


def entries_of(engine: Engine, name: str):
    return look(engine, name)["Processes"]["Entries"]


def test_processes_inside_and_outside(engine: Engine):
    pid = start(engine, "aa", "--init", command=("sh", "-c", "sleep 1000 & sleep 1001"))
    engine.docker("exec", "-d", "aa", "sleep", "1002")
    listed = [line.split() for line in engine.docker("exec", "aa", "ps", "-o", "pid,args").splitlines()]
    own = {words[-1]: int(words[0]) for words in listed if words[1] == "sleep"}
    entries = entries_of(engine, "aa")
    by_argument = {each["Arguments"][-1]: each for each in entries if each["Arguments"][:1] == ["sleep"]}
    assert {name: each["Inside"] for name, each in by_argument.items()} == own
    for each in by_argument.values():
        numbers = Path(f"/proc/{each['Pid']}/status").read_text()
        assert f"NSpid:\t{each['Pid']}\t{each['Inside']}\n" in numbers
    roles = {each["Role"] for each in entries}
    assert {"supervisor", "init", "exec", "member"} <= roles
    assert next(each["Pid"] for each in entries if each["Role"] == "init") == pid
    assert by_argument["1002"]["Role"] == "exec"
    assert by_argument["1002"]["ExecId"] in json.loads(engine.docker("inspect", "aa"))[0]["ExecIDs"]
    supervisor = next(each for each in entries if each["Role"] == "supervisor")
    assert (supervisor["Name"], supervisor["Inside"]) == ("wherry-super", 0)
    assert supervisor["Pid"] == int(told("ps", "-o", "ppid=", "-p", str(pid)))
    # the children of the first, itself and the other sleep, the exec, and what waits for the next exec
    starter = until(lambda: next((each for each in entries_of(engine, "aa") if each["Role"] == "starter"), None))
    assert (starter["Inside"], starter["Parent"]) == (0, supervisor["Pid"])
    children = told("ps", "-o", "pid=", "--ppid", str(pid)).split()
    assert look(engine, "aa")["Processes"]["Count"] == len(children) + 2 + 1 + 1


def test_a_paused_container(engine: Engine):
    start(engine, "aa")
    engine.docker("pause", "aa")
    answer = look(engine, "aa")
    assert (answer["Status"], answer["ControlGroup"]["Frozen"], answer["Differences"]) == ("paused", True, [])
    engine.docker("unpause", "aa")
    assert look(engine, "aa")["ControlGroup"]["Frozen"] is False


def test_a_name_made_of_escapes_is_shown_harmless(engine: Engine):
    script = "printf '#!/bin/sh\\nsleep 1000\\n' >/tmp/$(printf '\\033[31mred'); chmod +x /tmp/*; exec /tmp/*"
    start(engine, "aa", command=("sh", "-c", script))
    deadline = time.monotonic() + 10
    while not any("\x1b" in word for each in look(engine, "aa")["Processes"]["Entries"] for word in each["Arguments"]):
        assert time.monotonic() < deadline
    shown = wherry(engine, "xray", "aa")
    assert "\x1b" not in shown
    assert "\\x1b[31mred" in shown


# Where the two differ


def test_what_was_changed_by_hand_is_told(engine: Engine):
    pid = start(
        engine,
        "aa",
        "-m",
        "64m",
        "--pids-limit",
        "20",
        "--security-opt",
        "no-new-privileges",
        "--ulimit",
        "nofile=77:88",
    )
    answer = look(engine, "aa")
    assert answer["Differences"] == []
    memory = limit(answer, "memory.limit_in_bytes")["File"]
    Path(memory).write_text(str(32 << 20))
    Path(limit(answer, "pids.max")["File"]).write_text("max")
    Path(f"/proc/{pid}/oom_score_adj").write_text("500")
    told("nsenter", "-t", str(pid), "-n", "ip", "route", "del", "default")
    told("nsenter", "-t", str(pid), "-n", "ip", "addr", "add", "192.0.2.7/24", "dev", "eth0")
    told("nsenter", "-t", str(pid), "-m", "umount", "/proc/keys")
    told("prlimit", "--pid", str(pid), "--nofile=70:80")
    gateway = engine.docker("inspect", "-f", "{{.NetworkSettings.Gateway}}", "aa")
    assert differences(engine, "aa") == {
        "memory": (str(64 << 20), str(32 << 20)),
        "processes and threads": ("20", "max"),
        "oom_score_adj": ("0", "500"),
        "default route": (f"via {gateway}", "none"),
        "/proc/keys": ("hidden", "visible"),
        "limit of open files": ("77 / 88", "70 / 80"),
    }
    told("nsenter", "-t", str(pid), "-n", "ip", "link", "set", "eth0", "down")
    assert differences(engine, "aa")["link eth0"] == ("up", "down")
    shown = wherry(engine, "xray", "-s", "differences", "aa")
    assert "asked for 64 MiB, the kernel has 32 MiB" in shown
    assert "memory.limit_in_bytes" in shown


def test_an_update_is_what_is_asked_for_from_then_on(engine: Engine):
    start(engine, "aa", "-m", "64m")
    engine.docker("update", "-m", "48m", "--memory-swap", "96m", "aa")
    answer = look(engine, "aa")
    assert limit(answer, "memory.limit_in_bytes")["Value"] == 48 << 20
    assert answer["Differences"] == []


def test_a_process_moved_to_another_group_is_told(engine: Engine):
    pid = start(engine, "aa")
    Path("/sys/fs/cgroup/pids/cgroup.procs").write_text(str(pid))
    assert differences(engine, "aa")["control group (pids)"][1] == "/"


# How it began and ended


def test_the_start_is_told_by_phases_and_outlives_the_engine(own_engine: Engine):
    own_engine.start()
    own_engine.import_busybox()
    for name in ("aa", "bb", "cc"):  # the first without spares, the last with them
        start(own_engine, name)
    before = look(own_engine, "cc")["Start"]
    names = [each["Name"] for each in before["Phases"]]
    assert names[:7] == ["resolve", "prepare", "sandbox", "files", "snapshot", "spec", "hand-over"]
    assert {"supervisor", "cgroup", "namespaces", "rootfs", "exec"} <= set(names)
    assert sum(each["Lasted"] for each in before["Phases"]) == before["Lasted"]
    assert 1_000_000 < before["Lasted"] < 5_000_000_000
    own_engine.crash()
    own_engine.start()
    assert look(own_engine, "cc")["Start"]["Phases"] == before["Phases"]
    own_engine.docker("stop", "-t", "0", "cc")
    assert look(own_engine, "cc")["Start"]["Phases"] == before["Phases"]


def test_what_is_left_of_a_container_that_ended(engine: Engine):
    engine.run(
        "run", "--name", "aa", "busybox", "sh", "-c", "echo hello; dd if=/dev/zero of=/big bs=1k count=64; exit 3"
    )
    answer = look(engine, "aa")
    assert (answer["Status"], answer["Pid"], answer["Namespaces"], answer["Processes"]) == ("exited", 0, None, None)
    deadline = time.monotonic() + 10
    while answer["Remains"]["LeftBehind"] and time.monotonic() < deadline:
        answer = look(engine, "aa")  # its control group goes a moment after its end is told
    left = answer["Remains"]
    assert (left["ExitCode"], left["Signal"], left["LeftBehind"]) == (3, 0, [])
    assert left["Size"] >= 64 << 10
    assert Path(left["Upper"], "big").stat().st_size == 64 << 10
    assert "hello" in Path(left["Log"]).read_text()
    assert left["LogSize"] == Path(left["Log"]).stat().st_size
    assert len(left["Layers"]) == 1
    start(engine, "bb")
    engine.docker("kill", "-s", "KILL", "bb")
    assert (look(engine, "bb")["Remains"]["ExitCode"], look(engine, "bb")["Remains"]["Signal"]) == (137, 9)
    engine.docker("create", "--name", "cc", "busybox", "true")
    assert look(engine, "cc")["Remains"]["FinishedAt"].startswith("0001")
    assert "It never ran." in wherry(engine, "xray", "cc")


def test_one_that_ends_while_it_is_looked_at(engine: Engine):
    for number in range(4):
        engine.docker("run", "-d", "--name", f"c{number}", "busybox", "sleep", "0.2")
    deadline = time.monotonic() + 20
    left = {f"c{number}" for number in range(4)}
    while left:
        assert time.monotonic() < deadline
        for name in sorted(left):
            status, body = engine.api("GET", f"/wherry/v1/containers/{name}/xray")
            assert status == 200, body
            answer = json.loads(body)
            assert (answer["Pid"] > 0) == (answer["Remains"] is None)
            if answer["Remains"]:
                assert (answer["Status"], answer["Remains"]["ExitCode"]) == ("exited", 0)
                left.remove(name)


# The command


def wherry(engine: Engine, *words: str, status: int = 0) -> str:
    argv = [sys.executable, "-I", "-m", "wherry.cli.main", "-H", engine.host, *words]
    ran = subprocess.run(argv, capture_output=True, timeout=60, text=True, stdin=subprocess.DEVNULL)
    assert ran.returncode == status, ran.stderr
    return ran.stdout if status == 0 else ran.stderr


def test_the_command(engine: Engine):
    pid = start(engine, "aa", "-m", "64m")
    shown = wherry(engine, "xray", "aa")
    for title in ("NAMESPACES", "CONTROL GROUP", "MOUNTS", "DEVICES", "SECURITY", "NETWORK", "PROCESSES", "START"):
        assert title in shown
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert wherry(engine, "container", "xray", "--section", "start", "aa").startswith("START")
    assert json.loads(wherry(engine, "xray", "--json", "aa"))["Pid"] == pid
    assert json.loads(wherry(engine, "xray", "--format", "json", "-s", "security", "aa")).keys() == {"Security"}
    assert wherry(engine, "xray", "-f", "{{.Pid}} {{.Security.Seccomp.Mode}}", "aa") == f"{pid} filter\n"
    assert "No such container: nosuch" in wherry(engine, "xray", "nosuch", status=1)
    assert "no section is called 'nosuch'" in wherry(engine, "xray", "-s", "nosuch", "aa", status=1)
