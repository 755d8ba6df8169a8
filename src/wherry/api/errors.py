"""Error kind to HTTP status: the one map, and the form in which an error is told."""

from __future__ import annotations

import logging

from wherry import errors
from wherry.api.answers import Reply, json_reply

log = logging.getLogger(__name__)

STATUS: dict[type[errors.EngineError], int] = {
    errors.InvalidArgument: 400,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.NotModified: 304,
    errors.NotImplementedHere: 501,
    errors.Unavailable: 503,
    errors.SystemFailure: 500,
}


def status_of(error: errors.EngineError) -> int:
    """Return the status of an error by its kind; a kind that is not in the map is ours to mend: 500."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def message_of(error: BaseException, what: str) -> str:
    """Return the sentence for the client; an error that is no EngineError is a defect and is logged with its trace."""
    if isinstance(error, errors.EngineError):
        return error.message
    log.error("unexpected failure", exc_info=error, extra={"request": what})
    return f"{type(error).__name__}: {error}"


def answer(error: Exception, what: str) -> Reply:
    """Return the answer that tells an error."""
    message = message_of(error, what)
    status = status_of(error) if isinstance(error, errors.EngineError) else 500
    if status == 304:
        return Reply(304)
    return json_reply({"message": message}, status)
