"""Containers and execs made by the runtime alone, seen from inside."""

import errno
import os
import re
import socket
import threading
import time
from pathlib import Path

import pytest

from tests import mounttable
from tests.kernel.boxes import PATH, Box, busybox, mount
from wherry.kernel import caps, const, mountapi, namespaces
from wherry.kernel.seccomp_bpf import compile_filter
from wherry.runtime import channel
from wherry.runtime.mounts import Mount

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return busybox(tmp_path_factory.mktemp("base") / "root")


@pytest.fixture
def box(base, tmp_path):
    return Box(base, tmp_path)


def mounts_of(text):
    """Mountinfo as {mount point: (root, options, type, source, super options)}; the last of a place counts."""
    found = {}
    for line in text.splitlines():
        left, right = line.split(" - ")
        fields = left.split()
        found[fields[4]] = (fields[3], fields[5], *right.split(" ", 2))
    return found


def test_namespaces_are_new(box):
    kinds = ("mnt", "net", "uts", "pid", "ipc", "time", "cgroup")
    seen = box.sh("for k in mnt net uts pid ipc time cgroup; do readlink /proc/self/ns/$k; done").output.split()
    ours = [os.readlink(f"/proc/self/ns/{kind}") for kind in kinds]
    assert [mine != theirs for mine, theirs in zip(ours, seen, strict=True)] == [True] * 6 + [False]


def test_host_namespaces_stay(box):
    box.spec["linux"]["namespaces"] = [{"type": "mount"}]
    del box.spec["linux"]["sysctl"], box.spec["hostname"]
    seen = box.sh("for k in net uts pid ipc; do readlink /proc/self/ns/$k; done").output.split()
    assert seen == [os.readlink(f"/proc/self/ns/{kind}") for kind in ("net", "uts", "pid", "ipc")]


