"""What the first process may do: ids, capabilities, seccomp, labels, limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wherry.kernel import caps, seccomp_syscalls
from wherry.kernel.procfs import Process
from wherry.models.xray import Capabilities, ResourceLimit, Seccomp, Security

MODES = ("disabled", "strict", "filter")
_PASSING = frozenset({"SCMP_ACT_ALLOW", "SCMP_ACT_LOG"})


def read(process: Process, profile: Mapping[str, Any] | None, machine: str) -> Security:
    """Return what is to be said of a process; raises OSError. profile: the engine's, OCI linux.seccomp."""
    status = process.status()
    return Security(
        uids=_numbers(status["Uid"]),
        gids=_numbers(status["Gid"]),
        groups=_numbers(status["Groups"]),
        capabilities=capabilities(status),
        seccomp=_seccomp(status, profile, machine),
        no_new_privileges=status.get("NoNewPrivs") == "1",
        label=process.label(),
        resource_limits=tuple(
            ResourceLimit(name=name.removeprefix("Max "), soft=soft, hard=hard, unit=unit)
            for name, soft, hard, unit in process.limits()
        ),
        oom_score=int(process.text("oom_score", 64)),
        oom_score_adjust=int(process.text("oom_score_adj", 64)),
    )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split())


def capabilities(status: Mapping[str, str]) -> Capabilities:
    """Return the five sets of a process from its status; known: how many capabilities we have names for."""
    sets = {
        name: tuple(caps.names(int(status.get(key, "0"), 16)))
        for name, key in (
            ("bounding", "CapBnd"),
            ("effective", "CapEff"),
            ("permitted", "CapPrm"),
            ("inheritable", "CapInh"),
            ("ambient", "CapAmb"),
        )
    }
    return Capabilities(known=len(caps.NAMES), **sets)


def _seccomp(status: Mapping[str, str], profile: Mapping[str, Any] | None, machine: str) -> Seccomp:
    mode = int(status.get("Seccomp", "0"))
    filters = int(status.get("Seccomp_filters", "1" if mode == 2 else "0"))  # counted since 5.9
    found = Seccomp(mode=MODES[mode] if mode < len(MODES) else str(mode), filters=filters)
    if profile is None or mode != 2:
        return found
    blocked, conditional, allowed = judge(profile, seccomp_syscalls.numbers(machine))
    return Seccomp(
        mode=found.mode,
        filters=found.filters,
        default=profile["defaultAction"],
        blocked=tuple(blocked),
        conditional=tuple(conditional),
        allowed=allowed,
    )


def judge(profile: Mapping[str, Any], known: Mapping[str, int]) -> tuple[list[str], list[str], int]:
    """Return which of the known system calls a profile blocks, which by their arguments, and how many it allows."""
    plain: dict[str, bool] = {}
    depends: set[str] = set()
    for rule in profile.get("syscalls") or ():
        for name in rule["names"]:
            if rule.get("args"):
                depends.add(name)
            else:
                plain[name] = rule["action"] in _PASSING
    default = profile["defaultAction"] in _PASSING
    conditional = sorted(name for name in depends if name in known and name not in plain)
    decided = {name: plain.get(name, default) for name in known if name not in conditional}
    blocked = sorted(name for name, passes in decided.items() if not passes)
    return blocked, conditional, sum(decided.values())
