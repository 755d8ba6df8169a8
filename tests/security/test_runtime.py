"""Attacks on the set-up of a container, by the names of the catalogue (RT, KS): each from inside a real one.

Writes that must fail write what is there already, so that a failing test does not change the machine.
"""

import os
import re
import resource
import time
from pathlib import Path

import pytest

from tests.kernel.boxes import MASKED, Box, busybox, mount

pytestmark = pytest.mark.root
DEFAULT = "00000000a80425fb"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return busybox(tmp_path_factory.mktemp("base") / "root")


@pytest.fixture
def box(base, tmp_path):
    return Box(base, tmp_path / "box")


@pytest.fixture
def canary(tmp_path):
    """A folder of the host that must stay as it is."""
    folder = tmp_path / "canary"
    folder.mkdir()
    (folder / "r").write_text("token")
    yield folder
    assert os.listdir(folder) == ["r"]
    assert (folder / "r").read_text() == "token"


# RT-02: a working directory through a descriptor that was left open


@pytest.mark.parametrize("number", [*range(3, 16), 63])
def test_rt02_working_directory_by_descriptor(box, number):
    box.process["cwd"] = f"/proc/self/fd/{number}"
    outcome = box.sh("pwd; cat ../../../etc/hostname")
    assert outcome.failure
    assert outcome.output == ""


@pytest.mark.parametrize("number", [3, 5, 7, 9, 11])
def test_rt02_working_directory_of_an_exec(box, number):
    outcome = box.exec("pwd", cwd=f"/proc/self/fd/{number}")
    assert outcome.message.startswith(f'chdir to cwd ("/proc/self/fd/{number}") set in config.json failed')


def test_rt02_working_directory_behind_a_link(box):
    (box.upper / "work").symlink_to("/proc/self/fd/7")
    box.process["cwd"] = "/work"
    assert box.run("pwd").failure
    box.process["cwd"] = "/"
    assert box.exec("pwd", cwd="/work/..").failure or box.exec("pwd", cwd="/work/..").output == "/\n"


# RT-03: descriptors that reach the program


@pytest.mark.parametrize("terminal", [False, True])
def test_rt03_no_descriptor_is_left(box, terminal):
    box.process["terminal"] = terminal
    assert box.run("ls", "-C", "/proc/self/fd").output.split() == ["0", "1", "2", "3"]
    assert box.exec("ls", "-C", "/proc/self/fd", terminal=terminal).output.split() == ["0", "1", "2", "3"]


# RT-07, RT-09: an image whose /proc, /sys or /dev is a link


@pytest.mark.parametrize("place", ["proc", "sys"])
def test_rt07_proc_and_sys_must_be_directories(box, canary, place):
    (box.upper / "elsewhere").mkdir()
    (box.upper / place).symlink_to("/elsewhere")
    kind = {"proc": "proc", "sys": "sysfs"}[place]
    assert f'filesystem "{kind}" must be mounted on ordinary directory' in box.run("true").message


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("/proc", "it is not of type proc"),
        ("/proc/self", "it is inside /proc"),
        ("/proc/self/attr", "it is inside /proc"),
        ("/proc/sys/kernel", "it is inside /proc"),
        ("/link", "it is inside /proc"),
        ("/link/attr", "it is inside /proc"),
    ],
)
@pytest.mark.parametrize("kind", ["bind", "tmpfs"])
def test_rt07_nothing_is_mounted_over_proc(box, canary, target, why, kind):
    (box.upper / "link").symlink_to("/proc/self")
    box.spec["mounts"].append(mount(target, kind, str(canary), ["rbind"] if kind == "bind" else []))
    outcome = box.run("true")
    assert why in outcome.message


def test_rt07_a_file_of_proc_may_be_replaced_where_it_is_harmless(box, canary):
    box.bind(canary / "r", "/proc/uptime", "bind", "ro")
    assert box.run("cat", "/proc/uptime").output == "token"


def test_rt09_dev_is_a_link_to_the_host(box, canary):
    (box.upper / "dev").symlink_to("../" * 40 + str(canary).lstrip("/"))
    outcome = box.sh("ls /dev/null")
    assert outcome.output == "/dev/null\n"


