"""userns-remap: containers whose ids are others on the host. Seen in the kernel, on the disk and from inside."""

from __future__ import annotations

import io
import os
import pty
import signal
import socket
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import engine as engines
from tests.e2e.test_mount_add import done
from tests.engine import Engine
from tests.volumes import content_image, remove_volumes
from tests.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.engine]

UID, GID, COUNT = 310000, 420000, 65536
REMAP = f"uids=0-{UID}-{COUNT};gids=0-{GID}-{COUNT}"


@pytest.fixture(scope="module")
def shared_engine() -> Iterator[Engine]:
    yield from engines.running("--userns-remap", REMAP)


@pytest.fixture
def engine(engine: Engine) -> Iterator[Engine]:
    """The module's engine; no volume stays."""
    yield engine
    remove_volumes(engine)


def pid_of(engine: Engine, name: str = "aa") -> int:
    return int(engine.docker("inspect", "-f", "{{.State.Pid}}", name))


def once(engine: Engine, *words: str) -> str:
    """Run a shell line, the last word, in a container for it alone."""
    *flags, line = words
    return engine.docker("run", "--rm", *flags, "busybox", "sh", "-c", line)


def sleeper(engine: Engine, *words: str, name: str = "aa") -> int:
    engine.docker("run", "-d", "--name", name, *words, "busybox", "sleep", "1000")
    return pid_of(engine, name)


def status(pid: int, key: str) -> list[str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split()[1:] for line in lines if line.startswith(f"{key}:"))


def test_root_inside_is_nobody_of_the_host(engine: Engine):
    pid = sleeper(engine)
    assert status(pid, "Uid") == [str(UID)] * 4
    assert status(pid, "Gid") == [str(GID)] * 4
    assert Path(f"/proc/{pid}/uid_map").read_text().split() == ["0", str(UID), str(COUNT)]
    assert Path(f"/proc/{pid}/gid_map").read_text().split() == ["0", str(GID), str(COUNT)]
    assert os.readlink(f"/proc/{pid}/ns/user") != os.readlink("/proc/self/ns/user")
    assert status(pid, "CapEff") == ["00000000a80425fb"]
    assert engine.docker("exec", "aa", "id") == "uid=0(root) gid=0(root) groups=0(root)"
    assert "name=userns" in engine.docker("info", "-f", "{{.SecurityOptions}}")


def test_two_containers_have_two_namespaces(engine: Engine):
    first, second = sleeper(engine), sleeper(engine, name="bb")
    assert os.readlink(f"/proc/{first}/ns/user") != os.readlink(f"/proc/{second}/ns/user")


def test_the_tree_belongs_to_its_root_and_the_disk_has_the_images_ids(engine: Engine):
    sleeper(engine)
    engine.docker("exec", "aa", "sh", "-c", "mkdir /made && touch /made/f && chown 7:8 /made/f && rm /etc/group")
    seen = engine.docker("exec", "aa", "stat", "-c", "%u:%g", "/", "/bin", "/etc/passwd", "/made", "/made/f", "/dev")
    assert seen.split() == ["0:0", "0:0", "0:0", "0:0", "7:8", "0:0"]
    upper = Path(engine.docker("inspect", "-f", "{{.GraphDriver.Data.UpperDir}}", "aa"))
    states = [os.lstat(upper / name) for name in ("made", "made/f")]
    assert [(each.st_uid, each.st_gid) for each in states] == [(0, 0), (7, 8)]
    assert sorted(engine.docker("diff", "aa").split("\n")) == ["A /made", "A /made/f", "C /etc", "D /etc/group"]
    engine.docker("commit", "aa", "made")
    told = engine.docker("run", "--rm", "--userns", "host", "made", "stat", "-c", "%u:%g", "/made/f")
    engine.docker("rmi", "made")
    assert told == "7:8"


def test_users_and_groups_inside(engine: Engine):
    line = "id -u; id -g; id -G; touch /tmp/f; stat -c %u:%g /tmp/f; echo out >/dev/stdout; echo err >/dev/stderr"
    ran = engine.run("run", "--rm", "--user", "web", "--group-add", "77", "busybox", "sh", "-c", line)
    user, group, groups, owner, out = ran.stdout.splitlines()
    assert (user, group, owner, out) == ("1000", "1000", "1000:1000", "out")
    assert set(groups.split()) == {"1000", "29", "77"}
    assert ran.stderr == "err\n"
    ran = engine.run("run", "--rm", "--user", "70000", "busybox", "true")
    assert "user 70000 has no id in the user namespace" in ran.stderr
    ran = engine.run("run", "--rm", "--user", "1:70000", "busybox", "true")
    assert "group 70000 has no id in the user namespace" in ran.stderr


