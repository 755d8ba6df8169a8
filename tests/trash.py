"""Waiting for what a storage driver deletes in the background, so that no test deletes under the next one."""

from __future__ import annotations

import threading


def settle() -> None:
    for thread in threading.enumerate():
        if thread.name == "trash":
            thread.join(30)
