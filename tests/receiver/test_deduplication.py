"""Deduplication: repeats, concurrency, order and crashes."""

import asyncio
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from uplift_webhooks import deduplication
from uplift_webhooks.deduplication import (
    CLAIM_SECONDS,
    REMEMBER_SECONDS,
    Deduplicator,
    EventInProgress,
    MemoryDeduplicator,
    SqliteDeduplicator,
)
from uplift_webhooks.events import AnyEvent, read_event

from .conftest import Clock


@pytest.fixture(params=["memory", "sqlite"])
def seen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deduplicator]:
    """An empty deduplicator of each class."""
    seen = MemoryDeduplicator() if request.param == "memory" else SqliteDeduplicator(tmp_path / "seen.db")
    yield seen
    seen.close()


def _first(seen: Deduplicator, event_id: str = "e_1") -> bool:
    with seen.first_time(event_id) as first:
        return first


def _event(created: int, event_id: str, subject: Any = "s_1") -> AnyEvent:
    return read_event({"id": event_id, "type": "t", "created": created, "data": {"object": {"id": subject}}}, None)


def _newest(seen: Deduplicator, *event: Any) -> bool:
    with seen.newest(_event(*event)) as newest:
        return newest


def test_a_repeat_is_not_the_first_time(seen: Deduplicator) -> None:
    assert [_first(seen), _first(seen), _first(seen, "e_2"), _first(seen)] == [True, False, True, False]


def test_a_failed_event_is_handled_again(seen: Deduplicator) -> None:
    claim = seen.first_time("e_1")
    assert claim.__enter__()
    claim.__exit__(ValueError, ValueError(), None)
    assert [_first(seen), _first(seen)] == [True, False]


def test_an_error_during_a_repeat_is_raised_and_keeps_the_event(seen: Deduplicator) -> None:
    _first(seen)
    with pytest.raises(ZeroDivisionError), seen.first_time("e_1"):
        1 / 0  # noqa: B018 - raises the error
    assert not _first(seen)


def test_a_repeat_during_handling_raises_event_in_progress(seen: Deduplicator) -> None:
    with seen.first_time("e_1"):
        with pytest.raises(EventInProgress, match="Retry after 60 seconds") as caught:
            _first(seen)
        assert 0 < caught.value.retry_after_seconds <= CLAIM_SECONDS
        assert _first(seen, "e_2")
    assert not _first(seen)


def test_an_abandoned_claim_expires(seen: Deduplicator, clock: Clock) -> None:
    assert seen.first_time("e_1").__enter__()

    clock.now += CLAIM_SECONDS - 1
    with pytest.raises(EventInProgress):
        _first(seen)
    clock.now += 2
    assert [_first(seen), _first(seen)] == [True, False]


def test_a_claim_from_a_fast_clock_expires_on_time(seen: Deduplicator, clock: Clock) -> None:
    clock.now += 86_400
    assert seen.first_time("e_1").__enter__()

    clock.now -= 86_400
    with pytest.raises(EventInProgress, match="Retry after 60 seconds"):
        _first(seen)
    clock.now += CLAIM_SECONDS - 1
    with pytest.raises(EventInProgress, match="Retry after 1 second"):
        _first(seen)
    clock.now += 2
    assert [_first(seen), _first(seen)] == [True, False]


def test_an_expired_claim_does_not_affect_the_next_one(seen: Deduplicator, clock: Clock) -> None:
    slow, next_one = seen.first_time("e_1"), seen.first_time("e_1")
    slow.__enter__()
    clock.now += CLAIM_SECONDS + 1
    assert next_one.__enter__()

    slow.__exit__(ValueError, ValueError(), None)
    with pytest.raises(EventInProgress):
        _first(seen)

    slow = seen.first_time("e_1")
    clock.now += CLAIM_SECONDS + 1
    slow.__enter__()
    next_one.__exit__(None, None, None)
    assert not _first(seen)
    slow.__exit__(ValueError, ValueError(), None)
    assert not _first(seen)


def test_events_are_forgotten_after_45_days(seen: Deduplicator, clock: Clock) -> None:
    _first(seen)
    clock.now += REMEMBER_SECONDS - 1
    assert not _first(seen)
    clock.now += 2
    assert _first(seen)
    assert REMEMBER_SECONDS == 45 * 24 * 3600