def test_networks_work_as_without(engine: Engine):
    sleeper(engine)
    line = "ping -c1 -W2 $(ip route | awk '/default/ {print $3}') >/dev/null && nc -l -p 80 & sleep 0.3; netstat -ltn"
    assert ":80 " in engine.docker("exec", "aa", "sh", "-c", line)
    assert once(engine, "--cap-add", "NET_ADMIN", "ip link set lo mtu 1400 && cat /sys/class/net/lo/mtu") == "1400"
    assert once(engine, "--network", "none", "ip -o link | wc -l; id -u") == "1\n0"
    assert once(engine, "--sysctl", "net.ipv4.ip_forward=0", "cat /proc/sys/net/ipv4/ip_forward") == "0"


def test_a_published_port(engine: Engine):
    engine.docker("run", "-d", "--name", "aa", "-p", "127.0.0.1::80", "busybox", "nc", "-ll", "-p", "80", "-e", "id")
    address, port = engine.docker("port", "aa", "80").split(":")
    def told() -> str:
        with socket.create_connection((address, int(port)), timeout=5) as client:
            return client.makefile().read()

    until(lambda: told().startswith("uid=0(root)"))


def test_with_namespaces_of_another_container_come_its_rights(engine: Engine):
    sleeper(engine, "--ipc", "shareable")
    shared = ("--network", "container:aa", "--ipc", "container:aa", "--pid", "container:aa")
    line = "ip link set lo mtu 1300 && touch /dev/shm/x && kill -0 1 && cat /sys/class/net/lo/mtu"
    assert once(engine, *shared, "--cap-add", "NET_ADMIN", line) == "1300"
    assert engine.docker("exec", "aa", "stat", "-c", "%u", "/dev/shm/x") == "0"
    sleeper(engine, "--userns", "host", name="host")
    ran = engine.run("run", "--rm", "--network", "container:host", "busybox", "true")
    assert "use --userns=host" in ran.stderr
    assert once(engine, "--userns", "host", "--network", "container:aa", "cat /sys/class/net/lo/mtu") == "1300"


def test_terminals(engine: Engine):
    master, slave = pty.openpty()
    try:
        line = "test -t 0 && stat -c %u:%g /dev/pts/0 /dev/console $(tty) && echo x >/dev/tty"
        argv = ["docker", "run", "--rm", "-t", "busybox", "sh", "-c", line]
        ran = subprocess.run(argv, env=engine.environment, stdin=slave, capture_output=True, timeout=60)
        assert ran.stdout.decode().split() == ["0:5", "0:5", "0:5", "x"], ran.stderr
    finally:
        os.close(master)
        os.close(slave)


def test_volumes_have_the_ids_that_containers_see(engine: Engine):
    image = content_image(engine, "content")
    line = "stat -c %u:%g /data /data/sub; touch /data/new"
    told = engine.docker("run", "--rm", "-v", "vv:/data", image, "sh", "-c", line)
    assert told.split() == ["5:6", "7:8"]
    place = engine.data_root / "volumes" / "vv" / "_data"
    states = [os.lstat(place / name) for name in (".", "sub", "new")]
    assert [(each.st_uid, each.st_gid) for each in states] == [(5, 6), (7, 8), (0, 0)]
    assert once(engine, "--userns", "host", "-v", "vv:/v", "stat -c %u:%g /v/sub /v/new").split() == ["7:8", "0:0"]
    line = "stat -c %u:%g /v/sub; touch /v/sub/deep; stat -c %u /v/sub/deep"
    assert once(engine, "-v", "vv:/v", line).split() == ["7:8", "0"]
    part = "type=volume,src=vv,dst=/v,volume-subpath=sub"
    assert once(engine, "--mount", part, "stat -c %u:%g /v").split() == ["7:8"]
    engine.docker("rmi", image)


def test_a_volume_that_is_a_file_system(engine: Engine):
    words = ("--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=uid=9,mode=700")
    engine.docker("volume", "create", *words, "mem")
    assert once(engine, "-v", "mem:/m", "stat -c %u:%g /m; touch /m/f; stat -c %u:%g /m/f").split() == ["9:0", "0:0"]


