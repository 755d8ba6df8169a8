"""The log of one container, as its session sees it: what is read goes to one or two sinks.

A file that is neither compressed nor non-blocking is written by the supervisor itself, since nothing is faster. All
else has a log process, see `outlet`. Drivers are imported when they are used: their memory is paid once per container.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from wherry.runtime.logdrivers.blocks import Cutter
from wherry.runtime.logdrivers.jsonfile import JsonFile
from wherry.runtime.logdrivers.outlet import Outlet, Sink
from wherry.runtime.poller import Poller
from wherry.runtime.wire import LogTarget, SetupFailure

_SENDERS = ("syslog", "journald", "gelf", "fluentd")


class ContainerLog:
    """Cuts the output and hands it to the sinks."""

    def __init__(self, target: LogTarget) -> None:
        self._cutter = Cutter()
        self._sinks: list[Sink] = []
        self._file: Outlet | None = None
        self._sender: Outlet | None = None
        try:
            self._open(target)
        except BaseException:
            self._close_all()
            raise

    def _open(self, target: LogTarget) -> None:
        if target.driver in _SENDERS:
            self._sender = Outlet(partial(_open_sender, target), target.buffer)
        if not target.path:
            return
        buffer = 0 if self._sender else target.buffer
        if target.compress or buffer:
            self._file = Outlet(partial(_open_file, target), buffer)
        else:
            self._sinks.append(_open_file(target))

    @property
    def helpers(self) -> set[int]:
        """The log processes."""
        return {outlet.pid for outlet in (self._file, self._sender) if outlet}

    @property
    def full(self) -> bool:
        """Whether the output has to wait for a log process."""
        return any(outlet.full for outlet in (self._file, self._sender) if outlet)

    def connect(self, poller: Poller, on_room: Callable[[], object], on_failure: Callable[[OSError], object]) -> None:
        """Use the poller; on_room: called when `full` may have ended; on_failure: for what a log process tells."""
        for outlet in (self._file, self._sender):
            if outlet:
                outlet.connect(poller, on_room, on_failure)

    def write(self, stream: str, data: bytes) -> None:
        """Log what was read from `stream`; an unended line waits for its end. Raises OSError."""
        self._put(stream, self._cutter.cut(stream, data))

    def _put(self, stream: str, blocks: list[bytes]) -> None:
        if not blocks:
            return
        at = time.time_ns()
        for outlet in (self._file, self._sender):
            if outlet:
                outlet.put(stream, at, blocks)
        for sink in self._sinks:
            sink.put(stream, at, blocks)

    def end(self, stream: str) -> None:
        """Log the unended last line of `stream`."""
        self._put(stream, self._cutter.end(stream))

    def close(self) -> None:
        """Log what is unended and complete the files; a receiver is given what is left in `linger`."""
        try:
            self.end("stdout")
            self.end("stderr")
        finally:
            self._close_all()

    def _close_all(self) -> None:
        for sink in self._sinks:
            sink.close()
        if self._file:
            self._file.close(wait=True)
        if self._sender:
            self._sender.close(wait=False)

    def linger(self) -> None:
        """Give the sender's log process what is still waiting, within ten seconds."""
        if self._sender:
            self._sender.finish()


def open_log(target: LogTarget) -> ContainerLog | SetupFailure | None:
    """Open a log before anything of the container is made, None for the driver none; a failure ends the start."""
    if target.driver == "none":
        return None
    try:
        return ContainerLog(target)
    except OSError as error:
        where = f"open {error.filename}: " if error.filename else ""
        text = where + (error.strerror or str(error))
        return SetupFailure("log", "open the log", error.errno or 0, str(error.filename or ""), text)


def _open_file(target: LogTarget) -> Sink:
    if target.driver == "json-file":
        return JsonFile(target)
    from wherry.runtime.logdrivers.localfile import LocalFile

    return LocalFile(replace(target, attrs={}))


def _open_sender(target: LogTarget) -> Sink:
    if target.driver == "syslog":
        from wherry.runtime.logdrivers.syslog import Syslog

        return Syslog(target.options)
    if target.driver == "journald":
        from wherry.runtime.logdrivers.journald import Journald

        return Journald(target.options)
    if target.driver == "gelf":
        from wherry.runtime.logdrivers.gelf import Gelf

        return Gelf(target.options)
    from wherry.runtime.logdrivers.fluentd import Fluentd

    return Fluentd(target.options)
