"""A disk for tests: a file on tmpfs behind a loop device, of which the kernel counts and limits transfers."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType


class BlockDevice:
    """A loop device of `size` bytes. path: of its node. number: MAJOR:MINOR."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.path = ""
        self.number = ""
        self._file = ""

    def __enter__(self) -> BlockDevice:
        descriptor, self._file = tempfile.mkstemp(prefix="wherry-disk-", dir="/dev/shm")
        os.truncate(descriptor, self._size)
        os.close(descriptor)
        try:
            shown = subprocess.run(
                ["losetup", "--find", "--show", self._file], check=True, capture_output=True, text=True
            )
        except subprocess.CalledProcessError:
            os.unlink(self._file)
            raise
        self.path = shown.stdout.strip()
        device = os.stat(self.path).st_rdev
        self.number = f"{os.major(device)}:{os.minor(device)}"
        return self

    def use_scheduler(self, name: str) -> bool:
        """Have an I/O scheduler order the transfers; False when the kernel has none of that name."""
        place = Path(f"/sys/block/{os.path.basename(self.path)}/queue/scheduler")
        if name not in place.read_text().replace("[", " ").replace("]", " ").split():
            return False
        place.write_text(name)
        return True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.use_scheduler("none")
        subprocess.run(["losetup", "--detach", self.path], check=True)
        os.unlink(self._file)