def test_namespaces_are_joined_by_path(box):
    """What --network, --ipc and --uts container:X come to."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        namespaces.unshare(const.CLONE_NEWNET | const.CLONE_NEWIPC | const.CLONE_NEWUTS)
        os.write(writer, b"x")
        time.sleep(30)
        os._exit(0)
    try:
        os.read(reader, 1)
        kinds = {"network": "net", "ipc": "ipc", "uts": "uts"}
        box.spec["linux"]["namespaces"] = [{"type": "mount"}, {"type": "pid"}] + [
            {"type": kind, "path": f"/proc/{pid}/ns/{name}"} for kind, name in kinds.items()
        ]
        seen = box.sh("for k in net ipc uts; do readlink /proc/self/ns/$k; done").output.split()
        assert seen == [os.readlink(f"/proc/{pid}/ns/{name}") for name in kinds.values()]
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(reader)
        os.close(writer)


def test_mounts_are_those_of_the_peer(box):
    """The lines of a default container of dockerd 28.5.2 on this kernel, but for paths of its data root."""
    seen = mounts_of(box.run("cat", "/proc/self/mountinfo").output)
    plain = "nosuid,nodev,noexec,relatime"
    assert seen["/"][1:4] == ("rw,relatime", "overlay", "overlay")
    assert seen["/proc"] == ("/", f"rw,{plain}", "proc", "proc", "rw")
    assert seen["/dev"] == ("/", "rw,nosuid", "tmpfs", "tmpfs", "rw,size=65536k,mode=755")
    assert seen["/dev/pts"] == (
        "/", "rw,nosuid,noexec,relatime", "devpts", "devpts", "rw,gid=5,mode=620,ptmxmode=666",
    )  # fmt: skip
    assert seen["/sys"][:4] == ("/", f"ro,{plain}", "sysfs", "sysfs")
    assert seen["/dev/mqueue"] == ("/", f"rw,{plain}", "mqueue", "mqueue", "rw")
    assert seen["/dev/shm"] == ("/", f"rw,{plain}", "tmpfs", "shm", "rw,size=65536k")
    for path in ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"):
        assert seen[path] == (path.removeprefix("/proc"), f"ro,{plain}", "proc", "proc", "rw")
    assert seen["/proc/keys"] == ("/null", "rw,nosuid", "tmpfs", "tmpfs", "rw,size=65536k,mode=755")
    masked = ("/", "ro,relatime", "tmpfs", "tmpfs", "ro,size=4k,nr_inodes=1")
    assert {path: seen[path] for path in ("/proc/acpi", "/sys/firmware") if path in seen} == {
        path: masked for path in ("/proc/acpi", "/sys/firmware") if os.path.isdir(path)
    }


def test_own_cgroups_are_shown_read_only(box):
    seen = mounts_of(box.run("cat", "/proc/self/mountinfo").output)
    shown = {place: entry for place, entry in seen.items() if place.startswith("/sys/fs/cgroup/")}
    assert shown or seen["/sys/fs/cgroup"][2] == "cgroup2"
    for root, options, *_ in shown.values():
        assert root == box.cgroup
        assert options == "ro,nosuid,nodev,noexec,relatime"


def test_dev_holds_what_docker_has(box):
    lines = box.sh("cd /dev; stat -c '%n %F %t:%T %a' *; readlink fd; readlink ptmx").output.splitlines()
    seen = {line.split()[0]: line for line in lines}
    for name, number in (("null", "1:3"), ("zero", "1:5"), ("full", "1:7"), ("random", "1:8"), ("tty", "5:0")):
        assert seen[name] == f"{name} character special file {number} 666"
    assert {"fd", "stdin", "stdout", "stderr", "ptmx", "pts", "shm", "mqueue", "urandom"} <= set(seen)
    assert "console" not in seen
    assert lines[-1] == "pts/ptmx"


def test_devices_of_the_spec(box):
    box.spec["linux"]["devices"] = [
        {"path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200, "fileMode": 0o640, "uid": 7, "gid": 8},
        {"path": "/dev/null", "type": "c", "major": 1, "minor": 3},
        {"path": "/dev/loop7", "type": "b", "major": 7, "minor": 7},
    ]
    seen = box.run("stat", "-c", "%n %F %t:%T %a %u:%g", "/dev/net/tun", "/dev/loop7").output.splitlines()
    assert seen == [
        "/dev/net/tun character special file a:c8 640 7:8",
        "/dev/loop7 block special file 7:7 666 0:0",
    ]


def test_process_of_a_default_container(box):
    lines = "'^(Cap|Groups|NoNewPrivs|SigBlk|SigIgn)'"
    out = box.sh(f"grep -E {lines} /proc/self/status; cat /proc/self/oom_score_adj")
    status = dict(line.split(":\t") for line in out.output.splitlines() if ":\t" in line)
    assert [status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")] == [
        "0" * 16, "00000000a80425fb", "00000000a80425fb", "00000000a80425fb", "0" * 16,
    ]  # fmt: skip
    assert status["Groups"].split() == ["0"]
    assert status["NoNewPrivs"] == "0"
    assert status["SigBlk"] == status["SigIgn"] == "0" * 16
    assert out.output.splitlines()[-1] == "0"


def test_is_a_session_leader_and_first_process(box):
    assert box.sh("ps -o pid,ppid,pgid,sid,comm | tail -n +2 | head -1").output.split() == ["1", "0", "1", "1", "sh"]


def test_no_new_privileges(box):
    box.process["noNewPrivileges"] = True
    assert "NoNewPrivs:\t1" in box.run("grep", "NoNewPrivs", "/proc/self/status").output


def test_names_and_sysctls(box):
    box.spec["domainname"] = "example"
    box.spec["linux"]["sysctl"]["kernel.shmmni"] = "77"
    box.spec["linux"]["sysctl"]["net.ipv4.conf.lo.forwarding"] = "1"
    script = "hostname; cat /proc/sys/kernel/domainname /proc/sys/kernel/shmmni /proc/sys/net/ipv4/conf/lo/forwarding"
    assert box.sh(script).output.split() == ["box", "example", "77", "1"]
    assert Path("/proc/sys/kernel/shmmni").read_text().strip() != "77"


@pytest.mark.parametrize("key", ["kernel.panic_on_warn", "vm.swappiness", "kernel.hostname"])
def test_sysctls_of_the_host_are_refused(box, key):
    path = Path("/proc/sys") / key.replace(".", "/")
    value = path.read_text().strip()
    box.spec["linux"]["sysctl"] = {key: value}  # what it is already: a failing test must not change the machine
    outcome = box.run("true")
    assert outcome.code != 0
    assert "sysctl" in outcome.message


def test_sysctl_that_is_not_there(box):
    box.spec["linux"]["sysctl"] = {"net.foo": "1"}
    assert box.run("true").message == "open sysctl net.foo file: sys/net/foo: no such file or directory"


def test_readonly_root_leaves_mounts_writable(box):
    box.spec["root"]["readonly"] = True
    out = box.sh("touch /x; touch /dev/shm/x && echo shm; touch /dev/x && echo dev").output
    assert "/x: Read-only file system" in out
    assert out.split()[-2:] == ["shm", "dev"]


def test_bind_mounts(box, tmp_path):
    (tmp_path / "file").write_text("of a file")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/inner").write_text("of a folder")
    box.bind(tmp_path / "file", "/etc/deep/file", "rbind", "rprivate", "ro")
    box.bind(tmp_path / "folder", "/data", "rbind", "rprivate")
    out = box.sh("cat /etc/deep/file /data/inner; echo x > /etc/deep/file; echo new > /data/new")
    assert out.output.startswith("of a fileof a folder")
    assert "Read-only file system" in out.output
    assert (tmp_path / "folder/new").read_text() == "new\n"


def test_recursive_readonly_reaches_mounts_below(box, tmp_path):
    outer = tmp_path / "outer"
    (outer / "inner").mkdir(parents=True)

    def mount_below():
        namespaces.unshare(const.CLONE_NEWNS)
        mountapi.mount("", "/", "", const.MS_REC | const.MS_PRIVATE)
        mountapi.mount("tmpfs", str(outer / "inner"), "tmpfs", 0)

    box.prepare = mount_below
    box.bind(outer, "/deep", "rbind", "rprivate", "rro")
    box.bind(outer, "/flat", "rbind", "rprivate", "ro")
    out = box.sh("for d in deep flat; do for f in x inner/x; do touch /$d/$f 2>/dev/null && echo $d/$f; done; done")
    assert out.output.split() == ["flat/inner/x"]


@pytest.mark.parametrize(("option", "seen"), [("rshared", "inner"), ("rslave", ""), ("rprivate", "")])
def test_propagation_to_the_host(box, tmp_path, option, seen):
    """KS-08: what the container mounts below a bind arrives on the host's side only when shared was asked for."""
    outer = tmp_path / "outer"
    (outer).mkdir()

    def share():
        namespaces.unshare(const.CLONE_NEWNS)
        mountapi.mount("", "/", "", const.MS_REC | const.MS_PRIVATE)
        mountapi.mount("tmpfs", str(outer), "tmpfs", 0)
        mountapi.mount("", str(outer), "", const.MS_SHARED)
        (outer / "inner").mkdir()

    box.prepare = share
    box.inspect = lambda: "inner" if (outer / "inner/mark").exists() else ""
    box.bind(outer, "/data", "rbind", option)
    for names in box.process["capabilities"].values():
        names.append("CAP_SYS_ADMIN")
    outcome = box.sh("mount -t tmpfs tmpfs /data/inner && touch /data/inner/mark")
    assert (outcome.code, outcome.output) == (0, seen)


