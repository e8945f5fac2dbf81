"""A driver of SQLite with faults, for servers with this directory in `PYTHONPATH`; `DRIVER_FAULT_FILE` names one."""

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
    """One whose commits and closing do what the file says."""

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        """As the driver, but for commits of the thread that writes."""
        if sql == "COMMIT" and threading.current_thread().name == "store-writer":
            if _fault() == "exit":
                raise SystemExit
            if _fault() == "close":
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorcode = sqlite3.SQLITE_IOERR
                raise error
            while _fault() == "stall":
                time.sleep(0.02)
        return super().execute(sql, *arguments)

    def close(self) -> None:
        """As the driver."""
        if _fault() == "close":
            raise RuntimeError("not even closed")
        super().close()


def connect(*arguments: Any, **named: Any) -> sqlite3.Connection:
    """As the driver."""
    return _connect(*arguments, factory=Connection, **named)


sqlite3.connect = connect  # type: ignore[assignment]
