"""Transactions: all or nothing, nested, durable against the death of the process, and schema versions."""

import os
import signal
import sqlite3
import subprocess
import sys

import pytest

from wherry.errors import SystemFailure
from wherry.store.database import Database


def test_a_failed_transaction_leaves_nothing(tmp_path):
    database = Database(tmp_path / "meta.db")

    def fail() -> None:
        with database.transaction():
            database.execute("INSERT INTO meta VALUES ('a', '1')")
            with database.transaction():
                database.execute("INSERT INTO meta VALUES ('b', '2')")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert database.query("SELECT * FROM meta") == []


def test_a_commit_survives_kill_9(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from wherry.store.database import Database\n"
        "database = Database(Path(sys.argv[1]))\n"
        "database.execute(\"INSERT INTO meta VALUES ('kept', 'yes')\")\n"
        "os.kill(os.getpid(), 9)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path / "meta.db")], env=dict(os.environ))
    assert ended.returncode == -signal.SIGKILL
    assert Database(tmp_path / "meta.db").query("SELECT value FROM meta WHERE key = 'kept'") == [("yes",)]


def test_a_database_of_a_newer_version_is_refused_untouched(tmp_path):
    path = tmp_path / "meta.db"
    Database(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=999")
    connection.close()
    with pytest.raises(SystemFailure, match="written by a newer Wherry"):
        Database(path)
