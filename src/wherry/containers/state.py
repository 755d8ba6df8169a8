"""The states of a container and the moves between them, in one table.

         create          start                 exit
(none) --------> created -----> running ---------------> exited
                    |           |  ^  | pause               |  start -> running
                    |           |  |  v                     |
                    |           |  +-- paused (unpause)     |
                    |           v                           |
                    |        restarting --start--> running  |
                    +------------- remove ------------------+--> removing --> (none)
                                                                    | failure
                                                                    v
                                                                  dead --remove--> removing
"""

from __future__ import annotations

from wherry.errors import Conflict
from wherry.models.base import Model

MOVES: dict[str, frozenset[str]] = {
    "created": frozenset({"running", "exited", "removing"}),
    "running": frozenset({"paused", "exited", "restarting"}),
    "paused": frozenset({"running", "exited", "restarting"}),
    "restarting": frozenset({"running", "exited", "removing"}),
    "exited": frozenset({"running", "exited", "removing", "restarting"}),
    "removing": frozenset({"dead"}),
    "dead": frozenset({"removing"}),
}
ALIVE = frozenset({"running", "paused"})


class State(Model, frozen=True):
    """Where a container stands. Times are Unix ns, 0 = never. start_time: ticks of the first process, proc(5).

    phases: of the last start, see `runtime.phases`. ids: those that its user namespace was made with then, as
    `runtime.idmaps` writes them, "" for the host's user namespace.
    """

    status: str = "created"
    pid: int = 0
    start_time: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_at: int = 0
    finished_at: int = 0
    restart_count: int = 0
    stopped_by_user: bool = False
    phases: tuple[tuple[str, int], ...] = ()
    ids: str = ""

    @property
    def active(self) -> bool:
        """True while the first process exists, or another one is going to be started: docker's "running"."""
        return self.status in ALIVE or self.status == "restarting"

    @property
    def alive(self) -> bool:
        """True while the first process exists."""
        return self.status in ALIVE


def check_not_restarting(who: str, status: str) -> None:
    """Raise Conflict, with dockerd's text, for what needs a process that is there; who: "Container ID"."""
    if status == "restarting":
        raise Conflict(f"{who} is restarting, wait until the container is running")


def check_move(container_id: str, current: str, wanted: str) -> None:
    """Raise Conflict when the table does not allow the move."""
    if wanted not in MOVES[current]:
        raise Conflict(f"container {container_id} is {current} and cannot become {wanted}")