def test_folders_of_the_host_keep_their_owners_unless_mapped(engine: Engine, tmp_path: Path):
    (tmp_path / "own").mkdir()
    os.chown(tmp_path / "own", 1234, 1235)
    ran = engine.run("run", "--rm", "-v", f"{tmp_path}/own:/x", "busybox", "sh", "-c", "stat -c %u:%g /x; touch /x/f")
    assert ran.stdout.split() == ["65534:65534"]
    assert "Permission denied" in ran.stderr
    assert os.listdir(tmp_path / "own") == []
    line = "stat -c %u:%g /x; touch /x/$0; stat -c %u:%g /x/$0"
    assert once(engine, "-v", f"{tmp_path}/own:/x:idmap", line).split() == ["0:0", "0:0"]
    told = once(engine, "--user", "33:34", "-v", f"{tmp_path}/own:/x:idmap", line.replace("$0", "g"))
    assert told.split() == ["33:34", "33:34"]
    mapping = "idmap=uids=1234-7-1;gids=1235-8-1"
    assert once(engine, "-v", f"{tmp_path}/own:/x:{mapping}", "stat -c %u:%g /x") == "7:8"
    states = [os.stat(tmp_path / "own" / name) for name in os.listdir(tmp_path / "own")]
    assert len(states) == 2
    assert {(each.st_uid, each.st_gid) for each in states} == {(1234, 1235)}
    os.chown(tmp_path / "own", UID + 5, GID + 6)
    assert once(engine, "-v", f"{tmp_path}/own:/x", "stat -c %u:%g /x") == "5:6"


def test_file_systems_in_memory_images_and_devices(engine: Engine):
    words = ("--tmpfs", "/t:uid=5,gid=6,mode=750", "--tmpfs", "/u", "--mount", "type=image,src=busybox,dst=/i")
    words = (*words, "--device", "/dev/loop0")
    told = once(engine, *words, "stat -c %u:%g /t /u /i /i/etc /dev/shm /dev/mqueue /dev/loop0")
    assert told.split()[:-1] == ["5:6", "0:0", "0:0", "0:0", "0:0", "0:0"]
    device = os.stat("/dev/loop0")
    assert told.split()[-1] == f"{device.st_uid}:{device.st_gid}"
    assert once(engine, "--read-only", "--tmpfs", "/t", "touch /t/f && touch /f; echo $?").split()[-1] == "1"


def test_mount_add(engine: Engine, tmp_path: Path):
    os.chown(tmp_path, 1234, 1235)
    sleeper(engine)
    done(engine, "mount", "add", "aa", "vv:/new/volume", f"{tmp_path}:/new/bind:idmap")
    done(engine, "mount", "add", "aa", "type=tmpfs,dst=/new/memory", "type=image,src=busybox,dst=/new/image")
    paths = ["/new", *(f"/new/{name}" for name in ("volume", "bind", "memory", "image", "image/etc"))]
    assert engine.docker("exec", "aa", "stat", "-c", "%u:%g", *paths).split() == ["0:0"] * 6
    engine.docker("exec", "aa", "touch", "/new/volume/f", "/new/bind/f", "/new/memory/f")
    assert (engine.data_root / "volumes" / "vv" / "_data" / "f").stat().st_uid == 0
    assert (tmp_path / "f").stat().st_uid == 1234
    engine.docker("restart", "-t", "0", "aa")
    assert engine.docker("exec", "aa", "stat", "-c", "%u", "/new/volume/f", "/new/bind/f").split() == ["0", "0"]
    done(engine, "mount", "rm", "aa", "/new/volume")
    assert engine.docker("exec", "aa", "ls", "/new/volume") == ""


def members(data: bytes) -> dict[str, tuple[int, int]]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {each.name: (each.uid, each.gid) for each in tar}


