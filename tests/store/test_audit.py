"""The audit log: filters and pages without gaps."""

import pytest
import sqlalchemy as sa

from uplift_server.core.people.audit import SYSTEM, Actor, ActorKind, AuditEntry
from uplift_server.store import accounts, audit
from uplift_server.store.audit import AuditFilter
from uplift_server.store.event_times import DISORDER_MS
from uplift_server.store.pages import PageRequest

KEY = Actor(ActorKind.KEY, "receiver", "key_1", "192.0.2.1")
HOUR = 3_600_000


def add_entry(
    connection: sa.Connection,
    at: int,
    *,
    account_seq: int | None = 1,
    actor: Actor = KEY,
    action: str = "endpoint.changed",
    subject: str = "ep_1",
) -> None:
    """Add an entry."""
    audit.add(connection, AuditEntry(account_seq, at, actor, action, subject, {"n": at}))


def find_times(connection: sa.Connection, audit_filter: AuditFilter, account_seq: int | None = 1) -> list[int]:
    """Return the timestamps of all matching entries, page by page."""
    times, before = [], None
    while True:
        page = audit.page(connection, account_seq, audit_filter, PageRequest(2, before))
        times += [entry.at for entry in page.items]
        before = page.next_key
        if before is None:
            return times


def test_a_stored_entry_is_returned_with_its_account_id(connection: sa.Connection) -> None:
    account = accounts.create(connection, account_id=b"i" * 16, name="a", contact_emails=(), now=1)
    entry = AuditEntry(account.seq, 5, KEY, "endpoint.changed", "ep_1", {"changed": ["url"], "to": {"url": "ü"}})
    audit.add(connection, entry)

    [stored] = audit.page(connection, account.seq, AuditFilter(), PageRequest(10)).items

    assert (stored.account_id, stored.seq > 0) == (account.id, True)
    assert (stored.account_seq, stored.at, stored.actor, stored.action) == (account.seq, 5, KEY, entry.action)
    assert (stored.subject, stored.details) == (entry.subject, entry.details)


def test_an_account_sees_only_its_own_entries(connection: sa.Connection) -> None:
    add_entry(connection, 1, account_seq=1)
    add_entry(connection, 2, account_seq=2)
    add_entry(connection, 3, account_seq=None)

    assert find_times(connection, AuditFilter(), 1) == [1]
    assert find_times(connection, AuditFilter(), None) == [3, 2, 1]


def test_entries_are_filtered_by_actor_actor_kind_and_action(connection: sa.Connection) -> None:
    add_entry(connection, 1, actor=SYSTEM, action="endpoint.disabled")
    add_entry(connection, 2, actor=Actor(ActorKind.KEY, "other", "key_2"))
    add_entry(connection, 3, action="endpoint.deleted")

    assert find_times(connection, AuditFilter(actor="key_1")) == [3]
    assert find_times(connection, AuditFilter(actor="key")) == [3, 2]
    assert find_times(connection, AuditFilter(actor="system")) == [1]
    assert find_times(connection, AuditFilter(actor="key", action="endpoint.changed")) == [2]


def test_timestamps_are_exclusive_and_entries_out_of_order_are_found(connection: sa.Connection) -> None:
    """A timestamp is set before the entry is stored, so numbers and timestamps can be in different order."""
    late = 3 * HOUR - DISORDER_MS
    for at in (HOUR, 3 * HOUR, late + 1, 3 * HOUR + 1, 3 * HOUR + DISORDER_MS, 9 * HOUR):
        add_entry(connection, at)

    assert find_times(connection, AuditFilter(created_after=late, created_before=3 * HOUR)) == [late + 1]
    assert find_times(connection, AuditFilter(created_after=3 * HOUR - 1)) == [
        9 * HOUR,
        3 * HOUR + DISORDER_MS,
        3 * HOUR + 1,
        3 * HOUR,
    ]
    assert find_times(connection, AuditFilter(created_before=HOUR + 1)) == [HOUR]
    assert find_times(connection, AuditFilter(created_before=HOUR)) == []


def test_a_page_with_few_matches_ends_early_without_missing_any(
    connection: sa.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "WINDOW_ROWS", 3)
    for at in range(1, 13):
        add_entry(connection, at, action="endpoint.deleted" if at in (1, 6) else "endpoint.changed")

    first = audit.page(connection, 1, AuditFilter(action="endpoint.deleted"), PageRequest(2))
    assert (first.items, first.next_key is None) == ([], False)
    assert find_times(connection, AuditFilter(action="endpoint.deleted")) == [6, 1]
    assert find_times(connection, AuditFilter()) == list(range(12, 0, -1))


def test_entries_about_an_object_are_found_by_its_id(connection: sa.Connection) -> None:
    for at in range(1, 7):
        add_entry(connection, at, subject="ep_2" if at in (2, 5) else "ep_1")

    assert find_times(connection, AuditFilter(subject="ep_2")) == [5, 2]
    assert find_times(connection, AuditFilter(subject="ep_2"), account_seq=2) == []
    assert find_times(connection, AuditFilter(subject="ep_")) == []
