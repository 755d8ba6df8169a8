"""Backends without an engine, and a server thread around them: what a client sees is then the API's own doing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator

from wherry.api.backends import Backends
from wherry.api.listen import listen
from wherry.api.server import Server
from wherry.errors import Conflict, NotFound, NotModified, SystemFailure
from wherry.kernel.sockets import unsent
from wherry.models.queries import LogsAnswer

ID = "c" * 64
IMAGE = "sha256:" + "a" * 64


def wait_sent(descriptor: int) -> None:
    """Wait, as the supervisor does, until the client has read what was sent before."""
    end = time.monotonic() + 5
    while unsent(descriptor) and time.monotonic() < end:
        time.sleep(0.0002)


def frame(data: bytes, stream: int = 1) -> bytes:
    """Data as the multiplexed stream has it."""
    return struct.pack(">BxxxI", stream, len(data)) + data


def echo(stream, *, tty: bool, greeting: bytes = b"") -> None:
    """Serve a hijacked connection in a thread: greeting, then every byte back until the client's end of input."""

    def work() -> None:
        with socket.socket(fileno=stream.fd) as connection:
            wait_sent(connection.fileno())
            if greeting:
                connection.sendall(greeting if tty else frame(greeting))
            data = stream.early or connection.recv(65536)
            while data:
                connection.sendall(data if tty else frame(data))
                data = connection.recv(65536)
            connection.shutdown(socket.SHUT_WR)

    threading.Thread(target=work, daemon=True).start()


class FakeSystem:
    """SystemBackend."""

    def __init__(self) -> None:
        self.listeners = 0

    async def info(self):
        return {"ID": "fake", "Containers": 0, "Driver": "fake", "ServerVersion": "28.5.2", "OSType": "linux"}

    async def version(self):
        return {"Version": "28.5.2", "ApiVersion": "1.51", "MinAPIVersion": "1.24", "Os": "linux", "Arch": "amd64"}

    async def disk_usage(self, kinds):
        return {"LayersSize": 0, "Images": [], "Containers": [], "Volumes": [], "BuildCache": []}

    async def events(self, *, since, until, filters) -> AsyncIterator[object]:
        self.listeners += 1
        try:
            yield None
            for number in range(3):
                yield {"Type": "container", "Action": "start", "Actor": {"ID": ID, "Attributes": {}}, "time": number}
            if until:
                return
            await asyncio.sleep(3600)
        finally:
            self.listeners -= 1


class FakeContainers:
    """ContainersBackend with one container."""

    def __init__(self) -> None:
        self.created = []
        self.calls = []
        self.started = asyncio.Event()
        self.waiting = 0
        self.tty = False
        self.lines: list[bytes] = [frame(b"one\n"), frame(b"two\n", 2)]
        self.log_end = True

    def _find(self, ref):
        if ref not in (ID, ID[:12], "it", "run"):
            raise NotFound(f"No such container: {ref}")

    async def create(self, request, *, name, platform):
        self.created.append((request, name, platform))
        self.tty = request.config.tty
        return {"Id": ID, "Warnings": []}

    async def listing(self, query):
        self.calls.append(query)
        return [{"Id": ID, "Names": ["/it"], "Image": "x", "State": "running", "HostConfig": {"NetworkMode": "none"}}]

    async def inspect(self, ref, *, size=False):
        self._find(ref)
        return {
            "Id": ID,
            "Name": "/it",
            "State": {"Running": True, "Status": "running"},
            "Config": {"Tty": self.tty, "OpenStdin": True},
            "HostConfig": {},
            "NetworkSettings": {"Networks": {}},
        }

    async def start(self, ref):
        self._find(ref)
        if self.started.is_set():
            raise NotModified("running already")
        self.started.set()

    async def stop(self, ref, *, signal, timeout):
        self._find(ref)
        self.calls.append((signal, timeout))

    restart = stop

    async def kill(self, ref, *, signal):
        self._find(ref)
        self.calls.append(signal)

    async def pause(self, ref):
        raise Conflict("already paused")

    async def unpause(self, ref):
        raise SystemFailure("cannot thaw: EIO")

    async def remove(self, ref, *, force, volumes, link):
        self._find(ref)
        self.calls.append((force, volumes, link))

    async def rename(self, ref, name):
        raise ZeroDivisionError("a defect")

    async def resize(self, ref, *, height, width):
        self.calls.append((height, width))

    async def top(self, ref, ps_args):
        return {"Titles": ["PID"], "Processes": [["1"]]}

    async def wait(self, ref, condition):
        self._find(ref)
        self.waiting += 1

        async def result():
            try:
                await self.started.wait()
                return {"StatusCode": 7}
            finally:
                self.waiting -= 1

        return result()

    async def attach(self, ref, query, upgrade):
        self._find(ref)
        self.calls.append(query)
        echo(await upgrade(self.tty), tty=self.tty)

    async def logs(self, ref, query):
        self._find(ref)
        self.calls.append(query)

        async def chunks():
            self.waiting += 1
            try:
                for line in self.lines:
                    yield line
                if query.follow:
                    await asyncio.sleep(3600)
            finally:
                self.waiting -= 1

        return LogsAnswer(self.tty, chunks())

    async def prune(self, filters):
        return {"ContainersDeleted": None, "SpaceReclaimed": 0}


