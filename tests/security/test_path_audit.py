"""No path of a container, an image or a volume is looked up by its text on the host: strace(1) of all that do the work.

Every name that a container could have chosen has a mark in it. An engine, its zygote and what that forks are traced
through a life of containers, and each system call that names a file with the mark has to be one of two kinds:

- openat2(2) with a resolve flag that keeps the walk below its descriptor, or knows no links;
- a name alone, beside a descriptor of its folder, by a call that does not follow it when it is a link.

What a container's own process does after pivot_root(2) is its own, and what a program does: there its root is "/".
"""

from __future__ import annotations

import io
import re
import shutil
import signal
import subprocess
import tarfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import tars
from tests.engine import Engine, busybox_tar
from tests.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.engine]

MARK = "zqx"
_CALL = re.compile(r"(\w+)\((.*)")
_MARKED = re.compile(rf'"((?:[^"\\]|\\.)*{MARK}(?:[^"\\]|\\.)*)"')
_CONFINED = ("RESOLVE_IN_ROOT", "RESOLVE_BENEATH", "RESOLVE_NO_SYMLINKS")
_BY_DESCRIPTOR = re.compile(r'(?:AT_FDCWD, )?"/proc/(?:thread-)?self/fd/(\d+)/')
"""How calls without a descriptor of their own get one: llistxattr(2) and the like."""
_NEVER_FOLLOW = {
    "mkdirat", "mknodat", "unlinkat", "readlinkat", "renameat", "renameat2", "symlinkat", "linkat", "llistxattr",
    "lgetxattr", "lsetxattr",
}  # fmt: skip
_NOFOLLOW = ("O_NOFOLLOW", "O_EXCL", "AT_SYMLINK_NOFOLLOW")


def complaint(line: str) -> str:
    """Return what is wrong with a system call as strace(1) writes it, "" when nothing is."""
    call = _CALL.match(line)
    if call is None:
        return ""
    name, arguments = call.groups()
    if name == "symlinkat":  # what the link says is text
        arguments = arguments.partition('", ')[2]
    elif name == "readlinkat":
        arguments = ",".join(arguments.split(",")[:2])
    arguments = _BY_DESCRIPTOR.sub(r'\1, "', arguments)
    marked = _MARKED.findall(arguments)
    if not marked:
        return ""
    if name == "openat2":
        return "" if any(word in arguments for word in _CONFINED) else "openat2 without resolve"
    if any("/" in each for each in marked):
        return "a path"
    if not re.search(rf'(^|, )\d+, "{re.escape(marked[0])}"', arguments):
        return "relative to the working directory"
    if name not in _NEVER_FOLLOW and not any(word in arguments for word in _NOFOLLOW):
        return "a link would be followed"
    if name == "linkat" and "AT_SYMLINK_FOLLOW" in arguments:
        return "a link would be followed"
    return ""


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        (f'openat(AT_FDCWD, "/tmp/{MARK}", O_RDONLY|O_NOFOLLOW) = 3', True),
        (f'openat(AT_FDCWD, "{MARK}", O_RDONLY|O_NOFOLLOW) = 3', True),
        (f'openat(5, "{MARK}/x", O_RDONLY|O_NOFOLLOW) = 3', True),
        (f'openat(5, "{MARK}", O_RDONLY|O_CLOEXEC) = 3', True),
        (f'openat(5, "{MARK}", O_RDONLY|O_NOFOLLOW|O_CLOEXEC) = 3', False),
        (f'openat2(5, "/a/{MARK}", {{flags=O_PATH, resolve=0}}, 24) = 3', True),
        (f'openat2(5, "/a/{MARK}", {{flags=O_PATH, resolve=RESOLVE_NO_MAGICLINKS|RESOLVE_IN_ROOT}}, 24) = 3', False),
        (f'newfstatat(5, "{MARK}", {{st_mode=S_IFDIR}}, 0) = 0', True),
        (f'newfstatat(5, "{MARK}", {{st_mode=S_IFDIR}}, AT_SYMLINK_NOFOLLOW) = 0', False),
        (f'stat("/a/{MARK}", {{}}) = 0', True),
        (f'symlinkat("/a/{MARK}", 5, "x") = 0', False),
        (f'symlinkat("/a/{MARK}", 5, "/{MARK}") = 0', True),
        (f'fchmodat(5, "{MARK}", 0644) = 0', True),
        (f'chdir("{MARK}") = 0', True),
        (f'readlinkat(5, "{MARK}", "/a/{MARK}", 4096) = 9', False),
        (f'llistxattr("/proc/self/fd/41/{MARK}", "", 256) = 0', False),
        (f'listxattr("/proc/self/fd/41/{MARK}", "", 256) = 0', True),
        (f'llistxattr("/proc/self/fd/41/a/{MARK}", "", 256) = 0', True),
        (f'openat(AT_FDCWD, "/proc/self/fd/36/{MARK}", O_RDONLY) = 3', True),
        (f'linkat(5, "x", 6, "{MARK}", AT_SYMLINK_FOLLOW) = 0', True),
        ('openat(AT_FDCWD, "/etc/passwd", O_RDONLY) = 3', False),
    ],
)
def test_what_is_complained_of(line: str, wrong: bool) -> None:
    assert bool(complaint(line)) == wrong