def test_rt08_mount_targets_through_links(box, canary):
    """A volume holds a link to the host where another mount is to go; the canary's fixture looks at the host."""
    (box.upper / "vol").mkdir()
    (box.upper / "vol/x").symlink_to("../" * 40 + str(canary).lstrip("/"))
    box.spec["mounts"].append(mount("/vol/x/new", "tmpfs", "tmpfs", []))
    box.bind("/etc/hostname", "/vol/x/file", "bind")
    assert box.run("cat", "/vol/x/file").output == Path("/etc/hostname").read_text()


def test_rt04_null_of_the_image_is_not_used_for_masks(box):
    """Without a /dev of its own the container brings /dev/null: a link to something that is not to be mounted."""
    box.spec["mounts"] = [entry for entry in box.spec["mounts"] if not entry["destination"].startswith("/dev")]
    (box.upper / "dev").mkdir()
    (box.upper / "dev/null").symlink_to("/proc/sys/kernel/core_pattern")
    outcome = box.run("true")
    assert outcome.failure
    assert outcome.code != 0


def test_rt05_console_is_not_bound_through_a_link(box):
    box.process["terminal"] = True
    box.spec["mounts"] = [entry for entry in box.spec["mounts"] if entry["destination"] != "/dev"]
    (box.upper / "dev/pts").mkdir(parents=True)
    (box.upper / "dev/console").symlink_to("/proc/sysrq-trigger")
    assert "too many levels of symbolic links" in box.run("true").message


# RT-10: a helper on its way into the container, seen from inside


def test_rt10_helpers_cannot_be_inspected(box):
    """A first process without CAP_SYS_PTRACE looks at everything it can see while execs come in."""
    look = """
while :; do
  for p in /proc/[0-9]*; do
    [ $p = /proc/1 ] || { echo saw $p; ls -l $p/fd $p/exe $p/cwd; cat $p/environ; }
  done
done"""
    box.process["args"] = ["sh", "-c", f"({look}) 2>/dev/null"]
    first = box.start([box.exec_process("true") for _ in range(25)])[0]
    assert len(set(re.findall(r"saw /proc/\d+", first.output))) > 1  # how many it catches is a race; some it must
    assert "python" not in first.output
    assert str(Path(__file__).parents[2]) not in first.output
    assert "socket:" not in first.output


# RT-11: capabilities


@pytest.mark.parametrize(("user", "held"), [("", DEFAULT), ("1000", "0" * 16)])
def test_rt11_inheritable_and_ambient_are_empty(box, user, held):
    box.process["user"] = {"uid": 0, "gid": 0, "username": user}
    for outcome in (box.run("grep", "Cap", "/proc/self/status"), box.exec("grep", "Cap", "/proc/self/status")):
        found = dict(line.split(":\t") for line in outcome.output.splitlines())
        assert found == {
            "CapInh": "0" * 16, "CapPrm": held, "CapEff": held, "CapBnd": DEFAULT, "CapAmb": "0" * 16,
        }  # fmt: skip


def test_rt11_added_and_all_capabilities(box):
    sets = box.process["capabilities"]
    for names in sets.values():
        names.append("CAP_NET_ADMIN")
    found = box.run("grep", "Cap", "/proc/self/status").output
    assert re.findall(r"Cap(?:Prm|Eff|Bnd):\t(\S+)", found) == ["00000000a80435fb"] * 3
    assert re.findall(r"Cap(?:Inh|Amb):\t(\S+)", found) == ["0" * 16] * 2


# RT-12, RT-13, RT-14: users and groups


@pytest.mark.parametrize("text", ["4294967296", "2147483648", "-1", "0x0", "\uff11", "1000:-1", "1000:4294967296"])
def test_rt12_ids_that_wrap_are_refused(box, text):
    box.process["user"]["username"] = text
    assert box.run("id").failure
    box.process["user"]["username"] = ""
    assert box.exec("id", user={"username": text}).failure


def test_rt12_numbers_are_never_names(box):
    (box.upper / "etc").mkdir()
    (box.upper / "etc/passwd").write_text("1000:x:0:0::/:\n")
    (box.upper / "etc/group").write_text("1000:x:0:\n")
    box.process["user"]["username"] = "1000:1000"
    assert box.sh("id -u; id -g").output.split() == ["1000", "1000"]
    assert box.exec("sh", "-c", "id -u; id -g", user={"username": "1000:1000"}).output.split() == ["1000", "1000"]


