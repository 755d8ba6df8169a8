"""inotify(7): learn that something in a directory changed, without asking again and again."""

from __future__ import annotations

import os

from wherry.kernel.libc import bind, c_char_p, c_int, c_uint, check

IN_MODIFY = 0x2
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
_IN_NONBLOCK = os.O_NONBLOCK
_IN_CLOEXEC = os.O_CLOEXEC

_inotify_init1 = bind("inotify_init1", c_int)
_inotify_add_watch = bind("inotify_add_watch", c_int, c_char_p, c_uint)


def watch_directory(path: str, mask: int = IN_MODIFY | IN_MOVED_TO | IN_CREATE) -> int:
    """Return a non-blocking, close-on-exec descriptor that turns readable when something in path changes.

    Raises OSError: ENOENT, ENOTDIR, EMFILE (fs.inotify.max_user_instances) or ENOSPC (max_user_watches).
    """
    descriptor = check(_inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC), "inotify_init1")
    try:
        check(_inotify_add_watch(descriptor, os.fsencode(path), mask), "inotify_add_watch", path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def drain(descriptor: int) -> None:
    """Throw away the queued events; who watches looks at the files itself."""
    try:
        while os.read(descriptor, 65536):
            pass
    except BlockingIOError:
        return
