"""Running a part of a test in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any


def forked(work: Callable[[], Any]) -> str:
    """Run something in a child and return what it returned, as text; or what it raised."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:  # both ends stay open: a test of descriptors would meet the number of one that was closed
        try:
            try:
                result = str(work())
            except BaseException as error:
                result = repr(error)
            os.write(writer, result.encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as file:
        text = file.read()
    os.waitpid(pid, 0)
    return text
