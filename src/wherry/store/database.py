"""One SQLite connection, shared by the threads of the daemon, with one writer at a time.

WAL with synchronous=NORMAL: a commit is durable against the death of any process (the write is in the page
cache) but not against power loss; `transaction(power_safe=True)` adds the fsync for images and tags.
https://www.sqlite.org/wal.html, https://www.sqlite.org/pragma.html#pragma_synchronous
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wherry.errors import SystemFailure
from wherry.store.schema import MIGRATIONS

Row = tuple[Any, ...]


class Database:
    """The metadata store of one engine."""

    def __init__(self, path: Path) -> None:
        """Open or make the database and bring its schema up to date.

        Raises SystemFailure when the file cannot be opened or was written by a newer version.
        """
        self._lock = threading.RLock()
        self._depth = 0
        try:
            self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.execute("PRAGMA foreign_keys=ON")
        except sqlite3.Error as error:
            raise SystemFailure(f"cannot open the metadata database {path}: {error}") from error
        self._migrate(path)

    def _migrate(self, path: Path) -> None:
        version = int(self._connection.execute("PRAGMA user_version").fetchone()[0])
        if version > len(MIGRATIONS):
            raise SystemFailure(
                f"{path} was written by a newer Wherry (schema {version}, this one knows {len(MIGRATIONS)}); "
                "start that version, or use another --data-root"
            )
        for number in range(version, len(MIGRATIONS)):
            script = f"BEGIN IMMEDIATE; {MIGRATIONS[number]} PRAGMA user_version={number + 1}; COMMIT;"
            self._connection.executescript(script)

    @contextmanager
    def transaction(self, *, power_safe: bool = False) -> Iterator[None]:
        """Hold the write lock; commit at the end, roll back on any exception. Nests: the outermost commits."""
        with self._lock:
            if self._depth:
                self._depth += 1
                try:
                    yield
                finally:
                    self._depth -= 1
                return
            if power_safe:
                self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.execute("BEGIN IMMEDIATE")
            self._depth = 1
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            else:
                self._connection.execute("COMMIT")
            finally:
                self._depth = 0
                if power_safe:
                    self._connection.execute("PRAGMA synchronous=NORMAL")

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run one statement (inside a transaction of its own unless one is open); return the rows it changed.

        Raises sqlite3.IntegrityError when a constraint refuses it.
        """
        with self._lock:
            return self._connection.execute(sql, parameters).rowcount

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Run a SELECT and return all its rows."""
        with self._lock:
            return self._connection.execute(sql, parameters).fetchall()

    def close(self) -> None:
        """Close the connection; the WAL is folded back into the file."""
        with self._lock:
            self._connection.close()
