"""Functions of the store: pages, soft deletes, and isolation of accounts."""

from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from msgspec import structs

from uplift_server.core.deliveries.replays import ReplayState
from uplift_server.core.endpoint_settings import EndpointSettings
from uplift_server.core.lifecycle import Status
from uplift_server.core.people.notifications import NotificationKind
from uplift_server.store import (
    accounts,
    attempts,
    backlog,
    database_state,
    deliveries,
    delivery_search,
    endpoints,
    event_types,
    events,
    idempotency,
    keys,
    outbox,
    statistics,
    trace_parents,
)
from uplift_server.store import schema as tables
from uplift_server.store.errors import Conflict
from uplift_server.store.outbox import EmailResult
from uplift_server.store.pages import PageRequest
from uplift_server.store.records import DeliveryFilter, EndpointFilter, EventFilter
from uplift_server.store.schema_partitions import NUMBERS
from uplift_server.store.schema_statistics import delivery_totals
from uplift_server.store.stream_position import STREAM_POSITION_MAX

BODY = b'{"id":"x","object":"event","type":"t","api_version":"1","created":1,"data":{}}'


def new_account(connection: sa.Connection, number: int) -> Any:
    """Create an account."""
    return accounts.create(connection, account_id=bytes([number]) * 16, name="a", contact_emails=("x@y",), now=number)


def new_key(connection: sa.Connection, account_seq: int | None, number: int) -> Any:
    """Create a key."""
    return keys.create(
        connection,
        key_id=bytes([number]) * 16,
        account_seq=account_seq,
        name="k",
        digest=bytes([number]) * 32,
        ends_with="abcd",
        scopes=frozenset({"b", "a"}),
        now=1,
    )


def new_endpoint(connection: sa.Connection, account_seq: int, number: int) -> Any:
    """Create an endpoint."""
    return endpoints.create(
        connection,
        endpoint_id=bytes([number]) * 16,
        account_seq=account_seq,
        url="https://example.com/",
        description="",
        event_types=("a.*",),
        secret=b"sealed",
        headers=None,
        settings=EndpointSettings(max_in_flight=3),
        now=1,
    )


def add_unsent_email(connection: sa.Connection, number: int, *, now: int) -> None:
    """Add an unsent email about endpoint 1."""
    outbox.add(
        connection,
        NotificationKind.ENDPOINT_WARNED,
        account_seq=1,
        endpoint_seq=1,
        recipients=[(bytes([number]) * 16, "x@x.example")],
        facts={},
        now=now,
    )


def new_event(connection: sa.Connection, seq: int, account_seq: int, created_at: int, type_seq: int = 1) -> None:
    """Create an event row."""
    row = {"seq": seq, "id": seq.to_bytes(16, "big"), "account_seq": account_seq, "type_seq": type_seq}
    connection.execute(sa.insert(tables.events).values(**row, created_at=created_at, body=BODY))


def new_type(connection: sa.Connection, name: str = "t") -> Any:
    """Create an event type."""
    return event_types.put(
        connection,
        name=name,
        group="",
        description="",
        schema=None,
        example=None,
        api_version="1",
        archived=False,
        now=1,
    )[0]


def test_pages_cover_the_whole_list(connection: sa.Connection) -> None:
    """Pages list the newest objects first. The last page has no key for a next page, even if it is full."""
    created = [new_account(connection, number) for number in range(1, 7)]
    seen = []
    before = None
    for expected in (2, 2, 2):
        page = accounts.page(connection, PageRequest(2, before))
        assert len(page.items) == expected
        seen += page.items
        before = page.next_key
    assert before is None
    assert seen == created[::-1]
    assert accounts.list_live(connection, after=created[3].seq, limit=1) == [created[4]]


