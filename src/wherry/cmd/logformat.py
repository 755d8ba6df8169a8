"""One event, one line: time="..." level=info msg="..." key=value, as dockerd logs (logfmt).

Values are quoted and escaped, so that no name, path or error text from outside can forge a second line or colour a
terminal: control characters and the Unicode line separators never reach the output.
"""

from __future__ import annotations

import json
import logging
import re
import sys

from wherry.models.times import rfc3339

PLAIN = re.compile(r"[A-Za-z0-9_./:@+-]+", re.ASCII)
STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "taskName", "asctime"}
LEVELS = {"DEBUG": "debug", "INFO": "info", "WARNING": "warning", "ERROR": "error", "CRITICAL": "fatal"}
NAMES = {"debug": "DEBUG", "info": "INFO", "warn": "WARNING", "error": "ERROR", "fatal": "CRITICAL"}


def value(item: object) -> str:
    """Return one value, quoted unless it is plain ASCII without spaces."""
    text = str(item)
    return text if PLAIN.fullmatch(text) else json.dumps(text).replace("\x7f", "\\u007f")


class Line(logging.Formatter):
    """Formats a record as one line; a traceback becomes one escaped value."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        pairs = {
            "time": rfc3339(int(record.created * 1e9)),
            "level": LEVELS.get(record.levelname, record.levelname.lower()),
            "msg": record.getMessage(),
            "logger": record.name.removeprefix("wherry."),
        }
        pairs |= {key: str(item) for key, item in vars(record).items() if key not in STANDARD}
        if record.exc_info:
            pairs["traceback"] = self.formatException(record.exc_info)
        return " ".join(f"{key}={value(item)}" for key, item in pairs.items())


def set_up(level: str) -> None:
    """Send all log records to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Line())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    set_level(level)


def set_level(level: str) -> None:
    """Log from this level on: debug, info, warn, error, fatal."""
    logging.getLogger().setLevel(NAMES[level])
    logging.getLogger("asyncio").setLevel("WARNING")
