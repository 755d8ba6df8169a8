"""What a volume of the type nfs does with a server that there is: run by test_nfs.py in an emulated machine.

Client and server are one kernel, on the loopback link; whether the client's side has a file system mounted is read in
/proc/fs/nfsfs/volumes, which knows all mount namespaces.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.engine import Engine, running
from tests.volumes import content_image
from tests.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.engine, pytest.mark.slow]

EXPORTS = Path("/srv/nfs")
"""A tmpfs, as the machine's root, an overlay, cannot be exported. It is the root of what the server has."""
LEFT_ALONE = ("-o", "rw,fsid=0,no_root_squash,no_subtree_check,insecure")
FOR_US, FOR_OTHERS = f"127.0.0.0/8:{EXPORTS}", f"192.0.2.1:{EXPORTS}"
SILENT = "127.0.0.9"
"""An address of the server at which it can be made to answer nothing; at the others it goes on."""
BOUND = 90
"""Seconds: two attempts of `SOFT` and the machine's slowness; a mount that waits for ever takes longer."""
SOFT = "soft,timeo=20,retrans=1"
NAME = "files.example"


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    """A server of NFS 4 alone, which so needs no rpcbind."""
    EXPORTS.mkdir(parents=True, exist_ok=True)
    command("mount", "-t", "tmpfs", "exports", str(EXPORTS))
    command("mount", "-t", "nfsd", "nfsd", "/proc/fs/nfsd")
    # A server that knows no client yet waits for those of before it started, here for nobody.
    Path("/etc/nfs.conf").write_text("[nfsd]\nvers3=n\nvers4=y\nthreads=2\ngrace-time=10\nlease-time=10\n")
    with Path("/etc/hosts").open("a") as hosts:
        hosts.write(f"\n127.0.0.1 {NAME}\n")
    Path("/etc/exports").touch()
    command("exportfs", *LEFT_ALONE, FOR_US)
    command("rpc.mountd")
    command("rpc.nfsd")
    Path("/proc/fs/nfsd/v4_end_grace").write_text("Y\n")
    yield
    command("rpc.nfsd", "0")
    command("exportfs", "-ua")


@pytest.fixture(scope="module")
def engine(server: None) -> Iterator[Engine]:
    yield from running()


@pytest.fixture(autouse=True)
def nothing_is_left(engine: Engine) -> Iterator[None]:
    yield
    engine.remove_all()
    if names := engine.docker("volume", "ls", "-q").split():
        engine.docker("volume", "rm", *names)
    until(lambda: not on_the_client(), BOUND)
    assert os.listdir(engine.data_root / "volumes") == []
    assert [each for each in (engine.run_root / "containers").iterdir() if each.is_dir()] == []


def command(*argv: str) -> None:
    ran = subprocess.run(argv, capture_output=True, text=True)
    assert ran.returncode == 0, f"{argv}: {ran.stdout}{ran.stderr}"


def on_the_client() -> list[str]:
    """Return the file systems that are mounted from servers, in any mount namespace."""
    try:
        return Path("/proc/fs/nfsfs/volumes").read_text().splitlines()[1:]
    except FileNotFoundError:
        return []


def exported(name: str) -> Path:
    """Make an empty directory that the server has; its path below the server's root is its name."""
    place = EXPORTS / name
    place.mkdir()
    return place


def create(engine: Engine, volume: str, device: str, options: str = "", address: str = "127.0.0.1") -> str:
    """Make a volume; return its options as mount(2) gets them, and as an error repeats them."""
    words = f"addr={address},rw,nfsvers=4" + (f",{options}" if options else "")
    engine.docker("volume", "create", "-o", "type=nfs", "-o", f"o={words}", "-o", f"device=:{device}", volume)
    return words.replace(",rw", "")


def run(*words: str) -> tuple[str, ...]:
    return ("run", "--network", "none", *words)


def start(engine: Engine, name: str, volume: str) -> None:
    engine.docker(*run("-d", "--name", name, "-v", f"{volume}:/v", "busybox", "sleep", "1000"))


def mount_in(engine: Engine, container: str) -> list[str]:
    """Return device number, type and options of what a container has at /v."""
    (line,) = engine.docker("exec", container, "grep", " /v ", "/proc/self/mountinfo").splitlines()
    fields = line.split()
    return [fields[2], fields[-3], fields[-1]]


def host_mounts() -> str:
    return Path("/proc/self/mountinfo").read_text()


