"""Requests to one origin of a registry: authorized there and nowhere else, redirected, repeated when that may help."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TypeVar
from urllib.parse import urljoin

from urllib3.response import BaseHTTPResponse

from wherry.errors import SystemFailure
from wherry.registry.authorization import Authorization
from wherry.registry.cancellation import Cancellation
from wherry.registry.failures import Answered, Broken, texts_of
from wherry.registry.origins import Origin, place
from wherry.registry.wire import Body, Wire, read_small

Result = TypeVar("Result")

REDIRECTS = 10
RETRY_AFTER_LIMIT = 60.0
_MOVED = (301, 302, 303, 307, 308)
_ERROR_LIMIT = 64 << 10


@dataclass(frozen=True, slots=True)
class Request:
    """One request. url: whole, or a path of the registry. body: is called for each attempt. scopes: what it needs."""

    method: str
    url: str
    scopes: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Callable[[], Body] | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """attempts, pause: how often and after how many seconds what may pass is tried again."""

    wire: Wire
    origin: Origin
    authorization: Authorization
    cancellation: Cancellation
    attempts: int = 5
    pause: float = 1.0

    def absolute(self, url: str) -> str:
        """Return a whole URL for a path of this registry."""
        return url if "://" in url else f"{self.origin.url}{url}"

    def send(self, request: Request, *expected: int) -> BaseHTTPResponse:
        """Make a request; the body of the answer is yet to be read. Raises Answered for another status, or Broken."""
        self.cancellation.check()
        url = self.absolute(request.url)
        for _ in range(REDIRECTS + 1):
            response = self._authorized(request, url)
            if response.status not in _MOVED or request.method not in ("GET", "HEAD"):
                break
            url = self._follow(url, response)
        else:
            raise SystemFailure(f'{request.method.title()} "{request.url}": stopped after {REDIRECTS} redirects')
        if response.status in expected:
            return response
        raise self._answered(request.method, url, response)

    def _follow(self, url: str, response: BaseHTTPResponse) -> str:
        location = response.headers.get("Location", "")
        response.close()
        if not location:
            raise SystemFailure(f"{url}: a redirect to nowhere")
        return self.checked(urljoin(url, location))

    def checked(self, url: str) -> str:
        """Return a URL that the registry has named. Raises InvalidArgument, and SystemFailure for http after https."""
        scheme, host, _ = place(url)
        if scheme == "http" and self.origin.scheme == "https" and not self.origin.serves(url):
            raise SystemFailure(f"{self.origin.url} sends to {host} by http, which is not followed from https")
        return url

    def _authorized(self, request: Request, url: str) -> BaseHTTPResponse:
        ours = self.origin.serves(url)
        for _ in range(2):
            ours_only = self.authorization.header(request.scopes) if ours else {}
            headers = {**request.headers, **ours_only}
            body = request.body() if request.body else None
            registry = "" if ours else self.origin.url
            response = self.wire.send(request.method, url, headers=headers, body=body, registry=registry)
            what = f'{request.method.title()} "{url}"'
            if response.status != 401 or not ours:
                break
            asks = response.headers.getlist("WWW-Authenticate")
            if not self.authorization.asked(asks, what, told=bool(ours_only)):
                break
            response.close()
        return response

    def _answered(self, method: str, url: str, response: BaseHTTPResponse) -> Answered:
        pause = retry_after(response.headers.get("Retry-After", ""), time.time())
        try:
            texts = texts_of(read_small(response, _ERROR_LIMIT))
        except (Broken, SystemFailure):
            texts = ()  # the status says enough
        if not texts and response.status == 401:
            texts = ("unauthorized: authentication required",)
        return Answered(method, url.partition("?")[0], response.status, texts, pause)

    def small(self, request: Request, *expected: int) -> tuple[BaseHTTPResponse, bytes]:
        """Make a request whose answer is short, again when that may help."""

        def once() -> tuple[BaseHTTPResponse, bytes]:
            response = self.send(request, *(expected or (200,)))
            if request.method == "HEAD":
                response.release_conn()
                return response, b""
            return response, read_small(response)

        return self.again(once)

    def again(self, work: Callable[[], Result]) -> Result:
        """Do something, and again when the reason of its failure may pass."""
        for attempt in range(1, self.attempts + 1):
            try:
                return work()
            except Broken as error:
                if error.connecting or attempt == self.attempts:
                    raise
                self.cancellation.wait(self.pause * attempt)
            except Answered as error:
                if not error.passing or attempt == self.attempts or (error.pause or 0) > RETRY_AFTER_LIMIT:
                    raise
                self.cancellation.wait(self.pause * attempt if error.pause is None else error.pause)
        raise AssertionError("not reached")


def retry_after(text: str, now: float) -> float | None:
    """Return the seconds of a Retry-After header, None when there is none that can be read. now: Unix seconds."""
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(parsedate_to_datetime(text).timestamp() - now, 0.0) if text else None
    except (ValueError, TypeError, OverflowError):
        return None


