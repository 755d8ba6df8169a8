"""Running a test in a network namespace of its own, in a thread of its own, so that the machine's is never touched."""

from __future__ import annotations

import functools
import json
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wherry.kernel import netns
from wherry.kernel.netlink import link
from wherry.kernel.netlink.socket import NetlinkSocket


def in_thread(work: Callable[[], Any]) -> Any:
    """Run something in a new thread and return what it returned or raise what it raised."""
    result: list[Any] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            result.append(work())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


def isolated(test: Callable[..., None]) -> Callable[..., None]:
    """Decorate a test: it runs in a fresh namespace whose loopback link is up."""

    @functools.wraps(test)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        def work() -> None:
            netns.unshare()
            with NetlinkSocket() as netlink:
                netlink.apply(link.set_up(link.LOOPBACK))
            # A new namespace starts with the host's value (devconf_inherit_init_net), which an engine may have changed.
            Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
            test(*args, **kwargs)

        in_thread(work)

    return wrapper


def inside(fd: int, work: Callable[[], Any]) -> Any:
    """Run something in a thread that has entered a namespace."""

    def enter() -> Any:
        netns.enter(fd)
        return work()

    return in_thread(enter)


def new_namespace() -> int:
    """Return a descriptor of a new namespace whose loopback link is up."""

    def make() -> int:
        netns.unshare()
        with NetlinkSocket() as netlink:
            netlink.apply(link.set_up(link.LOOPBACK))
        return netns.current()

    return int(in_thread(make))


def command(*argv: str) -> str:
    """Run a command in the thread's namespace and return its output."""
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=20).stdout


def ip(*argv: str) -> Any:
    """Ask ip(8), whose JSON is what our own encoding is compared with."""
    return json.loads(command("ip", "-d", "-j", *argv) or "[]")
