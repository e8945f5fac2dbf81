"""`/readyz`, `uplift_store_up` and `doctor` report the cause while reads or writes fail, and then the recovery."""

import json
import re
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from .faults import fault_settings
from .harness import ApiResponse, Server, serving, wait_for
from .receiving import Receiver, respond
from .storage import STORAGE_KINDS, small_storage

SQLITE_ONLY = pytest.mark.sqlite(reason="PostgreSQL has no database file of the server")


def get_readyz(server: Server) -> ApiResponse:
    return server.api()("GET", "/readyz")


def store_up(server: Server) -> int:
    found = re.search(r"^uplift_store_up (\d)", server.api()("GET", "/metrics").body.decode(), re.MULTILINE)
    assert found
    return int(found[1])


def doctor(server: Server) -> dict[str, Any]:
    """Return the finding of `doctor` about the running server, with the exit code."""
    done = server.run("doctor", "--json")
    findings = [json.loads(line) for line in done.stdout.splitlines()]
    return next(each for each in findings if each["check"] == "server") | {"exit_code": done.returncode}


def check_trouble(server: Server, cause: str) -> None:
    """Wait until `/readyz`, the metric and `doctor` report the cause."""
    wait_for(lambda: cause in get_readyz(server).body.decode(), f"/readyz reports the cause: {cause}", every=0.1)
    unready = get_readyz(server)
    assert (unready.status, unready.json["code"]) == (503, "unavailable")
    assert unready.seconds < 5
    wait_for(lambda: store_up(server) == 0, "the metric changes", every=0.1)
    found = doctor(server)
    assert (found["result"], found["exit_code"]) == ("fail", 1)
    assert cause in str(found)


def check_recovery(server: Server) -> None:
    wait_for(lambda: get_readyz(server).status == 200, "the server is ready again", every=0.1)
    wait_for(lambda: store_up(server) == 1, "the metric changes", every=0.1)


@SQLITE_ONLY
@pytest.mark.parametrize("storage_kind", STORAGE_KINDS)
def test_a_full_disk_is_reported(tmp_path: Path, storage_kind: str) -> None:
    with small_storage(storage_kind, tmp_path / "data") as storage, serving(storage.data) as server:
        _, api = server.account()
        storage.fill(server)
        stop = threading.Event()

        def send() -> None:
            number = 0
            while not stop.wait(0.01):
                api.send(number, data={"number": number, "padding": "x" * 2000})
                number += 1

        # Use up the remaining space.
        sender = threading.Thread(target=send)
        sender.start()
        try:
            check_trouble(server, "the disk is full" if storage_kind == "small disk" else "the disk")
        finally:
            stop.set()
            sender.join(10)
        storage.free(server)
        check_recovery(server)
        assert [line for line in server.log if "database write failed" in line]


@SQLITE_ONLY
def test_a_full_disk_is_reported_without_traffic(tmp_path: Path) -> None:
    with small_storage("no write at all", tmp_path / "data") as storage, serving(storage.data) as server:
        check_recovery(server)
        storage.fill(server)
        check_trouble(server, "the disk")
        storage.free(server)
        check_recovery(server)


@SQLITE_ONLY
def test_a_lock_of_another_program_is_reported(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        with closing(sqlite3.connect(server.data / "uplift.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            check_trouble(server, "locked")
            other.execute("ROLLBACK")
        check_recovery(server)


@SQLITE_ONLY
def test_a_hanging_write_is_reported(tmp_path: Path) -> None:
    fault, environ = fault_settings(tmp_path)
    with serving(tmp_path / "data", **environ) as server:
        _, api = server.account()
        fault.write_text("stall")
        assert api.send(1).status == 503
        check_trouble(server, "has been running")
        fault.unlink()
        check_recovery(server)


@SQLITE_ONLY
def test_a_damaged_index_is_reported(tmp_path: Path, receiver: Receiver) -> None:
    """Without the index `deliveries_due`, the server cannot find due deliveries."""
    with serving(tmp_path / "data", UPLIFT_RETRY_SCHEDULE="1h") as server:
        _, api = server.account()
        api.endpoint(receiver.url("/hook", respond(500)))
        api.send(1)
        receiver.wait("/hook", 1)
        server.stop()
        file = server.data / "uplift.db"
        with closing(sqlite3.connect(file)) as database:
            [root] = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'deliveries_due'").fetchone()
            [size] = database.execute("PRAGMA page_size").fetchone()
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with file.open("r+b") as opened:
            opened.seek((root - 1) * size)
            opened.write(b"\xff" * size)
        server.launch()
        wait_for(lambda: server.api()("GET", "/healthz").status == 200, "the server is live")
        check_trouble(server, "damaged")
        lines = [line for line in server.log if "database read failed" in line]
        assert len(lines) >= 1
        # The server logs one line for each kind of read, even if the read fails many times.
        time.sleep(2)
        assert len([line for line in server.log if "database read failed" in line]) < 6


@pytest.mark.skipif("config.getoption('--engine', 'sqlite') == 'sqlite'", reason="locks tables of PostgreSQL")
def test_a_table_lock_of_another_session_is_reported(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        release, locked = threading.Event(), threading.Event()

        def lock(connection: sa.Connection) -> None:
            connection.exec_driver_sql("LOCK TABLE marks IN EXCLUSIVE MODE")
            locked.set()
            # Keep the transaction active, because PostgreSQL ends an idle one.
            while not release.wait(0.5):
                connection.exec_driver_sql("SELECT 1")

        holder = threading.Thread(target=lambda: server.place.run(lock))
        holder.start()
        try:
            assert locked.wait(10)
            wait_for(lambda: get_readyz(server).status == 503, "the server is not ready", every=0.1)
            wait_for(lambda: store_up(server) == 0, "the metric changes", every=0.1)
        finally:
            release.set()
            holder.join(10)
        check_recovery(server)
