"""Putting blobs and manifests into a repository.

    HEAD  blobs/DIGEST                       200: it is there
    POST  blobs/uploads/?mount=DIGEST&from=  201: it is there now, from another repository of the registry
    POST  blobs/uploads/                     202 and a Location, for
    PATCH LOCATION                           the bytes, as they are made; 202 and the next Location, for
    PUT   LOCATION?digest=                   201
    PUT   manifests/TAG                      201
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from urllib.parse import quote, urljoin, urlsplit

from urllib3.response import BaseHTTPResponse

from wherry.errors import SystemFailure
from wherry.models.manifest import Descriptor
from wherry.registry.failures import Answered, Broken
from wherry.registry.remote import Manifest, Remote, told
from wherry.registry.session import Request

_OCTETS = {"Content-Type": "application/octet-stream"}


class Uploads:
    """What goes into one repository. Raises EngineErrors."""

    def __init__(self, remote: Remote) -> None:
        self.remote = remote

    def has(self, digest: str) -> bool:
        """Return whether a blob is there."""
        try:
            self.remote.request("HEAD", f"/blobs/{digest}", 200)
        except Answered as error:
            if error.status == 404:
                return False
            raise told(error) from error
        except Broken as error:
            raise told(error) from error
        return True

    def mount(self, digest: str, source: str) -> bool:
        """Take a blob over from another repository of the same registry; False when it does not do that."""
        scopes = (*self.remote.scopes, f"repository:{source}:pull")
        query = f"mount={quote(digest, safe='')}&from={quote(source, safe='')}"
        request = Request("POST", f"{self.remote.path}/blobs/uploads/?{query}", scopes, {"Content-Length": "0"})
        session = self.remote.session
        try:
            response, _ = session.small(request, 201, 202)
        except (Answered, Broken):
            return False  # it may not be ours to read there; it is sent instead
        if response.status == 201:
            return True
        self._give_up(self._location(request.url, response))
        return False

    def _give_up(self, location: str) -> None:
        request = Request("DELETE", location, self.remote.scopes)
        try:
            self.remote.session.small(request, 204, 200, 202)
        except (Answered, Broken, SystemFailure):
            pass  # registries forget what nobody goes on with

    def _location(self, url: str, response: BaseHTTPResponse) -> str:
        location = response.headers.get("Location", "")
        if not location:
            raise SystemFailure("the registry does not say where to send a blob to (no Location)")
        session = self.remote.session
        return session.checked(urljoin(session.absolute(url), location))

    def put(self, make: Callable[[], Iterator[bytes]]) -> tuple[str, int]:
        """Send a blob that is made on its way; return digest and size. make: begins anew at each attempt."""
        try:
            return self.remote.session.again(lambda: self._put(make))
        except (Answered, Broken) as error:
            raise told(error) from error

    def _put(self, make: Callable[[], Iterator[bytes]]) -> tuple[str, int]:
        session, scopes = self.remote.session, self.remote.scopes
        begin = Request("POST", f"{self.remote.path}/blobs/uploads/", scopes, {"Content-Length": "0"})
        response, _ = session.small(begin, 202)
        location = self._location(begin.url, response)
        try:
            sent = _Sent(make)
            patch = Request("PATCH", location, scopes, _OCTETS, sent.chunks)
            response = session.send(patch, 202, 201, 204)
            response.drain_conn()
            location = self._location(location, response)
            digest = f"sha256:{sent.digest.hexdigest()}"
            self._finish(location, digest)
        except BaseException:
            self._give_up(location)
            raise
        return digest, sent.size

    def _finish(self, location: str, digest: str) -> None:
        separator = "&" if urlsplit(location).query else "?"
        url = f"{location}{separator}digest={quote(digest, safe='')}"
        request = Request("PUT", url, self.remote.scopes, {"Content-Length": "0", **_OCTETS})
        response = self.remote.session.send(request, 201, 204)
        response.drain_conn()
        stored = response.headers.get("Docker-Content-Digest", digest)
        if stored != digest:
            raise SystemFailure(f"the registry has stored {stored[:71]} where {digest} was sent")

    def put_bytes(self, data: bytes) -> Descriptor:
        """Send a small blob, unless it is there."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if not self.has(digest):
            self.put(lambda: iter((data,)))
        return Descriptor(digest, len(data))

    def put_manifest(self, manifest: Manifest, tag: str) -> None:
        """Let a tag mean a manifest, whose blobs are all there."""
        headers = {"Content-Type": manifest.media_type}
        url = f"{self.remote.path}/manifests/{tag}"
        request = Request("PUT", url, self.remote.scopes, headers, lambda: manifest.data)
        try:
            response, _ = self.remote.session.small(request, 201, 202)
        except (Answered, Broken) as error:
            raise told(error) from error
        stored = response.headers.get("Docker-Content-Digest", manifest.digest)
        if stored != manifest.digest:
            raise SystemFailure(f"the registry has stored {stored[:71]} where {manifest.digest} was sent")


class _Sent:
    """Counts and digests what is sent."""

    def __init__(self, make: Callable[[], Iterator[bytes]]) -> None:
        self._make = make
        self.digest = hashlib.sha256()
        self.size = 0

    def chunks(self) -> Iterator[bytes]:
        """Begin: again after a 401, which comes before anything has been read, or after much."""
        self.digest, self.size = hashlib.sha256(), 0
        for chunk in self._make():
            self.digest.update(chunk)
            self.size += len(chunk)
            yield chunk
