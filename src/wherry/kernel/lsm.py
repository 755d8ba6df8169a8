"""The labels of Linux security modules, written through a procfs that is known to be one.

Containers have redirected such writes with a mount or a link over /proc/self/attr (CVE-2019-16884, CVE-2025-52881),
so the directory comes as a descriptor from fsmount(2) and nothing may be mounted on the way.
"""

from __future__ import annotations

import os

from wherry.kernel.pathsafe import BELOW, openat2


def write(procfs: int, path: str, text: str) -> None:
    """Write one value to a file of the procfs at descriptor `procfs`, in one write(2) as these files demand.

    Raises OSError: EXDEV (something is mounted over it), ENOENT (the kernel lacks it), and what the file refuses.
    """
    fd = openat2(procfs, path, os.O_WRONLY, resolve=BELOW)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        raise OSError(error.errno, f"write: {error.strerror}", f"/proc/{path}") from error
    finally:
        os.close(fd)


def set_apparmor_on_exec(procfs: int, profile: str) -> None:
    """Confine what the next execve(2) of this process starts; the module's own directory is there since 5.8."""
    text = f"exec {profile}"
    try:
        write(procfs, "self/attr/apparmor/exec", text)
    except FileNotFoundError:
        write(procfs, "self/attr/exec", text)


def set_selinux_on_exec(procfs: int, label: str) -> None:
    """Label what the next execve(2) of this process starts."""
    write(procfs, "self/attr/exec", label)
