"""The email outbox: due emails, filters, and late results."""

import pytest
import sqlalchemy as sa

from uplift_server.core.people.notifications import Notification, NotificationKind, NotificationState
from uplift_server.store import outbox
from uplift_server.store.outbox import EmailResult
from uplift_server.store.schema import notices as table

from .test_store_functions import add_unsent_email, new_account, new_endpoint


def test_emails_are_due_until_they_are_sent_or_failed(connection: sa.Connection) -> None:
    def add(at: int, *numbers: int) -> None:
        outbox.add(
            connection,
            NotificationKind.ENDPOINT_RECOVERED,
            account_seq=1,
            endpoint_seq=2,
            recipients=[(bytes([number]) * 16, f"{number}@x.example") for number in numbers],
            facts={"url": "ü", "recovered_at": None},
            now=at,
        )

    def due(now: int, limit: int = 10) -> list[int]:
        return [notice.seq for notice in outbox.due(connection, now=now, limit=limit)]

    add(20, 1)
    add(10, 2, 3)
    add(10)
    assert due(9) == []
    assert due(20) == [2, 3, 1]
    assert due(20, limit=2) == [2, 3]
    facts = {"url": "ü", "recovered_at": None}
    assert outbox.due(connection, now=10, limit=1) == [
        Notification(2, b"\2" * 16, NotificationKind.ENDPOINT_RECOVERED, "2@x.example", facts, 10)
    ]
    results = [
        EmailResult(1, 1, sent_at=30),
        EmailResult(2, 1, due_at=50, last_error="busy"),
        EmailResult(3, 4, last_error="unknown"),
    ]
    for _ in range(2):  # a repeated call changes nothing
        outbox.settle(connection, results)
        assert due(49) == []
        assert [(each.seq, each.attempts_made) for each in outbox.due(connection, now=50, limit=9)] == [(2, 1)]


def test_a_late_result_does_not_change_another_email_with_the_same_number(connection: sa.Connection) -> None:
    """SQLite gives the number of the newest email, if it is deleted, to the next email."""
    add_unsent_email(connection, 1, now=1)
    [email] = outbox.due(connection, now=10**15, limit=9)
    for result in (
        EmailResult(email.seq, 1, sent_at=30, id=b"another".ljust(16)),
        EmailResult(email.seq, 1, due_at=10**15 + 1, last_error="busy", id=b"another".ljust(16)),
    ):
        outbox.settle(connection, [result])
        assert outbox.due(connection, now=10**15, limit=9) == [email]
    outbox.settle(connection, [EmailResult(email.seq, 1, sent_at=30, id=email.id)])
    assert outbox.due(connection, now=10**15, limit=9) == []


def test_the_outbox_is_filtered_by_state(connection: sa.Connection) -> None:
    """Emails are listed newest first, but waiting emails by their next attempt. Their content is omitted."""
    account = new_account(connection, 1)
    endpoint = new_endpoint(connection, account.seq, 2)
    for number in range(1, 7):
        outbox.add(
            connection,
            NotificationKind.ENDPOINT_WARNED if number < 6 else NotificationKind.MASS_FAILURE_BEGAN,
            account_seq=account.seq if number < 6 else None,
            endpoint_seq=endpoint.seq if number < 6 else None,
            recipients=[(bytes([number]) * 16, f"{number}@x.example")],
            facts={"cause": "hush"},
            now=number,
        )
    outbox.settle(
        connection,
        [
            EmailResult(1, 1, sent_at=30),
            EmailResult(2, 9, last_error="unknown recipient"),
            EmailResult(3, 1, due_at=50, last_error="busy"),
        ],
    )

    def seqs(state: NotificationState | None) -> list[int]:
        found: list[int] = []
        before = None
        for _ in range(4):
            page = outbox.page(connection, state, limit=2, before=before)
            assert all(each.state is state for each in page.items if state is not None)
            found += [each.seq for each in page.items]
            before = page.next_key
            if before is None:
                return found
        raise AssertionError("the list has no end")

    assert seqs(None) == [6, 5, 4, 3, 2, 1]
    assert seqs(NotificationState.WAITING) == [4, 5, 6, 3]
    assert seqs(NotificationState.SENT) == [1]
    assert seqs(NotificationState.GIVEN_UP) == [2]
    [failed] = outbox.page(connection, NotificationState.GIVEN_UP, limit=9).items
    assert (failed.account_id, failed.endpoint_id) == (account.id, endpoint.id)
    assert (failed.recipient, failed.attempts_made, failed.last_error) == ("2@x.example", 9, "unknown recipient")
    assert "hush" not in repr(failed)
    [of_operator, _] = outbox.page(connection, None, limit=2).items
    assert (of_operator.account_id, of_operator.endpoint_id) == (None, None)


def test_an_outbox_longer_than_one_scan_is_read_completely(
    connection: sa.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "WINDOW_ROWS", 3)
    for number in range(1, 11):
        add_unsent_email(connection, number, now=1)
    outbox.settle(connection, [EmailResult(number, 1, sent_at=9) for number in (1, 5)])
    found, before, pages = [], None, 0
    while True:
        page = outbox.page(connection, NotificationState.SENT, limit=9, before=before)
        found += [each.seq for each in page.items]
        before, pages = page.next_key, pages + 1
        if before is None:
            break
    assert (found, pages) == ([5, 1], 4)


@pytest.mark.parametrize(
    "late",
    [
        EmailResult(1, 1, due_at=50, last_error="busy"),
        EmailResult(1, 3, due_at=50, last_error="busy"),
        EmailResult(1, 1, last_error="unknown"),
        EmailResult(1, 1, sent_at=40),
    ],
    ids=["postponed", "postponed later", "failed", "sent"],
)
def test_a_late_result_does_not_change_a_sent_email(connection: sa.Connection, late: EmailResult) -> None:
    add_due_email(connection)
    outbox.settle(connection, [EmailResult(1, 2, sent_at=30)])
    outbox.settle(connection, [late])
    assert stored(connection) == (2, 30, None, None)


def test_a_late_failure_is_ignored_but_a_late_success_is_stored(connection: sa.Connection) -> None:
    add_due_email(connection)
    outbox.settle(connection, [EmailResult(1, 2, due_at=90, last_error="away")])
    outbox.settle(connection, [EmailResult(1, 1, due_at=50, last_error="busy")])
    assert stored(connection) == (2, None, 90, "away")
    outbox.settle(connection, [EmailResult(1, 1, sent_at=30)])
    assert stored(connection) == (1, 30, None, None)


def test_a_late_result_does_not_revive_a_failed_email(connection: sa.Connection) -> None:
    add_due_email(connection)
    outbox.settle(connection, [EmailResult(1, 1, last_error="unknown")])
    outbox.settle(connection, [EmailResult(1, 2, due_at=50, last_error="busy")])
    assert stored(connection) == (1, None, None, "unknown")


def add_due_email(connection: sa.Connection) -> None:
    """Add a due email."""
    outbox.add(
        connection,
        NotificationKind.ENDPOINT_WARNED,
        account_seq=1,
        endpoint_seq=1,
        recipients=[(b"\1" * 16, "a@x.example")],
        facts={},
        now=10,
    )


def stored(connection: sa.Connection) -> tuple[int, int | None, int | None, str | None]:
    """Return the number of attempts, sent time, due time and last error of the only email."""
    columns = table.c.attempts_made, table.c.sent_at, table.c.due_at, table.c.last_error
    (row,) = connection.execute(sa.select(*columns))
    return tuple(row)
