"""The streams of one process: its stdio or terminal, its log, and the clients attached to them."""

from __future__ import annotations

import errno
import os
import termios
from collections.abc import Callable
from typing import Any, Protocol

from wherry.runtime.client import BACKLOG, CHUNK, STDERR, STDOUT, Client
from wherry.runtime.flow import Flow
from wherry.runtime.poller import READ, WRITE, Poller
from wherry.runtime.wire import AttachOptions

STALL = 10.0  # a full client that reads nothing for so long is dropped
_NAMES = {STDOUT: "stdout", STDERR: "stderr"}


class Log(Protocol):
    """What a session writes output to."""

    def write(self, stream: str, data: bytes) -> None:
        """Log what was read from `stream`."""

    def close(self) -> None:
        """Log what is unended and end the log."""

    @property
    def full(self) -> bool:
        """Whether output has to wait; `client_room` is called when that may have ended."""


class Input:
    """The way into a process: a pipe or terminal that is never waited for."""

    def __init__(self, poller: Poller, fd: int, on_room: Callable[[], None]) -> None:
        self._poller = poller
        self._fd = fd
        self._on_room = on_room
        self._ending = False
        self._pending = b""
        os.set_blocking(fd, False)

    @property
    def full(self) -> bool:
        """Whether bytes still wait for the process to read."""
        return bool(self._pending)

    def write(self, data: bytes) -> None:
        """Pass on `data`, keeping what does not fit for later."""
        if self._fd < 0 or self._ending:
            return
        self._pending += data
        self._flush()

    def _flush(self) -> None:
        try:
            while self._pending:
                self._pending = self._pending[os.write(self._fd, self._pending) :]
        except BlockingIOError:
            self._poller.watch(self._fd, WRITE, lambda events: self._flush())
            return
        except OSError:  # EPIPE, EIO: the process has closed its side, as it may
            self.close()
            return
        self._poller.forget(self._fd)
        if self._ending:
            self.close()
        self._on_room()

    def end(self) -> None:
        """Close once all is passed on."""
        self._ending = True
        if not self._pending:
            self.close()

    def close(self) -> None:
        """Close now; further input is discarded."""
        if self._fd >= 0:
            self._poller.forget(self._fd)
            os.close(self._fd)
            self._fd = -1
            self._pending = b""
            self._on_room()


