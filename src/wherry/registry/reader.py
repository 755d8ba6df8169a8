"""A blob as it comes from a registry: a source to read from that goes on where a connection broke.

    200 Content-Length N           the whole blob
    206 Content-Range bytes M-N/S  the rest, after a Range header; a registry that ignores it answers 200, and what is
                                   known already is read over

What has been read is the blob only when `finish` has returned: it is digested on its way.
"""

from __future__ import annotations

import hashlib
import re
import socket
import time
from collections.abc import Callable

from urllib3 import exceptions
from urllib3.response import BaseHTTPResponse

from wherry.errors import InvalidArgument
from wherry.models.manifest import Descriptor
from wherry.registry.failures import Answered, Broken
from wherry.registry.session import RETRY_AFTER_LIMIT, Request, Session
from wherry.registry.wire import PIECE, reason

_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(?:\d{1,19}|\*)\Z")
_SLOWEST = 256
"""Bytes per second; whoever sends less keeps a download from the others."""
PACE_SECONDS = 60.0
"""Over which it is measured."""
_RESUMES = 100


class Damaged(Exception):
    """The bytes are not the blob's."""


class Reader:
    """Reads one blob. told: is called with the bytes that are there, now and then."""

    def __init__(self, session: Session, request: Request, blob: Descriptor, told: Callable[[int], None]) -> None:
        self._session = session
        self._request = request
        self._blob = blob
        self._told = told
        self._digest = hashlib.sha256()
        self._done = 0
        self._skip = 0
        self._response: BaseHTTPResponse | None = None
        self._failed = 0
        self._mark, self._since = time.monotonic(), 0
        self.resumes = 0

    def read(self, size: int, /) -> bytes:
        """Return some bytes, at most `size`; b"" when all are there. Raises EngineError, Damaged, or Broken at last."""
        while self._done < self._blob.size:
            try:
                piece = self._piece(min(size, PIECE))
            except (Broken, Answered) as error:
                self._again(error)
                continue
            if piece:
                self._failed = 0
                self._digest.update(piece)
                self._done += len(piece)
                self._told(self._done)
                return piece
        return b""

    def _piece(self, size: int) -> bytes:
        """Return bytes that are new; b"" when what came was known."""
        if self._response is None:
            self._open()
        response = self._response
        assert response is not None
        self._session.cancellation.check()
        try:
            with self._session.cancellation.stopping(self._stop):
                data = response.read1(size)
        except (exceptions.HTTPError, OSError) as error:
            self._session.cancellation.check()
            why = reason(error) if isinstance(error, exceptions.HTTPError) else str(error)
            raise Broken(f"download of {self._blob.digest} broke off at {self._done} bytes: {why}") from error
        if not data:
            raise Broken(f"download of {self._blob.digest} ended at {self._done} of {self._blob.size} bytes")
        self._check_pace(len(data))
        over = min(self._skip, len(data))
        self._skip -= over
        data = data[over:]
        if self._done + len(data) > self._blob.size:
            raise Damaged(f"the registry sent more than the {self._blob.size} bytes of {self._blob.digest}")
        return data

    def _check_pace(self, size: int) -> None:
        self._since += size
        now = time.monotonic()
        if now - self._mark < PACE_SECONDS:
            return
        if self._since < _SLOWEST * PACE_SECONDS:
            raise Broken(f"download of {self._blob.digest}: less than {_SLOWEST} bytes per second")
        self._mark, self._since = now, 0

    def _open(self) -> None:
        headers = dict(self._request.headers)
        if self._done:
            headers["Range"] = f"bytes={self._done}-"
        request = Request("GET", self._request.url, self._request.scopes, headers)
        response = self._session.send(request, 200, 206)
        try:
            self._skip = self._place(response)
        except BaseException:
            response.close()
            raise
        self._response = response
        self._mark, self._since = time.monotonic(), 0

    def _place(self, response: BaseHTTPResponse) -> int:
        """Return how many bytes of the answer are known."""
        if response.status == 206:
            match = _RANGE.match(response.headers.get("Content-Range", ""))
            if not self._done or not match or int(match[1]) != self._done:
                raise Damaged(f"the registry sent another part of {self._blob.digest} than was asked for")
            return 0
        length = response.headers.get("Content-Length", "")
        if length.isdigit() and int(length[:20]) != self._blob.size:
            size = f"where the manifest says {self._blob.size}"
            raise Damaged(f"the registry has {length[:20]} bytes as {self._blob.digest}, {size}")
        return self._done

    def _stop(self) -> None:
        """Wake the thread that reads: the socket is shut down under it."""
        connection = getattr(self._response, "connection", None)
        sock = getattr(connection, "sock", None)
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it has ended by itself

    def _again(self, error: Broken | Answered) -> None:
        """Wait before another attempt, or raise."""
        self.close()
        self._failed += 1
        self.resumes += 1
        over = self._failed >= self._session.attempts or self.resumes > _RESUMES
        if over or (isinstance(error, Broken) and error.connecting and not self._done):
            raise error
        pause = self._session.pause * self._failed
        if isinstance(error, Answered):
            if not error.passing or (error.pause or 0) > RETRY_AFTER_LIMIT:
                raise error
            pause = pause if error.pause is None else error.pause
        self._session.cancellation.wait(pause)

    def finish(self) -> None:
        """Read what is left, and compare. Raises Damaged."""
        while self.read(PIECE):
            pass
        self.close()
        found = f"sha256:{self._digest.hexdigest()}"
        if found != self._blob.digest:
            raise Damaged(f"filesystem layer verification failed for digest {self._blob.digest}")

    def close(self) -> None:
        """End the connection, unless all of its answer has been read."""
        response, self._response = self._response, None
        if response is None:
            return
        if self._done == self._blob.size and not self._skip and response.length_remaining == 0:
            response.release_conn()
        else:
            response.close()


def check(blob: Descriptor) -> Descriptor:
    """Return a descriptor whose digest we can compute. Raises InvalidArgument."""
    algorithm, _, digits = blob.digest.partition(":")
    if algorithm != "sha256":
        raise InvalidArgument(f"unsupported digest algorithm {algorithm[:40]!r}: only sha256 is supported")
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise InvalidArgument(f"invalid digest {blob.digest[:100]!r}")
    if blob.size < 0:
        raise InvalidArgument(f"invalid size {blob.size} of {blob.digest}")
    return blob