def test_classic_overlay_for_kernels_before_6_8(box, base, tmp_path):
    """The kernel's refusal is played; what then is mounted with mount(2) is real."""
    odd = tmp_path / "a:b,c"
    odd.mkdir()
    (odd / "of-odd").write_text("x")
    lower = str(odd).replace(":", "\\:")
    options = (f"lowerdir={lower}:{base}", *box.rootfs[0].options[1:])
    box.rootfs = (Mount("overlay", "overlay", "", options),)
    plain = mountapi.fsconfig_string

    def old_kernel(context, key, value):
        if key == "lowerdir+":
            raise OSError(errno.EINVAL, "fsconfig lowerdir+: Invalid argument")
        plain(context, key, value)

    box.prepare = lambda: setattr(mountapi, "fsconfig_string", old_kernel)
    assert box.sh("cat /of-odd; touch /new; grep -c lowerdir= /proc/self/mountinfo").output.split() == ["x1"]
    assert (box.upper / "new").exists()


def test_privileged(box):
    """All capabilities that we have, a writable sysfs, nothing masked."""
    for names in box.process["capabilities"].values():
        names[:] = caps.NAMES
    box.spec["linux"].update(maskedPaths=[], readonlyPaths=[])
    for entry in box.spec["mounts"]:
        entry["options"] = [word for word in entry["options"] if word != "ro"]
    out = box.sh("grep -E 'Cap(Prm|Eff|Bnd)' /proc/self/status; grep -E ' /(sys|proc)[/ ]' /proc/self/mountinfo").output
    ours = f"{caps.get()[1]:016x}"
    assert out.count(ours) == 3
    assert " ro," not in out
    assert "/proc/keys" not in out


def test_mount_errors_are_those_that_people_search_for(box, tmp_path):
    box.upper.joinpath("etc").mkdir()
    box.bind("/etc/hostname", "/etc")
    hint = "Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists"
    message = box.run("true").message
    assert message.startswith('error mounting "/etc/hostname" to rootfs at "/etc": not a directory: ' + hint)


