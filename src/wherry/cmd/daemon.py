"""wherryd: the composition root. The only place that knows every part by name; parts get what they need, once.

Order of start: roots and lock, store, images, networks, zygote, services, adoption of what runs already, sockets.
Order of stop: sockets, containers (unless they outlive the engine), zygote, networks, store.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import wherry.version as release
from wherry.api.backends import Backends
from wherry.api.listen import listen
from wherry.api.server import Server
from wherry.cmd import config as configuration
from wherry.cmd import logformat
from wherry.cmd.compose import Engine, compose
from wherry.cmd.config import Config
from wherry.errors import EngineError
from wherry.supervision.interpreter import raise_own_limit

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Daemon:
    """A running wherryd."""

    config: Config
    argv: Sequence[str]
    engine: Engine
    stopping: asyncio.Event

    def reload(self) -> None:
        """SIGHUP: read the file again and take over what can change while containers run; restore the firewall."""
        self.engine.refresh_firewall()
        try:
            fresh = configuration.parse(self.argv)
            self.engine.reload(fresh)
        except EngineError as error:
            log.error("configuration not reloaded", extra={"error": error.message})
            return
        logformat.set_level("debug" if fresh.debug else fresh.log_level)
        log.info("configuration reloaded", extra={"file": fresh.config_file})

    def stop(self) -> None:
        """SIGTERM, SIGINT: end in good order; a second one changes nothing."""
        log.info("stopping")
        self.stopping.set()


def _lock_root(config: Config) -> int:
    """Make the roots and hold the data root's lock: two engines on one root would destroy each other's work."""
    for name, mode in ((config.data_root, 0o710), (config.run_root, 0o711)):
        os.makedirs(name, mode=mode, exist_ok=True)
    path = Path(config.data_root, "lock")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise EngineError(
            f"another wherryd uses {config.data_root}; stop it, or give this one a --data-root, --run-root, "
            "--bridge and -H of its own"
        ) from None
    return descriptor


async def run(config: Config, argv: Sequence[str]) -> None:
    """Run the daemon until it is told to stop."""
    async with AsyncExitStack() as stack:
        stack.callback(os.close, _lock_root(config))
        engine = await compose(config, stack)
        daemon = Daemon(config, argv, engine, asyncio.Event())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, daemon.stop)
        loop.add_signal_handler(signal.SIGHUP, daemon.reload)
        await engine.restore()
        await _serve(config, engine.backends, stack)
        _write_pidfile(config, stack)
        log.info("API ready", extra={"hosts": " ".join(config.hosts), "version": release.WHERRY})
        await daemon.stopping.wait()
        await engine.shut_down()


async def _serve(config: Config, backends: Backends, stack: AsyncExitStack) -> None:
    server = Server(backends)
    stack.push_async_callback(server.close)
    for host in config.hosts:
        for listening in listen(host, group=config.group):
            await server.start(listening)


def _write_pidfile(config: Config, stack: AsyncExitStack) -> None:
    if config.pidfile:
        path = Path(config.pidfile)
        path.write_text(f"{os.getpid()}\n")
        stack.callback(path.unlink, missing_ok=True)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's factory where it is installed (a third of the cost of a new connection), else the default."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of wherryd; returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if configuration.wants_version(words):
            print(f"Wherry {release.WHERRY} (API {release.API_OLDEST} to {release.API_NEWEST})")
            return 0
        config = configuration.parse(words)
    except EngineError as error:
        print(f"wherryd: {error.message}", file=sys.stderr)
        return 1
    if os.geteuid() != 0:
        print("wherryd: must run as root: it makes namespaces, mounts and network links", file=sys.stderr)
        return 1
    logformat.set_up("debug" if config.debug else config.log_level)
    os.umask(0o022)
    raise_own_limit()
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(run(config, words))
    except EngineError as error:
        log.critical("cannot start", extra={"error": error.message})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
