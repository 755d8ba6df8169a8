"""Labels of containers, images, networks and events, as filters ask for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def holds(labels: Mapping[str, str], wanted: str) -> bool:
    """Return whether "key" is there, or "key=value" holds."""
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)


def selected(labels: Mapping[str, str], filters: Mapping[str, Sequence[str]]) -> bool:
    """Return whether all that the filter "label" asks for holds, and nothing that "label!" names."""
    wanted, unwanted = filters.get("label") or (), filters.get("label!") or ()
    return all(holds(labels, value) for value in wanted) and not any(holds(labels, value) for value in unwanted)