class Session:
    """Connects one process with its log and clients. Output is read only while no client holds it up.

    stdin: clients may give input. once: end stdin when a client's input ends. patient: wait without limit for a
    client that does not read.
    """

    def __init__(
        self, poller: Poller, *, terminal: bool, log: Log | None, stdin: bool, once: bool, patient: bool
    ) -> None:
        self._poller = poller
        self._terminal = terminal
        self._log = log
        self._stdin = stdin
        self._once = once
        self._patient = patient
        self._input: Input | None = None
        self._early = b""  # input that came before the terminal
        self._outputs: dict[int, int] = {}  # stream -> descriptor
        self._flows: dict[int, Flow] = {}  # of the pipes among them
        self._clients: list[Client] = []
        self._held_up = False
        self._detached = 0  # clients that left by their keys before somebody listened
        self._on_detach: Callable[[], object] | None = None
        self.on_output_end: Callable[[], None] = lambda: None
        self.on_log_failure: Callable[[OSError], object] = lambda error: None

    @classmethod
    def without_streams(cls, poller: Poller) -> Session:
        """Return the session of a process whose streams are none of ours."""
        return cls(poller, terminal=False, log=None, stdin=False, once=False, patient=False)

    # Descriptors of the process

    def make_pipes(self, *, output: bool) -> tuple[int, int, int]:
        """Open the three descriptors for the process; /dev/null stands in for what nobody wants."""
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        child = [null, null, null]
        if self._stdin:
            child[0], write = os.pipe2(os.O_CLOEXEC)
            self._input = Input(self._poller, write, self._input_room)
        if output:
            for stream in (STDOUT, STDERR):
                read, child[stream] = os.pipe2(os.O_CLOEXEC)
                self._add_output(stream, read)
                self._flows[stream] = Flow(self._poller, read)
        if null not in child:
            os.close(null)
        return child[0], child[1], child[2]

    def set_console(self, master: int) -> None:
        """Take over the master side of the process's terminal."""
        self._input = Input(self._poller, os.dup(master), self._input_room)
        self._add_output(STDOUT, master)
        early, self._early = self._early, b""
        self._feed(early)
        if not self._input.full:
            self._input_room()

    def _add_output(self, stream: int, fd: int) -> None:
        os.set_blocking(fd, False)
        self._outputs[stream] = fd
        self._watch(stream)

    def resize(self, height: int, width: int) -> None:
        """Set the terminal's size; raises OSError (ENOTTY without a terminal), ValueError for more than 16 bits."""
        if not self._terminal or STDOUT not in self._outputs:
            raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))
        if not (0 <= height < 1 << 16 and 0 <= width < 1 << 16):
            raise ValueError(f"no terminal has {height} lines of {width} characters")
        termios.tcsetwinsize(self._outputs[STDOUT], (height, width))

    # Output

    def _watch(self, stream: int) -> None:
        fd = self._outputs[stream]
        if self._held_up:
            self._poller.forget(fd)  # a hangup would otherwise be told again and again
        else:
            self._poller.watch(fd, READ, lambda events: self._read(stream))

    def _read(self, stream: int) -> bool:
        """Read once; returns whether there may be more."""
        fd = self._outputs.get(stream)
        if fd is None:
            return False
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return False
        except OSError:  # EIO: the last process with the terminal open has closed it
            data = b""
        if data:
            self._deliver(stream, data)
            if flow := self._flows.get(stream):
                flow.passed(len(data), emptied=len(data) < CHUNK)
        else:
            self._end_output(stream)
        return bool(data)

    def _deliver(self, stream: int, data: bytes) -> None:
        if self._log is not None:
            try:
                self._log.write(_NAMES[stream], data)
            except OSError as error:
                self.on_log_failure(error)
        for client in tuple(self._clients):
            client.send(stream, data)
        if not self._held_up and self._is_full():
            self._hold_up()

    def _is_full(self) -> bool:
        if self._log is not None and self._log.full:
            return True
        return any(client.backlog > BACKLOG for client in self._clients)

    def _end_output(self, stream: int) -> None:
        self._close_output(stream)
        if not self._outputs:
            self.on_output_end()

    def _close_output(self, stream: int) -> None:
        fd = self._outputs.pop(stream)
        if flow := self._flows.pop(stream, None):
            flow.close()
        self._poller.forget(fd)
        os.close(fd)

    def drain(self) -> None:
        """Read what is left of the output right now."""
        for stream in tuple(self._outputs):
            while self._read(stream):
                pass

    @property
    def output_open(self) -> bool:
        """Whether somebody may still write output."""
        return bool(self._outputs)

    # Slow clients and logs

    def _hold_up(self) -> None:
        self._held_up = True
        for stream in self._outputs:
            self._watch(stream)
        if not self._patient:
            self._time_stall([(client, client.progress) for client in self._clients])

    def _time_stall(self, seen: list[tuple[Client, int]]) -> None:
        def check() -> None:
            for client, progress in seen:
                if client.open and client.backlog > BACKLOG and client.progress == progress:
                    client.close()
                    self._remove(client)
            self.client_room()
            if self._held_up:
                self._time_stall([(client, client.progress) for client in self._clients])

        self._poller.after(STALL, check)

    def client_room(self) -> None:
        """Go on reading output when neither a client nor the log holds it up any more."""
        if self._held_up and not self._is_full():
            self._held_up = False
            for stream in self._outputs:
                self._watch(stream)

    # Clients

    def attach(self, fd: int, options: AttachOptions) -> None:
        """Take over the connected socket `fd` as a client; raises ValueError for wrong detach keys."""
        if not self._stdin:
            options = AttachOptions(False, options.stdout, options.stderr, options.detach_keys)
        client = Client(self._poller, fd, options, terminal=self._terminal)
        client.on_input = lambda data: self._feed(data)
        client.on_end = lambda closed: self._input_end(client, closed)
        client.on_room = self.client_room
        client.on_detach = self._client_detached
        self._clients.append(client)
        client.feed(options.early)

    def _client_detached(self) -> None:
        if self._on_detach is None:
            self._detached += 1
        else:
            self._on_detach()

    def tell_detach(self, tell: Callable[[dict[str, Any]], object], exec_id: str) -> None:
        """Tell of each client that leaves by its detach keys, and of those that have done so already."""
        self._on_detach = lambda: tell({"type": "detached", "exec": exec_id})
        for _ in range(self._detached):
            self._on_detach()

    def _feed(self, data: bytes) -> None:
        if self._input is None:
            self._early += data
        else:
            self._input.write(data)
        if self._input is None or self._input.full:
            for client in self._clients:
                client.pause()

    def _input_room(self) -> None:
        for client in self._clients:
            client.resume()

    def _input_end(self, client: Client, closed: bool) -> None:
        ends_stdin = self._once and not self._terminal
        if ends_stdin and client.has_stdin:
            self.close_stdin()
        if closed or not ends_stdin:
            client.finish()
            self._remove(client)

    def _remove(self, client: Client) -> None:
        if client in self._clients:
            self._clients.remove(client)
        self.client_room()

    def close_stdin(self) -> None:
        """End the process's input after what was already sent; a terminal has no such end."""
        if self._input is not None and not self._terminal:
            self._input.end()

    # End

    def abandon(self) -> None:
        """Let go of everything, of clients without ending their streams: the daemon has more to tell them."""
        for client in self._clients:
            client.close()
        self.finish()

    def finish(self) -> list[Client]:
        """Stop the streams, end the log; return the clients that still have something to read."""
        for stream in tuple(self._outputs):
            self._close_output(stream)
        if self._input is not None:
            self._input.close()
        if self._log is not None:
            try:
                self._log.close()
            except OSError as error:
                self.on_log_failure(error)
            self._log = None
        for client in self._clients:
            client.finish()
        return [client for client in self._clients if client.open]
