"""Attaching to containers and reading their logs."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass

from wherry.containers.catalog import Container, PendingAttach
from wherry.containers.state import check_not_restarting
from wherry.errors import Conflict, InvalidArgument, NotImplementedHere
from wherry.logs import jsonfile, localfile
from wherry.logs import stream as log_stream
from wherry.logs.reader import Reader, Window
from wherry.models.queries import AttachQuery, ClientStream, LogsAnswer, LogsQuery, Upgrade
from wherry.runtime.detach import parse_keys
from wherry.runtime.wire import AttachOptions
from wherry.services import containerlogs
from wherry.services.attachments import Attachments
from wherry.services.chunks import Chunks
from wherry.services.lifecycle import Lifecycle
from wherry.services.pace import at_their_pace
from wherry.services.settings import Settings

DETACH_KEYS = "ctrl-p,ctrl-q"


@dataclass(frozen=True, slots=True)
class Streams:
    """Connects clients with the streams of containers."""

    settings: Settings
    lifecycle: Lifecycle
    attachments: Attachments

    async def attach(self, container: Container, query: AttachQuery, upgrade: Upgrade) -> None:
        """Give a client's connection to the container's supervisor, now or at the next start."""
        status = container.record.state.status
        if status == "paused":
            raise Conflict(f"container {container.name} is paused, unpause the container before attach")
        check_not_restarting(f"container {container.name}", status)
        check_detach_keys(query.detach_keys)
        stream = await upgrade(container.record.config.tty)
        self.lifecycle.publish(container, "attach")
        try:
            if query.logs:
                await self._replay(container, query, stream)
        except ConnectionError:  # the client has left
            os.close(stream.fd)
            return
        except BaseException:
            os.close(stream.fd)
            raise
        if not query.stream:
            os.close(stream.fd)
            return
        options = AttachOptions(
            stdin=query.stdin and container.record.config.open_stdin,
            stdout=query.stdout,
            stderr=query.stderr,
            detach_keys=query.detach_keys or DETACH_KEYS,
            early=stream.early,
        )
        await self._connect(container, PendingAttach(stream.fd, options))

    async def _connect(self, container: Container, attach: PendingAttach) -> None:
        task = container.task
        if task is None or not container.record.state.alive:
            self.attachments.add(container, attach)
            return
        try:
            await task.attach(attach.fd, attach.options)
        finally:
            os.close(attach.fd)

    async def _replay(self, container: Container, query: AttachQuery, stream: ClientStream) -> None:
        wanted = LogsQuery(stdout=query.stdout, stderr=query.stderr)
        async with aclosing(self.logs(container, wanted).chunks) as chunks:
            async for chunk in chunks:
                await at_their_pace(_send_all, stream.fd, chunk)

    def logs(self, container: Container, query: LogsQuery) -> LogsAnswer:
        """Return the container's log as a stream of bytes."""
        record = container.record
        path = containerlogs.file(record, self.settings.container_root(container.id))
        if path is None:
            raise NotImplementedHere("configured logging driver does not support reading")
        if query.tail == 0 and not query.follow:
            return LogsAnswer(record.config.tty, _nothing())
        form_of_file = jsonfile if path.name.endswith("-json.log") else localfile
        window = Window(since=query.since, until=query.until, tail=query.tail)
        form = log_stream.Form(
            framed=not record.config.tty,
            stdout=query.stdout,
            stderr=query.stderr,
            timestamps=query.timestamps,
            details=query.details,
        )
        reader = Reader(str(path), form_of_file, window, timed=query.timestamps)
        if query.follow and record.state.active:
            return LogsAnswer(record.config.tty, _followed(container, reader, form, query.until))
        held = AsyncExitStack()
        held.callback(reader.close)
        return LogsAnswer(record.config.tty, Chunks(log_stream.read(reader, form), held))


def _followed(container: Container, reader: Reader, form: log_stream.Form, until: int) -> AsyncGenerator[bytes, None]:
    """Return what is in the log and what comes until the container has ended."""

    def ended() -> bool:
        return not container.record.state.active

    return log_stream.follow(reader, form, ended=ended, ahead=_ahead, until=until)


def _ahead(made: Generator[bytes, None, None]) -> Chunks[bytes]:
    return Chunks(made, AsyncExitStack())


async def _nothing() -> AsyncGenerator[bytes, None]:
    return
    yield b""


def _send_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def check_detach_keys(text: str) -> None:
    """Raise InvalidArgument for a list of keys that nobody can press."""
    try:
        parse_keys(text)
    except ValueError as error:
        raise InvalidArgument(f"Invalid detach keys ({text}) provided: {error}") from error
