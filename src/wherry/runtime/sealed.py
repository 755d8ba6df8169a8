"""A program of ours in memory: nobody can change it, and no file system has to allow that programs are run from it."""

from __future__ import annotations

import fcntl
import os

_MFD_EXEC = 0x10  # linux/memfd.h, 6.3
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def keep(name: str, data: bytes) -> int:
    """Return a descriptor, close-on-exec, of an executable. Raises OSError: EACCES where vm.memfd_noexec is 2."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        memory = os.memfd_create(name, flags | _MFD_EXEC)
    except OSError:  # EINVAL before 6.3
        memory = os.memfd_create(name, flags)
    os.write(memory, data)
    os.fchmod(memory, 0o555)
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
    return memory