@contextmanager
def traced(engine: Engine, folder: Path) -> Iterator[None]:
    """Trace the engine and its zygote with all that they fork, a file for each process or thread."""
    strace = shutil.which("strace")
    assert strace, "strace is not installed"
    assert engine.process
    processes = [word for pid in (engine.process.pid, engine.zygote()) for word in ("-p", str(pid))]
    words = [strace, "-ff", "-qq", "-s", "4096", "-e", "trace=%file", "-o", str(folder / "trace"), *processes]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as tracer:
        try:
            until(lambda: _tracer(engine.zygote()))
            yield
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.wait()


def _tracer(pid: int) -> bool:
    return "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text()


def _image() -> bytes:
    buffer = io.BytesIO(busybox_tar())
    members = [
        tars.folder(f"{MARK}d", uid=5, gid=6), tars.file(f"{MARK}d/{MARK}f", b"of the image", mode=0o4755),
        tars.link(f"{MARK}d/{MARK}l", f"/{MARK}d/{MARK}f"), tars.link(f"{MARK}l", f"{MARK}d"),
        tars.hard(f"{MARK}d/{MARK}h", f"{MARK}d/{MARK}f"), tars.node(f"{MARK}d/{MARK}p", tarfile.FIFOTYPE),
        tars.file(f"{MARK}gone", b"x"), tars.folder(f"{MARK}w/{MARK}w"),
    ]  # fmt: skip
    with tarfile.open(fileobj=buffer, mode="a") as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _life(engine: Engine, scratch: Path) -> None:
    """Make, fill, start, copy, commit, export, stop, copy again, mount and remove, with marked names all the way."""
    docker, place = engine.docker, f"/{MARK}d"
    (scratch / f"{MARK}in").write_text("in")
    docker("import", "-", "marked", input=_image())
    # Programs by their paths: some shells would do their work themselves, and a trace could not tell that from ours
    script = f"/bin/rm /{MARK}gone; /bin/mkdir -p {place}/{MARK}s; echo x >/{MARK}w/{MARK}w/{MARK}n; exec sleep 1000"
    mounts = ("-v", f"vv:{place}", "-v", f"/{MARK}w/{MARK}a", "--tmpfs", f"/{MARK}t")
    docker("create", "--name", "aa", "-w", f"/{MARK}w/{MARK}w", *mounts, "marked", "sh", "-c", script)
    for state in ("created", "running", "stopped"):
        if state == "running":
            docker("start", "aa")
            until(lambda: engine.run("diff", "aa").stdout.count(MARK) > 2)
        elif state == "stopped":
            docker("kill", "aa")
            docker("wait", "aa")
        docker("cp", f"{scratch}/{MARK}in", f"aa:/{MARK}l/{MARK}{state}")
        docker("cp", f"aa:{place}", f"{scratch}/{MARK}{state}")
        docker("cp", f"aa:/{MARK}l/{MARK}l", f"{scratch}/{MARK}{state}l")
        assert (scratch / f"{MARK}{state}/{MARK}f").read_text() == "of the image"
        docker("export", "-o", str(scratch / "exported"), "aa")
        docker("diff", "aa")
        docker("commit", "aa", "more")
        docker("rmi", "more")
    part = f"type=volume,src=vv,dst=/{MARK}x/{MARK}y,volume-subpath={MARK}s"
    docker("run", "--name", "bb", "--mount", part, "-v", f"ww:/{MARK}l", "marked", "true")
    docker("rm", "-v", "aa", "bb")
    docker("volume", "rm", "vv", "ww")
    docker("rmi", "marked")


@pytest.mark.parametrize("driver", ["erofs", "overlay2"])
def test_no_path_of_a_container_is_looked_up_on_the_host(tmp_path: Path, driver: str) -> None:
    """FS-01 to FS-03, FS-09, FS-10, RT-08: by construction, not by luck."""
    traces, engine = tmp_path / "traces", Engine("--storage-driver", driver)
    traces.mkdir()
    try:
        engine.start()
        with traced(engine, traces):
            _life(engine, tmp_path)
    finally:
        engine.destroy()
    calls, wrong = Counter[str](), []
    for each in traces.iterdir():
        for line in each.read_text(errors="replace").splitlines():
            if line.startswith(("pivot_root(", "execve(")) and line.endswith("= 0"):
                break
            if MARK in line:
                calls[line.partition("(")[0]] += 1
            if why := complaint(line):
                wrong.append(f"{why}: {line}")
    assert not wrong, "\n".join(sorted(set(wrong))[:40])
    assert calls["openat2"] > 30, calls