def place(engine: Engine, volume: str) -> Path:
    return engine.data_root / "volumes" / volume / "_data"


def refusal(engine: Engine, volume: str, device: str, data: str) -> str:
    """Return dockerd's sentence up to the kernel's reason."""
    where = place(engine, volume)
    return (f"docker: Error response from daemon: error while mounting volume '{where}': "
            f"failed to mount local volume: mount :{device}:{where}, data: {data}: ")  # fmt: skip


@contextmanager
def silence(address: str) -> Iterator[None]:
    """Have the server at an address answer nothing, and tell nobody that it does not."""
    rule = f"ip daddr {address} tcp dport 2049 drop; ip saddr {address} tcp sport 2049 drop;"
    table = f"table inet silence {{ chain out {{ type filter hook input priority 0; {rule} }}; }}"
    command("nft", table)
    try:
        yield
    finally:
        command("nft", "delete table inet silence")


def test_what_containers_write_is_on_the_server_and_goes_to_each_other(engine: Engine) -> None:
    export = exported("shared")
    (export / "before").write_text("from the server\n")
    create(engine, "vol", "/shared")
    assert on_the_client() == [], "a volume that nobody uses is not mounted"
    start(engine, "one", "vol")
    start(engine, "two", "vol")
    device, kind, options = mount_in(engine, "one")
    assert (kind, "addr=127.0.0.1" in options) == ("nfs4", True), options
    assert mount_in(engine, "two")[0] == device, "one file system for both"
    assert engine.docker("exec", "one", "cat", "/v/before") == "from the server"
    engine.docker("exec", "one", "sh", "-c", "echo first >/v/file")
    assert (export / "file").read_text() == "first\n"
    engine.docker("exec", "two", "sh", "-c", "cat /v/file; echo second >>/v/file; mkdir /v/dir; ln /v/file /v/dir/more")
    assert engine.docker("exec", "one", "cat", "/v/dir/more") == "first\nsecond"
    assert (export / "dir" / "more").read_text() == "first\nsecond\n"
    engine.docker("cp", __file__, "two:/v/copied")
    assert (export / "copied").read_bytes() == Path(__file__).read_bytes()
    assert (":/shared" in host_mounts(), os.listdir(place(engine, "vol"))) == (False, [])
    refused = engine.run("volume", "rm", "vol")
    assert "volume is in use" in refused.stderr


def test_it_is_unmounted_with_the_last_container_whoever_dies(engine: Engine) -> None:
    exported("counted")
    create(engine, "vol", "/counted")
    start(engine, "one", "vol")
    start(engine, "two", "vol")
    engine.docker("rm", "-f", "one")
    assert len(on_the_client()) == 1
    engine.docker("exec", "two", "touch", "/v/without-the-first")
    engine.crash()
    engine.start()
    start(engine, "three", "vol")
    assert engine.docker("exec", "three", "ls", "/v") == "without-the-first"
    assert len(on_the_client()) == 1
    engine.docker("kill", "two", "three")
    until(lambda: not on_the_client(), BOUND)
    engine.docker("start", "two")
    assert engine.docker("exec", "two", "ls", "/v") == "without-the-first"


def test_the_server_can_be_named(engine: Engine) -> None:
    export = exported("named")
    create(engine, "vol", "/named", address=NAME)
    start(engine, "one", "vol")
    assert "addr=127.0.0.1" in mount_in(engine, "one")[2]
    engine.docker("exec", "one", "touch", "/v/here")
    assert os.listdir(export) == ["here"]
    assert json.loads(engine.docker("volume", "inspect", "vol"))[0]["Options"]["o"] == f"addr={NAME},rw,nfsvers=4"


def test_an_empty_one_gets_what_the_image_has(engine: Engine) -> None:
    export, kept = exported("filled"), exported("kept")
    (kept / "mine").touch()
    content_image(engine, "full")
    create(engine, "vol", "/filled")
    create(engine, "has", "/kept")
    engine.docker(*run("--rm", "-v", "vol:/data", "-v", "has:/owned", "full", "true"))
    engine.docker(*run("--rm", "-v", "has:/data", "full", "true"))
    found = (export / "sub").stat()
    assert ((export / "f").read_text(), found.st_uid, found.st_mode & 0o7777) == ("hi\n", 7, 0o700)
    assert os.listdir(kept) == ["mine"]