@pytest.mark.parametrize("flags", [(), ("--cap-add", "SYS_ADMIN")])
@pytest.mark.parametrize("running", [True, False])
def test_copies_speak_of_the_containers_ids(engine: Engine, running: bool, flags: tuple[str, ...]):
    sleeper(engine, "-v", "vv:/v", *flags)
    engine.docker("exec", "aa", "sh", "-c", "mkdir /d && touch /d/f /v/f && chown 7:8 /d/f /v/f")
    if not running:
        engine.docker("stop", "-t", "0", "aa")

    def taken(*words: str) -> dict[str, tuple[int, int]]:
        ran = subprocess.run(["docker", *words], env=engine.environment, capture_output=True, check=True)
        return members(ran.stdout)

    assert taken("cp", "aa:/d", "-") == {"d": (0, 0), "d/f": (7, 8)}
    assert taken("cp", "aa:/v", "-")["v/f"] == (7, 8)
    assert taken("cp", "aa:/etc/hostname", "-") == {"hostname": (0, 0)}
    assert {name: ids for name, ids in taken("export", "aa").items() if name in ("d/f", "bin")} == {
        "d/f": (7, 8), "bin": (0, 0),
    }  # fmt: skip
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, uid in (("roots", 0), ("nines", 9)):
            entry = tarfile.TarInfo(name)
            entry.uid, entry.gid = uid, uid
            tar.addfile(entry)
    for place in ("/d", "/v"):
        engine.docker("cp", "-a", "-", f"aa:{place}", input=buffer.getvalue())
    if not running:
        engine.docker("start", "aa")
    paths = [f"{place}/{name}" for place in ("/d", "/v") for name in ("roots", "nines")]
    assert engine.docker("exec", "aa", "stat", "-c", "%u:%g", *paths).split() == ["0:0", "9:9"] * 2


def test_who_does_not_exist_inside_is_not_copied(engine: Engine):
    sleeper(engine)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo("f")
        entry.uid = COUNT
        tar.addfile(entry)
    told = engine.run("cp", "-a", "-", "aa:/tmp", input=buffer.getvalue())
    assert told.returncode != 0
    assert f"f: Invalid argument (user {COUNT} has no id in the user namespace)" in told.stderr


