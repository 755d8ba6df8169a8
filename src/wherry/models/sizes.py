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


def positive(text: str) -> int:
    """Return bytes for "512", "1.5k", "10MB" or "10 KiB" (binary units), as dockerd reads the sizes of log options.

    Raises ValueError in dockerd's words.
    """
    place = max(text.rfind(character) for character in "0123456789. ")
    if place < 0:
        raise ValueError(f"invalid size: '{text}'")
    number, unit = text[: place + (text[place] != " ")], text[place + 1 :].lower()
    try:
        size = float(number) if number.strip() == number and "_" not in number else float("nan")
    except ValueError:
        size = float("nan")
    if size != size:
        raise ValueError(f'strconv.ParseFloat: parsing "{number}": invalid syntax')
    if size < 0:
        raise ValueError(f"invalid size: '{text}'")
    if unit and (unit[0] not in "bkmgtp" or unit[1:] not in ("", "b", "ib") or unit in ("bb", "bib")):
        raise ValueError(f"invalid suffix: '{unit}'")
    return int(size * (1 << 10 * "bkmgtp".index(unit[0]) if unit else 1))
