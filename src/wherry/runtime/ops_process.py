"""The last steps: from a process with all rights to the program with those it shall have.

The order matters. Limits and the bounding set need capabilities that go with the user; the working directory is
looked for with and then without them; the program is looked for as the user. The seccomp filter is loaded last but
for the final capset(2) and execve(2), because a profile may forbid what comes before, and needs CAP_SYS_ADMIN unless
no_new_privs is set.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from wherry.kernel import caps, const, fds, namespaces, pathsafe, process, signals, terminal
from wherry.kernel.seccomp_bpf import load_filter
from wherry.runtime import channel, hooks, starter
from wherry.runtime.faults import Refused
from wherry.runtime.passwd import Accounts
from wherry.runtime.setup import ContainerStart, ExecStart, Identity, Operation, Setup, SetupError, reason

_NOT_EXECUTED = 255


@dataclass(slots=True)
class InstallStdio(Operation):
    """Start a session, and make the terminal or the given descriptors standard input, output and error."""

    phase: ClassVar[str] = "process"

    def describe(self) -> str:
        return "install standard input, output and error"

    def run(self, setup: Setup) -> None:
        spawns = _spawns(setup)
        if not spawns:
            os.setsid()
        if setup.terminal >= 0:
            if not spawns:
                terminal.make_controlling(setup.terminal)
            fds.install_stdio((setup.terminal,) * 3)
        elif setup.request.stdio is not None:
            fds.install_stdio(setup.request.stdio)


@dataclass(slots=True)
class SetRlimits(Operation):
    """Set resource limits; raising a hard one needs CAP_SYS_RESOURCE."""

    phase: ClassVar[str] = "process"
    limits: tuple[tuple[int, int, int], ...]

    def describe(self) -> str:
        return "error setting rlimits for ready process"

    def run(self, setup: Setup) -> None:
        for kind, soft, hard in self.limits:
            try:
                resource.setrlimit(kind, (_unlimited(soft), _unlimited(hard)))
            except (OSError, ValueError) as error:  # Python turns EPERM and EINVAL into ValueError
                number = error.errno if isinstance(error, OSError) else _rlimit_errno(kind, soft, hard)
                text = os.strerror(number or 0).lower()
                raise SetupError(f"{self.describe()}: error setting rlimit type {kind}: {text}", number or 0) from error


def _unlimited(value: int) -> int:
    return resource.RLIM_INFINITY if value < 0 or value >= 2**63 else value


def _rlimit_errno(kind: int, soft: int, hard: int) -> int:
    return errno.EINVAL if 0 <= _unlimited(hard) < _unlimited(soft) else errno.EPERM


@dataclass(slots=True)
class Identify(Operation):
    """Find out which user and groups are meant, in the container's files, and give the streams to the user."""

    phase: ClassVar[str] = "user"

    def describe(self) -> str:
        return "identify the user"

    def run(self, setup: Setup) -> None:
        user = setup.process.get("user") or {}
        accounts = Accounts(setup.root)
        accounts.remember()
        if "username" in user:
            identity = accounts.identify(str(user["username"] or ""), map(str, user.get("additionalGroups") or ()))
        else:
            uid, gid = int(user.get("uid", 0)), int(user.get("gid", 0))
            groups = tuple(map(int, user.get("additionalGids") or ()))
            identity = Identity(uid, gid, groups, "")
        setup.identity = identity
        setup.environment = environment(setup.process.get("env") or ())
        if not setup.environment.get("HOME"):
            setup.environment["HOME"] = identity.home or _home(accounts, identity.uid)
        ids = (identity.uid, identity.gid, *identity.groups)
        _give_stdio(identity.uid if setup.ids is None else setup.ids.check(*ids))
        os.umask(int(user.get("umask", 0o022)))


def environment(entries: list[str] | tuple[str, ...]) -> dict[str, str]:
    """Return "NAME=value" entries as a mapping; a later one wins. Raises `SetupError` for what execve would garble."""
    result = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not equals:
            raise SetupError(f"invalid environment variable {entry!r}: missing '='")
        if not name:
            raise SetupError("invalid environment variable: name cannot be empty")
        if "\0" in entry:
            raise SetupError(f"invalid environment variable {name}: contains nul byte")
        result[name] = value
    return result


def _home(accounts: Accounts, uid: int) -> str:
    try:
        return accounts.home(uid) or "/"
    except SetupError:  # an unreadable passwd matters to those who name a user, not to those who give a number
        return "/"


