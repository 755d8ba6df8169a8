"""The filters of docker ps. Each is one small test; several values of one filter are alternatives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from wherry.containers.record import Record
from wherry.errors import InvalidArgument
from wherry.models.labels import holds
from wherry.models.patterns import compile_pattern

STATUSES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")


def _matches_name(record: Record, value: str) -> bool:
    try:
        pattern = compile_pattern(value)
    except InvalidArgument:  # it matches nothing, as in dockerd
        return False
    return pattern.search(record.name) or pattern.search(f"/{record.name}")


def _matches_status(record: Record, value: str) -> bool:
    return record.state.status == value


def _matches_exited(record: Record, value: str) -> bool:
    if not value.lstrip("-").isdigit():
        raise InvalidArgument(f"invalid filter 'exited={value}': strconv.Atoi: parsing \"{value}\": invalid syntax")
    return record.state.status == "exited" and record.state.exit_code == int(value)


def _matches_network(record: Record, value: str) -> bool:
    return value in (record.networking.endpoints_config or {}) or value == record.host_config.network_mode


def _matches_volume(record: Record, value: str) -> bool:
    return any(value in (each.name or each.source, each.destination) for each in record.mounts)


Test = Callable[[Record, str], bool]
TESTS: Mapping[str, Test] = {
    "id": lambda record, value: record.id.startswith(value),
    "name": _matches_name,
    "status": _matches_status,
    "exited": _matches_exited,
    "network": _matches_network,
    "volume": _matches_volume,
}
CLOSED = {
    "health": ("none", "starting", "healthy", "unhealthy"),
    "is-task": ("true", "false", "1", "0"),
    "status": STATUSES,
}
"""Filters of which only these values make sense."""

ELSEWHERE = frozenset({"label", "ancestor", "before", "since", "health", "isolation", "is-task", "publish", "expose"})


def check(filters: Mapping[str, Sequence[str]]) -> None:
    """Raise InvalidArgument for a filter that docker ps does not know."""
    for name in filters:
        if name not in TESTS and name not in ELSEWHERE:
            raise InvalidArgument(f"invalid filter '{name}'")
    for name, known in CLOSED.items():
        for value in filters.get(name, ()):
            if value not in known:
                raise InvalidArgument(_refusal(name, value, known))


def _refusal(name: str, value: str, known: Sequence[str]) -> str:
    if name == "is-task":
        return f"invalid filter 'is-task=[{value}]'"
    what = "state" if name == "status" else name
    return f"invalid filter '{name}={value}': invalid value for {what} ({value}): must be one of {', '.join(known)}"


def accepts(record: Record, filters: Mapping[str, Sequence[str]]) -> bool:
    """Return whether a container passes the filters that its own record decides; labels must all hold."""
    if not all(holds(record.config.labels or {}, value) for value in filters.get("label", ())):
        return False
    if not _may_be_no_task(filters):
        return False
    return all(
        any(TESTS[name](record, value) for value in values)
        for name, values in filters.items()
        if name in TESTS and values
    )


def _may_be_no_task(filters: Mapping[str, Sequence[str]]) -> bool:
    """Tasks are a swarm's; no container of this engine is one."""
    values = filters.get("is-task", ())
    return not values or "false" in values or "0" in values