def test_missing_bind_source(box, tmp_path):
    box.bind(tmp_path / "nothing", "/x")
    source = tmp_path / "nothing"
    assert box.run("true").message == (
        f'error mounting "{source}" to rootfs at "/x": stat {source}: no such file or directory'
    )


def test_tmpfs_copies_up_and_keeps_the_mode(box):
    (box.upper / "var/x").mkdir(parents=True)
    (box.upper / "var").chmod(0o1751)
    (box.upper / "var/x/file").write_text("kept")
    os.symlink("x/file", box.upper / "var/link")
    box.spec["mounts"].append(mount("/var", "tmpfs", "tmpfs", ["tmpcopyup", "nosuid"]))
    out = box.sh("stat -c '%a' /var; cat /var/link; stat -f -c %T /var").output
    assert out.split() == ["1751", "kepttmpfs"]


def test_working_directory_is_made_and_home_found(box):
    (box.upper / "etc").mkdir()
    (box.upper / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nann:x:1000:1001::/home/ann:/bin/sh\n")
    (box.upper / "etc/group").write_text("ann:x:1001:\nwheel:x:10:root,ann\n")
    box.process["cwd"] = "/new/dir"
    box.process["user"] = {"uid": 0, "gid": 0, "username": "ann", "additionalGroups": ["44"]}
    out = box.sh("pwd; echo $HOME; id -u; id -g; id -G; grep -E 'Cap(Prm|Eff|Bnd)' /proc/self/status").output.split()
    assert out[:4] == ["/new/dir", "/home/ann", "1000", "1001"]
    assert sorted(out[4:7]) == ["10", "1001", "44"]
    assert out[-5::2] == ["0" * 16, "0" * 16, "00000000a80425fb"]


def test_streams_belong_to_the_user(box):
    box.process["user"] = {"uid": 0, "gid": 0, "username": "1000"}
    assert box.sh("echo out > /dev/stdout; echo err > /dev/stderr").output.split() == ["out", "err"]


def test_umask(box):
    assert box.sh("umask").output.strip() == "0022"
    box.process["user"]["umask"] = 0o077
    assert box.sh("umask").output.strip() == "0077"


def test_rlimits(box):
    box.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 111, "hard": 222}]
    assert box.sh("ulimit -Sn; ulimit -Hn").output.split() == ["111", "222"]


def test_rlimit_beyond_ours(box):
    box.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 5}]
    message = "error setting rlimits for ready process: error setting rlimit type 7: invalid argument"
    assert box.run("true").message == message


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("foo", 'exec: "foo": executable file not found in $PATH'),
        ("/x", 'exec: "/x": stat /x: no such file or directory'),
        ("./foo", 'exec: "./foo": stat ./foo: no such file or directory'),
        ("/tmp", 'exec: "/tmp": is a directory: permission denied'),
        ("/data", 'exec: "/data": permission denied'),
        ("", 'exec: "": executable file not found in $PATH'),
    ],
)
def test_program_that_cannot_run(box, program, message):
    """The texts of the peer, which clients turn into 126 and 127."""
    (box.upper / "data").write_text("no program")
    assert box.run(program).message == message


def test_path_is_that_of_the_container(box):
    (box.upper / "opt").mkdir()
    os.symlink("/bin/busybox", box.upper / "opt/echo")
    box.process["env"] = ["PATH=/nope:/opt"]
    assert box.run("echo", "hi").output == "hi\n"
    assert 'exec: "ls": executable file not found in $PATH' in box.run("ls").message


def test_a_script_without_an_interpreter_line(box):
    (box.upper / "script").write_text("echo hi\n")
    (box.upper / "script").chmod(0o755)
    outcome = box.run("/script")
    assert (outcome.output, outcome.code, outcome.failure) == ("exec /script: exec format error\n", 255, {})


def test_terminal(box):
    box.process["terminal"] = True
    box.process["consoleSize"] = {"height": 30, "width": 100}
    out = box.sh("tty; stty size; stat -c '%t:%T' /dev/console; ls -C /proc/self/fd; echo x > /dev/tty").output
    words = out.split()
    assert words[:4] == ["/dev/pts/0", "30", "100", "88:0"]
    assert words[4:8] == ["0", "1", "2", "3"]
    assert words[8] == "x"