def test_rt13_groups_are_those_of_the_user(box):
    """None of the test process's own, and the primary one is among them."""
    (box.upper / "etc").mkdir()
    (box.upper / "etc/passwd").write_text("ann:x:1000:1001::/:\n")
    (box.upper / "etc/group").write_text("wheel:x:10:ann\naudio:x:29:\n")
    box.prepare = lambda: os.setgroups([7, 8, 9])
    box.process["user"] = {"username": "ann", "additionalGroups": ["audio"]}
    assert set(box.run("id", "-G").output.split()) == {"1001", "10", "29"}
    box.process["user"] = {"username": "ann"}
    user = {"username": "1000:33", "additionalGroups": []}
    assert box.exec("grep", "Groups", "/proc/self/status", user=user).output.split() == ["Groups:", "33"]


def _sparse(path):
    with open(path, "wb") as file:
        file.truncate(10 << 30)


HOSTILE = {
    "sparse": _sparse,
    "line": lambda path: path.write_bytes(b"x" * (64 << 20)),
    "fifo": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "shadow": lambda path: path.symlink_to("/../../../../../etc/shadow"),
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("name", ["passwd", "group"])
def test_rt14_hostile_account_files(box, kind, name):
    (box.upper / "etc").mkdir()
    (box.upper / "etc/passwd").write_text("ann:x:1000:1001::/:\n")
    path = box.upper / "etc" / name
    path.unlink(missing_ok=True)
    HOSTILE[kind](path)
    box.process["user"]["username"] = "ann:staff"
    begin, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    outcome = box.run("id")
    assert time.monotonic() - begin < 5
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss - before < 50 << 10
    assert re.search(r"cannot look up users in|no matching entries in (passwd|group) file", outcome.message)


# KS-01: what is masked


@pytest.mark.parametrize("way", ["run", "exec"])
def test_ks01_masked_paths(box, way):
    script = """
for path in PATHS; do
  [ -e $path ] || continue
  [ -d $path ] && content=$(ls -A $path) || content=$(cat $path)
  [ -z "$content" ] || echo "$path can be read"
  [ -d $path ] && touch $path/x 2>/dev/null && echo "$path can be written"
  umount $path 2>/dev/null && echo "$path can be unmounted"
  mount -o remount,rw,bind $path 2>/dev/null && echo "$path can be remounted"
  mount -o bind $path /tmp 2>/dev/null && echo "$path can be bound"
done
echo done
""".replace("PATHS", " ".join(MASKED))
    outcome = box.sh(script) if way == "run" else box.exec("sh", "-c", script)
    assert outcome.output == "done\n"


# KS-02: what may not be written

FORBIDDEN = [
    "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/randomize_va_space", "/proc/sys/vm/swappiness", "/proc/sys/vm/overcommit_memory",
    "/sys/kernel/uevent_helper", "/sys/kernel/mm/transparent_hugepage/enabled",
]  # fmt: skip


def test_ks02_kernel_settings_are_read_only(box):
    script = f"""
for path in {" ".join(FORBIDDEN)}; do
  [ ! -e $path ] || {{ cat $path > /tmp/v; cat /tmp/v > $path && echo wrote $path; }}
done 2>&1
echo h > /proc/sysrq-trigger && echo wrote sysrq
echo done"""
    outcome = box.sh(script)
    assert "wrote" not in outcome.output
    assert outcome.output.endswith("done\n")
    assert outcome.output.count("Read-only file system") >= 6


def test_ks02_every_interrupt_and_agent(box):
    script = """
agents=$(find /sys/fs/cgroup -name release_agent -o -name notify_on_release)
for path in /proc/irq/*/smp_affinity /proc/bus/*/* $agents; do
  [ -f $path ] || continue
  cat $path > /tmp/v 2>/dev/null && cat /tmp/v 2>/dev/null > $path && echo wrote $path
done 2>/dev/null
echo done
"""
    assert box.sh(script).output == "done\n"


def test_ks02_cgroup_limits_are_read_only(box):
    script = """
find /sys/fs/cgroup -name tasks -o -name cgroup.procs | while read file; do
  echo 0 > $file && echo wrote $file
done 2>/dev/null
echo done"""
    assert box.sh(script).output == "done\n"
