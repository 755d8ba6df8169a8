"""Images in the wire shapes of GET /images/json, /images/NAME/json and /images/NAME/history, and their filters."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from re import compile as compile_pattern
from typing import Any

import msgspec

from wherry.errors import InvalidArgument
from wherry.images.api import Filters
from wherry.images.config import ImageConfig, chain_ids, to_unix_ns
from wherry.images.patterns import Pattern, compiled
from wherry.images.references import Reference, from_stored
from wherry.images.rows import ImageRow
from wherry.models.image import ImageRunConfig
from wherry.models.labels import selected
from wherry.models.times import rfc3339

SECOND = 1_000_000_000
LIST_FILTERS = frozenset({"before", "since", "until", "dangling", "label", "reference"})
PRUNE_FILTERS = frozenset({"dangling", "label", "label!", "until"})
_UNITS = {"h": 3600 * SECOND, "m": 60 * SECOND, "s": SECOND, "ms": 1_000_000, "us": 1000, "µs": 1000, "ns": 1}
_DURATION = compile_pattern(r"(?:\d{1,10}(?:\.\d{1,9})?(?:h|ms|m|s|us|µs|ns))+\Z")
_STAMP = compile_pattern(r"(\d{1,11})(?:\.(\d{1,9}))?\Z")
_LOCAL = compile_pattern(r"(\d{4})-(\d\d)-(\d\d)(?:T(\d\d)(?::(\d\d)(?::(\d\d))?)?)?\Z")
_DAY = compile_pattern(r"(\d{4}-\d\d-\d\d)(Z|[+-]\d\d:\d\d)\Z")
_PIECE = compile_pattern(r"(\d+(?:\.\d+)?)(h|ms|m|s|us|µs|ns)")


@dataclass(frozen=True, slots=True)
class Known:
    """One image with all that listing and filtering need."""

    row: ImageRow
    config: ImageConfig
    names: tuple[str, ...]

    @property
    def labels(self) -> dict[str, str] | None:
        """The labels of its config."""
        return self.config.config.labels if self.config.config else None


def check_filters(filters: Filters, known: frozenset[str]) -> None:
    """Raise InvalidArgument for a filter that is not known."""
    for name in filters:
        if name not in known:
            raise InvalidArgument(f"invalid filter '{name}'")


def flag(filters: Filters, name: str) -> bool | None:
    """Return a filter that is true or false, None when it is not given."""
    values = filters.get(name) or []
    truths = {"1": True, "true": True, "True": True, "0": False, "false": False, "False": False}
    if not values:
        return None
    if len(set(values)) != 1 or values[0] not in truths:
        raise InvalidArgument(f"invalid filter '{name}=[{' '.join(values)}]'")
    return truths[values[0]]


def until(filters: Filters, now: int) -> int | None:
    """Return the earliest point in time (Unix ns) of the until filter, None without one.

    Forms: RFC 3339, a date and as much of a time as there is, Unix seconds, or a duration back from now.
    """
    values = filters.get("until") or []
    if not values:
        return None
    return min(_point_in_time(text, now) for text in values)


def _point_in_time(text: str, now: int) -> int:
    """Without a zone it is the machine's time, as far as it is spelled out: 2006-01-02T15:04:05."""
    if stamp := _STAMP.match(text):
        return int(stamp[1]) * SECOND + int((stamp[2] or "").ljust(9, "0"))
    if _DURATION.match(text):
        return now - sum(int(float(number) * _UNITS[unit]) for number, unit in _PIECE.findall(text))
    try:
        if local := _LOCAL.match(text):
            year, month, day, hour, minute, second = (int(each or 0) for each in local.groups())
            return int(datetime(year, month, day, hour, minute, second).timestamp()) * SECOND
        day_only = _DAY.match(text)
        return to_unix_ns(f"{day_only[1]}T00:00:00{day_only[2]}" if day_only else text)
    except (ValueError, OverflowError, InvalidArgument) as error:
        raise InvalidArgument(f'failed to parse value as time or duration: "{text[:100]}"') from error


def fits_dangling(names: tuple[str, ...], wanted: bool | None) -> bool:
    """Return whether stored names pass the filter dangling: true for an image without tags, false for one with names.

    So an image that has only names by digest is both, as with Docker.
    """
    if wanted is None:
        return True
    return all("@" in name for name in names) if wanted else bool(names)


