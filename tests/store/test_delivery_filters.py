"""Every filter of deliveries, alone and in pairs, finds the same deliveries as a search of all rows."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import combinations, product
from typing import Any

import pytest
import sqlalchemy as sa

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.lifecycle import Status, Trigger
from uplift_server.store import attempts, deliveries, delivery_search, event_times
from uplift_server.store import schema as tables
from uplift_server.store.event_objects import POSTGRES_BUCKET, SQLITE_BUCKET, object_key
from uplift_server.store.pages import PageRequest
from uplift_server.store.records import Delivery, DeliveryFilter, Page
from uplift_server.store.schema_objects import event_objects

from .test_store_functions import BODY, new_account, new_endpoint

EVENTS = 80
ENDPOINTS = 4
MINUTE = 60_000


@dataclass(frozen=True)
class Row:
    """A stored delivery."""

    event_seq: int
    endpoint_seq: int
    account_seq: int
    status: Status
    outcome: Outcome | None
    status_code: int | None
    object_id: str | None
    trigger: Trigger
    created_at: int


def stored(number: int, endpoint: int) -> Row:
    """Return a delivery with values that are independent of each other."""
    # Endpoints 1 and 2 belong to account 1, the others to account 2.
    mixed = number * 7 + endpoint * 3
    outcome = [None, Outcome.DELIVERED, Outcome.SERVER_ERROR, Outcome.TLS_ERROR, Outcome.CLIENT_ERROR][mixed % 5]
    codes = {Outcome.DELIVERED: 204, Outcome.SERVER_ERROR: 500 + mixed % 4, Outcome.CLIENT_ERROR: 404}
    return Row(
        number, endpoint, 1 if endpoint <= 2 else 2, list(Status)[mixed % 5 if mixed % 3 else 0], outcome,
        None if outcome is None else codes.get(outcome), [None, "a", "b"][number % 3],
        Trigger.TEST if mixed % 11 == 0 else Trigger.SCHEDULE, number * MINUTE,
    )  # fmt: skip


ROWS = [
    row
    for number in range(1, EVENTS + 1)
    for endpoint in range(1, ENDPOINTS + 1)
    if (row := stored(number, endpoint)).account_seq == 1 + number % 2
]


@pytest.fixture
def connection(connection: sa.Connection) -> sa.Connection:
    """A connection to a database with all rows."""
    for number in (1, 2):
        new_account(connection, number)
        name = {"name": f"t{number}", "group_name": "", "description": "", "api_version": "1", "documented": False}
        connection.execute(sa.insert(tables.event_types).values(seq=number, **name, created_at=1, updated_at=1))
    for number in range(1, ENDPOINTS + 1):
        new_endpoint(connection, 1 if number <= 2 else 2, number)
    bucket = SQLITE_BUCKET if connection.dialect.name == "sqlite" else POSTGRES_BUCKET
    for row in {row.event_seq: row for row in ROWS}.values():
        seq = row.event_seq
        connection.execute(
            sa.insert(tables.events).values(
                seq=seq, id=seq.to_bytes(16, "big"), account_seq=row.account_seq, type_seq=type_of(row),
                created_at=row.created_at, body=BODY, object_id=row.object_id,
            )
        )  # fmt: skip
        if row.object_id is not None:
            key = object_key(row.account_seq, row.object_id)
            values = {"first_seq": seq - seq % bucket, "object_key": key, "event_seq": seq}
            connection.execute(sa.insert(event_objects).values(**values))
    for row in ROWS:
        own = {"event_seq": row.event_seq, "endpoint_seq": row.endpoint_seq}
        made = 0 if row.outcome is None else 2
        connection.execute(
            sa.insert(tables.deliveries).values(
                **own, account_seq=row.account_seq, status=row.status, due_at=row.created_at, attempts_made=made,
                last_outcome=row.outcome, trigger=row.trigger,
            )
        )  # fmt: skip
        for number in range(1, made + 1):
            # Only the last attempt counts.
            code = row.status_code if number == made else 404
            attempt = {
                "number": number, "trigger": 0, "started_at": 1, "duration_us": 1, "status_code": code, "outcome": 2,
                "request_head": b"", "body_truncated": False,
            }  # fmt: skip
            connection.execute(sa.insert(tables.attempts).values(**own, **attempt))
    return connection


def type_of(row: Row) -> int:
    """Return the number of the event type of a delivery. It depends only on the event."""
    return 1 + row.event_seq % 5 // 3


CHOSEN = {(4, 1), (6, 2), (7, 3), (9, 1)}
"""Pairs of event and endpoint for the filter `ids`. The last pair has no delivery, because the accounts differ."""
FILTERS: dict[str, tuple[dict[str, Any], Callable[[Row], bool]]] = {
    "pending": ({"statuses": (Status.PENDING,)}, lambda row: row.status is Status.PENDING),
    "failed or held": (
        {"statuses": (Status.FAILED, Status.HELD)}, lambda row: row.status in {Status.FAILED, Status.HELD}
    ),
    "outcomes": (
        {"outcomes": (Outcome.TLS_ERROR, Outcome.CLIENT_ERROR)},
        lambda row: row.outcome in {Outcome.TLS_ERROR, Outcome.CLIENT_ERROR},
    ),
    "code": ({"status_codes": ((404, 404),)}, lambda row: row.status_code == 404),
    "classes": (
        {"status_codes": ((200, 299), (500, 599))},
        lambda row: row.status_code is not None and row.status_code // 100 in {2, 5},
    ),
    "endpoint": ({"endpoint_seqs": (1,)}, lambda row: row.endpoint_seq == 1),
    "endpoints": ({"endpoint_seqs": (1, 2)}, lambda row: row.endpoint_seq in {1, 2}),
    "type": ({"type_seqs": (2,)}, lambda row: type_of(row) == 2),
    "types": ({"type_seqs": (1, 2)}, lambda row: type_of(row) in {1, 2}),
    "object": ({"object_id": "a"}, lambda row: row.object_id == "a"),
    "no tests": ({"is_test": False}, lambda row: row.trigger is not Trigger.TEST),
    "ids": (
        {"ids": tuple((event.to_bytes(16, "big"), bytes([endpoint]) * 6) for event, endpoint in CHOSEN)},
        lambda row: (row.event_seq, row.endpoint_seq) in CHOSEN,
    ),
    "period": (
        {"created_after": 20 * MINUTE, "created_before": 60 * MINUTE},
        lambda row: 20 * MINUTE < row.created_at < 60 * MINUTE,
    ),
}  # fmt: skip


def found(
    connection: sa.Connection, account: int | None, wanted: DeliveryFilter, limit: int, *, ascending: bool = False
) -> list[tuple[int, int]]:
    """Return the keys on all pages of the list. Check that reading backward from the last page finds the same keys."""
    pages: list[list[tuple[int, int]]] = []

    def read(key: tuple[int, ...] | None, *, backward: bool = False) -> Page[Delivery]:
        page = deliveries.page(connection, account, wanted, PageRequest(limit, key, ascending, backward))
        assert len(page.items) <= limit
        pages.append([(each.event_seq, each.endpoint_seq) for each in page.items])
        return page

    page = read(None)
    while page.next_key is not None:
        page = read(page.next_key)
    keys = [key for each in pages for key in each]
    earlier = keys[: len(keys) - len(pages.pop())]
    pages.clear()
    while page.prev_key is not None:
        page = read(page.prev_key, backward=True)
    assert [key for each in pages[::-1] for key in each] == earlier
    return keys


@pytest.mark.parametrize("windows", ["one window", "small windows"])
def test_filters_find_what_a_search_of_all_rows_finds(
    connection: sa.Connection, windows: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if windows == "small windows":
        monkeypatch.setattr(delivery_search, "WINDOW_ROWS", 7)
        monkeypatch.setattr("uplift_server.store.event_objects.CANDIDATES_MAX", 7)
    for number, names in enumerate((*combinations(FILTERS, 1), *combinations(FILTERS, 2))):
        chosen = [FILTERS[name] for name in names]
        values = {field: value for each, _ in chosen for field, value in each.items()}
        if len(values) < sum(len(each) for each, _ in chosen):
            continue  # Both filters set the same field.
        accounts = (1, None) if "endpoint" in " ".join(names) else (1, 2, None)
        # Search with each filter alone for all accounts in both directions, and with each pair of filters in one way.
        ways = list(product(accounts, (False, True)))
        for account, ascending in ways if len(names) == 1 else [ways[number % len(ways)]]:
            expected = [
                (row.event_seq, row.endpoint_seq)
                for row in ROWS
                if account in {None, row.account_seq} and all(matches(row) for _, matches in chosen)
            ]
            limit = 5 if len(names) == 1 else 10
            keys = found(connection, account, DeliveryFilter(**values), limit, ascending=ascending)
            assert keys == sorted(expected, reverse=not ascending), (names, account, ascending)
    assert {field.name for field in fields(DeliveryFilter)} == {name for each, _ in FILTERS.values() for name in each}


@pytest.mark.parametrize("ascending", [False, True])
def test_attempts_are_filtered_by_their_own_codes(
    connection: sa.Connection, ascending: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_search, "WINDOW_ROWS", 7)
    monkeypatch.setattr("uplift_server.store.event_objects.CANDIDATES_MAX", 7)
    # Each filter has another code in each direction, and each code has several filters.
    code_filters: list[tuple[tuple[int, int], ...]] = [(), ((404, 404),), ((500, 599),)]
    for place, name in enumerate(sorted(FILTERS.keys() - {"outcomes", "code", "classes"})):
        values, matches = FILTERS[name]
        codes = code_filters[(place + ascending) % len(code_filters)]
        wanted = DeliveryFilter(**{**values, "status_codes": codes, "outcomes": (Outcome(2),)})
        expected = [
            (row.event_seq, row.endpoint_seq, number)
            for row in ROWS
            if row.account_seq == 1 and row.outcome is not None and matches(row)
            for number, code in ((1, 404), (2, row.status_code))
            if not codes or (code is not None and codes[0][0] <= code <= codes[0][1])
        ]
        pages: list[list[tuple[int, int, int]]] = []
        request: PageRequest | None = PageRequest(3, None, ascending)
        while request is not None:
            page = attempts.page(connection, 1, wanted, request)
            pages.append([(d.event_seq, d.endpoint_seq, a.number) for a, d in page.items])
            request = None if page.next_key is None else PageRequest(3, page.next_key, ascending)
        assert [key for each in pages for key in each] == sorted(expected, reverse=not ascending), (name, codes)
        back: list[list[tuple[int, int, int]]] = []
        while page.prev_key is not None:
            page = attempts.page(connection, 1, wanted, PageRequest(3, page.prev_key, ascending, backward=True))
            back.append([(d.event_seq, d.endpoint_seq, a.number) for a, d in page.items])
        assert [key for each in back[::-1] for key in each] == [key for each in pages[:-1] for key in each]


def test_only_the_deliveries_with_the_keys_are_read(connection: sa.Connection) -> None:
    """Other pairs of the same events and endpoints are not read."""
    keys = {(1, 3), (3, 4), (5, 3)}
    assert deliveries.find_by_keys(connection, keys).keys() == keys


def test_a_page_names_the_object_of_each_delivery(connection: sa.Connection) -> None:
    page = deliveries.page(connection, 1, DeliveryFilter(object_id="b"), PageRequest(3))
    assert {each.object_id for each in page.items} == {"b"}


def test_the_time_of_a_cursor_is_that_of_the_next_stored_event(connection: sa.Connection) -> None:
    connection.execute(sa.delete(tables.events).where(tables.events.c.seq.between(10, 19)))
    assert event_times.created_from(connection, 12) == 20 * MINUTE
    assert event_times.created_from(connection, EVENTS + 1) is None
