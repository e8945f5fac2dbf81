"""The SQLite engine: the conformance suite, locks, commits and full disks."""

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
import structlog

from uplift_server.core.scheduling.commit_interval import COMMIT_INTERVAL_MS_MAX, commit_interval_ms
from uplift_server.store import schema_version
from uplift_server.store.errors import Misaddressed, Rejected, Unavailable
from uplift_server.store.schema import events
from uplift_server.store.sqlite import SqliteDatabase, writer
from uplift_server.store.sqlite.connection import FileLock
from uplift_server.store.sqlite.readers import READERS

from .bench import NOW, Bench, Check, due
from .conformance import CHECKS
from .replay_conformance import REPLAY_CHECKS


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with sqlite_bench(tmp_path, SqliteDatabase) as bench:
        yield bench


class sqlite_bench:
    """An open, empty SQLite database that can be opened again. `make` creates its engine."""

    def __init__(self, folder: Path, make: Callable[[Path], SqliteDatabase]) -> None:
        self._path = folder / "uplift.db"
        self._make = make
        self.bench: Bench

    async def __aenter__(self) -> Bench:
        schema_version.upgrade(self._path, now_ms=NOW)
        self.bench = Bench(self._make(self._path), self._reopen)
        await self._open()
        return self.bench

    async def __aexit__(self, *_exc: object) -> None:
        await self.bench.database.close()

    async def _open(self) -> None:
        self.bench.database.lock()  # type: ignore[attr-defined]
        await self.bench.database.open()

    async def _reopen(self) -> None:
        await self.bench.database.close()
        self.bench.database = self._make(self._path)
        await self._open()


@pytest.mark.parametrize("check", [*CHECKS, *REPLAY_CHECKS], ids=lambda check: check.__name__)
async def test_conforms(check: Check, bench: Bench) -> None:
    await check(bench)


async def test_a_second_process_is_rejected_with_the_id_of_the_first(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=rf"another server \(process {os.getpid()}\) is using .*UPLIFT_DATABASE_URL"):
        SqliteDatabase(tmp_path / "uplift.db").lock()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("is_there", [False, True])
def test_a_lock_created_by_root_belongs_to_the_database_owner(tmp_path: Path, is_there: bool) -> None:
    """Otherwise, a server that does not run as root could no longer start."""
    path = tmp_path / "own" / "uplift.db"
    path.parent.mkdir()
    if is_there:
        path.touch()
    os.chown(path if is_there else path.parent, 4321, 4322)
    lock = FileLock(path)
    lock.acquire()
    lock.release()
    found = lock.path.stat()
    assert (found.st_uid, found.st_gid) == (4321, 4322)


def test_a_link_instead_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    """Otherwise, a user who can write to the directory could make root overwrite or give away any file."""
    target = tmp_path / "precious"
    target.write_text("kept")
    lock = FileLock(tmp_path / "uplift.db")
    lock.path.symlink_to(target)
    with pytest.raises(
        Misaddressed, match=r"uplift\.db\.lock is a symbolic link; delete this file while no server is running"
    ):
        lock.acquire()
    assert target.read_text() == "kept"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_root_rejects_a_lock_file_of_another_user(tmp_path: Path) -> None:
    """The lock file may be a hard link to any file."""
    target = tmp_path / "precious"
    target.write_text("kept")
    path = tmp_path / "own" / "uplift.db"
    path.parent.mkdir()
    path.touch()
    for each in (path, path.parent):
        os.chown(each, 4321, 4322)
    lock = FileLock(path)
    lock.path.hardlink_to(target)
    with pytest.raises(
        Misaddressed, match=r"who does not own the database; delete this file while no server is running"
    ):
        lock.acquire()
    assert target.read_text() == "kept"
    lock.path.unlink()
    # A lock file of the database owner is accepted. A backup with hard links adds a name to this file.
    lock.path.touch()
    os.chown(lock.path, 4321, 4322)
    (tmp_path / "copied").hardlink_to(lock.path)
    lock.acquire()
    lock.release()
    # If the file belongs to root and has a second name, root accepts it only if it has the content of a lock.
    lock.path.unlink()
    root_s = tmp_path / "root_s"
    root_s.write_text("127.0.0.1 localhost\n")
    lock.path.hardlink_to(root_s)
    os.chown(path.parent, 0, 0)
    with pytest.raises(Misaddressed, match="has another hard link"):
        lock.acquire()
    assert root_s.read_text() == "127.0.0.1 localhost\n"
    lock.path.unlink()
    lock.acquire()
    lock.release()
    (tmp_path / "copied again").hardlink_to(lock.path)
    lock.acquire()
    lock.release()
    os.chown(path.parent, 4321, 4322)
    # Now root owns the database. The lock still belongs to the database's earlier owner, who also owns the directory.
    os.chown(path, 0, 0)
    lock.acquire()
    lock.release()


async def test_the_lock_is_free_after_close(bench: Bench) -> None:
    await bench.reopen()
    assert await bench.count(events) == 0


async def test_numbers_are_not_reused_after_a_failed_commit(bench: Bench) -> None:
    def defective(_connection: sa.Connection) -> None:
        raise ZeroDivisionError

    (first,) = await bench.append(bench.event())
    await asyncio.gather(bench.append(bench.event()), bench.database.write(defective), return_exceptions=True)
    (third,) = await bench.append(bench.event())
    assert third.seq == first.seq + 2