def test_copies_into_folders_of_the_host(engine: Engine, tmp_path: Path):
    """Whether the container runs, may mount, or neither: as its ids, and by the mapping of the mount."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo("f")
        entry.mode = 0o6755
        tar.addfile(entry)
    for name, flags, owner in (("plain", "", (UID, GID)), ("mapped", ":idmap", (1234, 1235))):
        place = tmp_path / name
        place.mkdir(mode=0o777)
        place.chmod(0o777)
        os.chown(place, 1234, 1235)
        for kind in ((), ("--cap-add", "SYS_ADMIN"), None):
            sleeper(engine, "-v", f"{place}:/x{flags}", *(kind or ()))
            if kind is None:
                engine.docker("stop", "-t", "0", "aa")
            engine.docker("cp", "-a", "-", "aa:/x", input=buffer.getvalue())
            state = (place / "f").stat()
            assert (state.st_uid, state.st_gid) == owner, (name, kind)
            argv = ["docker", "cp", "aa:/x/f", "-"]
            ran = subprocess.run(argv, env=engine.environment, capture_output=True, check=True)
            assert members(ran.stdout) == {"f": (0, 0)}, (name, kind)
            (place / "f").unlink()
            engine.docker("rm", "-f", "aa")


def test_sysctls(engine: Engine):
    """Those of the ipc namespace are its root's to write; ranges of groups are the container's."""
    for name, value in (("kernel.sem", "250 32000 100 200"), ("kernel.shmmax", "4096"), ("fs.mqueue.msg_max", "7")):
        told = once(engine, "--sysctl", f"{name}={value}", f"cat /proc/sys/{name.replace('.', '/')}")
        assert told.split() == value.split()
    assert once(engine, "cat /proc/sys/net/ipv4/ping_group_range").split() == ["0", str(COUNT - 1)]
    line = "cat /proc/sys/net/ipv4/ping_group_range"
    assert once(engine, "--sysctl", "net.ipv4.ping_group_range=5 1000", line).split() == ["5", "1000"]


def test_folders_of_the_host_that_are_made_belong_to_its_root(engine: Engine, tmp_path: Path):
    told = once(engine, "-v", f"{tmp_path}/new/deep:/x", "stat -c %u:%g /x && touch /x/f && echo written")
    assert told.split() == ["0:0", "written"]
    states = [os.stat(tmp_path / name) for name in ("new", "new/deep")]
    assert {(each.st_uid, each.st_gid) for each in states} == {(UID, GID)}


def test_refused_as_by_dockerd(engine: Engine):
    for words, text in (
        (("--privileged",), "privileged mode is incompatible with user namespaces."),
        (("--network", "host"), "cannot share the host's network namespace when user namespaces are enabled"),
        (("--pid", "host"), "cannot share the host PID namespace when user namespaces are enabled"),
    ):
        ran = engine.run("run", "--rm", *words, "busybox", "true")
        assert text in ran.stderr
        assert ran.returncode == 125
        assert once(engine, *words, "--userns", "host", "id -u") == "0"


def test_health_checks_and_restart_of_the_engine(engine: Engine):
    pid = sleeper(engine, "--health-cmd", "test $(id -u) = 0 && touch /tmp/well", "--health-interval", "1s")
    until(lambda: engine.docker("inspect", "-f", "{{.State.Health.Status}}", "aa") == "healthy")
    assert engine.docker("exec", "aa", "stat", "-c", "%u", "/tmp/well") == "0"
    assert engine.process is not None
    engine.crash()
    engine.start()
    assert pid_of(engine) == pid
    assert engine.docker("exec", "aa", "id", "-u") == "0"
    done(engine, "mount", "add", "aa", "type=tmpfs,dst=/late")
    assert engine.docker("exec", "aa", "stat", "-c", "%u", "/late") == "0"
    os.kill(pid, signal.SIGKILL)
    until(lambda: engine.docker("inspect", "-f", "{{.State.ExitCode}}", "aa") == "137")


def test_who_joins_a_container_with_other_ids_is_told(own_engine: Engine):
    own_engine.flags = ("--userns-remap", REMAP)
    own_engine.start()
    own_engine.import_busybox()
    own_engine.docker("run", "-d", "--name", "old", "--privileged", "--userns", "host", "busybox", "sleep", "1000")
    own_engine.docker("run", "-d", "--name", "aa", "busybox", "sleep", "1000")
    own_engine.crash()
    own_engine.flags = ("--userns-remap", "uids=0-700000-65536;gids=0-700000-65536")
    own_engine.start()
    ran = own_engine.run("run", "--rm", "--network", "container:aa", "busybox", "true")
    assert "runs with other ids than userns-remap gives now" in ran.stderr
    assert own_engine.docker("exec", "aa", "cat", "/proc/self/uid_map").split() == ["0", str(UID), str(COUNT)]
    own_engine.docker("restart", "-t", "0", "aa")
    assert own_engine.docker("exec", "aa", "cat", "/proc/self/uid_map").split() == ["0", "700000", str(COUNT)]
    assert own_engine.docker("run", "--rm", "--network", "container:aa", "busybox", "id", "-u") == "0"


def test_an_engine_with_other_ids_takes_the_data_over(own_engine: Engine):
    """What is on the disk has no ids of the host, so nothing becomes invisible or foreign."""
    own_engine.start()
    own_engine.import_busybox()
    own_engine.docker("run", "--name", "aa", "-v", "vv:/v", "busybox", "sh", "-c", "touch /f /v/f; chown 7:8 /f /v/f")
    for base in (300000, 500000):
        own_engine.stop()
        own_engine.flags = ("--userns-remap", f"uids=0-{base}-{COUNT};gids=0-{base}-{COUNT}")
        own_engine.start()
        own_engine.docker("start", "aa")
        line = "cat /proc/self/uid_map; stat -c %u:%g /f /v/f; touch /f"
        own_engine.docker("run", "-d", "--name", "bb", "--volumes-from", "aa", "busybox", "sleep", "1000")
        told = own_engine.docker("exec", "bb", "sh", "-c", line.replace("/f /v/f", "/v/f"))
        assert told.split() == ["0", str(base), str(COUNT), "7:8"]
        own_engine.docker("rm", "-f", "bb")
    assert own_engine.docker("diff", "aa").split("\n")[0] == "A /f"


@pytest.mark.parametrize("driver", ["overlay2", "vfs"])
def test_other_storage_drivers(own_engine: Engine, driver: str):
    own_engine.flags = ("--userns-remap", REMAP, "--storage-driver", driver)
    own_engine.start()
    own_engine.import_busybox()
    line = "touch /f; chown 7:8 /f; rm /etc/group; stat -c %u:%g / /bin /f; ls /etc"
    own_engine.docker("run", "--name", "aa", "--mount", "type=image,src=busybox,dst=/i", "busybox", "sh", "-c", line)
    told = own_engine.docker("logs", "aa").split()
    assert told == ["0:0", "0:0", "7:8", "hostname", "hosts", "passwd", "resolv.conf"]
    own_engine.docker("commit", "aa", "made")
    words = ("run", "--rm", "--userns", "host", "made", "stat", "-c", "%u:%g", "/f", "/bin")
    assert own_engine.docker(*words).split() == ["7:8", "0:0"]
