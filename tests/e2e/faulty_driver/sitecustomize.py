"""A faulty SQLite driver for servers with this directory in `PYTHONPATH`. `DRIVER_FAULT_FILE` names the fault."""

import os
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

_FILE = Path(os.environ["DRIVER_FAULT_FILE"])
_connect = sqlite3.connect


def _fault() -> str:
    try:
        return _FILE.read_text()
    except OSError:
        return ""


class Connection(sqlite3.Connection):
    """A connection that has the fault named in the file when it commits or closes."""

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        """Run a statement. In the writer thread, a commit has the fault."""
        if sql == "COMMIT" and threading.current_thread().name == "store-writer":
            if _fault() == "exit":
                raise SystemExit
            if _fault() == "close":
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorcode = sqlite3.SQLITE_IOERR
                raise error
            if _fault() == "slow":
                time.sleep(0.4)
            while _fault() == "stall":
                time.sleep(0.02)
        return super().execute(sql, *arguments)

    def close(self) -> None:
        """Close the connection, or raise an error if the fault is `close`."""
        if _fault() == "close":
            raise RuntimeError("not even closed")
        super().close()


def connect(*arguments: Any, **named: Any) -> sqlite3.Connection:
    """Open a connection that can have faults."""
    return _connect(*arguments, factory=Connection, **named)


sqlite3.connect = connect  # type: ignore[assignment]