def test_read_only_and_a_part(engine: Engine) -> None:
    export = exported("parts")
    (export / "sub").mkdir()
    create(engine, "vol", "/parts")
    ran = engine.run(*run("--rm", "-v", "vol:/v:ro", "busybox", "touch", "/v/x"))
    assert "Read-only file system" in ran.stderr
    part = "type=volume,src=vol,dst=/v,volume-subpath=sub"
    engine.docker(*run("--rm", "--mount", part, "busybox", "touch", "/v/inside"))
    assert os.listdir(export / "sub") == ["inside"]


def test_a_backup_is_made_while_a_container_has_it(engine: Engine, tmp_path: Path) -> None:
    export = exported("saved")
    create(engine, "vol", "/saved")
    wherry = [sys.executable, "-I", "-m", "wherry.cli.main", "-H", engine.host, "volume"]
    archive = tmp_path / "vol.tar"
    save = [*wherry, "export", "--freeze", "-o", str(archive), "vol"]
    refused = subprocess.run(save, capture_output=True, text=True)
    assert "is there only while a container has it" in refused.stderr
    start(engine, "one", "vol")
    engine.docker("exec", "one", "sh", "-c", "mkdir /v/dir; echo kept >/v/dir/file; chown 7:8 /v/dir/file")
    subprocess.run(save, check=True)
    with tarfile.open(archive) as tar:
        member = next(each for each in tar if each.name.endswith("dir/file"))
        content = tar.extractfile(member)
        assert content is not None
        assert (content.read(), member.uid, member.gid) == (b"kept\n", 7, 8)
    subprocess.run([*wherry, "import", "copy", str(archive)], check=True)
    assert (place(engine, "copy") / "dir" / "file").read_text() == "kept\n"
    assert os.listdir(export) == ["dir"], "a backup leaves nothing on the server"


@pytest.mark.parametrize("flags", [("--rm",), ("--rm", "-d")])
def test_a_path_that_the_server_does_not_have(engine: Engine, flags: tuple[str, ...]) -> None:
    data = create(engine, "vol", "/nosuch")
    ran = engine.run(*run(*flags, "-v", "vol:/v", "busybox", "true"))
    assert ran.returncode == 127, "what the docker CLI makes of these words"
    assert refusal(engine, "vol", "/nosuch", data) + "no such file or directory" in ran.stderr
    assert nobody(engine)


def test_a_server_that_refuses(engine: Engine) -> None:
    exported("private")
    data = create(engine, "vol", "/private")
    command("exportfs", "-u", FOR_US)
    command("exportfs", *LEFT_ALONE, FOR_OTHERS)
    try:
        ran = engine.run(*run("--rm", "-v", "vol:/v", "busybox", "true"))
    finally:
        command("exportfs", "-u", FOR_OTHERS)
        command("exportfs", *LEFT_ALONE, FOR_US)
    assert ran.returncode == 126, "what the docker CLI makes of these words"
    assert refusal(engine, "vol", "/private", data) + "permission denied" in ran.stderr
    assert nobody(engine)
    engine.docker(*run("--rm", "-v", "vol:/v", "busybox", "touch", "/v/allowed-again"))


def test_where_no_server_listens(engine: Engine) -> None:
    data = create(engine, "vol", "/x", f"port=2050,{SOFT}")
    ran = engine.run(*run("--rm", "-v", "vol:/v", "busybox", "true"), timeout=BOUND)
    assert ran.returncode == 125
    assert refusal(engine, "vol", "/x", data) + "connection refused" in ran.stderr
    assert nobody(engine)


def nobody(engine: Engine) -> bool:
    """Whether a start that failed has left no container, no mount and no process."""
    return (engine.docker("ps", "-aq"), on_the_client(), processes(engine)) == ("", [], [])


def processes(engine: Engine) -> list[str]:
    """Return the children of the zygote that have left its mount namespace: those that have mounted volumes."""
    zygote = engine.zygote()
    own = os.readlink(f"/proc/{zygote}/ns/mnt")
    children = Path(f"/proc/{zygote}/task/{zygote}/children").read_text().split()
    found = []
    for each in children:
        with suppress(OSError):
            if os.readlink(f"/proc/{each}/ns/mnt") != own:
                found.append(each)
    return found


@contextmanager
def started(engine: Engine, volumes: list[str]) -> Iterator[list[Future[tuple[int, str]]]]:
    """Have a container made and started for each volume; give what comes of the starts."""
    names = [f"c{each}-{volume}" for each, volume in enumerate(volumes)]
    for name, volume in zip(names, volumes, strict=True):
        engine.docker("create", "--name", name, "--network", "none", "-v", f"{volume}:/v", "busybox", "sleep", "99")
    with ThreadPoolExecutor(len(names)) as pool:
        yield [pool.submit(engine.api, "POST", f"/containers/{each}/start") for each in names]