def _give_stdio(uid: int) -> None:
    """Let the user open /dev/stdout and its like again: pipes and terminals belong to whom made them, root."""
    for fd in range(3):
        state = os.fstat(fd)
        if state.st_uid == uid or not (stat.S_ISFIFO(state.st_mode) or os.isatty(fd)):
            continue
        os.fchown(fd, uid, -1)


@dataclass(slots=True)
class ChangeDirectory(Operation):
    """Go to the working directory, which must be below the root: never by a descriptor of ours (CVE-2024-21626)."""

    phase: ClassVar[str] = "process"
    path: str

    def describe(self) -> str:
        return f'chdir to cwd ("{self.path}") set in config.json failed'

    def run(self, setup: Setup) -> None:
        if setup.user >= 0:
            return  # BecomeUser does it, with the container's rights and not the host's
        try:
            self.change(setup)
        except PermissionError:
            setup.cwd_refused = True  # a network file system may let the user in but not root
        except FileNotFoundError:
            if not _leave_to_child(setup, self):
                raise

    def change(self, setup: Setup) -> None:
        """Do it, and check where it led."""
        fd = pathsafe.open_path(setup.root, self.path, directory=True)
        try:
            os.fchdir(fd)
        finally:
            os.close(fd)
        if not os.getcwd().startswith("/"):
            raise SetupError("current working directory is outside of container mount namespace root", 0, self.path)


@dataclass(slots=True)
class BecomeUser(Operation):
    """Take the user, the groups and what the capabilities allow; the permitted set is left for the last step."""

    phase: ClassVar[str] = "process"
    bounding: int
    cwd: ChangeDirectory

    def describe(self) -> str:
        return "become the user"

    def run(self, setup: Setup) -> None:
        identity = setup.identity
        assert identity is not None
        if setup.user >= 0:
            namespaces.setns(setup.user, const.CLONE_NEWUSER)  # with all capabilities in it, and none outside
            setup.user = -1
            self._go(setup, self.cwd.run)
        caps.limit_bounding(self.bounding)
        process.prctl(const.PR_SET_KEEPCAPS, 1)
        os.setgroups(identity.groups)
        os.setresgid(identity.gid, identity.gid, identity.gid)
        os.setresuid(identity.uid, identity.uid, identity.uid)
        process.set_dumpable(False)  # changing ids sets it to /proc/sys/fs/suid_dumpable
        if setup.cwd_refused:
            self._go(setup, self.cwd.change)

    def _go(self, setup: Setup, change: Callable[[Setup], None]) -> None:
        try:
            change(setup)
        except OSError as error:
            raise SetupError(self.cwd.explain(error), error.errno or 0) from error


@dataclass(slots=True)
class FindProgram(Operation):
    """Look for the program as the user, in the container's PATH."""

    phase: ClassVar[str] = "exec"
    name: str

    def describe(self) -> str:
        return f'exec: "{self.name}"'

    def run(self, setup: Setup) -> None:
        if setup.left and _leave_to_child(setup, self):
            return  # it may depend on the working directory
        try:
            setup.program = self._find(setup.environment.get("PATH", ""))
        except SetupError as error:
            if error.number != errno.ENOENT or not _leave_to_child(setup, self):
                raise

    def _find(self, search: str) -> str:
        if "/" in self.name:
            why = _unfit(self.name)
            if why:
                raise SetupError(f"{self.describe()}: {why[1]}", why[0], self.name)
            return self.name
        for directory in search.split(":") if self.name else ():
            candidate = f"{directory or '.'}/{self.name}"
            if not _unfit(candidate):
                return candidate
        raise SetupError(f"{self.describe()}: executable file not found in $PATH", errno.ENOENT, self.name)


def _unfit(path: str) -> tuple[int, str] | None:
    """Why a file cannot be executed, in the words of Go's os/exec, which clients match on."""
    try:
        state = os.stat(path)
    except OSError as error:
        return error.errno or errno.ENOENT, f"stat {path}: {reason(error)}"
    if stat.S_ISDIR(state.st_mode):
        return errno.EACCES, "is a directory: permission denied"
    if not state.st_mode & 0o111 or not os.access(path, os.X_OK):
        return errno.EACCES, "permission denied"
    return None


@dataclass(slots=True)
class WaitForStart(Operation):
    """Say that all is ready, and wait until someone connects and says "start"."""

    phase: ClassVar[str] = "process"

    def describe(self) -> str:
        return "wait for the start"

    def run(self, setup: Setup) -> None:
        request = setup.request
        assert isinstance(request, ContainerStart)
        if request.hold is not None:
            channel.send(setup.sync, {"ready": True})
            setup.sync.close()
            setup.sync = _accept(request)
        if request.hooks and setup.state is not None:
            try:
                hooks.run("startContainer", request.spec, {**setup.state, "status": "created"})
            except Refused as error:
                raise SetupError(str(error)) from error


