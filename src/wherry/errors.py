"""The closed set of error kinds that cross the engine's layers.

    EngineError
    +-- InvalidArgument      400   the request cannot be understood or is not allowed as it stands
    +-- Unauthorized         401   credentials missing or wrong
    +-- Forbidden            403   understood and refused
    +-- NotFound             404   no such object
    +-- Conflict             409   the object is in a state, or has a name, that forbids this
    +-- NotModified          304   nothing to do (start of a running container, stop of a stopped one)
    +-- NotImplementedHere   501   this engine or this kernel cannot do it
    +-- Unavailable          503   a needed part (zygote, plugin, registry) does not answer
    +-- SystemFailure        500   the kernel or the disk refused; the message says what was tried

A domain raises one of these at its edge, ``raise NotFound("No such container: x") from error``.
The text is what the user reads and what clients match on; it stands beside the raise.
``api/errors.py`` is the one place that maps a kind to an HTTP status.
"""

from __future__ import annotations


class EngineError(Exception):
    """Base of all errors that the engine reports to its users."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidArgument(EngineError):
    """The request cannot be understood or is not allowed as it stands."""


class Unauthorized(EngineError):
    """Credentials are missing or wrong."""


class Forbidden(EngineError):
    """The request was understood and is refused."""


class NotFound(EngineError):
    """There is no such object."""


class Conflict(EngineError):
    """The object's state or name forbids what was asked."""


class NotModified(EngineError):
    """There is nothing to do."""


class NotImplementedHere(EngineError):
    """This engine, or this kernel, cannot do what was asked."""


class Unavailable(EngineError):
    """A part that is needed does not answer."""


class SystemFailure(EngineError):
    """The kernel or the disk refused; the message says what was tried and why it failed."""
