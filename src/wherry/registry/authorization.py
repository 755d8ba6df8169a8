"""Saying who we are to one registry: nothing, a name and a password, or a token from the server that it names.

    401 + WWW-Authenticate: Basic    ->  Authorization: Basic, to the registry alone
    401 + WWW-Authenticate: Bearer   ->  GET realm?service=&scope=   with the name and the password
                                         POST realm, grant_type=refresh_token   with an identity token
                                     ->  Authorization: Bearer, to the registry alone

https://distribution.github.io/distribution/spec/auth/token/, .../auth/oauth/
"""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

import msgspec

from wherry.errors import SystemFailure, Unauthorized
from wherry.registry import challenges
from wherry.registry.api import Credentials
from wherry.registry.challenges import Challenge
from wherry.registry.failures import Answered, texts_of
from wherry.registry.origins import Origin, Origins, place
from wherry.registry.wire import Wire, read_small

_SHORTEST = 60
_LONGEST = 3600
_TOKEN_LIMIT = 1 << 20
_CLIENT = "wherry"


class _Answer(msgspec.Struct):
    """What a token server says. expires_in: seconds."""

    token: str = ""
    access_token: str = ""
    expires_in: float = _SHORTEST
    refresh_token: str = ""


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    until: float


class Authorization:
    """What one registry is told; tokens are kept per scope until shortly before they end."""

    def __init__(self, wire: Wire, origins: Origins, origin: Origin, credentials: Credentials) -> None:
        self._wire = wire
        self._origins = origins
        self._origin = origin
        self._credentials = credentials
        self._tokens: dict[str, _Token] = {}
        self._challenge: Challenge | None = None
        self._lock = threading.Lock()
        self.refresh_token = ""
        """What the token server gave for later, instead of a password."""

    def header(self, scopes: Iterable[str]) -> dict[str, str]:
        """Return the header of a request that needs some scopes; empty before the registry has asked."""
        if self._credentials.registry_token:
            return _bearer(self._credentials.registry_token)
        with self._lock:
            challenge = self._challenge
            if challenge is None:
                return {}
            if challenge.scheme == "basic":
                return _basic(self._credentials)
            return _bearer(self._token(challenge, " ".join(sorted(scopes))))

    def asked(self, headers: Iterable[str], what: str, *, told: bool) -> bool:
        """Take note of a 401; return whether another attempt makes sense. what: the request, for the error.

        told: whether the request said who asks. Raises SystemFailure when it wants to know what we do not have.
        """
        if self._credentials.registry_token:
            return False
        offered = challenges.parse(headers)
        bearer = next((each for each in offered if each.scheme == "bearer" and each.parameters.get("realm")), None)
        chosen = bearer or next((each for each in offered if each.scheme == "basic"), None)
        with self._lock:
            if self._challenge is not None and told:
                self._tokens = {}  # one may have ended before its time; a password is not better the second time
                return self._challenge.scheme == "bearer"
            if chosen is None:
                return False
            if chosen is not bearer and not self._credentials.username:
                # 500 as with dockerd: for a 401 the docker CLI asks on the terminal for a password
                raise SystemFailure(f"{what}: no basic auth credentials")
            self._challenge = chosen
        return True

    def _token(self, challenge: Challenge, scope: str) -> str:
        """Return a token, which the lock guards while it is being fetched: all who need it would ask for the same."""
        known = self._tokens.get(scope)
        if known is None or known.until < time.monotonic():
            known = self._tokens[scope] = self._fetch(challenge, scope)
        return known.text

    def _fetch(self, challenge: Challenge, scope: str) -> _Token:
        realm = challenge.parameters["realm"]
        credentials = self._credentials if self._may_know(realm) else Credentials()
        query = {"service": challenge.parameters.get("service", "")}
        if scope:
            query["scope"] = scope
        began = time.monotonic()
        if credentials.identity_token:
            form = query | {
                "grant_type": "refresh_token", "refresh_token": credentials.identity_token, "client_id": _CLIENT,
            }  # fmt: skip
            answer = self._ask("POST", realm, urlencode(form), {"Content-Type": "application/x-www-form-urlencoded"})
        else:
            pairs = [(name, value) for name, value in query.items() if name != "scope" and value]
            pairs += [("scope", each) for each in scope.split(" ") if each]
            if credentials.username:
                pairs.append(("account", credentials.username))
            separator = "&" if urlsplit(realm).query else "?"
            headers = _basic(credentials) if credentials.username else {}
            answer = self._ask("GET", f"{realm}{separator}{urlencode(pairs)}", None, headers)
        token = answer.token or answer.access_token
        if not token or not token.isascii() or not token.isprintable():
            raise Unauthorized(f"authorization server {place(realm)[1]} did not include a token in the response")
        self.refresh_token = answer.refresh_token or self.refresh_token
        lasts = min(max(answer.expires_in, _SHORTEST), _LONGEST)
        return _Token(token, began + lasts * 0.9)

    def _ask(self, method: str, url: str, body: str | None, headers: dict[str, str]) -> _Answer:
        data = body.encode() if body is not None else None
        response = self._wire.send(method, url, headers=headers, body=data, registry=self._origin.url)
        text = read_small(response, _TOKEN_LIMIT)
        shown = url.partition("?")[0]
        if response.status != 200:
            raise Answered(method, shown, response.status, texts_of(text))
        try:
            return msgspec.json.decode(text, type=_Answer)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise SystemFailure(f"unable to decode token response of {shown}: {error}") from error

    def _may_know(self, realm: str) -> bool:
        """Return whether a token server may learn the password."""
        if not self._credentials:
            return False
        scheme, _, _ = place(realm)
        if scheme == "https":
            return True
        return self._origin.serves(realm) or self._origins.is_insecure(urlsplit(realm).netloc)


def _basic(credentials: Credentials) -> dict[str, str]:
    text = base64.b64encode(f"{credentials.username}:{credentials.password}".encode()).decode()
    return {"Authorization": f"Basic {text}"}


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
