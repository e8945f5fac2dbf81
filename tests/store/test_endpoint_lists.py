"""Filters of endpoint lists: state, failing and text."""

import pytest
import sqlalchemy as sa

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.events.subscriptions import matching_patterns
from uplift_server.store import accounts, endpoints
from uplift_server.store.pages import PageRequest
from uplift_server.store.records import EndpointFilter, EndpointState
from uplift_server.store.schema import endpoints as table

URLS = ("https://a.example.com/Hooks", "https://b.example.com/100%_done", "https://c.example.org/x?token=sEcReT")


@pytest.fixture
def account_seq(connection: sa.Connection) -> int:
    """Create an account with an endpoint for each of URLS, the last with a description, and a deleted endpoint."""
    seq = accounts.create(connection, account_id=b"a" * 16, name="a", contact_emails=(), now=1).seq
    for number, url in enumerate((*URLS, "https://gone.example.com/")):
        endpoints.create(
            connection,
            endpoint_id=bytes([number]) * 16,
            account_seq=seq,
            url=url,
            description="Ana's laptop" if number == 2 else "",
            event_types=(),
            secret=b"sealed",
            headers=None,
            now=1,
        )
    endpoints.delete(connection, seq, bytes([3]) * 16, now=2)
    return seq


def matching_indexes(connection: sa.Connection, account_seq: int | None, endpoint_filter: EndpointFilter) -> list[int]:
    """Return the index in URLS of each matching endpoint, page by page."""
    found: list[int] = []
    before: tuple[int, ...] | None = None
    while True:
        page = endpoints.page(connection, account_seq, endpoint_filter, PageRequest(1, before))
        found += [URLS.index(each.url) for each in page.items]
        before = page.next_key
        if before is None:
            return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("example", [2, 1, 0]),
        ("HOOKS", [0]),
        ("100%", [1]),
        ("%", [1]),
        ("_", [1]),
        ("laptop", [2]),
        ("org/x", [2]),
        ("https://C.example.org/x?token=secret", [2]),
        ("https://c.example.org/x?", []),
        ("token", []),
        ("gone", []),
        ("\\", []),
    ],
)
def test_a_text_is_searched_literally(
    connection: sa.Connection, account_seq: int, text: str, expected: list[int]
) -> None:
    assert matching_indexes(connection, account_seq, EndpointFilter(text=text)) == expected
    assert matching_indexes(connection, None, EndpointFilter(text=text)) == expected
    assert matching_indexes(connection, account_seq + 1, EndpointFilter(text=text)) == []


def test_endpoints_are_filtered_by_state_and_failing(connection: sa.Connection, account_seq: int) -> None:
    endpoints.deactivate(connection, 2, EndpointState.PAUSED, None, now=5)
    connection.execute(sa.update(table).where(table.c.seq == 3).values(failing_since=4))

    assert matching_indexes(connection, account_seq, EndpointFilter((EndpointState.ENABLED,))) == [2, 0]
    assert matching_indexes(connection, account_seq, EndpointFilter((EndpointState.PAUSED,))) == [1]
    assert matching_indexes(connection, account_seq, EndpointFilter((EndpointState.DISABLED,))) == []
    assert matching_indexes(connection, account_seq, EndpointFilter(failing=True)) == [2]
    assert matching_indexes(connection, account_seq, EndpointFilter((EndpointState.PAUSED,), failing=True)) == [2, 1]


def test_failing_endpoints_are_filtered_by_cause(
    connection: sa.Connection, account_seq: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "FAILING_READ", 1)
    broken = {"failing_since": 4, "last_outcome": int(Outcome.SERVER_ERROR)}
    for seq, code in ((1, 500), (2, 503), (3, 500)):
        connection.execute(sa.update(table).where(table.c.seq == seq).values(**broken, last_status_code=code))

    assert matching_indexes(connection, account_seq, EndpointFilter(cause="status_500")) == [2, 0]
    assert matching_indexes(connection, None, EndpointFilter(text="hooks", cause="status_500")) == [0]
    assert matching_indexes(connection, account_seq, EndpointFilter((EndpointState.PAUSED,), cause="status_500")) == []
    assert matching_indexes(connection, account_seq + 1, EndpointFilter(cause="status_500")) == []
    connection.execute(sa.update(table).where(table.c.seq == 1).values(failing_since=None))
    assert matching_indexes(connection, account_seq, EndpointFilter(cause="status_500")) == [2]


def test_endpoints_are_filtered_by_id_and_subscription(
    connection: sa.Connection, account_seq: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seq, types in ((1, '["a.b", "c.*"]'), (2, '["a.*", "x"]'), (3, "[]")):
        connection.execute(sa.update(table).where(table.c.seq == seq).values(event_types=types))
    for rows in (10, 1):
        monkeypatch.setattr(endpoints, "WINDOW_ROWS", rows)
        for account in (account_seq, None):
            for event_type, expected in (
                ("a.b", [2, 1, 0]), ("a.c", [2, 1]), ("a", [2]), ("c.d.e", [2, 0]), ("c_d", [2]), ("x", [2, 1]),
            ):  # fmt: skip
                patterns = tuple(matching_patterns(event_type))
                assert matching_indexes(connection, account, EndpointFilter(patterns=patterns)) == expected
            chosen = EndpointFilter(ids=(bytes(16), bytes([2]) * 16, bytes([3]) * 16))
            assert matching_indexes(connection, account, chosen) == [2, 0]
    assert matching_indexes(connection, account_seq + 1, chosen) == []
