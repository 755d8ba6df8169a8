"""inotify(7): learn that something in a directory changed, without asking again and again."""

from __future__ import annotations

import ctypes
import os

IN_MODIFY = 0x2
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
_IN_NONBLOCK = os.O_NONBLOCK
_IN_CLOEXEC = os.O_CLOEXEC

_libc = ctypes.CDLL(None, use_errno=True)
_libc.inotify_add_watch.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)


def watch_directory(path: str, mask: int = IN_MODIFY | IN_MOVED_TO | IN_CREATE) -> int:
    """Return a non-blocking, close-on-exec descriptor that turns readable when something in path changes.

    Raises OSError: ENOENT, ENOTDIR, EMFILE (fs.inotify.max_user_instances) or ENOSPC (max_user_watches).
    """
    descriptor: int = _libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC)
    if descriptor < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"inotify_init1: {os.strerror(number)}")
    if _libc.inotify_add_watch(descriptor, os.fsencode(path), mask) < 0:
        number = ctypes.get_errno()
        os.close(descriptor)
        raise OSError(number, f"inotify_add_watch: {os.strerror(number)}", path)
    return descriptor


def drain(descriptor: int) -> None:
    """Throw away the queued events; who watches looks at the files itself."""
    try:
        while os.read(descriptor, 65536):
            pass
    except BlockingIOError:
        return