def test_forgotten_events_leave_no_rows(tmp_path: Path, clock: Clock) -> None:
    sqlite, memory = SqliteDeduplicator(tmp_path / "seen.db"), MemoryDeduplicator()
    for seen in (sqlite, memory):
        for number in range(25):
            _first(seen, str(number))
        clock.now += REMEMBER_SECONDS + 1
        for number in range(3):
            _first(seen, f"new {number}")
    sqlite.close()

    with sqlite3.connect(tmp_path / "seen.db") as file:
        assert file.execute("SELECT count(*) FROM uplift_seen").fetchone() == (3,)
    file.close()
    assert len(memory._entries) == 3


def test_memory_is_bounded_and_the_oldest_entries_are_removed() -> None:
    seen = MemoryDeduplicator(entries_max=2)
    for event_id in ("a", "b", "a", "c"):
        _first(seen, event_id)

    assert [_first(seen, "a"), _first(seen, "c")] == [False, False]
    assert _first(seen, "b")


def test_first_time_needs_a_with_statement(seen: Deduplicator) -> None:
    with pytest.raises(TypeError, match="with statement"):
        assert seen.first_time("e_1")
    assert _first(seen)


@pytest.mark.parametrize("arguments", [{"remember_seconds": 0}, {"claim_seconds": -1}, {"claim_seconds": float("nan")}])
def test_invalid_limits_are_rejected(arguments: dict[str, float], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        MemoryDeduplicator(**arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="greater than 0"):
        SqliteDeduplicator(tmp_path / "seen.db", **arguments)
    with pytest.raises(ValueError, match="greater than 0"):
        MemoryDeduplicator(entries_max=0)


@pytest.mark.parametrize("event_id", ["", "\ud800", "é", "x" * 100_000, "'; DROP TABLE uplift_seen; --"])
def test_any_string_is_a_valid_id(seen: Deduplicator, event_id: str) -> None:
    assert [_first(seen, event_id), _first(seen, event_id), _first(seen, event_id + ".")] == [True, False, True]


def test_an_older_event_of_a_session_is_not_handled(seen: Deduplicator) -> None:
    assert _newest(seen, 200, "b")
    assert not _newest(seen, 200, "b")
    assert not _newest(seen, 100, "z")
    assert not _newest(seen, 200, "a")
    assert _newest(seen, 200, "c")
    assert _newest(seen, 10**30, "huge")
    assert not _newest(seen, 300, "d")
    assert _newest(seen, 100, "z", "s_2")
    assert [_newest(seen, 200, "b", 5), _newest(seen, 100, "a", 5), _newest(seen, 100, "a", 0)] == [True, False, True]


def test_a_test_event_changes_nothing_unless_included(seen: Deduplicator) -> None:
    """The example data of a test event can have the ID of a real object."""
    live = _event(100, "a")
    test = read_event({**live.raw, "id": "t", "created": 200, "test": True}, None)
    with seen.newest(test) as newest:
        assert not newest
    with seen.newest(test, "key") as newest, seen.newest(live) as live_newest:
        assert [newest, live_newest] == [False, True]
    with seen.newest(test, include_tests=True) as newest:
        assert newest
    assert not _newest(seen, 150, "b")


def test_a_failed_newer_event_keeps_the_previous_event(seen: Deduplicator) -> None:
    _newest(seen, 200, "b")
    claim = seen.newest(_event(300, "c"))
    assert claim.__enter__()
    claim.__exit__(ValueError, ValueError(), None)

    assert not _newest(seen, 200, "b")
    assert _newest(seen, 300, "c")


def test_two_events_of_a_session_are_not_handled_concurrently(seen: Deduplicator) -> None:
    with seen.newest(_event(100, "a")):
        with pytest.raises(EventInProgress):
            _newest(seen, 200, "b")
        assert _first(seen, "b")
    assert _newest(seen, 200, "b")


@pytest.mark.parametrize("data", [None, [], {}, {"object": None}, {"object": {}}, {"object": {"id": True}}])
def test_an_event_without_a_subject_uses_its_own_id(seen: Deduplicator, data: Any) -> None:
    event = read_event({"id": "e_1", "type": "t.u", "data": data}, None)
    with seen.newest(event) as newest:
        assert newest
    with seen.newest(event) as newest:
        assert not newest
    assert not _first(seen, "e_1")


def test_the_subject_of_an_event_can_be_given(seen: Deduplicator) -> None:
    with seen.newest(_event(200, "b", "s_1"), "export 7") as newest:
        assert newest
    with seen.newest(_event(100, "a", "s_2"), "export 7") as newest:
        assert not newest


def test_events_in_any_order_end_with_the_newest(seen: Deduplicator) -> None:
    for seed in range(50):
        order = [(created, event_id) for created in range(3) for event_id in "ab"] * 2
        random.Random(seed).shuffle(order)
        handled = [event for event in order if _newest(seen, *event, f"s_{seed}")]
        assert handled == sorted(set(handled))
        assert handled[-1] == (2, "b")


def test_threads_handle_each_event_once(seen: Deduplicator) -> None:
    handled: Counter[str] = Counter()
    ids = [f"e_{number}" for number in range(40)]

    def work(worker: int) -> None:
        for event_id in random.Random(worker).sample(ids, len(ids)):
            while True:
                try:
                    with seen.first_time(event_id) as first:
                        handled[event_id] += first
                    break
                except EventInProgress:
                    time.sleep(0.001)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert handled == Counter(ids)


def _python(script: str, *arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


WORKER = """
import sys, time
from uplift_webhooks.deduplication import EventInProgress, SqliteDeduplicator
seen = SqliteDeduplicator(sys.argv[1])
for number in range(100):
    while True:
        try:
            with seen.first_time(str(number)) as first:
                if first:
                    print(number, flush=True)
            break
        except EventInProgress:
            time.sleep(0.001)
"""


def test_processes_that_start_together_handle_each_event_once(tmp_path: Path) -> None:
    workers = [_python(WORKER, tmp_path / "seen.db") for _ in range(4)]
    outputs = [worker.communicate(timeout=60)[0] for worker in workers]

    assert [worker.returncode for worker in workers] == [0] * 4
    assert Counter("".join(outputs).split()) == Counter(map(str, range(100)))


KILLED = """
import sys
from uplift_webhooks.deduplication import SqliteDeduplicator
seen = SqliteDeduplicator(sys.argv[1])
with seen.first_time("done"):
    pass
with seen.first_time("half") as first:
    print(first, flush=True)
    sys.stdin.read()
"""


def test_the_event_of_a_killed_process_is_handled_by_the_next(tmp_path: Path, clock: Clock) -> None:
    victim = _python(KILLED, tmp_path / "seen.db")
    assert victim.stdout is not None
    assert victim.stdout.readline() == "True\n"
    victim.send_signal(signal.SIGKILL)
    victim.communicate(timeout=10)
    began = _claimed_at(tmp_path / "seen.db")

    seen = SqliteDeduplicator(tmp_path / "seen.db")
    clock.now = began + 1
    assert not _first(seen, "done")
    with pytest.raises(EventInProgress):
        _first(seen, "half")
    clock.now = began + CLAIM_SECONDS + 1
    assert [_first(seen, "half"), _first(seen, "half")] == [True, False]
    seen.close()


def _claimed_at(path: Path) -> float:
    """Return when the killed process claimed its event, by its own clock."""
    file = sqlite3.connect(path)
    [(until,)] = file.execute("SELECT claimed_until FROM uplift_seen WHERE claim IS NOT NULL")
    file.close()
    return float(until) - CLAIM_SECONDS


FORKED = """
import os, sys, threading, time
from uplift_webhooks.deduplication import SqliteDeduplicator
seen = SqliteDeduplicator(sys.argv[1])
with seen.first_time("parent"):
    pass
begun = threading.Event()
def change(entry):
    begun.set()
    time.sleep(0.3)
    return entry, None
# A thread of the parent is in a transaction.
threading.Thread(target=seen._change, args=("key", change)).start()
begun.wait()
child = os.fork()
if child == 0:
    with seen.first_time("parent") as repeated, seen.first_time("child") as first:
        os._exit(10 + 2 * repeated + first)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
with seen.first_time("after") as first:
    print(status, first)
"""
DAEMON = """
import os, sys
from uplift_webhooks.deduplication import SqliteDeduplicator
seen = SqliteDeduplicator(sys.argv[1])
if os.fork():
    os._exit(0)
for line in sys.stdin:
    with seen.first_time(line) as first:
        pass
    print(first, flush=True)
"""


def test_a_forked_process_can_use_the_deduplicator(tmp_path: Path) -> None:
    output, _ = _python(FORKED, tmp_path / "seen.db").communicate(timeout=30)

    assert output == "11 True\n"


def test_a_daemon_whose_parent_has_ended_shares_its_events(tmp_path: Path) -> None:
    with _python(DAEMON, tmp_path / "seen.db") as daemon:
        assert daemon.stdin is not None
        assert daemon.stdout is not None
        assert daemon.wait(20) == 0
        for line in ("one\n", "two\n"):
            daemon.stdin.write(line)
            daemon.stdin.flush()
            assert daemon.stdout.readline() == "True\n"
            seen = SqliteDeduplicator(tmp_path / "seen.db")
            assert not _first(seen, line)
            seen.close()


def test_a_fork_closes_the_file_until_the_next_use(tmp_path: Path) -> None:
    """The test calls the fork handlers in this process, because coverage does not measure a forked child."""
    seen, closed = SqliteDeduplicator(tmp_path / "seen.db"), SqliteDeduplicator(tmp_path / "closed.db")
    closed.close()
    deduplication._before_fork()
    assert seen._connection is None
    deduplication._after_fork()

    assert _first(seen)
    assert _first(closed)
    seen.close()
    closed.close()


def test_a_failed_statement_leaves_no_open_transaction(tmp_path: Path) -> None:
    seen = SqliteDeduplicator(tmp_path / "seen.db")
    with closing(sqlite3.connect(tmp_path / "seen.db", isolation_level=None)) as other:
        other.execute("ALTER TABLE uplift_seen RENAME TO elsewhere")
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            _first(seen)
        # This fails if the deduplicator still holds its lock.
        other.execute("ALTER TABLE elsewhere RENAME TO uplift_seen")
    assert _first(seen)
    seen.close()


def test_a_closed_deduplicator_reopens(tmp_path: Path) -> None:
    seen = SqliteDeduplicator(tmp_path / "seen.db")
    _first(seen)
    seen.close()
    seen.close()
    assert not _first(seen)
    seen.close()
    memory = MemoryDeduplicator()
    _first(memory)
    memory.close()
    assert _first(memory)


def test_an_unusable_file_raises_an_error(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.Error):
        SqliteDeduplicator(tmp_path / "nowhere" / "seen.db")
    (tmp_path / "text").write_text("This is no database, although it is long enough to be one." * 20)
    with pytest.raises(sqlite3.Error):
        SqliteDeduplicator(tmp_path / "text")


def test_a_disk_error_is_raised_unchanged(tmp_path: Path) -> None:
    """After some errors, SQLite has already rolled back the transaction."""
    seen = SqliteDeduplicator(tmp_path / "seen.db")

    def fail(_: object) -> Any:
        assert seen._connection is not None
        seen._connection.execute("ROLLBACK")
        raise sqlite3.OperationalError("disk I/O error")

    with pytest.raises(sqlite3.OperationalError, match="disk"):
        seen._change("event:e_1", fail)
    assert _first(seen)
    seen.close()


def test_a_locked_new_file_is_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Busy:
        """A connection whose database is locked at first, as a new file can be."""

        def __init__(self, failures: int) -> None:
            self.failures = failures
            self.done: list[str] = []

        def execute(self, statement: str) -> None:
            """Fail, or record the statement."""
            if self.failures:
                self.failures -= 1
                raise sqlite3.OperationalError("database is locked")
            self.done.append(statement)

    busy = Busy(2)
    deduplication._write_ahead(busy)  # type: ignore[arg-type]
    assert busy.done == ["PRAGMA journal_mode=WAL", "PRAGMA synchronous=NORMAL"]
    monkeypatch.setattr(deduplication, "BUSY_SECONDS", 0.02)
    with pytest.raises(sqlite3.OperationalError):
        deduplication._write_ahead(Busy(100))  # type: ignore[arg-type]


async def test_a_with_block_can_await(seen: Deduplicator) -> None:
    async def handle() -> bool:
        with seen.first_time("e_1") as first:
            await asyncio.sleep(0)
            return first

    results = await asyncio.gather(handle(), handle(), return_exceptions=True)
    assert results[0] is True
    assert isinstance(results[1], EventInProgress)
