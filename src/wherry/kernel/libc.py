"""The one place that loads the C library, and how a C function becomes a Python one that raises OSError.

Every wrapper of this package is made by `bind` with its argument types, so that a 64-bit value or a pointer is never
cut to an int, and reports by `check`: OSError with errno, "SYSCALL: reason" and the path, if there is one.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

c_int = ctypes.c_int
c_uint = ctypes.c_uint
c_long = ctypes.c_long
c_ulong = ctypes.c_ulong
c_char_p = ctypes.c_char_p
c_size_t = ctypes.c_size_t
buffer = ctypes.create_string_buffer

library = ctypes.CDLL(None, use_errno=True)


def bind(name: str, *types: type) -> Callable[..., int]:
    """Return the C function `name` that returns an int, -1 for failure with errno set."""
    made: Callable[..., int] = ctypes.CFUNCTYPE(c_int, *types, use_errno=True)((name, library))
    return made


def bind_syscall(*types: type) -> Callable[..., int]:
    """Return syscall(2) for one argument list; the first argument of the result is the number."""
    made: Callable[..., int] = ctypes.CFUNCTYPE(c_long, c_long, *types, use_errno=True)(("syscall", library))
    return made


def failure(call: str, path: str | bytes | None = None) -> OSError:
    """Return the OSError for the errno of the last failed call of this thread."""
    number = ctypes.get_errno()
    text = f"{call}: {os.strerror(number)}"
    return OSError(number, text, os.fsdecode(path)) if path else OSError(number, text)


def check(result: int, call: str, path: str | bytes | None = None) -> int:
    """Return `result`, or raise what errno says when it is negative."""
    if result < 0:
        raise failure(call, path)
    return result
