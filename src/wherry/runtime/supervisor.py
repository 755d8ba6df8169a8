"""The parent of one container: makes it, owns its streams and log, records its end. `wire` tells the protocol."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NoReturn

from wherry.kernel.process import set_child_subreaper, set_name
from wherry.runtime import channel, exits, grouping
from wherry.runtime.cgroups import Cgroup
from wherry.runtime.checks import Checks
from wherry.runtime.client import Client
from wherry.runtime.entrance import Entrance
from wherry.runtime.execs import Execs
from wherry.runtime.filters import Filter, Filters
from wherry.runtime.foreign import Foreign
from wherry.runtime.holding import Holding
from wherry.runtime.init import ContainerStart, enter_parent, leave_parent, run_container
from wherry.runtime.keeping import Keeper
from wherry.runtime.logdrivers.containerlog import ContainerLog, open_log
from wherry.runtime.oomkills import OomKills
from wherry.runtime.phases import Marks
from wherry.runtime.plan import namespaces
from wherry.runtime.poller import READ, Poller
from wherry.runtime.process import Process
from wherry.runtime.selfprotect import drop_layer_mounts
from wherry.runtime.session import STALL, Session
from wherry.runtime.stem import Stem
from wherry.runtime.volumes import mount_volumes
from wherry.runtime.wire import AttachOptions, ExecLaunch, Exit, Launch, SetupFailure

NAME = "wherry-super"  # of a supervisor, in ps -e and pstree
EMPTY = 2.0  # the longest wait for killed processes to be gone


def run(text: bytes, fds: Sequence[int], filters: Filters, stem: Stem | None) -> NoReturn:
    """Be the supervisor of one launch in a process forked for it; takes over the descriptors. See `zygote`."""
    status = 1
    began = time.monotonic_ns()
    set_name(NAME)
    message = json.loads(text)
    try:
        named = dict(zip(message["fds"], fds, strict=True))
        control = socket.socket(fileno=named.pop("control"))
        netns = named.pop("netns", None)
        launch = Launch.from_wire(message)
        seccomp = filters[launch.seccomp] if launch.seccomp else None
        log = open_log(launch.log) if not isinstance(seccomp, SetupFailure) else None
        if isinstance(seccomp, SetupFailure):
            channel.send(control, {"type": "failed", **seccomp.to_wire()})
        elif isinstance(log, SetupFailure):
            channel.send(control, {"type": "failed", **log.to_wire()})
        else:
            launch = replace(launch, phases=(*launch.phases, ("supervisor", began)))
            supervisor = Supervisor(launch, control, seccomp, log)
            supervisor.start(text, netns, tuple(named.values()), stem)
            supervisor.loop()
        status = 0
    except BaseException:
        exits.record_fault(message["run_dir"])
    finally:
        os._exit(status)


class Supervisor:
    """One container's life. Everything happens in callbacks of the poller."""

    def __init__(
        self, launch: Launch, control: socket.socket, seccomp: Filter | None, log: ContainerLog | None
    ) -> None:
        self._launch = launch
        self._log = log
        self._spec = launch.spec
        self._seccomp = seccomp
        self._poller = Poller()
        self._control: socket.socket | None = None
        self._listener: socket.socket | None = None
        self._run_dir = os.open(launch.run_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._cgroup: Cgroup | None = None
        self._start_time = 0
        self._oom = OomKills(self._poller)
        self._marks: Marks | None = None
        self._keeper: Keeper | None = None
        self._told: dict[str, Any] = {"phases": [], "root": 0}
        self._over = False
        self._lingering: list[Client] = []
        self._process = Process(self._poller, self._make_session())
        self._process.on_running, self._process.on_failed = self._running, self._failed
        self._process.on_exit = self._exited
        self._foreign = Foreign(launch) if launch.runtime else None
        self._entrance = Entrance(launch, self._process, seccomp, self._foreign, lambda: self._cgroup)
        self._execs = Execs(self._poller, self._entrance, self._tell, self._own_children)
        self._checks = Checks(self._poller, self._execs.starters, self._answer)
        self._holding = Holding(launch.netns_file)
        self._handlers: dict[str, Callable[[dict[str, Any], list[int]], dict[str, Any] | None]] = {
            "attach": self._attach,
            "exec": self._exec,
            "check": self._check,
            "resize": self._resize,
            "stdin-close": self._close_stdin,
            "signal": self._signal,
            **self._holding.handlers,
            "state": lambda message, fds: self._state(),
        }
        self._adopt(control)

    @property
    def _terminal(self) -> bool:
        return bool(self._spec["process"].get("terminal"))

    def _own_children(self) -> set[int]:
        """The processes forked by us that are no execs."""
        return {self._process.pid, *(self._log.helpers if self._log else ())}

    def _make_session(self) -> Session:
        terminal, stdin, once = self._terminal, self._launch.open_stdin, self._launch.stdin_once
        session = Session(self._poller, terminal=terminal, log=self._log, stdin=stdin, once=once, patient=False)
        session.on_log_failure = self._log_failed
        session.tell_detach(self._tell, "")
        if self._log is not None:
            self._log.connect(self._poller, session.client_room, self._log_failed)
        return session

    def _log_failed(self, error: OSError) -> None:
        self._tell({"type": "log-failed", "errno": error.errno or 0, "message": str(error)})

    # Start

    def start(self, text: bytes, netns: int | None, attaches: Sequence[int], stem: Stem | None) -> None:
        """Make the container; the outcome is told over the control connection."""
        stdio: tuple[int, int, int] | None = None
        try:
            if self._launch.volumes:
                if stem is not None:
                    stem.discard()  # it was born into the mount namespace that we leave
                    stem = None
                if failure := mount_volumes(self._launch.volumes):
                    self._abort(failure)
                    return
            if not self._terminal:
                stdio = self._process.session.make_pipes(output=True)
            for fd, options in zip(attaches, self._launch.attaches, strict=True):
                self._process.session.attach(fd, options)
            if self._foreign is not None:
                self._call_runtime(self._foreign, stem, netns, stdio)
            elif stem is None or not self._start_stem(stem, text, stdio or (), netns):
                self._fork(netns, stdio)
            self._record()
            self._listen()
        except OSError as error:
            where = grouping.PLACE if self._cgroup is None and stdio is not None else ("process", "prepare the process")
            self._abort(SetupFailure.from_oserror(*where, error))
        finally:
            channel.close_all(list({*(stdio or ()), *((netns,) if netns is not None else ())}))
            drop_layer_mounts()  # the first process has made its root of them, or has a descriptor of its own

    def _start_stem(self, stem: Stem, text: bytes, stdio: Sequence[int], netns: int | None) -> bool:
        if stem.fits(self._spec):
            try:
                stem.start(text, stdio, netns)
            except BrokenPipeError:  # killed while it waited
                pass
            else:
                self._cgroup = Cgroup.open(self._spec["linux"]["cgroupsPath"])
                self._marks, self._keeper = stem.marks, stem.keeper
                self._process.adopt(stem.pid, stem.sync)
                return True
        stem.discard()
        return False

    def _listen(self) -> None:
        self._listener = listener = exits.listen(self._run_dir)
        self._poller.watch(listener.fileno(), READ, lambda events: self._accept())

    def _fork(self, netns: int | None, stdio: tuple[int, int, int] | None) -> None:
        launch = self._launch
        marks = self._marks = Marks()
        marks.begin("cgroup")
        group = self._cgroup = grouping.make_before(self._spec["linux"])
        marks.begin("fork")
        enter_parent(self._spec)
        keeper = self._keeper = Keeper()

        def child(sync: socket.socket) -> None:
            program = self._seccomp.program if self._seccomp else None
            if group.scope:
                marks.begin("cgroup")
            if (made := grouping.make_within(group, self._spec["linux"], sync)) is None:
                return
            start = ContainerStart(self._spec, launch.rootfs, netns, stdio, sync, made, program, launch.init_path)
            start.id, start.marks, start.keeper = launch.id, marks, keeper.inlet if launch.private_mounts else None
            run_container(start)

        self._process.fork(group, child)
        keeper.inlet.close()

    def _call_runtime(
        self, foreign: Foreign, stem: Stem | None, netns: int | None, stdio: tuple[int, int, int] | None
    ) -> None:
        if stem is not None:
            stem.discard()
        set_child_subreaper(True)
        self._entrance.spawns = True
        self._cgroup = Cgroup.open(self._spec["linux"]["cgroupsPath"])
        self._process.find_child = self._execs.find_child
        self._process.fork(self._cgroup, lambda sync: foreign.make(sync, stdio, netns), spawns=True)

    def _record(self) -> None:
        """Write down what to end if we die; what another runtime makes is known later."""
        if not self._process.pid:
            return
        self._start_time = exits.start_time(self._process.pid)
        record = {"pid": self._process.pid, "start_time": self._start_time, "at": time.time_ns()}
        exits.write_record(self._run_dir, exits.TASK, {**record, "cgroup": self._spec["linux"]["cgroupsPath"]})

    def _running(self, process: Process) -> None:
        if self._marks is not None:
            phases = [*self._launch.phases, *self._marks.read(), ("running", time.monotonic_ns())]
            self._told = {"phases": phases, "root": self._marks.root}
            self._marks.close()
        if self._foreign is not None:
            self._record()
            self._told["root"] = self._foreign.marks.root
        self._oom.watch(self._cgroup)
        self._tell({"type": "running", **self._started()})
        if self._foreign is not None:
            return
        if "pid" in namespaces(self._spec) and (self._seccomp is None or self._seccomp.can_spawn):
            leave_parent(self._spec)
            set_child_subreaper(True)
            self._entrance.spawns = True
            self._execs.spares.enable()
            self._execs.starters.enabled = True

    def _failed(self, process: Process) -> None:
        if not process.has_cgroup:
            self._cgroup = None
        if process.failure is not None:
            self._abort(process.failure)

    def _abort(self, failure: SetupFailure) -> None:
        self._tell({"type": "failed", **failure.to_wire()})
        self._process.session.abandon()
        self._release()

    # End

    def _exited(self, process: Process) -> None:
        """Record the end. A pid namespace of its own died with the process; otherwise the cgroup tells who is left."""
        assert self._cgroup is not None
        assert process.exit is not None
        for each in (self._execs, self._checks, self._holding):
            each.close()
        if namespaces(self._spec).get("pid") != "":
            self._cgroup.empty(EMPTY, reap=self._execs.conclude_all)
        self._execs.conclude_all()
        process.session.drain()
        self._lingering = [*process.session.finish(), *self._execs.lingering]
        outcome = Exit(process.exit.code, process.exit.signal, process.exit.at, self._oom.count() > 0)
        exits.write_record(self._run_dir, exits.EXIT, outcome.to_wire())
        self._tell({"type": "exited", **outcome.to_wire()})
        self._release()

    def _release(self) -> None:
        """Give back mounts and cgroup, then show by EOF that nothing is left."""
        if self._listener is not None:
            self._poller.forget(self._listener.fileno())
            self._listener.close()
            self._listener = None
            os.unlink(exits.SOCKET, dir_fd=self._run_dir)
        if self._keeper is not None:
            self._keeper.close()
        if self._cgroup is not None:
            if self._foreign is not None and (failure := self._foreign.delete()):
                self._tell({"type": "log-failed", "errno": 0, "message": f"the runtime cannot delete it: {failure}"})
            self._cgroup.kill()
            self._cgroup.remove()
            self._cgroup = None
        self._holding.delete_netns_file()
        self._drop_control()
        self._over = True

    def loop(self) -> None:
        """Serve until the container is over and its clients have read what they are owed, or stopped reading."""
        while not self._over:
            self._poller.run_once()
        progress, total = -1, 0
        while any(client.open for client in self._lingering) and total != progress:
            progress = total
            self._poller.run_for(STALL, until=lambda: not any(client.open for client in self._lingering))
            total = sum(client.progress for client in self._lingering)
        if self._log is not None:
            self._log.linger()

    # Daemon

    def _accept(self) -> None:
        if self._listener is None:
            return
        try:
            control, _ = self._listener.accept()
        except BlockingIOError:
            return
        self._adopt(control)
        if self._tell({"type": "state", **self._state()}):
            self._execs.forget_told()

    def _adopt(self, control: socket.socket) -> None:
        self._tell({"type": "replaced"})
        self._drop_control()
        self._execs.disown()
        self._checks.disown()
        control.setblocking(False)
        self._control = control
        self._poller.watch(control.fileno(), READ, lambda events: self._read_control(control))

    def _drop_control(self) -> None:
        if self._control is not None:
            self._poller.forget(self._control.fileno())
            self._control.close()
            self._control = None

    def _tell(self, message: dict[str, Any]) -> bool:
        if self._control is None:
            return False
        try:
            channel.send(self._control, message)
        except (BlockingIOError, BrokenPipeError, ConnectionError):
            self._drop_control()  # gone or stuck: it comes back over the listener and gets the state
            return False
        return True

    def _read_control(self, control: socket.socket) -> None:
        while self._control is control:
            try:
                message, fds = channel.receive(control)
            except BlockingIOError:
                return
            except EOFError:
                self._drop_control()
                return
            self._serve(message, fds)

    def _serve(self, message: dict[str, Any], fds: list[int]) -> None:
        seq = message.get("seq", 0)
        try:
            if (answer := self._handlers[message["type"]](message, fds)) is not None:
                self._answer(seq, answer)
        except (OSError, KeyError, TypeError, ValueError) as error:
            failure = SetupFailure("exec", str(message.get("type")), getattr(error, "errno", 0) or 0, "", str(error))
            self._tell({"type": "reply", "seq": seq, "error": failure.to_wire()})
        finally:
            for fd in fds:
                os.close(fd)

    def _answer(self, seq: int, answer: dict[str, Any]) -> None:
        self._tell({"type": "reply", "seq": seq, "ok": answer})

    def _started(self) -> dict[str, Any]:
        return {"pid": self._process.pid, "start_time": self._start_time, "at": self._process.started_at, **self._told}

    def _state(self) -> dict[str, Any]:
        return {**self._started(), "execs": self._execs.state()}

    # Commands

    def _target(self, message: dict[str, Any]) -> Process:
        return self._execs.process(message["exec"]) if message["exec"] else self._process

    def _attach(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        options = AttachOptions.from_wire(message)
        self._process.session.attach(os.dup(fds[0]), options)
        return {}

    def _exec(self, message: dict[str, Any], fds: list[int]) -> None:
        assert self._cgroup is not None
        launch = ExecLaunch.from_wire(message)
        self._execs.start(message["seq"], launch, self._cgroup, os.dup(fds[0]) if fds else None)
        self._execs.process(launch.exec_id).session.tell_detach(self._tell, launch.exec_id)

    def _check(self, message: dict[str, Any], fds: list[int]) -> None:
        assert self._cgroup is not None
        self._checks.run(message, self._cgroup)

    def _resize(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        self._target(message).session.resize(message["height"], message["width"])
        return {}

    def _close_stdin(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        self._target(message).session.close_stdin()
        return {}

    def _signal(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        self._target(message).signal(message["signal"])
        return {}
