"""Processes, singleton jobs and the change log, which all processes on a database share."""

import pytest
import sqlalchemy as sa

from uplift_server.core.operations.cluster import ProcessRole
from uplift_server.core.operations.singleton_jobs import LEASE_MS, SingletonJob
from uplift_server.store import change_log, processes, singleton_jobs
from uplift_server.store.change_log import Change
from uplift_server.store.processes import ForeignLeases, Heartbeat, ProcessEvicted
from uplift_server.store.schema import deliveries
from uplift_server.store.schema_processes import directory_changes as changes_table

NOW = 1_764_000_000_000
QUIET = Heartbeat(delivers=True, view=7, in_flight=0, in_flight_max=1000, waiting=0)


def join(connection: sa.Connection, role: ProcessRole = ProcessRole.ALL) -> int:
    return processes.join(connection, role, host="a", pid=17, version="1", now=NOW)


def test_a_heartbeat_is_stored_and_returns_all_processes(connection: sa.Connection) -> None:
    first, second = join(connection), join(connection, ProcessRole.API)
    assert first != second
    heartbeat = Heartbeat(delivers=True, view=2**63 - 1, in_flight=3, in_flight_max=1000, waiting=40)
    listed = processes.record_heartbeat(connection, first, heartbeat, now=NOW + 5)
    assert [(each.seq, each.role, each.seen_at, each.delivers, each.view) for each in listed] == [
        (first, ProcessRole.ALL, NOW + 5, True, 2**63 - 1),
        (second, ProcessRole.API, NOW, False, 0),
    ]
    assert (listed[0].in_flight, listed[0].in_flight_max, listed[0].waiting) == (3, 1000, 40)
    assert listed == processes.list_all(connection)


def test_an_evicted_process_gets_an_error_and_loses_its_jobs(connection: sa.Connection) -> None:
    first, second = join(connection), join(connection)
    assert singleton_jobs.take(connection, list(SingletonJob), process_id=first, now=NOW) == set(SingletonJob)
    processes.remove(connection, first)
    processes.remove(connection, first)
    with pytest.raises(ProcessEvicted):
        processes.record_heartbeat(connection, first, QUIET, now=NOW)
    assert singleton_jobs.take(connection, [SingletonJob.STATISTICS], process_id=second, now=NOW) == {
        SingletonJob.STATISTICS
    }


def test_a_job_belongs_to_one_process_until_its_lease_expires(connection: sa.Connection) -> None:
    assert singleton_jobs.take(connection, [SingletonJob.OUTBOX], process_id=1, now=NOW) == {SingletonJob.OUTBOX}
    assert singleton_jobs.take(
        connection, [SingletonJob.OUTBOX, SingletonJob.STATISTICS], process_id=2, now=NOW + 1
    ) == {SingletonJob.STATISTICS}
    assert singleton_jobs.take(
        connection, [SingletonJob.OUTBOX, SingletonJob.STATISTICS], process_id=1, now=NOW + 4000
    ) == {SingletonJob.OUTBOX}
    assert singleton_jobs.take(connection, [SingletonJob.OUTBOX], process_id=2, now=NOW + LEASE_MS) == frozenset()
    assert singleton_jobs.take(connection, [SingletonJob.OUTBOX], process_id=2, now=NOW + 4000 + LEASE_MS) == {
        SingletonJob.OUTBOX
    }
    assert (
        singleton_jobs.take(connection, [SingletonJob.OUTBOX], process_id=1, now=NOW + 4001 + LEASE_MS) == frozenset()
    )
    singleton_jobs.release(connection, process_id=2)
    assert singleton_jobs.take(connection, [SingletonJob.OUTBOX], process_id=1, now=NOW + 4001 + LEASE_MS) == {
        SingletonJob.OUTBOX
    }


def test_a_heartbeat_just_before_an_eviction_prevents_it(connection: sa.Connection) -> None:
    first, second = join(connection), join(connection)
    assert processes.record_heartbeat(connection, first, QUIET, now=NOW + 7)
    assert singleton_jobs.take(connection, [SingletonJob.STATISTICS], process_id=first, now=NOW + 7) == {
        SingletonJob.STATISTICS
    }
    assert not processes.remove(connection, first, seen_at=NOW)
    assert singleton_jobs.take(connection, [SingletonJob.STATISTICS], process_id=second, now=NOW + 8) == frozenset()
    assert processes.remove(connection, first, seen_at=NOW + 7)
    assert singleton_jobs.take(connection, [SingletonJob.STATISTICS], process_id=second, now=NOW + 8) == {
        SingletonJob.STATISTICS
    }


def test_leases_of_other_processes_are_counted_by_endpoint(connection: sa.Connection) -> None:
    for event, (endpoint, owner, status) in enumerate(
        [(1, 5, 0), (1, 6, 0), (2, 5, 0), (2, 0, 0), (3, 4, 0), (4, 0, 1)]
    ):
        connection.execute(
            sa.insert(deliveries).values(
                event_seq=event, endpoint_seq=endpoint, account_seq=1, status=status, due_at=NOW, lease_owner=owner
            )
        )
    assert sorted(processes.foreign_leases(connection, 4)) == [ForeignLeases(1, 2), ForeignLeases(2, 1)]


def test_changes_since_a_transaction_are_returned(connection: sa.Connection) -> None:
    start = change_log.since(connection, 0)
    assert start.found == []
    first = start.next_xid - 10
    for kind, subject, xid in (("endpoints", 7, first), ("accounts", 7, first + 1)):
        connection.execute(sa.insert(changes_table).values(kind=kind, subject_seq=subject, xid=xid))
    found = change_log.since(connection, first)
    assert found.found == [Change("endpoints", 7, first), Change("accounts", 7, first + 1)]
    assert change_log.since(connection, first + 1).found == [Change("accounts", 7, first + 1)]
    assert start.pruned_before == found.pruned_before == 0
    assert change_log.prune(connection, first + 1, limit=9) == 1
    assert change_log.since(connection, first)[::2] == ([Change("accounts", 7, first + 1)], first + 1)


def test_changes_are_pruned_in_batches(connection: sa.Connection) -> None:
    before = change_log.oldest_active_xid(connection)
    for subject in range(1, 6):
        connection.execute(sa.insert(changes_table).values(kind="accounts", subject_seq=subject, xid=before - subject))
    assert [change_log.prune(connection, before - 1, limit=3) for _ in range(3)] == [3, 1, 0]
    assert change_log.since(connection, 0)[::2] == ([Change("accounts", 1, before - 1)], before - 1)


def test_pruning_never_decreases_the_oldest_active_transaction(connection: sa.Connection) -> None:
    xid = change_log.oldest_active_xid(connection)
    connection.execute(sa.insert(changes_table).values(kind="accounts", subject_seq=7, xid=xid))
    following = change_log.oldest_active_xid(connection)
    change_log.prune(connection, following, limit=9)
    assert change_log.oldest_active_xid(connection) >= following


def test_changes_from_another_database_server_are_ignored(connection: sa.Connection) -> None:
    """A copied database contains changes with transaction IDs of the other server, which are often higher."""
    is_file = connection.dialect.name == "sqlite"
    change = Change("accounts", 7, change_log.oldest_active_xid(connection) + 1_000_000)
    connection.execute(sa.insert(changes_table).values(change._asdict()))
    assert change_log.since(connection, 0).found == [change] * is_file
    assert change_log.prune(connection, 0, limit=9) == (not is_file)


def test_the_time_of_the_database_is_read(connection: sa.Connection) -> None:
    first = processes.database_now(connection)
    assert 1_700_000_000_000 < first <= processes.database_now(connection)
