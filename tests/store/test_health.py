"""The store's functions for endpoint health, for emails that have not been sent, and for server values."""

import sqlalchemy as sa

from uplift_server.core.deliveries.health import Health
from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.people.notifications import LATE_AFTER_MS, NotificationKind
from uplift_server.store import endpoints, health, outbox, server_values
from uplift_server.store.hot_records import HealthRow
from uplift_server.store.outbox import EmailResult
from uplift_server.store.records import DisabledReason, EndpointState, HeldAction

from .test_store_functions import new_account, new_endpoint


def test_unsent_emails_are_distinguished_from_sent_or_failed_ones(connection: sa.Connection) -> None:
    def is_waiting(
        account_seq: int = 1,
        since: int = 0,
        kind: NotificationKind = NotificationKind.ENDPOINT_WARNED,
        endpoint: str = "ep_2",
    ) -> bool:
        return outbox.is_unsent(connection, account_seq, endpoint, kind, since=since, until=40)

    def settle(seq: int, sent_at: int | None = None) -> None:
        outbox.settle(connection, [EmailResult(seq, 1, sent_at=sent_at)])

    assert not is_waiting()
    for number, at in enumerate((10, 30, 30), 1):
        outbox.add(
            connection,
            NotificationKind.ENDPOINT_WARNED,
            account_seq=1,
            endpoint_seq=2,
            recipients=[(bytes([number]) * 16, "a@x.example")],
            facts={"endpoint": "ep_2"},
            now=at,
        )
    assert is_waiting()
    assert not is_waiting(endpoint="ep_3")
    assert not is_waiting(account_seq=3)
    assert not is_waiting(kind=NotificationKind.ENDPOINT_DISABLED)
    settle(1, sent_at=12)
    assert is_waiting(since=30)  # this email was about an earlier failure
    settle(2)
    assert is_waiting(since=30)
    settle(3)
    assert not is_waiting(since=30)  # all later emails failed


def test_the_email_that_was_sent_last_can_be_late(connection: sa.Connection) -> None:
    def sent_late_at() -> int | None:
        return outbox.sent_late_at(connection, 1, "ep_2", NotificationKind.ENDPOINT_WARNED, since=10, until=40)

    recipients = [(bytes([number]) * 16, "a@x.example") for number in range(3)]
    outbox.add(
        connection,
        NotificationKind.ENDPOINT_WARNED,
        account_seq=1,
        endpoint_seq=2,
        recipients=recipients,
        facts={"endpoint": "ep_2"},
        now=10,
    )
    assert sent_late_at() is None
    for seq, sent_at, late_at in (
        (1, 10 + LATE_AFTER_MS, None),
        (2, 20 + LATE_AFTER_MS, 20 + LATE_AFTER_MS),
        (3, 11 + LATE_AFTER_MS, 20 + LATE_AFTER_MS),
    ):
        outbox.settle(connection, [EmailResult(seq, 1, sent_at=sent_at)])
        assert sent_late_at() == late_at


def test_server_values_are_replaced_by_prefix(connection: sa.Connection) -> None:
    server_values.replace(connection, "a.", {"a.x": 1, "a.y": 2**40})
    server_values.replace(connection, "ab", {"ab": 3})
    server_values.replace(connection, "a_", {})  # `_` is not a wildcard
    assert server_values.get_all(connection, "a.") == {"a.x": 1, "a.y": 2**40}
    server_values.replace(connection, "a.", {"a.z": 0})
    assert server_values.get_all(connection, "a.") == {"a.z": 0}
    assert server_values.get_all(connection, "a") == {"a.z": 0, "ab": 3}


def test_only_an_enabled_endpoint_is_warned_or_disabled_for_its_health(connection: sa.Connection) -> None:
    account = new_account(connection, 1)
    enabled, paused, deleted = (new_endpoint(connection, account.seq, number) for number in (1, 2, 3))
    endpoints.deactivate(connection, paused.seq, EndpointState.PAUSED, None, now=5)
    endpoints.delete(connection, None, deleted.id, now=5)
    rows = [HealthRow(each.seq, 7, 3, 2, 6, Outcome.TIMEOUT, 9, None, "slow", None, 12) for each in (enabled, paused)]
    health.save(connection, rows)
    health.save(connection, [])
    assert [health.set_warned_at(connection, each.seq, 8) for each in (enabled, paused, deleted)] == [
        True,
        False,
        False,
    ]
    stored = endpoints.get(connection, None, enabled.id)
    assert stored is not None
    assert stored.health == Health(7, 3, 2, 6, Outcome.TIMEOUT, 9, 8, None, "slow", None, 12)
    assert [
        health.disable(connection, each.seq, DisabledReason.FAILING, since=None, now=9) for each in (paused, deleted)
    ] == [
        None,
        None,
    ]
    disabled = health.disable(connection, enabled.seq, DisabledReason.FAILING, since=None, now=9)
    assert disabled is not None
    assert (disabled.state, disabled.disabled_reason) == (EndpointState.DISABLED, DisabledReason.FAILING)
    assert (disabled.state_since, disabled.health) == (9, stored.health)
    assert health.disable(connection, enabled.seq, DisabledReason.FAILING, since=None, now=10) is None
    enabled_again = endpoints.enable(connection, enabled.seq, HeldAction.SEND, now=11)
    assert enabled_again is not None
    assert enabled_again.health == Health()
    assert health.disable(connection, enabled.seq, DisabledReason.FAILING, since=None, now=12) is None
    assert health.disable(connection, enabled.seq, DisabledReason.FAILING, since=11, now=12) is not None
