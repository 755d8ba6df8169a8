"""Where the stand-alone runtime complains: a log file in runc's two formats, and stderr.

Callers read the last line of the JSON log with level "error" to learn why a command failed (containerd's
go-runc, conmon), so the keys are level, msg and time, and every failure is one line.
"""

from __future__ import annotations

import json
import os
import sys
import time


class Report:
    """Writes log lines; with a log file, errors go to stderr too, as plain text."""

    def __init__(self, path: str, layout: str) -> None:
        self._path = path
        self._json = layout == "json"

    def error(self, message: str) -> None:
        """Tell why the command failed."""
        self._write("error", message)
        if self._path:
            print(message, file=sys.stderr)

    def warning(self, message: str) -> None:
        """Tell of something that went wrong without making the command fail."""
        self._write("warning", message)

    def _write(self, level: str, message: str) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if self._json:
            line = json.dumps({"level": level, "msg": message, "time": stamp})
        else:
            line = f'time="{stamp}" level={level} msg={json.dumps(message)}'
        if not self._path:
            print(line, file=sys.stderr)
            return
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            os.write(descriptor, f"{line}\n".encode())
        finally:
            os.close(descriptor)
