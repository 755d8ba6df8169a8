"""A container's first process, forked before it is known what it will be.

A fork and the pages that the child then writes to for the first time are half of the time of a start. So a spare
supervisor (see `zygote`) has such a child: born into new pid and time namespaces, its code gone through once, waiting.

    spare supervisor                        stem, process 1 of a pid namespace
       | -- the text of the launch, fds ------> |   stdin, stdout, stderr unless there is a terminal; netns
       |                                        |   makes and joins the control group, then as in `init`
       | <-- {"failed": ..., "cgroup": false} --|   when the control group could not be made: there is none to remove
       | -- EOF ------------------------------> |   not needed: it ends

Only with control groups of version 1: of version 2 a process has to be born in its group, see kernel/clone.py.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from typing import Any

from wherry.kernel import fds
from wherry.runtime import channel, grouping, rehearsal, selfprotect
from wherry.runtime.filters import Filter, Filters
from wherry.runtime.init import ContainerStart, enter_parent, leave_parent, run_container
from wherry.runtime.keeping import Keeper
from wherry.runtime.phases import Marks
from wherry.runtime.process import be_child
from wherry.runtime.wire import Launch

_KINDS = ("pid", "time")


class Stem:
    """The supervisor's side of a waiting child."""

    def __init__(self, filters: Filters) -> None:
        self._kinds = {kind for kind in _KINDS if os.path.exists(f"/proc/self/ns/{kind}_for_children")}
        self._spec = {"linux": {"namespaces": [{"type": kind} for kind in self._kinds]}}
        enter_parent(self._spec)
        self.sync, theirs = channel.pair()
        self.marks = Marks()
        self.keeper = Keeper()
        self.pid = os.fork()
        if self.pid == 0:
            be_child(lambda sync: _grow(sync, filters, self.marks, self.keeper), theirs, self.sync)
        theirs.close()
        self.keeper.inlet.close()

    def fits(self, spec: dict[str, Any]) -> bool:
        """Whether the child is in the namespaces that a container of this spec starts in."""
        wanted = {each["type"]: each.get("path") for each in spec["linux"].get("namespaces") or ()}
        return self._kinds == {kind for kind in _KINDS if kind in wanted} and not any(map(wanted.get, _KINDS))

    def start(self, text: bytes, stdio: Sequence[int], netns: int | None) -> None:
        """Have the child become the container of this launch; raises BrokenPipeError when it has died."""
        channel.send_text(self.sync, text, [*stdio, *(() if netns is None else (netns,))])

    def discard(self) -> None:
        """End the child; later children are born into our own namespaces again."""
        self.sync.close()
        self.keeper.close()
        os.waitpid(self.pid, 0)
        leave_parent(self._spec)


def _grow(sync: socket.socket, filters: Filters, marks: Marks, keeper: Keeper) -> None:
    # The supervisor's end of its socket to the zygote too: with it open here, a dead supervisor would look alive
    inlet = keeper.inlet
    fds.close_except({0, 1, 2, sync.fileno(), inlet.fileno(), *selfprotect.kept()})
    rehearsal.container()
    try:
        text, given = channel.receive_text(sync)
    except EOFError:
        return
    marks.begin("stem")
    launch = Launch.from_wire(json.loads(text))
    stdio = None if launch.spec["process"].get("terminal") else (given[0], given[1], given[2])
    linux = launch.spec["linux"]
    marks.begin("cgroup")
    cgroup = grouping.make(linux, sync)
    if cgroup is None:
        return
    seccomp = filters[launch.seccomp] if launch.seccomp else None
    run_container(
        ContainerStart(
            spec=launch.spec,
            rootfs=launch.rootfs,
            netns_fd=given[-1] if launch.netns else None,
            stdio=stdio,
            sync=sync,
            cgroup=cgroup,
            seccomp=seccomp.program if isinstance(seccomp, Filter) else None,
            init_path=launch.init_path,
            id=launch.id,
            marks=marks,
            keeper=inlet if launch.private_mounts else None,
        )
    )