@contextmanager
def silent_name_server(address: str) -> Iterator[socket.socket]:
    """Have this machine ask nobody but a name server that never answers; give its socket."""
    file = Path("/etc/resolv.conf")
    before = file.read_text()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, 53))
        file.write_text(f"nameserver {address}\noptions timeout:15 attempts:2\n")
        try:
            yield server
        finally:
            file.write_text(before)


def connecting(address: str) -> bool:
    """Whether there is a connection to a server that did not answer yet (SYN_SENT, proc_pid_net_tcp(5))."""
    remote = f"{int.from_bytes(socket.inet_aton(address), 'little'):08X}:{2049:04X}"
    return f" {remote} 02 " in Path("/proc/net/tcp").read_text()


@pytest.mark.parametrize("address", [SILENT, "nowhere.example"])
def test_a_server_that_does_not_answer_holds_up_nobody_else(engine: Engine, address: str) -> None:
    """More starts wait for it than the engine's pool of threads has; for the name, it is that of the names."""
    export = exported(f"answers-{address}")
    create(engine, "good", f"/answers-{address}")
    volumes = [f"dead{each}" for each in range(8)]
    for each in volumes:
        data = create(engine, each, "/", "soft,timeo=100,retrans=1", address)
    with silence(SILENT), silent_name_server(SILENT) as names, started(engine, volumes) as starts:
        if address == SILENT:
            until(lambda: connecting(SILENT), BOUND)
        else:
            assert select.select([names], [], [], BOUND)[0]
        engine.docker(*run("--rm", "busybox", "true"))
        engine.docker(*run("--rm", "-v", "good:/v", "busybox", "touch", "/v/meanwhile"))
        engine.docker("volume", "inspect", "dead0")
        engine.docker("volume", "ls")
        ended = [each for each in starts if each.done()]
        told = [each.result(BOUND) for each in starts]
    assert ended == [], "the others were not faster than the server that does not answer"
    where = place(engine, "dead0")
    reason = {
        SILENT: f"failed to mount local volume: mount :/:{where}, data: {data}: connection timed out",
        "nowhere.example": "error resolving passed in network volume address: lookup nowhere.example: ",
    }
    assert [status for status, _ in told] == [500] * len(volumes)
    assert f"error while mounting volume '{where}': {reason[address]}" in told[0][1]
    assert os.listdir(export) == ["meanwhile"]
    engine.remove_all()
    assert nobody(engine)


@pytest.mark.parametrize("options", [SOFT, "hard"])
def test_a_server_that_is_lost_holds_up_its_own_containers_alone(engine: Engine, options: str) -> None:
    name = f"lost-{options[:4]}"
    export = exported(name)
    create(engine, "vol", f"/{name}", options, SILENT)
    create(engine, "good", f"/{name}")
    start(engine, "one", "vol")
    engine.docker("exec", "one", "touch", "/v/before")
    with silence(SILENT), started(engine, ["vol"] * 8) as starts:
        engine.docker(*run("--rm", "busybox", "true"))
        engine.docker(*run("--rm", "-v", "good:/v", "busybox", "touch", "/v/meanwhile"))
        engine.docker("inspect", "one")
        engine.docker("volume", "inspect", "vol")
        engine.docker("stats", "--no-stream")
        engine.docker("system", "df", "-v")
        ended = [each.result() for each in starts if each.done()]
        if options == "hard":
            hung = subprocess.Popen(["docker", "exec", "one", "ls", "/v"], env=engine.environment)
        else:
            assert "Input/output error" in engine.run("exec", "one", "ls", "/v", timeout=BOUND).stderr
        engine.crash()
        engine.start()
        outcomes = [each.exception(BOUND) or each.result()[0] for each in starts]
        assert engine.docker("exec", "one", "echo", "lives") == "lives"
        engine.docker("rm", "-f", "one", timeout=BOUND)
        if options == "hard":
            hung.wait(BOUND)
        engine.remove_all()
        engine.docker("volume", "rm", "vol")
    assert ended == [], "the others were not faster than the server that is lost"
    assert 204 not in outcomes, "the engine was killed before they had started"
    assert sorted(os.listdir(export)) == ["before", "meanwhile"]
