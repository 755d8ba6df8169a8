"""Starts the zygote, watches over it, and starts it again."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wherry.errors import Unavailable
from wherry.runtime import channel
from wherry.runtime.zygote_boot import BOOTSTRAP, CONTROL, LAYERS, LAYERS_MARK
from wherry.supervision import interpreter
from wherry.supervision.background import spawn
from wherry.supervision.connection import Connection

log = logging.getLogger(__name__)

START_PATIENCE = 60.0  # of a machine that is emulated, or busy to the brim
STOP_PATIENCE = 5.0
RESTART_PAUSE = 1.0
FILTERS = 32  # compiled seccomp filters that the zygote keeps; more profiles than this are rare
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    # Log chunks come and go; by default glibc gave their memory back and faulted it in anew, 34 pages for each.
    "GLIBC_TUNABLES": "glibc.malloc.trim_threshold=1048576:glibc.malloc.mmap_threshold=1048576",
}
_TRUST = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""Whom the log drivers trust, when the engine was told (SSL_CTX_load_verify_locations(3)); dockerd has the same two."""


class Zygote:
    """The zygote process. `send` waits while it is being restarted."""

    def __init__(self, run_root: Path, layers: int = -1) -> None:
        """layers: a descriptor of the mount namespace in which layers are mounted, -1 for none."""
        self._log_path = run_root / "zygote.log"
        self._layers = layers
        self._connection: Connection | None = None
        self._ready = asyncio.Event()
        self._filters: OrderedDict[str, None] = OrderedDict()
        self._pidfd = -1
        self._dead: asyncio.Future[None] | None = None
        self._stopping = False
        self.pid = 0

    async def start(self) -> None:
        """Start the process and wait until it takes launches; raises Unavailable."""
        self._spawn()
        try:
            async with asyncio.timeout(START_PATIENCE):
                await self._ready.wait()
        except TimeoutError as error:
            await self.stop()
            raise Unavailable(f"the zygote did not start: {self._last_words()}") from error

    def _spawn(self) -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = channel.pair()
        try:
            environment = _ENVIRONMENT | {name: os.environ[name] for name in _TRUST if name in os.environ}
            given = {CONTROL: theirs.fileno()}
            if self._layers >= 0:
                given[LAYERS] = self._layers
                environment[LAYERS_MARK] = "1"
            self.pid = interpreter.start(BOOTSTRAP, environment, str(self._log_path), given)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._pidfd = os.pidfd_open(self.pid)
        self._dead = loop.create_future()
        self._filters.clear()
        self._connection = Connection(ours, self._on_message, lambda: None)
        loop.add_reader(self._pidfd, self._on_death)

    def _on_message(self, message: dict[str, Any]) -> None:
        if message["type"] == "ready":
            self._ready.set()

    def _on_death(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        os.close(self._pidfd)
        self._pidfd = -1
        was_ready = self._ready.is_set()
        self._ready.clear()
        if self._connection is not None:
            self._connection.close()
        if self._dead is not None:
            self._dead.set_result(None)
        if not self._stopping:
            log.error("zygote died", extra={"last_words": self._last_words()})
            spawn(self._restart(0.0 if was_ready else RESTART_PAUSE), "restart of the zygote")

    async def _restart(self, pause: float) -> None:
        await asyncio.sleep(pause)
        if not self._stopping:
            self._spawn()
            log.info("zygote restarted", extra={"pid": self.pid})

    def _last_words(self) -> str:
        try:
            return self._log_path.read_text(errors="replace").strip()[-2000:]
        except FileNotFoundError:
            return ""

    async def send(self, message: dict[str, Any], fds: Sequence[int]) -> None:
        """Send a message; raises Unavailable when no zygote takes it."""
        for _ in range(2):  # it may die between the wait and the send
            connection = await self._connected()
            try:
                await connection.send(message, fds)
                return
            except ConnectionError:
                self._ready.clear()
        raise Unavailable("the zygote does not take launches")

    async def _connected(self) -> Connection:
        try:
            async with asyncio.timeout(START_PATIENCE):
                await self._ready.wait()
        except TimeoutError as error:
            raise Unavailable(f"the zygote does not start: {self._last_words()}") from error
        assert self._connection is not None
        return self._connection

    async def teach(self, key: str, profile: dict[str, Any]) -> None:
        """Have the seccomp profile compiled under `key`, unless it is there."""
        await self._connected()
        if key in self._filters:
            self._filters.move_to_end(key)
            return
        self._filters[key] = None
        await self.send({"type": "seccomp", "key": key, "profile": profile}, [])
        if len(self._filters) > FILTERS:
            oldest, _ = self._filters.popitem(last=False)
            await self.send({"type": "forget", "key": oldest}, [])

    async def stop(self) -> None:
        """End the zygote; its supervisors go on."""
        self._stopping = True
        if self._connection is not None:
            self._connection.close()
        if self._pidfd < 0 or self._dead is None:
            return
        try:
            async with asyncio.timeout(STOP_PATIENCE):
                await asyncio.shield(self._dead)
        except TimeoutError:
            log.warning("zygote did not end and is killed")
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            await self._dead