def test_an_account_is_deleted_with_its_objects(connection: sa.Connection) -> None:
    """The keys and endpoints of the account are deleted, too. No object can be created for a deleted account."""
    one, two = new_account(connection, 1), new_account(connection, 2)
    key, other_key, operator = (
        new_key(connection, one.seq, 1),
        new_key(connection, two.seq, 2),
        new_key(connection, None, 3),
    )
    endpoint, other = new_endpoint(connection, one.seq, 1), new_endpoint(connection, two.seq, 2)
    deleted = accounts.delete(connection, one.id, now=9)
    assert deleted is not None
    assert (deleted.account, deleted.key_digests, deleted.endpoint_seqs) == (one, [key.digest], [endpoint.seq])
    assert accounts.delete(connection, one.id, now=9) is None
    assert accounts.list_live(connection) == [two]
    assert accounts.get_including_deleted(connection, one.id) == one
    found = endpoints.get_including_deleted(connection, endpoint.id)
    assert found is not None
    assert (found.seq, found.url, found.secret) == (endpoint.seq, endpoint.url, b"")
    assert (
        endpoints.get_including_deleted(connection, b"?" * 16)
        is accounts.get_including_deleted(connection, b"?" * 16)
        is None
    )
    assert keys.list_live(connection) == [other_key, operator]
    assert endpoints.list_live(connection) == [other]
    for make in (new_key, new_endpoint):
        with pytest.raises(Conflict):
            make(connection, one.seq, 9)


@pytest.mark.parametrize("with_its_account", [False, True])
def test_encrypted_values_are_erased_with_their_endpoint(connection: sa.Connection, with_its_account: bool) -> None:
    account = new_account(connection, 1)
    endpoint, other = (
        new_endpoint(connection, account.seq, 1),
        new_endpoint(connection, new_account(connection, 2).seq, 2),
    )
    for each in (endpoint, other):
        endpoints.update(connection, None, each.id, lambda e: structs.replace(e, headers=b"sealed headers"))
        endpoints.set_secrets(connection, each, each.secrets.rotated(b"sealed anew", 2, 1000), now=2)
    if with_its_account:
        accounts.delete(connection, account.id, now=9)
    else:
        endpoints.delete(connection, None, endpoint.id, now=9)
    rows = connection.execute(sa.text("SELECT secret, previous_secret, headers FROM endpoints ORDER BY seq")).all()
    assert [tuple(row) for row in rows] == [(b"", None, None), (b"sealed anew", b"sealed", b"sealed headers")]


def test_keys_and_endpoints_are_isolated_by_account(connection: sa.Connection) -> None:
    """With another account number, nothing is found, updated, revoked or deleted."""
    one, two = new_account(connection, 1), new_account(connection, 2)
    key, endpoint = new_key(connection, one.seq, 1), new_endpoint(connection, one.seq, 1)
    assert keys.get(connection, two.seq, key.id) is None
    assert keys.get(connection, None, key.id) is None
    assert keys.revoke(connection, two.seq, key.id, now=2) is None
    assert keys.page(connection, two.seq, PageRequest(5)).items == []
    assert endpoints.get(connection, two.seq, endpoint.id) is None
    assert endpoints.update(connection, two.seq, endpoint.id, lambda e: structs.replace(e, url="x")) is None
    assert endpoints.delete(connection, two.seq, endpoint.id, now=2) is None
    assert endpoints.page(connection, two.seq, EndpointFilter(), PageRequest(5)).items == []
    assert endpoints.get(connection, one.seq, endpoint.id) == endpoints.get(connection, None, endpoint.id) == endpoint
    assert keys.revoke(connection, one.seq, key.id, now=2) == key
    assert keys.revoke(connection, one.seq, key.id, now=2) is None


def test_an_update_never_writes_health(connection: sa.Connection) -> None:
    """The delivery engine may have written health or state in the meantime."""
    account = new_account(connection, 1)
    endpoint = new_endpoint(connection, account.seq, 1)
    connection.exec_driver_sql("UPDATE endpoints SET consecutive_failures = 7, failing_since = 5")
    changed = endpoints.update(
        connection,
        account.seq,
        endpoint.id,
        lambda stored: structs.replace(stored, url="https://example.com/b", consecutive_failures=0, failing_since=None),
    )
    assert changed is not None
    stored = endpoints.get(connection, account.seq, endpoint.id)
    assert stored is not None
    assert (stored.url, stored.consecutive_failures, stored.failing_since) == ("https://example.com/b", 7, 5)


