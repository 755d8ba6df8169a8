"""One repository of a registry: its manifests, tags and blobs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar
from urllib.parse import quote, urljoin

import msgspec
from urllib3.response import BaseHTTPResponse

from wherry.errors import EngineError, InvalidArgument, NotFound, SystemFailure, Unavailable
from wherry.models.manifest import DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Descriptor
from wherry.registry.api import ANONYMOUS, Credentials, RegistryConfig, Repository
from wherry.registry.authorization import Authorization
from wherry.registry.cancellation import Cancellation
from wherry.registry.failures import Answered, Broken
from wherry.registry.origins import Origin, Origins
from wherry.registry.reader import Reader, check
from wherry.registry.session import Request, Session
from wherry.registry.wire import BODY_LIMIT, Wire, read_small

Result = TypeVar("Result")

ACCEPTED = (DOCKER_MANIFEST, DOCKER_INDEX, OCI_MANIFEST, OCI_INDEX)
_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+"
_TAGS_LIMIT = 10_000
_PAGES = 1000


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest or an index as its bytes. media_type: what the registry calls it, "" for nothing in particular."""

    data: bytes
    media_type: str
    digest: str


class Whole(Exception):
    """A registry knows only whole blobs."""


class _Tags(msgspec.Struct):
    tags: list[str] | None = None


@dataclass(frozen=True, slots=True)
class Access:
    """All that requests are made with."""

    config: RegistryConfig
    origins: Origins
    wire: Wire
    credentials: Credentials
    cancellation: Cancellation

    def session(self, origin: Origin) -> Session:
        """Return a session; a mirror is told nothing."""
        known = ANONYMOUS if origin.mirror else self.credentials
        authorization = Authorization(self.wire, self.origins, origin, known)
        return Session(
            self.wire, origin, authorization, self.cancellation, self.config.attempts, self.config.pause
        )

    def first(self, host: str, work: Callable[[Session], Result], *, mirrors: bool = False) -> Result:
        """Do something at the first origin of a registry that answers. Raises EngineError, Broken, Answered."""
        found = list(self.origins.of(host, mirrors=mirrors))
        for origin in found[:-1]:
            try:
                return work(self.session(origin))
            except Broken:
                continue  # the last one is the one to tell of, as dockerd does
            except (Answered, EngineError):
                if not origin.mirror:
                    raise
        return work(self.session(found[-1]))


def told(error: Broken | Answered) -> EngineError:
    """Return the error for the user."""
    return error.told() if isinstance(error, Answered) else Unavailable(str(error))


