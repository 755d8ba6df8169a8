"""The pages of xray: what they say, that they fit, and that a container cannot write to the terminal through them."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest

from wherry.cli.failures import UsageError
from wherry.cli.xray import command
from wherry.cli.xray.page import Page, bar, plain, shorten, size, wrap
from wherry.cli.xray.start import rows, strip

HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202egpj.exe\udcff\n\x9b31m"
CAPS = ["CAP_CHOWN", "CAP_KILL"]


def limit(name: str, unit: str, value: int, used: int, file: str, **more: Any) -> dict[str, Any]:
    base = {"Controller": file.partition(".")[0], "Name": name, "Unit": unit, "Value": value, "Set": value >= 0}
    return {**base, "Used": used, "File": f"/sys/fs/cgroup/x/{file}", "Text": str(value), **more}


def process(pid: int, parent: int, role: str, **more: Any) -> dict[str, Any]:
    base = {"Pid": pid, "Inside": pid - 100, "Parent": parent, "Role": role, "Name": "sh", "Arguments": ["sh"]}
    base |= {"State": "S", "Threads": 1, "Uid": 0, "Memory": 4096, "CpuMs": 12, "Effective": "ff", "Seccomp": 2}
    return {**base, "ExecId": "", **more}


def namespace(kind: str, inode: int, **more: Any) -> dict[str, Any]:
    base = {"Kind": kind, "Inode": inode, "SharedWithHost": False, "SharedWith": [], "Owner": 7, "Asked": "private"}
    return {**base, **more}


def mount(target: str, kind: str, type_: str, **more: Any) -> dict[str, Any]:
    base = {"Id": 1, "Parent": 1, "Target": target, "Kind": kind, "Type": type_, "Source": type_, "Root": "/"}
    base |= {"Device": "0:1", "Options": ["rw", "nosuid"], "SuperOptions": ["rw"], "Propagation": [], "Writable": True}
    return {**base, **more}


LINK = {
    "Name": "eth0", "Index": 2, "Kind": "veth", "Mac": "02:42:ac:11:00:02", "Mtu": 1500, "Up": True, "RxBytes": 1024,
    "TxBytes": 0, "RxPackets": 1, "TxPackets": 0, "Addresses": ["172.17.0.2/16"], "Peer": "veth1234567",
    "PeerIndex": 9, "PeerMac": "aa:bb:cc:dd:ee:ff", "PeerUp": True, "Bridge": "wherry0",
    "BridgeAddresses": ["172.17.0.1/16"], "BridgePorts": 3,
}  # fmt: skip
RULE = {
    "Where": "host", "Family": "ip", "Table": "wherry-wherry0", "Chain": "forward", "Hook": "forward",
    "Text": 'oifname "wherry0" ct state established,related accept', "Packets": 5, "Bytes": 2048, "Why": "bridge",
}  # fmt: skip

RUNNING: dict[str, Any] = {
    "Schema": 1, "Id": "c" * 64, "Name": "web", "Image": "busybox", "Status": "running", "Pid": 101, "Took": 1,
    "TakenAt": "2026-01-01T00:00:00Z", "Kernel": "6.18.0", "Remains": None, "Differences": [], "Notes": [],
    "Namespaces": {
        "Entries": [
            namespace("pid", 11, SharedWith=["side"]), namespace("net", 12), namespace("mnt", 13),
            namespace("user", 7, SharedWithHost=True, Owner=0),
        ],
        "UserOwner": 0, "UidMap": [{"Inside": 0, "Outside": 0, "Count": 4294967295}],
        "GidMap": [{"Inside": 0, "Outside": 0, "Count": 4294967295}],
        "ClockOffsets": [{"Clock": "monotonic", "Nanoseconds": 0}],
    },
    "ControlGroup": {
        "Version": 1, "Frozen": False, "Events": [{"Name": "killed for want of memory", "Count": 2}],
        "Paths": [
            {"Version": 1, "Controllers": ["memory"], "Path": f"/wherry/{'c' * 64}", "Directory": "/m"},
            {"Version": 1, "Controllers": ["pids"], "Path": f"/wherry/{'c' * 64}", "Directory": "/p"},
            {"Version": 2, "Controllers": [], "Path": "/", "Directory": "/sys/fs/cgroup/unified"},
        ],
        "Limits": [
            limit("memory", "bytes", 64 << 20, 16 << 20, "memory.limit_in_bytes"),
            limit("processor time", "percent", 50, -1, "cpu.cfs_quota_us"),
            limit("processes and threads", "processes", -1, 3, "pids.max"),
        ],
    },
    "Mounts": {
        "Storage": "overlay", "Writable": True, "Upper": f"/var/lib/wherry/active/{'c' * 64}/fs", "Work": "/w",
        "LeftOut": 0,
        "Layers": [{"Directory": f"/layers/{'a' * 64}/fs", "Name": "layer 1 of 1", "Digest": "sha256:" + "d" * 64}],
        "Entries": [
            mount("/", "root", "overlay"), mount("/proc", "system", "proc"),
            mount("/data", "bind", "ext4", Root="/srv"),
            mount("/proc/keys", "masked", "tmpfs"), mount("/proc/sys", "read-only", "proc", Writable=False),
            mount("/sys/fs/cgroup/memory", "system", "cgroup"),
            mount("/scratch", "tmpfs", "tmpfs", SuperOptions=["size=1m"]),
        ],
    },
    "Devices": {
        "Version": 1, "Programs": [],
        "Rules": [
            {"Type": "c", "Major": 1, "Minor": 3, "Access": "rwm", "Name": "null"},
            {"Type": "b", "Major": -1, "Minor": -1, "Access": "m", "Name": ""},
        ],
    },
    "Security": {
        "Uids": [0, 0, 0, 0], "Gids": [0, 0, 0, 0], "Groups": [0], "NoNewPrivileges": False, "Label": "",
        "Capabilities": {
            "Bounding": CAPS, "Effective": CAPS, "Permitted": CAPS, "Inheritable": [], "Ambient": [], "Known": 41,
        },
        "Seccomp": {
            "Mode": "filter", "Filters": 1, "Default": "SCMP_ACT_ERRNO", "Blocked": ["mount"], "Conditional": ["clone"],
            "Allowed": 300,
        },
        "ResourceLimits": [{"Name": "open files", "Soft": "1024", "Hard": "2048", "Unit": "files"}],
        "OomScore": 666, "OomScoreAdjust": 0,
    },
    "Network": {
        "Mode": "private", "Links": [LINK], "Routes": [{"Destination": "default", "Via": "172.17.0.1", "Link": "eth0"}],
        "Files": [
            {"Target": "/etc/resolv.conf", "Path": "/p", "Text": "# made\nnameserver 10.0.0.1\n"},
            {"Target": "/etc/hosts", "Path": "/q", "Text": "127.0.0.1 localhost\nff02::1 all\n172.17.0.2\tweb\n"},
        ],
        "Rules": [RULE], "LeftOut": 0,
        "Sockets": [{"Protocol": "tcp", "Address": "0.0.0.0", "Port": 80, "Uid": 0, "Pids": [102]}],
    },
    "Processes": {
        "Count": 2, "LeftOut": 0,
        "Entries": [
            process(100, 1, "supervisor", Inside=0, Name="wherry-super", Effective="ffff"),
            process(101, 100, "first"), process(102, 101, "member", Name="httpd", Arguments=["httpd", "-f"]),
            process(103, 100, "exec", Effective="ffff"),
        ],
    },
    "Start": {
        "At": "2026-01-01T00:00:00Z", "Lasted": 10_000_000,
        "Phases": [
            {"Name": "resolve", "Began": 0, "Lasted": 10_000}, {"Name": "rootfs", "Began": 10_000, "Lasted": 5_990_000},
            {"Name": "exec", "Began": 6_000_000, "Lasted": 100_000},
            {"Name": "user", "Began": 6_100_000, "Lasted": 900_000},
            {"Name": "exec", "Began": 7_000_000, "Lasted": 3_000_000},
        ],
    },
}  # fmt: skip


def text(answer: dict[str, Any], *sections: str, width: int = 80, colour: bool = False) -> str:
    return command.text(answer, list(sections) or list(command.SECTIONS), width, colour=colour)


def changed(path: str, value: Any) -> dict[str, Any]:
    """RUNNING with one value replaced; path: keys and numbers with dots between."""
    answer = copy.deepcopy(RUNNING)
    where: Any = answer
    *way, last = path.split(".")
    for step in way:
        where = where[int(step)] if step.isdigit() else where[step]
    where[int(last) if last.isdigit() else last] = value
    return answer


@pytest.mark.parametrize("width", [72, 80, 100, 120])
@pytest.mark.parametrize("colour", [False, True])
def test_no_line_is_wider_than_the_page(width: int, colour: bool) -> None:
    shown = re.sub(r"\x1b\[[\d;]*m", "", text(RUNNING, width=width, colour=colour))
    wide = [line for line in shown.splitlines() if len(line) > width]
    assert wide == []


def test_colours_change_no_word() -> None:
    coloured = text(RUNNING, colour=True)
    assert "\x1b[1;36m" in coloured
    bare = re.sub(r"\x1b\[[\d;]*m", "", coloured)
    assert [line.rstrip() for line in bare.splitlines()] == text(RUNNING).splitlines()


def test_every_section_has_its_page() -> None:
    shown = text(RUNNING)
    for title in (
        "web", "NAMESPACES", "CONTROL GROUP", "MOUNTS", "DEVICES", "SECURITY", "NETWORK", "PROCESSES", "START",
    ):  # fmt: skip
        assert re.search(f"^{title}  ", shown, re.MULTILINE), title
    assert "REMAINS" not in shown
    assert "DIFFERENCES" not in shown


def test_one_section_alone() -> None:
    shown = text(RUNNING, "devices")
    assert shown.startswith("DEVICES  ")
    assert "NETWORK" not in shown
    assert "/dev/null" in shown
    assert "any block device: make" in shown


def test_what_the_pages_say() -> None:
    shown = " ".join(text(RUNNING).split())
    for words in (
        "shared with side",
        "memory 64 MiB 16 MiB",
        "25 %",
        "50 % of one",
        "killed for want of memory twice",
        "layer 1 of 1",
        "bounding, permitted, effective: 2 of 41: chown kill",
        "300 system calls pass, 1 are refused",
        "open files 1024 (up to 2048)",
        "bridge wherry0",
        "tcp 0.0.0.0:80 by httpd 102",
        "nameserver 10.0.0.1",
        "hosts 172.17.0.2 web listens",
        "default via 172.17.0.1 (eth0)",
        "5 packets, 2 KiB",
        "103 has more capabilities than the first process",
        "10.0 ms from the request to the program",
        "as asked for yes",
    ):
        assert words in shown, words


def test_the_tree_of_processes() -> None:
    lines = text(RUNNING, "processes").splitlines()
    at = next(number for number, line in enumerate(lines) if "wherry-super" in line)
    assert [line.rpartition("  ")[2].strip() for line in lines[at : at + 4]] == [
        "wherry-super",
        "└ sh",
        "└ httpd -f",
        "└ sh",
    ]
    assert lines[at + 2].index("└") > lines[at + 1].index("└") == lines[at + 3].index("└")
    assert lines[at].split()[1] == "-"


@pytest.mark.parametrize(
    "path",
    [
        "Processes.Entries.1.Name",
        "Processes.Entries.2.Arguments.1",
        "Mounts.Entries.2.Target",
        "Mounts.Entries.2.Source",
        "Mounts.Entries.2.Root",
        "Mounts.Entries.3.Target",
        "Mounts.Upper",
        "Mounts.Layers.0.Directory",
        "Network.Files.0.Text",
        "Network.Files.1.Text",
        "Network.Sockets.0.Address",
        "Network.Links.0.Name",
        "Network.Rules.0.Text",
        "Network.Rules.0.Table",
        "Network.Routes.0.Link",
        "Security.Label",
        "ControlGroup.Paths.0.Path",
        "Image",
        "Name",
    ],
)
def test_nothing_a_container_decides_reaches_the_terminal(path: str) -> None:
    shown = text(changed(path, HOSTILE), colour=False)
    bad = {character for character in shown if not character.isprintable() and character != "\n"}
    assert bad == set()
    assert "\u202e" not in shown
    shown.encode()  # no lone surrogate is left


def test_hostile_text_in_a_process_shows_what_it_is() -> None:
    answer = changed("Processes.Entries.2.Arguments", ["\x1b[31mred"])
    assert "\\x1b[31mred" in text(answer, "processes")


def test_json_of_hostile_text_is_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    command.print_data(changed("Name", HOSTILE), "")
    shown = capsys.readouterr().out
    assert shown.isascii()
    assert "\x1b" not in shown


def test_differences_stand_on_the_first_page_and_on_their_own() -> None:
    answer = copy.deepcopy(RUNNING)
    answer["Differences"] = [
        {"Section": "cgroup", "What": "memory", "Asked": "67108864", "Found": "33554432",
         "Where": f"/sys/fs/cgroup/memory/wherry/{'c' * 64}/memory.limit_in_bytes"},
        {"Section": "network", "What": "default route", "Asked": "via 172.17.0.1", "Found": "none", "Where": ""},
    ]  # fmt: skip
    assert "memory: asked for 64 MiB, the kernel has 32 MiB" in text(answer, "summary")
    shown = text(answer, "differences")
    assert "asked for via 172.17.0.1, the kernel has none" in shown
    assert "memory.limit_in_bytes" in shown
    assert all(len(line) <= 80 for line in shown.splitlines())


def test_privileged_and_unconfined_is_said() -> None:
    answer = changed(
        "Security.Seccomp", {"Mode": "disabled", "Filters": 0, "Blocked": [], "Conditional": [], "Allowed": 0}
    )
    answer["Devices"]["Rules"] = [{"Type": "a", "Major": -1, "Minor": -1, "Access": "rwm", "Name": ""}]
    answer["Security"]["Capabilities"]["Effective"] = ["CAP_SYS_ADMIN"]
    shown = text(answer)
    assert "Every device of the machine" in shown
    assert "off: every system call of the kernel may be tried" in shown
    assert "reaching beyond the container: sys_admin" in shown


def test_a_container_that_is_over() -> None:
    answer = {key: None if isinstance(value, dict) else value for key, value in RUNNING.items()}
    answer |= {"Status": "exited", "Pid": 0, "Differences": [], "Notes": []}
    answer["Remains"] = {
        "ExitCode": 137, "Signal": 9, "OomKilled": True, "Error": "", "StartedAt": "2026-01-01T00:00:00Z",
        "FinishedAt": "2026-01-01T00:00:05.5Z", "Lasted": 5, "Layers": [], "Upper": "/up/fs", "Size": 2048,
        "Log": "/log", "LogSize": 10, "Files": ["/x/hosts"], "LeftBehind": [],
    }  # fmt: skip
    shown = " ".join(text(answer).split())
    assert "It ran for 5 s and the kernel killed it for want of memory (exit code 137)" in shown
    assert "2 KiB of its own" in shown
    assert "nothing is left" in shown
    answer["Remains"] |= {"FinishedAt": "0001-01-01T00:00:00Z", "StartedAt": "0001-01-01T00:00:00Z"}
    assert "It never ran." in text(answer)


def test_the_chart_of_a_start() -> None:
    found = rows(RUNNING["Start"]["Phases"])
    assert [(name, lasted) for name, lasted, _ in found] == [
        ("resolve", 10_000),
        ("rootfs", 5_990_000),
        ("process", 1_000_000),
        ("exec", 3_000_000),
    ]
    assert strip([(0, 500), (900, 1000)], 1000, 10) == "█████    █"
    assert strip([(0, 1)], 1000, 10) == "▏"
    assert strip([(999, 1000)], 1000, 10) == " " * 9 + "█"


def test_an_unknown_section_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"'nosuch': choose of summary, namespaces"):
        command.chosen(["network,nosuch"])
    assert command.chosen(["start, network", "summary"]) == ["summary", "network", "start"]


def test_plain_text() -> None:
    assert plain("\x1b[0m\r\x9b\u202e\udc80é") == "\\x1b[0m\\x0d\\x9b\\u202e\\x80é"
    assert plain("x" * 500, 10) == "x" * 9 + "…"


def test_bars_and_sizes() -> None:
    assert bar(0, 4) == "    "
    assert bar(0.0001, 4) == "▏   "
    assert bar(0.5, 4) == "██  "
    assert bar(7, 4) == "████"
    assert (size(0), size(1023), size(1536), size(64 << 20)) == ("0 B", "1023 B", "1.5 KiB", "64 MiB")


def test_shortening_keeps_both_ends() -> None:
    assert shorten("/very/long/path/to/file", 11) == "/very…/file"
    assert shorten("short", 11) == "short"


def test_words_that_are_too_long_are_broken() -> None:
    assert wrap(["a", "b" * 25, "c"], 10) == ["a", "b" * 10, "b" * 10, "bbbbb c"]


def test_a_table_gives_way_in_one_column() -> None:
    page = Page(30)
    page.table(("a", "b"), [("x" * 10, "y" * 40)])
    assert page.text().splitlines()[1] == "  " + "x" * 10 + "  " + "y" * 15 + "…"
