"""Memory of idle supervisors: what each costs beyond the pages that all of them share.

python bench/supervisor_memory.py [COUNT]          as root, with a static busybox on the machine
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from launch_floor import Bench, default_filter

from wherry.supervision.supervision import Supervision

FIELDS = ("Rss", "Pss", "Shared_Dirty", "Private_Dirty", "Private_Clean")


def rollup(pid: int) -> dict[str, int]:
    """Return sizes in KiB of smaps_rollup (proc(5))."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) for line in lines}


def parent_of(pid: int) -> int:
    """Return the parent's pid."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def show(name: str, sizes: list[dict[str, int]]) -> None:
    """Print the means of one kind of process."""
    means = {field: sum(each[field] for each in sizes) / len(sizes) for field in FIELDS}
    print(f"{name:12} " + "  ".join(f"{field} {value:7.0f} KiB" for field, value in means.items()))


async def main() -> None:
    """Measure and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    folder = Path(tempfile.mkdtemp(prefix="wherry-bench-", dir="/run"))
    supervision = Supervision(folder)
    await supervision.start()
    tasks: list[Any] = []
    try:
        bench = Bench(folder, supervision, default_filter())
        for _ in range(count):
            launch = bench.launch_of(["/bin/sleep", "1000"])
            tasks.append(await supervision.launch(launch, netns_fd=bench.netns, attach_fds=[]))
        await asyncio.sleep(1)
        show("supervisor", [rollup(parent_of(task.pid)) for task in tasks])
        show("zygote", [rollup(supervision.zygote_pid)])
    finally:
        for task in tasks:
            await task.signal(9)
        for task in tasks:
            await task.gone
        await supervision.stop()
        shutil.rmtree(folder)
        for directory, names, _ in os.walk("/sys/fs/cgroup"):
            if "wherry-bench" in names:
                os.rmdir(f"{directory}/wherry-bench")


if __name__ == "__main__":
    asyncio.run(main())