def test_an_update_stores_the_settings_and_increases_updated_at(connection: sa.Connection) -> None:
    """`updated_at` increases even if the clock stands still, because other processes detect changes by it."""
    account = new_account(connection, 1)
    endpoint = new_endpoint(connection, account.seq, 1)
    settings = EndpointSettings(rate_limit_per_second=20, retry_schedule_ms=(1000, 2000), attempt_timeout_ms=5000)
    changed = endpoints.update(
        connection, account.seq, endpoint.id, lambda stored: structs.replace(stored, settings=settings)
    )
    assert changed is not None
    assert (changed.settings, changed.updated_at) == (settings, endpoint.updated_at + 1)
    assert endpoints.get(connection, account.seq, endpoint.id) == changed
    assert endpoints.list_live(connection) == [changed]


def test_deleted_event_types_keep_their_number(connection: sa.Connection) -> None:
    """Events refer to the number of their type."""
    first = new_type(connection)
    assert event_types.delete(connection, "t", now=2)
    assert not event_types.delete(connection, "t", now=2)
    assert event_types.get(connection, "t") is None
    assert event_types.list_deleted(connection) == [first]
    assert new_type(connection).seq == first.seq
    assert event_types.list_deleted(connection) == []


def test_events_between_timestamps_are_found_without_a_scan(connection: sa.Connection) -> None:
    """Numbers have gaps, and timestamps are slightly out of order."""
    account, other = new_account(connection, 1), new_account(connection, 2)
    new_type(connection)
    numbers = [seq for seq in range(1, 600) if seq % 7]
    at = {seq: seq * 1000 + (-1) ** seq * 4000 for seq in numbers}
    for seq in numbers:
        new_event(connection, seq, account.seq if seq % 2 else other.seq, at[seq])
    for after, before in ((None, None), (100_000, 300_000), (299_999, 300_001), (0, 1), (10**9, None), (None, -5)):
        event_filter = EventFilter((), after, before)
        expected = [
            seq
            for seq in numbers
            if seq % 2 and (after is None or at[seq] > after) and (before is None or at[seq] < before)
        ]
        found, key = [], None
        while True:
            page = events.page(connection, account.seq, event_filter, PageRequest(50, key))
            found += [event.seq for event in page.items]
            key = page.next_key
            if key is None:
                break
        assert found == expected[::-1]
        followed: list[int] = []
        position: tuple[int, ...] = (0,)
        while True:
            forward_page = events.page_forward(
                connection, account.seq, event_filter, STREAM_POSITION_MAX, PageRequest(50, position, ascending=True)
            )
            followed += [event.seq for event in forward_page.items]
            position = forward_page.key
            if not forward_page.more:
                break
        assert followed == expected


