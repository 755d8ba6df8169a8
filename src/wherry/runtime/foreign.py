"""A container that another OCI runtime makes (runc, crun); the supervisor stays the parent of its processes.

    supervisor, reaper of      our child, in a mount namespace of its own         the runtime
    orphans (subreaper)        with the root file system at RUN_DIR/bundle
       | -- fork ---------------> | -- create --bundle --pid-file -----------------> |  forks the first process and
       |                          | <-- terminal, over a console socket ------------ |  ends: an orphan, so ours
       |                          | -- start --------------------------------------> |
       | <-- {"console"} + fd --- |
       | <-- {"spawned": PID} --- |   or {"failed": ...}
       |    at the end: delete --force

An exec goes the same way with one call, exec --detach. What the runtime has to say goes to RUN_DIR/runtime.log and is
read from there when a call fails. Its own state is in RUN_DIR/runtime. Everything else is as with our own runtime:
signals go by pidfd, the freezer and limits by the control group, which has the path that our spec asks for.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import stat
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from wherry.kernel import cgroup, const, fds, mountapi, namespaces
from wherry.kernel.idmap import forked
from wherry.runtime import channel, selfprotect
from wherry.runtime.cgroups import Cgroup, detect
from wherry.runtime.idmaps import map_owners
from wherry.runtime.mountoptions import IDMAP, SUBPATH, parse
from wherry.runtime.ops_volumes import fill_empty, open_part
from wherry.runtime.passwd import Accounts
from wherry.runtime.phases import Marks
from wherry.runtime.plan import clean, layer_steps, root_steps
from wherry.runtime.setup import ContainerStart, Setup, SetupError
from wherry.runtime.sources import copy_tree, of_another
from wherry.runtime.wire import Launch, SetupFailure

LOG = "runtime.log"
OCI_VERSION = "1.0.2"
"""The oldest that has all we write; crun before 1.9 takes no 1.2."""

DELETE_SECONDS = 10.0
CONSOLE_SECONDS = 10.0
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
_OWN_KINDS = frozenset({"time"})  # namespaces that not every runtime knows of, and dockerd never asks for
_SHOWN = 65536

Stdio = tuple[int, int, int]


class Foreign:
    """One container's runtime: a command, and the directory that the supervisor keeps for the container."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self._directory = launch.run_dir
        self.marks = Marks()  # of the child that makes the container: only the root's device

    def make(self, sync: socket.socket, stdio: Stdio | None, netns: int | None) -> NoReturn:
        """Be the child that makes and starts the container; tells over `sync` what came of it."""
        keep = [*(stdio or ()), *(() if netns is None else (netns,))]
        self._be_child(sync, keep, lambda: self._make(sync, stdio, netns))

    def execute(self, sync: socket.socket, stdio: Stdio | None, process: dict[str, Any], first: int) -> NoReturn:
        """Be the child that starts one more process in the container whose first process is `first`."""
        self._be_child(sync, stdio or (), lambda: self._execute(sync, stdio, process, first))

    def delete(self) -> str:
        """Have the runtime forget the container; return why it could not, or ""."""
        ours, theirs = channel.pair()
        with ours, theirs:
            pid = os.fork()
            if pid == 0:
                self._be_child(theirs, (), self._delete)
            theirs.close()
            os.waitpid(pid, 0)
            message, _ = channel.receive(ours)
        return str(message["failed"]["message"]) if "failed" in message else ""

    def _delete(self) -> int:
        _leave_mounts()
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        _check(self._call(("delete", "--force", self._launch.id), (null, null, null), DELETE_SECONDS))
        return 0

    def _be_child(self, sync: socket.socket, keep: Sequence[int], work: Callable[[], int]) -> NoReturn:
        fds.close_except({0, 1, 2, sync.fileno(), *keep, *selfprotect.kept()})
        try:
            channel.send(sync, {"spawned": work()})
        except SetupError as error:
            phase = "user" if "matching entries" in error.message or "uids and gids" in error.message else "process"
            failure = SetupFailure(phase, "call the runtime", error.number, error.path, error.message)
            channel.send(sync, {"failed": failure.to_wire()})
        except OSError as error:
            failure = SetupFailure.from_oserror("process", "call the runtime", error)
            channel.send(sync, {"failed": failure.to_wire()})
        finally:
            os._exit(0)

    # Create and start

    def _make(self, sync: socket.socket, stdio: Stdio | None, netns: int | None) -> int:
        bundle = f"{self._directory}/bundle"
        rootfs = f"{bundle}/rootfs"
        os.makedirs(rootfs, 0o700)
        mounts = self._launch.spec["mounts"]
        trees = {n: _tree(entry) for n, entry in enumerate(mounts) if entry["type"] == "volume"}
        setup = self._root_setup(sync, rootfs)
        for step in layer_steps(self._launch.rootfs):
            step.run(setup)
        _leave_mounts()
        trees |= {n: _tree(entry) for n, entry in enumerate(mounts) if _is_out_of_reach(entry)}
        root = self._mount_root(setup)
        self.marks.root = os.fstat(root).st_dev
        spec = {**self._spec(root, rootfs, netns), "mounts": self._reach(root, mounts, trees)}
        with open(f"{bundle}/config.json", "w", encoding="utf-8") as file:
            json.dump(spec, file)
        words = ("create", "--bundle", bundle, "--pid-file", f"{bundle}/pid")
        self._run(sync, words, self._launch.id, stdio)
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        _check(self._call(("start", self._launch.id), (null, null, null), None))
        return _read_pid(f"{bundle}/pid")

    def _root_setup(self, sync: socket.socket, rootfs: str) -> Setup:
        group = Cgroup.open(self._launch.spec["linux"]["cgroupsPath"])
        spec = {"root": {"path": rootfs}}
        return Setup(ContainerStart(spec, self._launch.rootfs, None, None, sync, group, None), {}, sync)

    def _mount_root(self, setup: Setup) -> int:
        """Mount the root file system where only this process and its children see it; return its descriptor."""
        for step in root_steps(setup.request.spec, self._launch.rootfs):
            step.run(setup)
        return setup.root

    def _spec(self, root: int, rootfs: str, netns: int | None) -> dict[str, Any]:
        """Return the spec without what only our own runtime understands."""
        spec = self._launch.spec
        linux = dict(spec["linux"])
        linux["namespaces"] = [
            {"type": "network", "path": f"/proc/{os.getpid()}/fd/{netns}"}
            if entry["type"] == "network" and netns is not None
            else entry
            for entry in linux["namespaces"]
            if entry["type"] not in _OWN_KINDS
        ]
        limits = dict(linux.get("resources") or {})
        if (limits.get("pids") or {}).get("limit", 1) <= 0:
            del limits["pids"]  # no limit, which a fresh group has; crun before 1.9 would write the number
        linux["resources"] = limits
        process = _identified(spec["process"], Accounts(root))
        root_entry = {**spec["root"], "path": rootfs}
        whole = {**spec, "ociVersion": OCI_VERSION, "process": process, "linux": linux, "root": root_entry}
        if Cgroup.open(linux["cgroupsPath"]).scope:  # crun would put it, and its limits, into a group below the scope
            whole["annotations"] = {"run.oci.systemd.subgroup": "", **(spec.get("annotations") or {})}
        return whole

    def _reach(self, root: int, mounts: list[dict[str, Any]], trees: dict[int, int]) -> list[dict[str, Any]]:
        """Return the mounts with each tree put at a place of ours, from where the runtime can bind it."""
        reachable = list(mounts)
        for number, tree in trees.items():
            entry, place = mounts[number], f"{self._directory}/bundle/mount{number}"
            if parse(entry["options"]).copy_up:
                fill_empty(root, clean(entry["destination"]), tree)
            if stat.S_ISDIR(os.fstat(tree).st_mode):
                os.mkdir(place, 0o700)
            else:
                os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            target = os.open(place, os.O_PATH | os.O_CLOEXEC)
            mountapi.move_mount(tree, target, place)
            words = [word for word in entry["options"] if word != "tmpcopyup" and not word.startswith((SUBPATH, IDMAP))]
            reachable[number] = {**entry, "type": "bind", "source": place, "options": words}
        return reachable

    # Exec

    def _execute(self, sync: socket.socket, stdio: Stdio | None, process: dict[str, Any], first: int) -> int:
        _leave_mounts()
        root = os.open(f"/proc/{first}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        memory = os.memfd_create("process.json", os.MFD_CLOEXEC)
        os.write(memory, json.dumps(_identified(process, Accounts(root))).encode())
        place = f"{self._directory}/exec-{os.getpid()}.pid"
        words = ("exec", "--detach", "--process", f"/proc/{os.getpid()}/fd/{memory}", "--pid-file", place)
        self._run(sync, words, self._launch.id, stdio)
        try:
            return _read_pid(place)
        finally:
            os.unlink(place)

    # Calls

    def _run(self, sync: socket.socket, words: tuple[str, ...], name: str, stdio: Stdio | None) -> None:
        """Make a call whose process gets `stdio`, or a terminal that is handed to the supervisor."""
        if stdio is not None:
            _check(self._call((*words, name), stdio, None))
            return
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        directory = os.open(self._directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        # By way of the descriptor: sun_path takes 107 bytes, a run root may be longer (unix(7))
        place = f"/proc/{os.getpid()}/fd/{directory}/console-{os.getpid()}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(place)
            try:
                listener.listen(1)
                _check(self._call((*words, "--console-socket", place, name), (null, null, null), None))
                listener.settimeout(CONSOLE_SECONDS)
                with listener.accept()[0] as connection:
                    _, masters, _, _ = socket.recv_fds(connection, 4096, 1)
            finally:
                os.unlink(place)
        if not masters:
            raise SetupError("the runtime sent no terminal over the console socket")
        channel.send(sync, {"console": True}, masters)
        os.close(masters[0])

    def _call(self, words: tuple[str, ...], stdio: Stdio, seconds: float | None) -> str:
        """Run the runtime; return why it failed, in its own words, or "". Raises OSError when there is no program."""
        log = f"{self._directory}/{LOG}"
        command, *arguments = self._launch.runtime
        state = f"{self._directory}/runtime"
        driver = ("--systemd-cgroup",) if Cgroup.open(self._launch.spec["linux"]["cgroupsPath"]).scope else ()
        argv = [command, *arguments, *driver, "--root", state, "--log", log, "--log-format", "json", *words]
        actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(_apart(stdio))]
        try:
            pid = os.posix_spawn(
                command, argv, _ENVIRONMENT,
                file_actions=actions, setsigmask=(), setsigdef=signal.valid_signals(),
            )  # fmt: skip
        except OSError as error:
            why = os.strerror(error.errno or 0).lower()
            raise SetupError(f"exec {command}: {why}", error.errno or 0, command) from error
        code = _wait(pid, seconds)
        return "" if code == 0 else _last_error(log) or f"{command} {words[0]} ended with {code}"


def _is_out_of_reach(entry: dict[str, Any]) -> bool:
    """Whether the source of a bind mount is in another container, or a part of a volume, or to be filled first."""
    source, options = entry.get("source") or "", parse(entry.get("options") or ())
    return entry["type"] == "bind" and bool(
        of_another(source)[0] or options.subpath or options.copy_up or options.idmap
    )


def _tree(entry: dict[str, Any]) -> int:
    """Return a detached copy of what a mount has for its source."""
    options = parse(entry["options"])
    if options.subpath:
        tree = open_part(entry["source"], options.subpath)
    else:
        tree = copy_tree(entry["source"], const.AT_RECURSIVE if options.recursive else 0)
    if options.idmap:
        map_owners(tree, entry["source"], options.idmap, forked)
    return tree


def _leave_mounts() -> None:
    """Go to a mount namespace of our own, a copy of the engine's.

    On a machine with both versions of control groups, version 1's limits apply and the other hierarchy is left alone,
    as in `cgroups`; here it is out of sight, since crun refuses to run where it has a controller.
    """
    engine = selfprotect.engine_mounts()
    if engine is not None:
        namespaces.setns(engine, const.CLONE_NEWNS)
    namespaces.unshare(const.CLONE_NEWNS)
    mountapi.mount("", "/", "", const.MS_REC | const.MS_SLAVE)
    if detect().version == 1:
        for hierarchy in cgroup.hierarchies():
            if hierarchy.unified:
                mountapi.umount2(hierarchy.mount, const.MNT_DETACH)


def _apart(stdio: Stdio) -> list[int]:
    """Return duplicates above 2, so that putting one in its place does not cover another."""
    return [fd if fd > 2 else os.dup(fd) for fd in stdio]


def _wait(pid: int, seconds: float | None) -> int:
    """Return the exit code; negative for a signal. After `seconds` the process is killed."""
    pidfd = os.pidfd_open(pid)
    try:
        if not select.select([pidfd], [], [], seconds)[0]:
            os.kill(pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        os.close(pidfd)


def _check(failure: str) -> None:
    if failure:
        for words in ("No such file or directory", "Permission denied"):  # clients look for them as Go writes them
            failure = failure.replace(words, words.lower())
        raise SetupError(f"OCI runtime failed: {failure}")


def _read_pid(path: str) -> int:
    with open(path, encoding="ascii") as file:
        return int(file.read())


def _last_error(path: str) -> str:
    """Return the last complaint in a runtime's log: one JSON object a line, with "level" and "msg"."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _SHOWN))
            lines = file.read(_SHOWN).splitlines()
    except FileNotFoundError:
        return ""
    for line in reversed(lines):
        try:
            entry = json.loads(line)
        except ValueError:  # the runtime's log is its own: what is no JSON is shown as it is
            return line.decode(errors="replace")
        if isinstance(entry, dict) and entry.get("level") in ("error", "fatal"):
            return str(entry.get("msg"))
    return ""


def _identified(process: dict[str, Any], accounts: Accounts) -> dict[str, Any]:
    """Return the process with numbers for the user, and HOME, which our runtime looks up in the container."""
    user = process["user"]
    identity = accounts.identify(str(user.get("username") or ""), map(str, user.get("additionalGroups") or ()))
    numbers: dict[str, Any] = {"uid": identity.uid, "gid": identity.gid, "additionalGids": list(identity.groups)}
    environment = list(process["env"])
    if not any(entry.startswith("HOME=") for entry in environment):
        environment.append(f"HOME={identity.home or accounts.home(identity.uid) or '/'}")
    return {**process, "user": numbers, "env": environment}
