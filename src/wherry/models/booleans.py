"""Yes and no as Go's strconv.ParseBool reads them, which is how dockerd reads most options."""

from __future__ import annotations

TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


def parse(text: str) -> bool | None:
    """Return what a text means, None when it is neither."""
    return True if text in TRUE else False if text in FALSE else None