def _accept(request: ContainerStart) -> socket.socket:
    assert request.hold is not None
    connection, _ = request.hold.accept()
    try:
        message, _ = channel.receive(connection)
    except EOFError:  # start took the socket's name away before it died: nobody else can come
        os._exit(1)
    if not message.get("start"):
        raise SetupError(f"told {message} instead of start")
    return connection


@dataclass(slots=True)
class Execute(Operation):
    """Become the program."""

    phase: ClassVar[str] = "exec"
    arguments: tuple[str, ...]
    effective: int
    permitted: int
    inheritable: int
    ambient: int
    no_new_privileges: bool
    seccomp_flags: tuple[str, ...]

    def describe(self) -> str:
        return f'exec: "{self.arguments[0]}"'

    def run(self, setup: Setup) -> None:
        request = setup.request
        fds.close_range(3 + request.preserve_fds, flags=const.CLOSE_RANGE_CLOEXEC)
        for fd in range(3, 3 + request.preserve_fds):
            os.set_inheritable(fd, True)
        process.set_parent_death_signal(0)
        signals.reset_actions()
        signals.unblock_all()
        if self.no_new_privileges:
            process.set_no_new_privileges()
        caps.clear_ambient()
        if request.seccomp is not None:
            self._load(request.seccomp)
        assert setup.identity is not None
        self._limit_capabilities(setup.identity.uid)
        self.become(setup)

    def become(self, setup: Setup) -> None:
        """The step from which there is no way back."""
        try:
            os.execve(setup.program, self.arguments, setup.environment)
        except OSError as error:
            # As with runc the container counts as started: a file of an unknown format is the program's own failure
            os.write(2, f"exec {setup.program}: {reason(error)}\n".encode(errors="surrogateescape"))
            os._exit(_NOT_EXECUTED)

    def _load(self, program: bytes) -> None:
        """setresuid took the effective set away from a user; PR_SET_KEEPCAPS left the permitted one to take from."""
        effective, permitted, _ = caps.get()
        if effective != permitted:
            caps.set_sets(permitted, permitted, 0)
        load_filter(program, list(self.seccomp_flags))

    def _limit_capabilities(self, user: int) -> None:
        """Give up what is not asked for; a user other than root gets at execve what ambient capabilities say."""
        held = caps.get()[1]
        if user and not self.ambient:
            caps.set_sets(0, 0, 0)
            return
        caps.set_sets(self.effective & held, self.permitted & held, self.inheritable)
        caps.raise_ambient(self.ambient)


@dataclass(slots=True)
class Spawn(Execute):
    """Have a child become the program, and end; see `execspare`.

    The child is the first of us in the sight of the container's processes, and all that it has by then is what the
    program may have: whoever traces it there (CAP_SYS_PTRACE) gains nothing.
    """

    limits: SetRlimits  # those that would count the process that forks

    def become(self, setup: Setup) -> None:
        """Fork, as late as can be."""
        pid = os.fork()
        if pid == 0:
            setup.spawned = True
            self._be_child(setup)
        try:
            channel.send(setup.sync, {"spawned": pid})
        finally:  # should it not hear of the child, the supervisor finds it among its own
            os._exit(0)

    def _be_child(self, setup: Setup) -> None:
        os.setsid()
        if setup.terminal >= 0:
            terminal.make_controlling(0)
        self.limits.run(setup)
        for step in setup.left:
            try:
                step.run(setup)
            except OSError as error:
                raise SetupError(step.explain(error), error.errno or 0) from error
        Execute.become(self, setup)  # super() knows nothing of the class that slots=True makes


@dataclass(slots=True)
class Stay(Spawn):
    """Become a starter, which has children become this program and others like it; see `starter`."""

    def become(self, setup: Setup) -> None:
        """What only a child in the container's pid namespace could find out or set does not go this way."""
        request = setup.request
        assert isinstance(request, ExecStart)
        if setup.left or self.limits.limits:
            os._exit(_NOT_EXECUTED)
        starter.execute(request.requests, setup.environment)


def _spawns(setup: Setup) -> bool:
    return isinstance(setup.request, ExecStart) and setup.request.spawn


def _leave_to_child(setup: Setup, step: Operation) -> bool:
    """Whether a path that is not there is looked for again by the child: /proc/self is there only for it."""
    if not _spawns(setup) or setup.spawned:
        return False
    setup.left.append(step)
    return True
