"""Steps that choose the namespaces, make the root file system and finish it."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import ClassVar

from wherry.kernel import const, fileids, keyring, lsm, mountapi, namespaces, process
from wherry.runtime import channel, hooks, keeping, selfprotect
from wherry.runtime.faults import Refused
from wherry.runtime.idmaps import Ids
from wherry.runtime.setup import ContainerStart, ExecStart, Operation, Setup, SetupError, reason


@dataclass(slots=True)
class JoinCgroup(Operation):
    """Move into the control group; before the cgroup namespace is made, whose root it becomes."""

    phase: ClassVar[str] = "cgroup"

    def describe(self) -> str:
        return "join the control group"

    def run(self, setup: Setup) -> None:
        setup.request.cgroup.join()


@dataclass(slots=True)
class JoinNamespaces(Operation):
    """Enter namespaces that exist, by path; all are opened first, for a joined one may hide the other paths."""

    phase: ClassVar[str] = "namespaces"
    paths: tuple[tuple[str, str], ...]

    def describe(self) -> str:
        return "join namespaces " + ", ".join(f"{kind} {path}" for kind, path in self.paths)

    def run(self, setup: Setup) -> None:
        opened = [(os.open(path, os.O_RDONLY | os.O_CLOEXEC), kind) for kind, path in self.paths]
        for fd, kind in opened:
            namespaces.setns(fd, const.NAMESPACES[kind])
            os.close(fd)


@dataclass(slots=True)
class JoinGivenNetwork(Operation):
    """Enter the network namespace that was handed over as a descriptor."""

    phase: ClassVar[str] = "namespaces"

    def describe(self) -> str:
        return "join the network namespace"

    def run(self, setup: Setup) -> None:
        assert isinstance(setup.request, ContainerStart)
        assert setup.request.netns_fd is not None
        namespaces.setns(setup.request.netns_fd, const.CLONE_NEWNET)
        os.close(setup.request.netns_fd)


@dataclass(slots=True)
class NewNamespaces(Operation):
    """Make the new namespaces in one call. The mount namespace starts as a copy of the engine's.

    The zygote lives in a copy of its own (`selfprotect`), where mounts that the host made later may be missing.
    """

    phase: ClassVar[str] = "namespaces"
    kinds: tuple[str, ...]

    def describe(self) -> str:
        return "make new namespaces " + ", ".join(self.kinds)

    def run(self, setup: Setup) -> None:
        engine = selfprotect.engine_mounts()
        if engine is not None:
            namespaces.setns(engine, const.CLONE_NEWNS)
            os.close(engine)
        namespaces.unshare(namespaces.flags_of(self.kinds))


@dataclass(slots=True)
class StopPropagation(Operation):
    """Let no mount of ours reach the host: everything becomes a slave, so the host's still arrive until the pivot."""

    def describe(self) -> str:
        return "make the mounts slaves of the host's"

    def run(self, setup: Setup) -> None:
        mountapi.mount("", "/", "", const.MS_REC | const.MS_SLAVE)


@dataclass(slots=True)
class OpenProcfs(Operation):
    """Make a procfs of this pid namespace that nobody else can see or cover, for writes of ours (CVE-2025-52881)."""

    def describe(self) -> str:
        return "make a private procfs"

    def run(self, setup: Setup) -> None:
        context = mountapi.fsopen("proc")
        mountapi.fsconfig_string(context, "source", "proc")
        setup.procfs = mountapi.fsmount(context)
        os.close(context)


@dataclass(slots=True)
class KeepMounts(Operation):
    """Leave the mount namespace with the supervisor, see `keeping`."""

    phase: ClassVar[str] = "namespaces"

    def describe(self) -> str:
        return "hand the mount namespace to the supervisor"

    def run(self, setup: Setup) -> None:
        assert isinstance(setup.request, ContainerStart)
        if setup.request.keeper is not None:
            keeping.keep(setup.request.keeper, setup.procfs)


