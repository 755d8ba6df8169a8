"""POST /auth: whether a registry takes a name and a password."""

from __future__ import annotations

from http import HTTPStatus

from wherry.errors import SystemFailure
from wherry.registry.failures import Answered, Broken
from wherry.registry.remote import Access, told
from wherry.registry.session import Request, Session


def login(access: Access, host: str) -> str:
    """Return the identity token that the token server gives for later, "" for none. Raises EngineErrors."""

    def work(session: Session) -> str:
        try:
            session.small(Request("GET", "/v2/"))
        except Answered as error:
            if error.url.startswith(session.origin.url):
                raise SystemFailure(
                    f"login attempt to {session.origin.url}/v2/ failed with status: {_words(error.status)}"
                ) from error
            raise
        return session.authorization.refresh_token

    try:
        return access.first(host, work)
    except (Answered, Broken) as error:
        raise told(error) from error


def _words(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
