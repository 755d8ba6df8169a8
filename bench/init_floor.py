"""Where the time of making one container goes, step by step: fork to execve, without the engine around it.

    python bench/init_floor.py [COUNT] [--network]       as root, with a static busybox on the machine

--network: a new network namespace too, which the engine takes ready made from its stock. Minima and medians in
microseconds, and page faults: a forked interpreter pays about 4 of these microseconds for every page it touches first.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1] / "src")]

from tests.kernel.boxes import Box, busybox  # noqa: E402 - found by the path above
from wherry.runtime import channel, init  # noqa: E402
from wherry.runtime.cgroups import Cgroup  # noqa: E402

REPORT = 900
started = 0.0


def faults() -> int:
    """Return the page faults of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def carry_out(setup: Any, make_plan: Any, marks: Any = None) -> None:
    """`init._carry_out` with a clock."""
    clock, before = time.perf_counter(), faults()
    rows = [("fork, isolate", clock - started, before)]
    steps = make_plan()
    rows.append(("plan", time.perf_counter() - clock, faults() - before))
    for step in steps[:-1]:
        clock, before = time.perf_counter(), faults()
        step.run(setup)
        took = time.perf_counter() - clock
        rows.append((f"{type(step).__name__} {getattr(step, 'target', '')}", took, faults() - before))
    clock, before = time.perf_counter(), faults()
    execve = os.execve

    def report(*arguments: Any) -> None:
        rows.append(("Execute, up to execve", time.perf_counter() - clock, faults() - before))
        rows.append(("processor time of all this", time.process_time(), 0))
        os.write(REPORT, json.dumps(rows).encode())
        execve(*arguments)

    os.execve = report
    steps[-1].run(setup)


def one_container(box: Box, cgroup: Cgroup) -> None:
    """Be the supervisor of one container."""
    global started
    init.enter_parent(box.spec)
    ours, theirs = channel.pair()
    null = os.open("/dev/null", os.O_RDWR)
    started = time.perf_counter()
    if os.fork() == 0:
        ours.close()
        init.run_container(
            init.ContainerStart(
                spec=box.spec, rootfs=box.rootfs, netns_fd=None, stdio=(null, null, null), sync=theirs,
                cgroup=cgroup, seccomp=None,
            )
        )  # fmt: skip
    theirs.close()
    try:
        raise SystemExit(channel.receive(ours))
    except EOFError:
        os.write(REPORT, b"\n" + json.dumps(time.perf_counter() - started).encode())
    os.wait()
    os._exit(0)


def measure(box: Box) -> list[tuple[str, float, int]]:
    """Run one container and return its steps."""
    cgroup = Cgroup.create(box.cgroup, {})
    reader, writer = os.pipe()
    os.dup2(writer, REPORT, inheritable=False)
    os.close(writer)
    if os.fork() == 0:
        one_container(box, cgroup)
    os.close(REPORT)
    with open(reader) as file:
        steps, total = file.read().split("\n")
    os.wait()
    cgroup.remove()
    rows = [tuple(row) for row in json.loads(steps)]
    return [*rows, ("fork to execve", json.loads(total), sum(row[2] for row in rows))]


def main() -> None:
    """Print the table."""
    count = next((int(word) for word in sys.argv[1:] if word.isdigit()), 50)
    isolate = init._isolate
    init._isolate = lambda request, keep: isolate(request, [*keep, REPORT])
    init._carry_out = carry_out  # type: ignore[assignment]
    folder = Path(tempfile.mkdtemp(prefix="wherry-bench-"))
    try:
        box = Box(busybox(folder / "base"), folder / "box")
        box.process["args"] = ["true"]
        for name in ("hosts", "hostname", "resolv.conf"):
            (folder / name).write_text("")
            box.bind(folder / name, f"/etc/{name}")
        if "--network" not in sys.argv:
            linux = box.spec["linux"]
            linux["namespaces"] = [each for each in linux["namespaces"] if each["type"] != "network"]
            del linux["sysctl"]
        gc.collect()
        gc.freeze()
        runs = [measure(box) for _ in range(count)]
    finally:
        shutil.rmtree(folder)
    print(f"{'min us':>8} {'median':>8} {'faults':>7}  step")
    for row in zip(*runs, strict=True):
        times = [1e6 * took for _, took, _ in row]
        print(f"{min(times):8.0f} {statistics.median(times):8.0f} {row[0][2]:7}  {row[0][0]}")


main()
