"""Loop devices: a file as a block device, loop(4)."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

_CTL_GET_FREE = 0x4C82
_CONFIGURE = 0x4C0A
_READ_ONLY, _AUTOCLEAR = 1, 4
_ATTEMPTS = 64


def attach(file: int, *, writable: bool = False) -> tuple[int, str]:
    """Return an open block device over an open regular file, and its path. LOOP_CONFIGURE, Linux 5.8.

    The device comes apart when its descriptor is closed and nothing has it mounted (LO_FLAGS_AUTOCLEAR). Raises
    OSError.
    """
    # struct loop_config: fd, block_size, struct loop_info64 (232 bytes, lo_flags at 52), 64 reserved bytes
    config = bytearray(struct.pack("II", file, 0) + bytes(232 + 64))
    struct.pack_into("I", config, 8 + 52, _AUTOCLEAR if writable else _READ_ONLY | _AUTOCLEAR)
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_ATTEMPTS):
            path = f"/dev/loop{fcntl.ioctl(control, _CTL_GET_FREE)}"
            device = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _CONFIGURE, bytes(config))
                return device, path
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:  # somebody else was faster
                    raise
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, "no free loop device", "/dev/loop-control")
