"""The keys that detach a client from a terminal ("ctrl-p,ctrl-q"), found in its input."""

from __future__ import annotations

DEFAULT = b"\x10\x11"  # ctrl-p, ctrl-q
_CONTROL = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


def parse_keys(text: str) -> bytes:
    """Return the bytes of a key list; "" stands for the default. Raises ValueError that names the key."""
    return bytes(_key(name) for name in text.split(",")) if text else DEFAULT


def _key(name: str) -> int:
    if len(name) == 1 and name.isascii():
        return ord(name)
    key = name[5:]
    if name.startswith("ctrl-") and len(key) == 1:
        if "a" <= key <= "z":
            return ord(key) - ord("a") + 1
        if key in _CONTROL:
            return _CONTROL[key]
    raise ValueError(f"Unknown character: '{name}'")


class DetachKeys:
    """Watches input for the key sequence, also when it comes in several pieces."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = 0  # so many keys were seen and are not passed on yet

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Return what may be passed on, and whether the sequence is complete; the keys themselves are kept."""
        if not self._held and self._keys[0] not in data:
            return data, False
        data = self._keys[: self._held] + data
        found = data.find(self._keys)
        if found >= 0:
            return data[:found], True
        self._held = next(size for size in range(len(self._keys) - 1, -1, -1) if data.endswith(self._keys[:size]))
        return data[: len(data) - self._held], False
