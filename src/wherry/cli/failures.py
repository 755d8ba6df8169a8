"""How a command ends badly: a text for stderr, an exit status, and what to do next."""

from __future__ import annotations


class Failure(Exception):
    """A command that could not do what was asked. usage: the usage line helps the reader."""

    usage = False
    prefix = ""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


class UsageError(Failure):
    """The command line cannot be understood."""

    usage = True

    def __init__(self, message: str, status: int = 125) -> None:
        super().__init__(message, status)


class StartFailed(Failure):
    """A container or a process in it could not be made or started."""

    prefix = "wherry: Error response from daemon: "


class Rejected(StartFailed):
    """Refused by us, before the engine was asked."""

    prefix = "wherry: "


class Unreachable(Failure):
    """Nobody listens at the engine's address."""


class ApiError(Failure):
    """The engine refused; the text is its message, http its status."""

    prefix = "Error response from daemon: "

    def __init__(self, http: int, message: str) -> None:
        super().__init__(message)
        self.http = http
        self.message = message


class TemplateError(Failure):
    """A template cannot be parsed, or does not fit the data."""
