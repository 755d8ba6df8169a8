"""A FUSE server that lives in a container's mount namespace and, once told, answers nothing any more.

    python -m tests.security.fuse_server PID FORM PLACE

FORM: over      the file system is mounted at PLACE
      layers    it is the lowest layer of an overlay, which is moved over the container's root

It writes "ready" when all is mounted, and from then on lets everybody wait who asks it anything: as a container could
that has been given the right to mount. Its end ends the file system. The protocol is that of linux/fuse.h, 7.31.
"""

from __future__ import annotations

import os
import stat
import struct
import sys
import threading
import time

from wherry.kernel import const, mountapi
from wherry.kernel.namespaces import setns

LOOKUP, GETATTR, STATFS, INIT, OPENDIR, READDIR, RELEASEDIR = 1, 3, 17, 26, 27, 28, 29
ENOENT, ENOSYS = 2, 38
_HEAD = struct.Struct("<IIQQIIIHH")
_FOREVER = 1 << 30


def _attributes() -> bytes:
    times = (0, 0, 0, 0, 0, 0)
    return struct.pack("<6Q3I7I", 1, 0, 0, *times[:3], *times[3:], stat.S_IFDIR | 0o755, 2, 0, 0, 0, 4096, 0)


def _answer(code: int) -> tuple[int, bytes]:
    if code == INIT:
        return 0, struct.pack("<IIIIHHIIHHI7I", 7, 31, 0, 0, 1, 1, 65536, 1, 0, 0, 0, *(0,) * 7)
    if code == GETATTR:
        return 0, struct.pack("<QII", 0, 0, 0) + _attributes()
    if code == STATFS:
        return 0, struct.pack("<5Q4I6I", 0, 0, 0, 0, 0, 4096, 255, 4096, 0, *(0,) * 6)
    if code == OPENDIR:
        return 0, struct.pack("<QII", 0, 0, 0)
    if code in (READDIR, RELEASEDIR):
        return 0, b""
    return (ENOENT if code == LOOKUP else ENOSYS), b""


def serve(descriptor: int, silent: threading.Event) -> None:
    """Answer until told to be silent; from then on only take what comes."""
    while True:
        try:
            request = os.read(descriptor, 1 << 17)
        except OSError:  # ENODEV: unmounted
            return
        _, code, unique, *_ = _HEAD.unpack_from(request)
        if silent.is_set() and code != INIT:
            continue
        error, body = _answer(code)
        os.write(descriptor, struct.pack("<IiQ", 16 + len(body), -error, unique) + body)


def _mount(device: int, place: str, silent: threading.Event) -> None:
    """Mount, and only then serve: until it is mounted the device gives EPERM."""
    os.makedirs(place, exist_ok=True)
    mountapi.mount("fuse", place, "fuse", 0, f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other")
    threading.Thread(target=serve, args=(device, silent), daemon=True).start()


def _over_the_root(device: int, silent: threading.Event) -> None:
    """An overlay of two lower layers, the first of which is ours, in the place of the container's root."""
    os.makedirs("/tmp/other/etc", exist_ok=True)
    os.makedirs("/tmp/joined", exist_ok=True)
    _mount(device, "/tmp/served", silent)
    mountapi.mount("overlay", "/tmp/joined", "overlay", 0, "lowerdir=/tmp/served:/tmp/other")
    mountapi.mount("/tmp/joined", "/", "", const.MS_MOVE, "")


def main() -> None:
    """Mount, say so, and be silent."""
    pid, form, place = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    silent = threading.Event()
    namespace = os.pidfd_open(pid)
    setns(namespace, const.CLONE_NEWNS)
    if form == "over":
        _mount(device, place, silent)
    else:
        _over_the_root(device, silent)
    silent.set()
    print("ready", flush=True)
    time.sleep(_FOREVER)


if __name__ == "__main__":
    main()