class FakeExecs:
    """ExecBackend: every process prints a kilobyte and what it reads."""

    def __init__(self) -> None:
        self.configs = []

    async def create(self, ref, config):
        self.configs.append(config)
        return {"Id": "e" * 64}

    async def start(self, exec_id, options, upgrade):
        if exec_id != "e" * 64:
            raise NotFound(f"No such exec instance: {exec_id}")
        if options.detach:
            return
        stream = await upgrade(options.tty)
        if self.configs and self.configs[-1].attach_stdin:
            echo(stream, tty=options.tty)
            return

        def work() -> None:
            with socket.socket(fileno=stream.fd) as connection:
                wait_sent(connection.fileno())
                connection.sendall(frame(b"x" * 1000))

        await asyncio.to_thread(work)

    async def resize(self, exec_id, *, height, width):
        pass

    async def inspect(self, exec_id):
        return {"ID": exec_id, "Running": False, "ExitCode": 3, "Pid": 0, "ProcessConfig": {}}


class FakeImages:
    """ImagesBackend that counts what it is given."""

    def __init__(self) -> None:
        self.loaded = 0
        self.slow = 0.0
        self.failure: Exception | None = None

    async def listing(self, *, all, filters, shared=False):
        return [{"Id": IMAGE, "RepoTags": ["a/b:c"], "Size": 5, "Containers": 1, "Created": 1}]

    async def inspect(self, ref, *, platform):
        if ref != "reg/a/b:c":
            raise NotFound(f"No such image: {ref}")
        self.platform = platform
        return {"Id": IMAGE, "RepoTags": [ref], "Size": 5, "Config": {"User": "me", "Env": None}, "Metadata": {}}

    async def history(self, ref, *, platform):
        return [{"Id": IMAGE}]

    async def tag(self, ref, *, repo, tag):
        self.tagged = (ref, repo, tag)

    async def remove(self, ref, *, force, noprune, platform):
        return [{"Untagged": ref}]

    async def load(self, body, *, quiet, platform):
        def work() -> None:
            while piece := body.read(65536):
                self.loaded += len(piece)
                if self.slow:
                    time.sleep(self.slow)

        yield {"status": "reading"}
        if self.failure:
            raise self.failure
        await asyncio.to_thread(work)
        yield {"stream": f"Loaded {self.loaded} bytes\n"}

    async def import_(self, body, *, repo, tag, message, changes, platform):
        size = len(await asyncio.to_thread(body.read))
        yield {"status": f"{repo}:{tag} {size} {changes} {message}"}

    async def prune(self, filters):
        return {"ImagesDeleted": None, "SpaceReclaimed": 0}


class FakeRegistries:
    """RegistriesBackend."""

    async def pull(self, *, image, tag, platform, auth):
        raise NotFound(f"no registry for {image}:{tag}")
        yield {}


class FakeVolumes:
    """VolumesBackend."""

    def __init__(self) -> None:
        self.calls = []

    async def create(self, request):
        self.calls.append(request)
        return {"Name": request.name or "v" * 64, "Driver": "local", "Mountpoint": "/v", "Labels": request.labels}

    async def listing(self, filters):
        self.calls.append(filters)
        return {"Volumes": [], "Warnings": None}

    async def inspect(self, name):
        raise NotFound(f"get {name}: no such volume")

    async def remove(self, name, *, force):
        self.calls.append((name, force))

    async def prune(self, filters):
        self.calls.append(filters)
        return {"VolumesDeleted": [], "SpaceReclaimed": 0}