class Remote:
    """A repository, at the origin that has answered first. Raises EngineErrors."""

    def __init__(self, access: Access, repository: Repository, *actions: str) -> None:
        """actions: what we want to do there, pull or push."""
        self._access = access
        self.repository = repository
        self._mirrors = "push" not in actions
        self.scopes = (f"repository:{repository.path}:{','.join(actions) or 'pull'}",)
        self._session: Session | None = None

    @property
    def path(self) -> str:
        """The beginning of the paths of this repository's things."""
        return f"/v2/{quote(self.repository.path)}"

    def request(self, method: str, path: str, *expected: int, **headers: str) -> tuple[BaseHTTPResponse, bytes]:
        """Make a short request. path: after the repository's. Raises Answered and Broken, too."""
        request = Request(method, f"{self.path}{path}", self.scopes, headers)
        if self._session is not None:
            return self._session.small(request, *expected)

        def work(session: Session) -> tuple[BaseHTTPResponse, bytes]:
            answer = session.small(request, *expected)
            self._session = session
            return answer

        return self._access.first(self.repository.host, work, mirrors=self._mirrors)

    @property
    def session(self) -> Session:
        """The session with the origin that answers."""
        if self._session is None:
            try:
                self.request("GET", "/tags/list?n=1", 200, 404)
            except (Answered, Broken) as error:
                raise told(error) from error
        assert self._session is not None
        return self._session

    def manifest(self, reference: str, shown: str) -> Manifest:
        """Return a manifest or an index by its tag or digest. shown: what the user asked for."""
        try:
            response, data = self.request("GET", f"/manifests/{reference}", Accept=", ".join(ACCEPTED))
        except Answered as error:
            raise self._refused(error, shown) from error
        except Broken as error:
            raise told(error) from error
        media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if media_type.startswith(_SCHEMA1):
            raise InvalidArgument(
                f"{shown} is in Docker Image manifest version 2, schema 1, which has no digests of its content and is "
                "not supported any more. Its author has to push it again with a newer Docker: "
                "https://docs.docker.com/go/deprecated-image-specs/"
            )
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        for wanted in (reference, response.headers.get("Docker-Content-Digest", "")):
            if wanted.startswith("sha256:") and wanted != digest:
                raise InvalidArgument(f"manifest verification failed for digest {wanted[:71]}")
        return Manifest(data, media_type if media_type in ACCEPTED else "", digest)

    def _refused(self, error: Answered, shown: str) -> EngineError:
        texts = "\n".join(error.texts)
        if "denied" in texts or (error.status in (401, 403) and self._access.credentials == ANONYMOUS):
            return NotFound(
                f"pull access denied for {shown}, repository does not exist or may require 'docker login': {error}"
            )
        if error.status == 404:
            return NotFound(f"manifest for {shown} not found: {texts or 'manifest unknown: manifest unknown'}")
        return told(error)

    def child(self, entry: Descriptor, shown: str) -> Manifest:
        """Return the manifest that an index names."""
        found = self.manifest(check(entry).digest, shown)
        if len(found.data) != entry.size:
            raise InvalidArgument(f"manifest {entry.digest} has {len(found.data)} bytes, its index says {entry.size}")
        return found

    def small_blob(self, blob: Descriptor) -> bytes:
        """Return a blob of a few bytes, verified."""
        if check(blob).size > BODY_LIMIT:
            raise InvalidArgument(f"{blob.digest} has {blob.size} bytes; more than {BODY_LIMIT} are not accepted here")
        try:
            _, data = self.request("GET", f"/blobs/{blob.digest}")
        except (Answered, Broken) as error:
            raise told(error) from error
        if len(data) != blob.size or f"sha256:{hashlib.sha256(data).hexdigest()}" != blob.digest:
            raise InvalidArgument(f"image config verification failed for digest {blob.digest}")
        return data

    def reader(self, blob: Descriptor, progress: Callable[[int], None], cancellation: Cancellation) -> Reader:
        """Return a blob to read from; what cancels that is its own, for it may be read for somebody else, too."""
        request = Request("GET", f"{self.path}/blobs/{check(blob).digest}", self.scopes)
        return Reader(replace(self.session, cancellation=cancellation), request, blob, progress)

    def part(self, blob: Descriptor, start: int, end: int) -> bytes:
        """Return the bytes of a blob from `start` up to `end`, unverified: only the whole has the digest.

        Raises Whole when the registry does not send parts.
        """
        wanted = f"bytes {start}-{end - 1}/{check(blob).size}"
        headers = {"Range": f"bytes={start}-{end - 1}"}
        request = Request("GET", f"{self.path}/blobs/{blob.digest}", self.scopes, headers)

        def once() -> bytes:
            response = self.session.send(request, 200, 206)
            if response.status == 200 or response.headers.get("Content-Range", "").strip() != wanted:
                response.close()  # what it sends is not read: it may be the whole blob
                raise Whole(f"the registry does not send parts of {blob.digest}")
            return read_small(response, end - start)

        try:
            data = self.session.again(once)
        except (Answered, Broken) as error:
            raise told(error) from error
        if len(data) != end - start:
            raise Whole(f"the registry sent {len(data)} bytes of {blob.digest} instead of {end - start}")
        return data

    def tags(self) -> list[str]:
        """Return all tags, in the registry's order."""
        found: list[str] = []
        url = "/tags/list"
        try:
            for _ in range(_PAGES):
                response, data = self.request("GET", url)
                found += _decoded(data)
                link = _next(response.headers.get("Link", ""))
                if not link or len(found) > _TAGS_LIMIT:
                    break
                # only the query of what it names: the rest is ours to know
                url = f"/tags/list?{urljoin(self.path, link).partition('?')[2]}"
        except (Answered, Broken) as error:
            raise told(error) from error
        if len(found) > _TAGS_LIMIT:
            raise InvalidArgument(f"{self.repository.path} has more than {_TAGS_LIMIT} tags")
        return found


def _decoded(data: bytes) -> list[str]:
    try:
        return msgspec.json.decode(data, type=_Tags).tags or []
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise SystemFailure(f"cannot read the registry's list of tags: {error}") from error


def _next(link: str) -> str:
    """Return the target of <URL>; rel="next" (RFC 8288)."""
    target, _, rest = link.partition(">")
    return target.strip().removeprefix("<") if 'rel="next"' in rest or "rel=next" in rest else ""