def test_exec_is_inside(box):
    script = "for k in mnt net uts pid ipc time; do readlink /proc/self/ns/$k; readlink /proc/1/ns/$k; done"
    seen = box.exec("sh", "-c", script).output.split()
    assert len(seen) == 12
    assert seen[::2] == seen[1::2]


def test_exec_has_the_same_limits(box):
    out = box.exec("sh", "-c", "grep Cap /proc/self/status; cat /proc/self/cgroup; ls -C /proc/self/fd; hostname")
    assert out.output.count("00000000a80425fb") == 3
    assert f":{box.cgroup}" in out.output
    assert out.output.split()[-5:] == ["0", "1", "2", "3", "box"]


def test_exec_with_a_terminal(box):
    out = box.exec("sh", "-c", "tty; ls /dev/console; ps -o pid,sid,comm | grep ps", terminal=True)
    assert out.output.split()[0] == "/dev/pts/0"
    assert "/dev/console: No such file" in out.output


@pytest.mark.parametrize(
    ("arguments", "process", "message"),
    [
        (["foo"], {}, 'exec: "foo": executable file not found in $PATH'),
        (["ls"], {"cwd": "/nope"}, 'chdir to cwd ("/nope") set in config.json failed: no such file or directory'),
        (["/tmp"], {}, 'exec: "/tmp": is a directory: permission denied'),
        (["id"], {"user": {"username": "foo"}}, "unable to find user foo: no matching entries in passwd file"),
        (["id"], {"user": {"username": "1:foo"}}, "unable to find group foo: no matching entries in group file"),
    ],
)
def test_exec_that_cannot_run(box, arguments, process, message):
    assert box.exec(*arguments, **process).message == message


def test_seccomp_is_loaded_last(box):
    """Filters that forbid what the set-up itself uses hold for the program only."""
    calls = ["setresuid", "setgroups", "mount", "fchdir", "prctl", "openat2", "mkdir"]
    box.seccomp = compile_filter(
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": calls, "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]}
    )
    box.process["user"] = {"username": "1000", "uid": 0, "gid": 0}
    out = box.sh("grep Seccomp: /proc/self/status; mkdir /tmp/x; id -u").output
    assert re.search(r"Seccomp:\s2", out)
    assert "Operation not permitted" in out
    assert out.endswith("1000\n")


def test_keyring_is_the_containers_own(box):
    """RT-19: /proc/keys is masked, so look through an exec of the same keyring, unmasked."""
    box.spec["linux"]["maskedPaths"] = []
    name = "_ses." + box.cgroup.rpartition("/")[2]
    box.process["args"] = ["sleep", "60"]
    outcomes = box.start([box.exec_process("cat", "/proc/keys")])
    sessions = {line.split()[-2].rstrip(":") for line in outcomes[1].output.splitlines() if " _ses." in line}
    assert name in sessions


def test_waits_for_start(box, tmp_path):
    """`create` and `start` of an OCI runtime: the program runs when somebody says so over the socket."""
    path = str(tmp_path / "start.sock")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(path)
    listener.listen(1)
    box.extra["hold"] = listener
    told = []

    def start():
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sync:
            sync.connect(path)
            channel.send(sync, {"start": True})
            try:
                told.append(channel.receive(sync)[0])
            except EOFError:
                told.append("running")

    thread = threading.Timer(0.05, start)
    thread.start()
    try:
        assert box.run("echo", "late").output == "late\n"
        thread.join()
    finally:
        listener.close()
    assert told == ["running"]


def test_nothing_of_a_failed_container_remains(box):
    before = mounttable.lines()
    box.bind("/nowhere", "/x")
    assert box.run("true").failure
    assert mounttable.lines() == before
    assert not any(Path(f"/sys/fs/cgroup/{name}{box.cgroup}").exists() for name in os.listdir("/sys/fs/cgroup"))


def test_long_paths_of_layers(box, base, tmp_path):
    """fsconfig(2) takes strings of at most 255 bytes; longer directories go in as descriptors."""
    deep = tmp_path / ("d" * 120) / ("e" * 120)
    deeper = Box(base, deep)
    assert deeper.run("echo", "hi").output == "hi\n"


def test_environment(box):
    box.process["env"] = [PATH, "A=1", "B=x=y", "A=2", "HOME=/h"]
    out = box.run("env").output.split()
    assert sorted(out) == sorted([PATH, "A=2", "B=x=y", "HOME=/h"])
    box.process["env"] = ["A"]
    assert box.run("env").message == "invalid environment variable 'A': missing '='"