@dataclass(slots=True)
class WriteSysctls(Operation):
    """Set kernel parameters of the new namespaces, (key, path below /proc/sys, value); before anything is mounted."""

    values: tuple[tuple[str, str, str], ...]

    def describe(self) -> str:
        return "write sysctls"

    def run(self, setup: Setup) -> None:
        for key, below, value in self.values:
            path = f"sys/{below}"
            try:
                self._write(setup, path, value)
            except OSError as error:
                message = f"open sysctl {key} file: {path}: {reason(error)}"
                raise SetupError(message, error.errno or 0, f"/proc/{path}") from error

    def _write(self, setup: Setup, path: str, value: str) -> None:
        """Write, where it must be so as the root of the user namespace: the kernel compares effective user ids."""
        try:
            lsm.write(setup.procfs, path, value)
        except PermissionError:
            if setup.ids is None:
                raise
            uid, gid = setup.ids.host(0, 0)
            os.seteuid(uid)
            try:
                lsm.write(setup.procfs, path, value)
            finally:
                os.seteuid(0)
                fileids.adopt(uid, gid)
                process.set_dumpable(False)  # changing ids sets it to /proc/sys/fs/suid_dumpable


@dataclass(slots=True)
class SetOomScore(Operation):
    """Say how likely a victim of the OOM killer the program is."""

    phase: ClassVar[str] = "process"
    score: int

    def describe(self) -> str:
        return f"set oom_score_adj to {self.score}"

    def run(self, setup: Setup) -> None:
        lsm.write(setup.procfs, "self/oom_score_adj", str(self.score))


@dataclass(slots=True)
class SetLabels(Operation):
    """Tell the security modules what to confine the program with at execve."""

    phase: ClassVar[str] = "process"
    apparmor: str
    selinux: str

    def describe(self) -> str:
        return f"apply the label {self.apparmor or self.selinux}"

    def run(self, setup: Setup) -> None:
        if self.apparmor:
            lsm.set_apparmor_on_exec(setup.procfs, self.apparmor)
        if self.selinux:
            lsm.set_selinux_on_exec(setup.procfs, self.selinux)


@dataclass(slots=True)
class SetNames(Operation):
    """Set the host and domain name of the new UTS namespace; "" leaves one as it is."""

    phase: ClassVar[str] = "namespaces"
    host: str
    domain: str

    def describe(self) -> str:
        return f"set the host name {self.host or self.domain}"

    def run(self, setup: Setup) -> None:
        if self.host:
            process.sethostname(self.host)
        if self.domain:
            process.setdomainname(self.domain)


@dataclass(slots=True)
class JoinKeyring(Operation):
    """Join the container's own session keyring, made by the first process and found again by execs."""

    phase: ClassVar[str] = "process"
    name: str

    def describe(self) -> str:
        return f"join the session keyring {self.name}"

    def run(self, setup: Setup) -> None:
        try:
            serial = keyring.join_session_keyring(self.name)
        except OSError as error:
            if error.errno == errno.ENOSYS:  # a kernel without CONFIG_KEYS has no keys to hide
                return
            raise
        if isinstance(setup.request, ContainerStart):
            keyring.allow_user_search(serial)


@dataclass(slots=True)
class AwaitHooks(Operation):
    """Let the runtime run its hooks, then run those that belong before the pivot here."""

    phase: ClassVar[str] = "rootfs"

    def describe(self) -> str:
        return "run the createContainer hooks"

    def run(self, setup: Setup) -> None:
        assert isinstance(setup.request, ContainerStart)
        channel.send(setup.sync, {"await": "hooks"})
        message, _ = channel.receive(setup.sync)
        setup.state = message["state"]
        assert setup.state is not None
        try:
            hooks.run("createContainer", setup.request.spec, setup.state)
        except Refused as error:
            raise SetupError(str(error)) from error


def act_for(ids: Ids) -> None:
    """Make files as the root of a user namespace from now on, and have no rights by groups. For one thread."""
    fileids.adopt(ids.uid(0), ids.gid(0))
    fileids.leave_groups()
    process.set_dumpable(False)  # changing ids sets it to /proc/sys/fs/suid_dumpable


@dataclass(slots=True)
class EnterContainer(Operation):
    """Enter all namespaces of a running container at once, by its first process, but for the user namespace.

    ids: of its own user namespace, which the last steps join; None when it has none.
    """

    phase: ClassVar[str] = "namespaces"
    kinds: tuple[str, ...]
    ids: Ids | None = None

    def describe(self) -> str:
        return "join the namespaces of the container: " + ", ".join(self.kinds)

    def run(self, setup: Setup) -> None:
        assert isinstance(setup.request, ExecStart)
        namespaces.setns(setup.request.init_pidfd, namespaces.flags_of(self.kinds))
        if self.ids is not None:
            setup.user, setup.ids = setup.request.init_pidfd, self.ids
            act_for(self.ids)
        setup.root = os.open("/", const.O_PATH | os.O_CLOEXEC)
