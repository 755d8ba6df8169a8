"""Running a part of a test in a process of its own."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable
from typing import Any


def forked(work: Callable[[], Any]) -> str:
    """Run something in a child and return what it returned, as text; or what it raised."""

    def job() -> str:
        try:
            return str(work())
        except BaseException as error:
            return repr(error)

    return _answer(job)


def told(work: Callable[[], Any]) -> tuple[bool, Any]:
    """Run something in a child; return True and its value, by way of JSON, or False and the traceback."""

    def job() -> str:
        try:
            return json.dumps([True, work()])
        except BaseException:
            return json.dumps([False, traceback.format_exc()])

    well, value = json.loads(_answer(job))
    return well, value


def _answer(job: Callable[[], str]) -> str:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:  # both ends stay open: a test of descriptors would meet the number of one that was closed
        try:
            os.write(writer, job().encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as file:
        text = file.read()
    os.waitpid(pid, 0)
    return text
