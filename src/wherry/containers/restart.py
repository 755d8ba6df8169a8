"""When a container that has ended is started again. PURE; the rules and times are dockerd's.

    no              never
    on-failure[:N]  after an exit code other than 0, N times at most (0: any number)
    always          after each end; also when the engine starts, whoever stopped it
    unless-stopped  after each end; when the engine starts unless somebody had stopped it
    on-unhealthy[:N] as on-failure, and after the engine ended it because its health check said unhealthy; ours

None of them acts against a stop or a kill. The pause before a start is 100 ms, then twice the last one up to a minute;
a run of 10 seconds or more begins anew.
"""

from __future__ import annotations

from wherry.containers.state import State
from wherry.errors import InvalidArgument
from wherry.models.container import RestartPolicy

POLICIES = ("no", "always", "on-failure", "unless-stopped", "on-unhealthy")
COUNTED = ("on-failure", "on-unhealthy")
FIRST, LONGEST = 0.1, 60.0
STEADY = 10.0
_COUNTED = "invalid restart policy: maximum retry count can only be used with 'on-failure'"


def check(policy: RestartPolicy) -> None:
    """Raise InvalidArgument with dockerd's text for a policy that cannot be."""
    name, count = policy.name or "no", policy.maximum_retry_count
    if name not in POLICIES:
        raise InvalidArgument(
            f"invalid restart policy: unknown policy '{name}'; use one of "
            "'no', 'always', 'on-failure', 'unless-stopped', or 'on-unhealthy'"
        )
    if name in COUNTED and count < 0:
        raise InvalidArgument("invalid restart policy: maximum retry count cannot be negative")
    if name not in COUNTED and count:
        raise InvalidArgument(_COUNTED + (" and cannot be negative" if count < 0 else ""))


def after_end(policy: RestartPolicy, state: State, code: int, *, unwell: bool = False) -> bool:
    """Whether to start a container again that ends now with this exit code. unwell: it was ended for its health."""
    if state.stopped_by_user:
        return False
    if policy.name in COUNTED:
        most = policy.maximum_retry_count
        return (code != 0 or unwell) and (not most or state.restart_count < most)
    return policy.name in ("always", "unless-stopped")


def at_boot(policy: RestartPolicy, state: State) -> bool:
    """Whether to start a container that is found at rest when the engine starts."""
    if not state.started_at:
        return False
    return policy.name == "always" or after_end(policy, state, state.exit_code)


def pause(last: float, lasted: float) -> float:
    """Return the seconds to wait after a run of `lasted` seconds; last: the pause before that run, 0 for none."""
    if lasted >= STEADY or not last:
        return FIRST
    return min(2 * last, LONGEST)