@pytest.mark.parametrize("apart", [1, NUMBERS // 1000])
def test_pages_with_few_matches_end_early(
    connection: sa.Connection, monkeypatch: pytest.MonkeyPatch, apart: int
) -> None:
    """The cost of a page is bounded even if matches are rare, and all pages together contain every match.

    This includes lists with gaps between numbers, like the gap between two partitions.
    """
    monkeypatch.setattr(events, "WINDOW_EVENTS", 40)
    monkeypatch.setattr(delivery_search, "WINDOW_ROWS", 40)
    account = new_account(connection, 1)
    endpoint = new_endpoint(connection, account.seq, 1)
    new_type(connection)
    rare = new_type(connection, "rare")
    for number in range(1, 301):
        is_rare = number % 100 == 0
        new_event(connection, number * apart, account.seq, number, rare.seq if is_rare else 1)
        row = {"event_seq": number * apart, "endpoint_seq": endpoint.seq, "account_seq": account.seq, "due_at": 1}
        connection.execute(sa.insert(tables.deliveries).values(**row, status=0 if is_rare else 1))

    def walk(read: Any) -> tuple[list[int], int]:
        found, pages, key = [], 0, None
        while pages < 100:
            page = read(key)
            pages += 1
            found += [getattr(item, "seq", None) or item.event_seq for item in page.items]
            key = page.next_key
            if key is None:
                break
        return found, pages

    reads = [
        lambda key: events.page(connection, None, EventFilter((rare.seq,)), PageRequest(5, key)),
        lambda key: deliveries.page(connection, None, DeliveryFilter(type_seqs=(rare.seq,)), PageRequest(5, key)),
        lambda key: deliveries.page(connection, account.seq, DeliveryFilter((Status.PENDING,)), PageRequest(5, key)),
        lambda key: deliveries.page(
            connection, account.seq, DeliveryFilter((Status.PENDING,), (endpoint.seq,)), PageRequest(5, key)
        ),
    ]
    for read in reads:
        found, pages = walk(read)
        assert found == [300 * apart, 200 * apart, 100 * apart]
        assert 7 <= pages <= 12
    position: tuple[int, ...] = (0,)
    followed: list[int] = []
    more = True
    forward_pages = 0
    while more:
        forward_pages += 1
        assert forward_pages <= 12
        forward_page = events.page_forward(
            connection, None, EventFilter((rare.seq,)), STREAM_POSITION_MAX, PageRequest(5, position, ascending=True)
        )
        followed += [event.seq for event in forward_page.items]
        position, more = forward_page.key, forward_page.more
    assert (followed, position) == ([100 * apart, 200 * apart, 300 * apart], (300 * apart,))


@pytest.mark.parametrize("ascending", [False, True])
@pytest.mark.parametrize("read", [deliveries.page, attempts.page])
def test_a_page_scans_few_events_with_many_deliveries(
    connection: sa.Connection, monkeypatch: pytest.MonkeyPatch, read: Any, ascending: bool
) -> None:
    """The limit of a page counts deliveries, so that events with many deliveries do not make it slower."""
    monkeypatch.setattr(delivery_search, "WINDOW_ROWS", 40)
    account = new_account(connection, 1)
    new_type(connection)
    fan_out = [new_endpoint(connection, account.seq, number).seq for number in range(1, 21)]
    rare = [(1, fan_out[0]), (9, fan_out[7]), (16, fan_out[-1])]
    for event_seq in range(1, 17):
        new_event(connection, event_seq, account.seq, event_seq)
        for endpoint_seq in fan_out:
            key = {"event_seq": event_seq, "endpoint_seq": endpoint_seq}
            status = int(Status.HELD if (event_seq, endpoint_seq) in rare else Status.DELIVERED)
            row = {**key, "account_seq": account.seq, "status": status, "due_at": 1}
            connection.execute(sa.insert(tables.deliveries).values(**row))
            if status == Status.HELD:
                attempt = {"number": 1, "trigger": 0, "started_at": 1, "duration_us": 1, "outcome": 2}
                row = {**key, **attempt, "request_head": b"", "body_truncated": False}
                connection.execute(sa.insert(tables.attempts).values(**row))
    # With the second status, no index supports the filter.
    wanted = DeliveryFilter((Status.HELD, Status.PENDING))
    found, pages, key = [], 0, None
    while pages == 0 or key is not None:
        page = read(connection, account.seq, wanted, PageRequest(5, key, ascending))
        found += [getattr(each, "delivery", each) for each in page.items]
        pages, key = pages + 1, page.next_key
    assert [(each.event_seq, each.endpoint_seq) for each in found] == sorted(rare, reverse=not ascending)
    assert 8 <= pages <= 9
    everything = deliveries.page(connection, account.seq, DeliveryFilter(), PageRequest(100, None, ascending))
    assert len(everything.items) == 100


def test_a_repeated_create_loads_or_is_rejected(connection: sa.Connection) -> None:
    """A new request creates the object, a repeated one loads it, and a different one with the same key is rejected."""
    request = idempotency.Request(1, "k", "endpoint", b"d" * 32)
    created: list[str] = []

    def create(request: idempotency.Request | None, load: str | None = "loaded") -> tuple[Any, bool]:
        return idempotency.create_once(
            connection,
            request,
            object_id=b"i" * 16,
            now=1,
            create=lambda: created.append("x") or "created",  # type: ignore[func-returns-value]
            load=lambda object_id: load if object_id == b"i" * 16 else None,
        )

    assert create(None) == create(None) == ("created", False)
    assert create(request) == ("created", False)
    assert create(request) == ("loaded", True)
    for other in (replace(request, kind="key"), replace(request, digest=b"e" * 32)):
        with pytest.raises(idempotency.KeyReused):
            create(other)
    with pytest.raises(idempotency.KeyReused, match="deleted"):
        create(request, None)
    assert create(replace(request, account_seq=2)) == ("created", False)
    assert len(created) == 4


def test_expired_previous_secrets_are_erased(connection: sa.Connection) -> None:
    """Only expired secrets of the given endpoints are erased. Deleted endpoints are skipped."""
    account = new_account(connection, 1)
    created = [new_endpoint(connection, account.seq, number) for number in range(1, 5)]
    for endpoint in created:
        secrets = endpoint.secrets.rotated(b"new", 5, 10 if endpoint is not created[1] else 20, header_new=True)
        changed = endpoints.set_secrets(connection, endpoint, secrets, now=5)
        assert changed == endpoints.get(connection, account.seq, endpoint.id)
        assert changed.secrets == secrets
        assert (changed.updated_at, changed.url) == (5, endpoint.url)
    endpoints.delete(connection, None, created[2].id, now=6)
    seqs = [endpoint.seq for endpoint in created[:3]]
    assert endpoints.erase_previous_secrets(connection, seqs, now=14) == []
    [erased] = endpoints.erase_previous_secrets(connection, seqs, now=15)
    assert erased.secrets == created[0].secrets.rotated(b"new", 5, 0)
    assert erased == endpoints.get(connection, account.seq, created[0].id)
    assert endpoints.erase_previous_secrets(connection, seqs, now=15) == []
    kept = [endpoints.get(connection, None, created[number].id) for number in (1, 3)]
    assert [each.previous_secret for each in kept if each is not None] == [b"sealed", b"sealed"]


def test_the_backlog_is_counted_up_to_a_limit(connection: sa.Connection) -> None:
    def add_delivery(event: int, endpoint: int, status: Status, due_at: int | None, process_id: int = 0) -> None:
        row = {"event_seq": event, "endpoint_seq": endpoint, "account_seq": 1, "status": status}
        connection.execute(sa.insert(tables.deliveries).values(**row, due_at=due_at, lease_owner=process_id))

    assert backlog.count(connection, now=10, limit=9) == (0, 0, 0, 0)
    for event, endpoint in ((1, 1), (2, 1), (3, 7)):
        add_delivery(event, endpoint, Status.PENDING, 10)
    for event, endpoint in ((4, 1), (5, 8)):
        add_delivery(event, endpoint, Status.PENDING, 11)
    for event, endpoint in ((6, 2), (7, 2), (8, 9), (9, 9)):
        add_delivery(event, endpoint, Status.HELD, None)
    add_delivery(10, 1, Status.PENDING, 10, process_id=1)
    add_delivery(11, 1, Status.DELIVERED, None)
    add_delivery(12, 1, Status.PENDING, None)
    assert backlog.count(connection, now=10, limit=9) == (3, 2, 4, 1)
    assert backlog.count(connection, now=9, limit=9) == (0, 5, 4, 1)
    assert backlog.count(connection, now=11, limit=3) == (3, 0, 3, 1)
    assert database_state.read(connection, now=10, limit=9).leased == 1


def test_the_database_state_is_read(connection: sa.Connection) -> None:
    empty = database_state.read(connection, now=10, limit=9)
    assert (empty.totals, empty.mails, empty.oldest_mail_at, empty.oldest_event_at) == ({}, 0, None, None)
    assert empty.replays == {ReplayState.RUNNING: 0, ReplayState.PAUSED: 0}
    for number, at in ((1, 40), (2, 50), (3, 60)):
        add_unsent_email(connection, number, now=at)
    outbox.settle(connection, [EmailResult(1, 1, sent_at=9)])
    connection.execute(sa.insert(tables.marks).values(name=statistics.TOTALS_COUNTED, value=1))
    connection.execute(sa.insert(delivery_totals).values(endpoint_seq=7, pending=50, held=2))
    job = dict.fromkeys(
        ("total", "counted_through", "next_event_seq", "last_event_seq", "created_at", "updated_at"), 9
    ) | {
        "account_seq": 1,
        "endpoint_seq": 1,
        "statuses": "[2]",
        "types": "[]",
        "type_seqs": "[]",
        "rate_per_second": 50,
    }
    for number, state in enumerate((ReplayState.RUNNING, ReplayState.RUNNING, ReplayState.PAUSED), 1):
        row = job | {"id": bytes([number]) * 16, "state": int(state)}
        connection.execute(sa.insert(tables.replays).values(row))
    for seq, at in ((1, 30), (2, 70)):
        row = {"seq": seq, "id": bytes([seq]) * 16, "account_seq": 1, "type_seq": 1, "created_at": at, "body": BODY}
        connection.execute(sa.insert(tables.events).values(row))

    found = database_state.read(connection, now=10, limit=9)
    assert found.totals == {7: (50, 2)}
    assert (found.mails, found.oldest_mail_at, found.oldest_event_at) == (2, 50, 30)
    assert found.replays == {ReplayState.RUNNING: 2, ReplayState.PAUSED: 1}


def test_events_of_all_accounts_are_found_by_id_and_by_key(connection: sa.Connection) -> None:
    one, two = new_account(connection, 1), new_account(connection, 2)
    new_type(connection)
    for seq, account in ((1, one), (2, two), (3, one)):
        new_event(connection, seq, account.seq, 5)
    connection.exec_driver_sql("UPDATE events SET id = (SELECT id FROM events WHERE seq = 1) WHERE seq = 2")
    for account, key, seq in ((one, "k", 1), (two, "k", 2), (one, "other", 3)):
        row = {"account_seq": account.seq, "key": key, "event_seq": seq, "created_at": 1}
        connection.execute(sa.insert(tables.idempotency_keys).values(**row))

    event_id = (1).to_bytes(16, "big")
    found = events.find_in_all_accounts(connection, event_id, limit=5)
    assert [(each.seq, each.account_id) for each in found] == [(2, two.id), (1, one.id)]
    assert [each.body for each in found] == [None, None]
    assert len(events.find_in_all_accounts(connection, event_id, limit=1)) == 1
    assert events.find_in_all_accounts(connection, b"?" * 16, limit=5) == []
    assert [each.seq for each in events.find_by_idempotency_key(connection, "k", limit=5)] == [2, 1]
    assert [each.seq for each in events.find_by_idempotency_key(connection, "k", limit=1)] == [2]
    assert [each.seq for each in events.find_by_idempotency_key(connection, "other", limit=5)] == [3]
    assert events.find_by_idempotency_key(connection, "K", limit=5) == []


def test_an_accounts_events_are_found_between_two_ids(
    connection: sa.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = new_account(connection, 1), new_account(connection, 2)
    new_type(connection)
    for seq, account in ((1, one), (2, two), (3, one), (4, one)):
        new_event(connection, seq, account.seq, 5)

    def found(lowest: int, highest: int, limit: int = 5) -> list[int]:
        low, high = lowest.to_bytes(16, "big"), highest.to_bytes(16, "big")
        return [each.seq for each in events.find_in_id_range(connection, one.seq, low, high, limit=limit)]

    assert found(1, 4) == [4, 3, 1]
    assert found(1, 3) == [3, 1]
    assert found(2, 2) == []
    assert found(1, 4, limit=2) == [4, 3]
    monkeypatch.setattr(events, "WINDOW_EVENTS", 3)
    assert found(1, 4) == [4, 3]


def test_the_trace_of_an_event_is_stored_once(connection: sa.Connection) -> None:
    """A repeated call can also contain the traces of other events."""
    new_event(connection, 1, 1, 5)
    new_event(connection, 2, 1, 5)
    trace_parents.put(connection, {1: "one"})
    trace_parents.put(connection, {1: "one", 2: "two"})
    ids = [seq.to_bytes(16, "big") for seq in (1, 2)]
    assert trace_parents.of_events(connection, ids) == dict(zip(ids, ("one", "two"), strict=True))
