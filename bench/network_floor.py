"""What networking costs a start, in a network namespace of its own: python bench/network_floor.py [COUNT], as root.

The last row is the same sandbox made by ip(8) in one batch, the ordinary way, for comparison.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from wherry.kernel import netns
from wherry.kernel.netlink import link
from wherry.kernel.netlink.socket import NetlinkSocket
from wherry.network.api import EndpointRequest, SandboxRequest
from wherry.network.config import NetworkConfig
from wherry.network.controller import Networks
from wherry.store.database import Database

BRIDGE = (EndpointRequest("bridge"),)
CYCLE = 0.024
"""The time from one `docker run` to the next in a loop."""


def row(name: str, times: list[float]) -> None:
    """Print median and worst of some times."""
    ordered = sorted(times)
    print(
        f"{name:<52}{statistics.median(ordered) * 1e3:9.2f}{ordered[int(len(ordered) * 0.9)] * 1e3:9.2f}"
        f"{ordered[-1] * 1e3:9.2f}"
    )


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that something takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def starts(networks: Networks, count: int, endpoints: tuple[EndpointRequest, ...], pause: float) -> list[float]:
    """Open sandboxes, as `docker run` does, and close them again when all are open or, with a pause, at once."""
    times = []
    names = [f"c{number}" for number in range(count)]
    for name in names:
        times.append(timed(lambda name=name: networks.open_sandbox(SandboxRequest(name, endpoints)).close()))
        if pause:
            time.sleep(pause)
            networks.close_sandbox(name)
    closing = [timed(lambda name=name: networks.close_sandbox(name)) for name in names] if not pause else []
    if closing:
        row("  close_sandbox of each of these", closing)
        row("  until all of their links are gone", [timed(networks.settle)])
    return times


def engine(folder: Path, stock: int) -> Networks:
    """Start the networks of an engine and wait until its stock is full."""
    networks = Networks(Database(folder / f"{stock}.db"), NetworkConfig(stock=stock), folder)
    row(f"start (stock of {stock})", [timed(networks.start)])
    row("  restore", [timed(lambda: networks.restore([]))])
    began = time.perf_counter()
    while not all(ready == stock for ready in networks.ready().values()):
        time.sleep(0.001)
    if stock:
        row("  filling the stock, per sandbox of both kinds", [(time.perf_counter() - began) / stock / 2])
    return networks


def ordinary() -> None:
    """Make one sandbox with ip(8)."""
    subprocess.run(
        "ip netns add bench && ip -b - <<X && ip netns exec bench ip -b - <<Y\n"
        "link add vethb type veth peer name eth0 netns bench\nlink set vethb master wherry0 up\nX\n"
        "link set lo up\nlink set eth0 up\naddr add 172.17.200.2/16 dev eth0\nroute add default via 172.17.0.1\nY",
        shell=True,
        check=True,
    )


def measure(count: int) -> None:
    """Print the table."""
    netns.unshare()
    with NetlinkSocket() as netlink:
        netlink.apply(link.set_up(link.LOOPBACK))
    print(f"{'milliseconds':<52}{'median':>9}{'p90':>9}{'worst':>9}")
    with tempfile.TemporaryDirectory() as name:
        networks = engine(Path(name), 0)
        row("open_sandbox, made when asked for, bridge", starts(networks, count, BRIDGE, 0))
        row("open_sandbox, made when asked for, none", starts(networks, count, (), 0))
        networks.stop(remove=True)
        networks = engine(Path(name), 4)
        row("open_sandbox from the stock, bridge, as in a loop", starts(networks, count, BRIDGE, CYCLE))
        row("open_sandbox from the stock, none, as in a loop", starts(networks, count, (), CYCLE))
        networks.settle()
        row(f"open_sandbox {count} in a row, bridge", starts(networks, count, BRIDGE, 0))
        times = []
        for _ in range(10):
            times.append(timed(ordinary))
            subprocess.run("ip netns del bench; ip link del vethb 2>/dev/null", shell=True, check=False)
        row("the same by ip(8)", times)
        row("stop", [timed(lambda: networks.stop(remove=True))])


def main() -> None:
    """Measure in a thread, which alone changes its namespace."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    thread = threading.Thread(target=measure, args=(count,))
    thread.start()
    thread.join()


if __name__ == "__main__":
    main()
