"""Sizes as users write them."""

from __future__ import annotations

UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def parse(text: str) -> int:
    """Return bytes for "512", "10m", "10MB", "1g" or "-1"; raises ValueError("invalid size: 'x'")."""
    number = text.lower().removesuffix("b")
    factor = UNITS.get(number[-1:])
    try:
        return int(number[:-1]) * factor if factor else int(number)
    except ValueError:
        raise ValueError(f"invalid size: '{text}'") from None
