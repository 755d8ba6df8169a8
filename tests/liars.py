"""A registry of the tests' own, in threads of this process, that does what it is told: also what none should."""

from __future__ import annotations

import gzip
import hashlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.tars import config_of

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def descriptor(data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "size": len(data), "digest": digest(data), **more}


class Exchange(BaseHTTPRequestHandler):
    """One request, which the first trick that wants it answers."""

    protocol_version = "HTTP/1.1"
    timeout = 5
    server: Liar

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Answer in good order."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length", 0) or 0)
        self.body = self.rfile.read(length) if length else b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                self.body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        self.server.seen.append((self.command, self.path, dict(self.headers)))
        for trick in list(self.server.tricks):
            if trick(self):
                return
        self._honest()

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

    def _honest(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/v2/":
            return self.reply(200, b"{}")
        kind, _, name = path.rpartition("/")
        if kind.endswith("/manifests") and name in self.server.manifests:
            data, media_type = self.server.manifests[name]
            return self.reply(200, data, Content_Type=media_type, Docker_Content_Digest=digest(data))
        if kind.endswith("/blobs") and name in self.server.blobs:
            return self.blob(self.server.blobs[name])
        if path.endswith("/tags/list"):
            tags = sorted(name for name in self.server.manifests if ":" not in name)
            return self.reply(200, json.dumps({"name": "x", "tags": tags}).encode())
        code = "MANIFEST_UNKNOWN" if "/manifests/" in path else "BLOB_UNKNOWN"
        return self.reply(404, json.dumps({"errors": [{"code": code, "message": "unknown"}]}).encode())

    def blob(self, data: bytes) -> None:
        """Send a blob, or the part that is asked for."""
        wanted = self.headers.get("Range", "")
        if not wanted:
            return self.reply(200, data)
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        start, end = int(first), int(last or len(data) - 1) + 1
        return self.reply(206, data[start:end], Content_Range=f"bytes {start}-{end - 1}/{len(data)}")


Trick = Callable[[Exchange], bool]


class Liar(ThreadingHTTPServer):
    """Serves until the block ends. seen: (method, path, headers) of each request."""

    daemon_threads = False
    request_queue_size = 50

    def __init__(self, address: str = "127.0.0.1", certificate: tuple[Path, Path] | None = None) -> None:
        super().__init__((address, 0), Exchange)
        self.scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
            self.scheme = "https"
        self.host = f"{address}:{self.server_address[1]}"
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[bytes, str]] = {}
        self.tricks: list[Trick] = []
        self.seen: list[tuple[str, str, dict[str, str]]] = []

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away, or has no faith in us, is no news."""

    def put_blob(self, data: bytes) -> str:
        self.blobs[digest(data)] = data
        return digest(data)

    def put_manifest(self, document: dict[str, Any], *names: str, media_type: str = DOCKER_MANIFEST) -> str:
        data = json.dumps(document).encode()
        for name in (*names, digest(data)):
            self.manifests[name] = (data, media_type)
        return digest(data)

    def put_image(self, tars: list[bytes], tag: str = "1", **change: Any) -> str:
        """Offer an image; return the digest of its manifest. change: fields of the manifest; config: its bytes."""
        config = change.pop("config", None) or config_of(tars)
        compress = change.pop("compress", lambda data: gzip.compress(data, 1, mtime=0))
        layers = [compress(data) for data in tars]
        for data in (config, *layers):
            self.put_blob(data)
        document = {
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST,
            "config": descriptor(config, DOCKER_CONFIG),
            "layers": [descriptor(data, change.get("layer_type", DOCKER_LAYER)) for data in layers],
        }
        change.pop("layer_type", None)
        return self.put_manifest(document | change, tag)

    def paths(self, method: str = "GET") -> list[str]:
        return [path for verb, path, _ in self.seen if verb == method]


@contextmanager
def liar(address: str = "127.0.0.1", certificate: tuple[Path, Path] | None = None) -> Iterator[Liar]:
    """Give a registry that answers."""
    server = Liar(address, certificate)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


def on(part: str, answer: Callable[[Exchange], None], times: int = 1_000_000, method: str = "GET") -> Trick:
    """A trick for requests whose path has a part, so many times."""
    left = [times]

    def trick(exchange: Exchange) -> bool:
        if part not in exchange.path or exchange.command != method or not left[0]:
            return False
        left[0] -= 1
        answer(exchange)
        return True

    return trick


def breaking_off(data: bytes, at: int) -> Callable[[Exchange], None]:
    """Promise everything that was asked for, send some, and hang up."""

    def answer(exchange: Exchange) -> None:
        start = int(exchange.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        exchange.send_response(206 if start else 200)
        exchange.send_header("Content-Length", str(len(data) - start))
        if start:
            exchange.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        exchange.end_headers()
        exchange.wfile.write(data[start : start + at])
        exchange.close_connection = True

    return answer