class FakeNetworks:
    """NetworksBackend."""

    async def listing(self, filters):
        return []

    async def inspect(self, ref):
        raise NotFound(f"network {ref} not found")


class FakePorts:
    """PortsBackend."""

    async def listing(self, ref):
        return {}

    async def add(self, ref, bindings):
        return {}

    async def remove(self, ref, bindings):
        return {}


class FakeCheck:
    """CheckBackend."""

    async def check(self, *, deep, repair):
        return {"Deep": deep, "Findings": [], "Bytes": {"total": int(repair)}}


class FakeMounts:
    """MountsBackend."""

    async def listing(self, ref):
        return {"Mounts": []}

    async def add(self, ref, asked):
        return {"Mounts": [each.target for each in asked.mounts or ()]}

    async def remove(self, ref, target, *, force):
        return {"Mounts": []}


class FakeBackups:
    """BackupsBackend."""

    async def save(self, name, base, *, freeze):
        async def chunks():
            yield b"archive"

        return chunks()

    async def restore(self, name, body):
        return {"Name": name, "Id": "1", "Taken": 0}

    async def snapshot(self, name, new):
        return {"Name": new}


class FakeXray:
    """XrayBackend."""

    async def look(self, ref):
        if ref != "it":
            raise NotFound(f"No such container: {ref}")
        return {"Schema": 1, "Id": ID, "Name": "it"}

    async def network(self, ref):
        if ref != "net":
            raise NotFound(f"network {ref} not found")
        return {"Schema": 1, "Id": ID, "Name": "net"}


def backends() -> Backends:
    """A fresh set."""
    return Backends(
        system=FakeSystem(),
        containers=FakeContainers(),
        execs=FakeExecs(),
        images=FakeImages(),
        registries=FakeRegistries(),
        networks=FakeNetworks(),
        volumes=FakeVolumes(),
        ports=FakePorts(),
        backups=FakeBackups(),
        mounts=FakeMounts(),
        check=FakeCheck(),
        xray=FakeXray(),
    )


class Fixture:
    """A server over fakes in a thread of its own. call() runs a coroutine function in its loop."""

    def __init__(self, path: str, loop: asyncio.AbstractEventLoop) -> None:
        self.path = path
        self.url = f"unix://{path}"
        self.loop = loop
        self.backends: Backends
        self.server: Server

    async def start(self) -> None:
        """Make the backends, which belong to the loop, and serve them."""
        self.backends = backends()
        self.server = Server(self.backends)
        for listening in listen(self.url, group=""):
            await self.server.start(listening)

    def call(self, work):
        """Run in the server's loop and return the result."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    def connect(self) -> socket.socket:
        """A raw connection."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(10)
        try:
            connection.connect(self.path)
        except OSError:
            connection.close()
            raise
        return connection

    def exchange(self, data: bytes, *, end: bool = False) -> bytes:
        """Send bytes, optionally a half-close, and return everything until the server closes."""
        with self.connect() as connection:
            with contextlib.suppress(BrokenPipeError):
                connection.sendall(data)
            if end:
                connection.shutdown(socket.SHUT_WR)
            return read_all(connection)

    def until(self, test, limit: float = 5.0) -> bool:
        """Wait until a condition holds."""
        end = time.monotonic() + limit
        while time.monotonic() < end:
            if test():
                return True
            time.sleep(0.005)
        return False


def read_all(connection: socket.socket) -> bytes:
    """Everything until the peer closes."""
    found = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            found += piece
    return bytes(found)


@contextlib.contextmanager
def serving(loop: asyncio.AbstractEventLoop) -> Iterator[Fixture]:
    """Serve fakes on a socket of their own while the block runs."""
    with tempfile.TemporaryDirectory() as folder:
        fixture = Fixture(os.path.join(folder, "api.sock"), loop)
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            fixture.call(fixture.start())
            yield fixture
            fixture.call(fixture.server.close())
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()
