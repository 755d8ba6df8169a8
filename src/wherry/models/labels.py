"""Labels of containers, images, networks and events, as filters ask for them."""

from __future__ import annotations

from collections.abc import Mapping


def holds(labels: Mapping[str, str], wanted: str) -> bool:
    """Return whether "key" is there, or "key=value" holds."""
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)