async def test_an_event_that_contradicts_a_row_fails_alone(bench: Bench) -> None:
    (known,) = await bench.append(bench.event())
    twin = bench.event()._replace(id=known.id)
    failed, commits = bench.database.measures.failed, sum(bench.database.measures.commits.counts)
    # A slow job, so that the others are committed together.
    slow = asyncio.ensure_future(bench.database.write(lambda _: time.sleep(0.2)))
    await asyncio.sleep(0.05)
    events_ = [bench.event() for _ in range(64)]
    results = await asyncio.gather(
        *(bench.database.append([[event]]) for event in [*events_[:40], twin, *events_[40:]]), return_exceptions=True
    )
    await slow
    assert [n for n, each in enumerate(results) if isinstance(each, BaseException)] == [40]
    assert isinstance(results[40], Rejected)
    assert await bench.count(events) == 65
    assert bench.database.measures.failed == failed + 1
    assert sum(bench.database.measures.commits.counts) - commits <= 3


async def limited(bench: Bench, tmp_path: Path, pages: int) -> None:
    """Limit the size of the database to this many pages, so that the next commits find a full disk."""
    await bench.database.write(lambda c: c.exec_driver_sql(f"PRAGMA max_page_count = {pages}").scalar())


async def test_a_full_disk_rejects_writes_and_recovers(bench: Bench, tmp_path: Path) -> None:
    await bench.append(bench.event(due(1)))
    size = (await bench.database.read(lambda c: c.exec_driver_sql("PRAGMA page_count").scalar())) or 0
    await limited(bench, tmp_path, size + 3)
    rejected = 0
    for _ in range(50):
        try:
            await bench.append(bench.event(due(1), data=b'{"pad":"%b"}' % (b"x" * 4000)))
        except Unavailable:
            rejected += 1
    assert rejected > 0
    stored = 50 - rejected + 1
    assert await bench.count(events) == stored
    assert len(await bench.lease(1)) <= stored
    await limited(bench, tmp_path, size + 10_000)
    await bench.append(bench.event(due(1)))
    assert await bench.count(events) == stored + 1


async def test_a_broken_connection_is_replaced(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.append(bench.event())

    def broken(_connection: sa.Connection) -> Awaitable[None]:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR
        raise error

    with pytest.raises(Unavailable, match="disk I/O error"):
        await bench.database.write(broken)
    await bench.append(bench.event())
    assert await bench.count(events) == 2


async def test_a_cancelled_waiter_does_not_stop_the_writer(bench: Bench) -> None:
    task = asyncio.ensure_future(bench.append(bench.event()))
    await asyncio.sleep(0)
    task.cancel()
    await bench.append(bench.event())
    assert await bench.count(events) >= 1


@pytest.mark.parametrize(("cores", "at_once"), [(0.4, False), (1.0, True)])
@pytest.mark.timing
async def test_a_busy_process_makes_larger_commits(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, cores: float, at_once: bool
) -> None:
    """Events arrive one after the other. A process that is not busy does not wait to combine them in one commit."""
    busy = SimpleNamespace(process_time=lambda: cores * time.monotonic())
    for name in ("monotonic", "monotonic_ns", "sleep"):
        setattr(busy, name, getattr(time, name))
    monkeypatch.setattr(writer, "time", busy)
    # Make the commit interval longer than any pause of a test machine.
    monkeypatch.setattr(writer, "commit_interval_ms", lambda cores: 100 * commit_interval_ms(cores))

    async def commits(events: int) -> int:
        before = sum(bench.database.measures.commits.counts)
        waiting = []
        for _ in range(events):
            waiting.append(asyncio.ensure_future(bench.append(bench.event())))
            await asyncio.sleep(0.002)
        await asyncio.gather(*waiting)
        return sum(bench.database.measures.commits.counts) - before

    # Continue until the writer has sampled the load twice.
    until = time.monotonic() + 3 * writer.CPU_SAMPLE_SECONDS
    while time.monotonic() < until:
        await commits(1)
    began = time.monotonic()
    count = await commits(20)
    paced = 2 + (time.monotonic() - began) * 1000 / (100 * COMMIT_INTERVAL_MS_MAX)
    assert count <= paced if at_once else count > paced, (count, paced)


async def test_a_slow_read_times_out(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uplift_server.store.sqlite.readers.READ_SECONDS_MAX", 0.05)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    with pytest.raises(Unavailable, match="interrupted"):
        await bench.database.read(lambda c: c.exec_driver_sql(endless).scalar())
    assert await bench.count(events) == 0


async def test_reads_of_callers_do_not_delay_the_engine(bench: Bench) -> None:
    release = threading.Event()

    def wait(_: sa.Connection) -> None:
        release.wait(10)

    waiting = [asyncio.ensure_future(bench.database.read(wait)) for _ in range(READERS + 1)]
    async with asyncio.timeout(5):
        assert await bench.database.due_endpoints() == []
        assert await bench.database.read_with_priority(lambda c: c.exec_driver_sql("SELECT 1").scalar()) == 1
    assert not any(each.done() for each in waiting)
    release.set()
    await asyncio.gather(*waiting)


async def test_a_slow_read_is_logged_with_its_name(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with structlog.testing.capture_logs() as quick:
        await bench.database.read(lambda c: c.exec_driver_sql("SELECT 1").scalar())
    monkeypatch.setattr("uplift_server.store.sqlite.readers.LONG_READ_MS", 20)
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 1000000) SELECT max(i) FROM n"
    with structlog.testing.capture_logs() as long:
        await bench.database.read(lambda c: c.exec_driver_sql(many).scalar())
    assert quick == []
    (line,) = long
    assert line["event"] == "slow read"
    assert line["read"].endswith("test_sqlite.test_a_slow_read_is_logged_with_its_name")
    assert 20 <= line["duration_ms"] < 10_000