def accepts(image: Known, filters: Filters, limit: int | None) -> bool:
    """Return whether an image passes the filters that it decides by itself. limit: of `until`."""
    if limit is not None and image.row.created >= limit:
        return False
    return selected(image.labels or {}, filters)


def matching_names(names: tuple[str, ...], patterns: list[str]) -> tuple[str, ...]:
    """Return the stored names whose familiar form, with or without tag, fits one of the patterns."""
    parsed = [compiled(pattern) for pattern in patterns]
    return tuple(name for name in names if _fits(from_stored(name), parsed))


def _fits(name: Reference, patterns: list[Pattern]) -> bool:
    return any(each.fits(name.familiar) or each.fits(name.familiar_name) for each in patterns)


def entry(image: Known) -> dict[str, Any]:
    """Return one entry of GET /images/json."""
    tags, digests = split_names(image.names)
    return {
        "Containers": -1,
        "Created": image.row.created // SECOND,
        "Id": image.row.id,
        "Labels": image.labels,
        "ParentId": image.row.parent,
        "RepoDigests": digests,
        "RepoTags": tags,
        "SharedSize": -1,
        "Size": image.row.size,
    }


def split_names(names: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Return the familiar names with tags and those with digests."""
    familiar = [from_stored(name).familiar for name in names]
    return [each for each in familiar if "@" not in each], [each for each in familiar if "@" in each]


def run_config(config: ImageRunConfig) -> dict[str, Any]:
    """Return Config of an inspected image: eight fields always, the others when they are set."""
    plain: dict[str, Any] = msgspec.to_builtins(config)
    optional = ("ExposedPorts", "Healthcheck", "StopSignal", "Shell", "ArgsEscaped")
    for name in optional:
        if not plain[name]:
            del plain[name]
    if config.healthcheck:
        plain["Healthcheck"] = {name: value for name, value in plain["Healthcheck"].items() if value}
    return plain


def inspection(image: Known, *, last_tagged: int, driver: dict[str, Any]) -> dict[str, Any]:
    """Return the body of GET /images/NAME/json."""
    config = image.config
    tags, digests = split_names(image.names)
    body: dict[str, Any] = {
        "Id": image.row.id,
        "RepoTags": tags,
        "RepoDigests": digests,
        "Parent": image.row.parent,
        "Comment": config.comment or (config.history[-1].comment if config.history else ""),
        "Created": config.created or rfc3339(0),
        "DockerVersion": config.docker_version,
        "Author": config.author,
        "Architecture": config.architecture,
    }
    if config.variant:
        body["Variant"] = config.variant
    body["Os"] = config.os or "linux"
    if config.os_version:
        body["OsVersion"] = config.os_version
    return body | {
        "Size": image.row.size,
        "GraphDriver": driver,
        "RootFS": {"Type": "layers", "Layers": config.rootfs.diff_ids},
        "Metadata": {"LastTagTime": rfc3339(last_tagged)},
        "Config": run_config(config.config or ImageRunConfig()),
    }


Lineage = Iterable[tuple[str, tuple[str, ...]]]
"""An image, its parent, and so on: the id and the stored names of each."""


def history(image: Known, lineage: Lineage, size_of: Callable[[str], int]) -> list[dict[str, Any]]:
    """Return the body of GET /images/NAME/history, newest first; the first steps are known as the images they made."""
    chains = iter(chain_ids(image.config.rootfs.diff_ids))
    steps: list[dict[str, Any]] = []
    for step in image.config.history or ():
        size = 0
        if not step.empty_layer:
            chain = next(chains, "")
            if not chain:
                raise InvalidArgument("too many non-empty layers in History section")
            size = size_of(chain)
        steps.append(
            {
                "Comment": step.comment,
                "Created": to_unix_ns(step.created) // SECOND if step.created else 0,
                "CreatedBy": step.created_by,
                "Id": "<missing>",
                "Size": size,
                "Tags": None,
            }
        )
    steps.reverse()
    for made, (image_id, names) in zip(steps, lineage, strict=False):
        made["Id"], made["Tags"] = image_id, split_names(names)[0] or None
    return steps


def now_ns() -> int:
    """Return the Unix time in ns."""
    return time.time_ns()
