"""Operator views of all accounts: fleet, endpoints, traces and outbox."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.lifecycle import Status
from uplift_server.core.people.notifications import NotificationKind, NotificationState
from uplift_server.core.scheduling.waiting import HeldUpBy
from uplift_server.delivery.health.outage_guard import Outage
from uplift_server.service import traces
from uplift_server.service.context import Listing
from uplift_server.service.errors import Forbidden, Invalid, NotFound
from uplift_server.service.operator_lists import EndpointOrder, EndpointSearch, EndpointStatus
from uplift_server.service.operator_overview import OverviewState
from uplift_server.service.principals import Caller
from uplift_server.service.traces import Trace, TracedEvent
from uplift_server.store import outbox

from .test_metrics import expire_readings
from .test_statistics import update_statistics

ALL = Listing(500)


def caller(server: Any, key: str | None = None) -> Caller:
    """Return the caller with a key, by default the operator."""
    found: Caller = server.services.authenticator.caller(f"Bearer {key or server.operator_key}".encode(), None)
    return found


def create_endpoint(server: Any, account: str, url: str = "https://example.com/a", **more: Any) -> str:
    """Create an endpoint, and return its ID."""
    acting = server.client(server.operator_key, account)
    return str(acting.post("/v1/endpoints", {"url": url, **more}).json["id"])


def cached_endpoint(server: Any, endpoint: str) -> Any:
    """Return an endpoint in the cache."""
    return next(each for each in server.services.context.cache.endpoints.values() if each.id_text == endpoint)


def fleet(server: Any) -> OverviewState:
    """Return the current state of the fleet."""
    expire_readings(server)
    state: OverviewState = server.run(lambda: server.services.operator_overview.state(caller(server)))
    return state


def find(server: Any, text: str) -> Trace:
    """Return the trace of an ID."""
    trace: Trace = server.run(lambda: server.services.traces.find(caller(server), text))
    return trace


def account_names(events: Sequence[TracedEvent]) -> list[str]:
    """Return the account names of the events."""
    return [each.account.name for each in events if each.account is not None]


def list_endpoints(
    server: Any, status: EndpointStatus | None, search: str | None = None
) -> tuple[list[str], dict[str, int]]:
    """Return the IDs of the endpoints with a status, and the count of each status."""
    found = server.run(
        lambda: server.services.operator_lists.endpoints(caller(server), EndpointSearch(status, search or ""), ALL)
    )
    ids = [endpoint_id(server, each.endpoint.seq) for each in found.page.items]
    return ids, {name.value if name else "all": count for name, count in found.counts.items()}


def endpoint_id(server: Any, seq: int) -> str:
    return str(server.services.context.cache.endpoints[seq].id_text)


def break_endpoint(server: Any, endpoint: str, *, since: int, outcome: Outcome = Outcome.SERVER_ERROR) -> None:
    """Mark an endpoint in the cache as failing, as if attempts had failed at the time `since`."""
    live = cached_endpoint(server, endpoint)
    for _ in range(6):
        live.health = live.health.after(outcome, since, own_fault=False)


def test_the_fleet_counts_the_backlog_of_all_accounts(server: Any) -> None:
    account = server.account("Fleet")
    endpoint, slow, off = (create_endpoint(server, account) for _ in range(3))
    update_statistics(server)
    before = fleet(server)
    start = server.services.context.now()
    server.event(account, {endpoint: Status.PENDING, slow: Status.PENDING, off: Status.HELD}, created_at=start - 5_000)
    server.event(account, {slow: Status.PENDING}, created_at=start - 90_000)
    update_statistics(server)

    state = fleet(server)

    assert state.backlog.pending == (before.backlog.pending or 0) + 3
    assert state.backlog.held == (before.backlog.held or 0) + 1
    assert state.backlog.oldest_due_at == start - 90_000
    assert (state.load.in_flight, state.load.in_flight_max) == (3, 1000)
    assert sum(state.endpoints.values()) == len(server.services.context.cache.endpoints)
    # The server causes the delay, unless the circuit breaker or a limit of the endpoint does.
    assert "server_late" in {each.code for each in state.problems}
    engine, seq = server.services.context.engine.status, cached_endpoint(server, slow).seq
    engine.delay_causes[seq] = HeldUpBy.PROBE
    assert "server_late" not in {each.code for each in fleet(server).problems}
    engine.delay_causes[seq] = HeldUpBy.ENDPOINT
    [limited] = fleet(server).fleet.limited
    assert (limited.endpoint, limited.pending, limited.limit) == (slow, 3, "16 concurrent requests")
    assert list_endpoints(server, EndpointStatus.AT_LIMIT)[0] == [slow]
    engine.delay_causes.clear()


def test_failing_endpoints_are_grouped_by_cause(server: Any) -> None:
    one, two = server.account("Causes one"), server.account("Causes two")
    start = server.services.context.now()
    first, second = (create_endpoint(server, one, f"https://causes.example.com/{number}") for number in range(2))
    third, healthy, off = (create_endpoint(server, two, f"https://causes.example.com/{n}") for n in range(3))
    for number, endpoint in enumerate((first, second, third)):
        break_endpoint(server, endpoint, since=start - number * 1000, outcome=Outcome.DNS_ERROR)
    for endpoint, count in ((first, 1), (third, 2), (healthy, 3)):
        for _ in range(count):
            server.event(two if endpoint in (third, healthy) else one, {endpoint: Status.PENDING}, created_at=start)
    server.run(lambda: server.services.endpoint_states.disable(caller(server), off))
    update_statistics(server)

    state = fleet(server)
    [group] = [each for each in state.fleet.causes if each.code == "dns"]
    assert (group.title, group.endpoints, group.accounts, group.pending) == ("Host name does not resolve", 3, 2, 6)
    # Three events and the registration events are pending.
    assert (group.since, group.oldest_due_at) == (start - 2000, start)
    # An endpoint that an operator disabled is not failing.
    assert state.fleet.broken == sum(each.endpoints for each in state.fleet.causes)

    def listed(**more: Any) -> list[str]:
        search = EndpointSearch(EndpointStatus.FAILING, "causes.example", **more)
        found = server.run(lambda: server.services.operator_lists.endpoints(caller(server), search, ALL))
        return [endpoint_id(server, each.endpoint.seq) for each in found.page.items]

    assert listed() == listed(cause="dns") == [third, second, first]
    assert listed(order=EndpointOrder.PENDING) == [third, first, second]
    assert listed(account=one) == [second, first]
    assert listed(cause="status_404") == []
    with pytest.raises(NotFound):
        listed(account="acc_unknown")


def test_a_mass_failure_is_a_problem_with_its_onset(server: Any) -> None:
    account = server.account("Mass")
    start = server.services.context.now()
    for number in range(4):
        break_endpoint(server, create_endpoint(server, account), since=start - number * 60_000)
    engine = server.services.context.engine.status
    engine.current_outage = Outage(start, start, 12, start, is_notified=True)
    state = fleet(server)
    engine.current_outage = None
    [problem] = [each for each in state.problems if each.code == "mass_failure"]
    # The title has the current number of failing endpoints, not the number at the start of the mass failure.
    assert f"{state.fleet.broken} of" in problem.title
    assert "Half of them began to fail within" in problem.extent


def test_the_fleet_shows_unfinished_replays_of_all_accounts(server: Any) -> None:
    account = server.account("Replays")
    endpoint = create_endpoint(server, account)
    acting = server.client(server.operator_key, account)
    replay = acting.post("/v1/replays", {"endpoint": endpoint}).json["id"]

    assert [each.replay.id.hex() for each in fleet(server).replays] == [replay.removeprefix("rpl_")]
    acting.post(f"/v1/replays/{replay}/cancel")
    assert fleet(server).replays == []


def test_accounts_are_searched_by_name_contact_and_id(server: Any) -> None:
    created = [server.account(f"Search {name}") for name in ("Äthletik", "Bravo", "Charlie")]
    server.operator.patch(f"/v1/accounts/{created[1]}", {"contact_emails": ["Coach@Bravo.example"]})
    first = create_endpoint(server, created[0])
    create_endpoint(server, created[0])
    server.client(server.operator_key, created[0]).post(f"/v1/endpoints/{first}/pause")

    def found(search: str | None) -> list[str]:
        page = server.run(lambda: server.services.operator_lists.accounts(caller(server), search, ALL))
        return [each.account.name.removeprefix("Search ") for each in page.items]

    assert found("search ") == ["Charlie", "Bravo", "Äthletik"]
    assert found("äTHL") == ["Äthletik"]
    assert found("coach@") == ["Bravo"]
    assert found(created[2]) == ["Charlie"]
    assert found("no such") == []
    [listed] = server.run(lambda: server.services.operator_lists.accounts(caller(server), created[0], ALL)).items
    assert (listed.endpoints, listed.failing, listed.off) == (2, 0, 1)


def test_in_memory_lists_are_paginated(server: Any) -> None:
    for number in range(5):
        server.account(f"Paged {number}")
    cursors, seen, cursor = server.services.context.cursors, [], None
    for _ in range(3):
        page = server.run(
            lambda cursor=cursor: server.services.operator_lists.accounts(caller(server), "paged", Listing(2, cursor))
        )
        seen += [each.account.name for each in page.items]
        cursor = None if page.next_key is None else cursors.encode(page.next_key)
    assert (seen, cursor) == ([f"Paged {number}" for number in (4, 3, 2, 1, 0)], None)
    with pytest.raises(Invalid):
        server.run(lambda: server.services.operator_lists.accounts(caller(server), None, Listing(2, "nonsense")))


def test_endpoints_of_all_accounts_are_filtered_by_health(server: Any) -> None:
    one, two = server.account("Roll one"), server.account("Roll two")
    healthy = create_endpoint(server, one, "https://roll.example.com/well")
    failing, warned, paused, disabled, with_held = (
        create_endpoint(server, two, f"https://roll.example.com/{number}") for number in range(5)
    )
    acting = server.client(server.operator_key, two)
    start = server.services.context.now()
    server.event(two, {with_held: Status.HELD})
    acting.post(f"/v1/endpoints/{paused}/pause")
    server.run(lambda: server.services.endpoint_states.disable(caller(server), disabled))
    for endpoint, warned_at in ((failing, None), (warned, start)):
        health = cached_endpoint(server, endpoint).health
        for _ in range(6):
            health = health.after(Outcome.SERVER_ERROR, start, own_fault=False)
        cached_endpoint(server, endpoint).health = health._replace(warned_at=warned_at)

    every, counts = list_endpoints(server, None, "roll.example.com")
    assert every == [with_held, disabled, paused, warned, failing, healthy]
    assert counts == {"all": 6, "failing": 2, "warned": 1, "disabled": 1, "paused": 1, "held": 1, "at-limit": 0}
    assert list_endpoints(server, EndpointStatus.FAILING, "roll.")[0] == [failing, warned]
    assert list_endpoints(server, EndpointStatus.WARNED, "roll.")[0] == [warned]
    assert list_endpoints(server, EndpointStatus.DISABLED, "roll.")[0] == [disabled]
    assert list_endpoints(server, EndpointStatus.PAUSED, "roll.")[0] == [paused]
    assert list_endpoints(server, EndpointStatus.HELD, "roll.")[0] == [with_held]
    assert list_endpoints(server, None, "roll one") == ([healthy], {**dict.fromkeys(counts, 0), "all": 1})
    assert list_endpoints(server, None, failing)[0] == [failing]
    page = server.run(
        lambda: server.services.operator_lists.endpoints(
            caller(server), EndpointSearch(EndpointStatus.HELD, "roll."), ALL
        )
    ).page
    [held] = page.items
    assert (held.account.name, held.held_deliveries) == ("Roll two", 1)


def test_endpoints_deleted_during_a_list_are_omitted(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    account = server.account("Racing")
    kept, gone = create_endpoint(server, account, "https://racing.example.com/kept"), create_endpoint(server, account)
    server.event(account, {kept: Status.HELD, gone: Status.HELD})
    read, cache = server.database.read, server.services.context.cache
    reads: list[int] = []

    async def delete_after_second_read(body: Any) -> Any:
        found = await read(body)
        reads.append(1)
        if len(reads) == 2:
            cache.drop_endpoint(cached_endpoint(server, gone).seq)
        return found

    monkeypatch.setattr(server.database, "read", delete_after_second_read)
    listed = server.run(
        lambda: server.services.operator_lists.endpoints(caller(server), EndpointSearch(text="racing"), ALL)
    ).page.items
    assert (len(reads), [each.endpoint.url for each in listed]) == (2, ["https://racing.example.com/kept"])


def test_an_event_is_traced_to_its_attempts_and_explanations(server: Any) -> None:
    account = server.account("Trace")
    endpoint = create_endpoint(server, account, "https://trace.example.com/")
    other = create_endpoint(server, account, "https://other.example.com/", event_types=["export.*"])
    event = server.event(account, {endpoint: Status.PENDING})
    for leased in server.lease(endpoint):
        if leased.event_id.hex() == event.replace("-", ""):
            server.settle(leased, Outcome.SERVER_ERROR, Status.FAILED)

    [traced] = find(server, event).events

    assert (account_names([traced]), traced.event.type, traced.delivery_count) == (
        ["Trace"],
        "movement.analytics.created",
        1,
    )
    assert traced.event.body is None
    [traced_delivery] = traced.deliveries
    assert traced_delivery.endpoint is cached_endpoint(server, endpoint)
    assert (traced_delivery.shown.delivery.status, traced_delivery.why.reason) == (Status.FAILED, "failed")
    assert [(each.number, each.outcome) for each in traced_delivery.attempts] == [(1, Outcome.SERVER_ERROR)]
    assert [(each.endpoint, each.why.reason) for each in traced.others] == [(other, "not_subscribed")]
    assert traced.urls[other] == "https://other.example.com/"
    delivery = server.client(server.operator_key, account).get(f"/v1/events/{event}/deliveries").json["data"][0]["id"]
    attempt = server.client(server.operator_key, account).get(f"/v1/deliveries/{delivery}/attempts").json["data"][0]
    for text in (delivery, attempt["id"]):
        trace = find(server, text)
        assert (len(trace.events), trace.delivery) == (1, delivery)


def test_a_traced_delivery_is_listed_first(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "DELIVERIES_MAX", 2)
    account = server.account("Many")
    created = [create_endpoint(server, account, f"https://many.example.com/{number}") for number in range(4)]
    acting = server.client(server.operator_key, account)
    event = server.event(account, dict.fromkeys(created, Status.DELIVERED))
    delivery_ids = {each["endpoint"]: each["id"] for each in acting.get(f"/v1/events/{event}/deliveries").json["data"]}
    for index, endpoint in enumerate(created):
        [traced] = find(server, delivery_ids[endpoint]).events
        shown = [each.endpoint.id_text for each in traced.deliveries if each.endpoint]
        assert (shown[0], traced.delivery_count) == (endpoint, 4)
        assert shown[1:] == [each for each in (created[3], created[2]) if each != endpoint], index
    [traced] = find(server, event).events
    assert len(traced.deliveries) == 2


def test_an_event_id_of_two_accounts_finds_both_events(server: Any) -> None:
    event_id = bytes(range(16))
    created = []
    for name in ("Twin one", "Twin two"):
        account = server.account(name)
        endpoint = create_endpoint(server, account)
        event = server.event(account, {endpoint: Status.DELIVERED}, event_id=event_id)
        created.append((name, server.client(server.operator_key, account).get(f"/v1/events/{event}/deliveries")))

    assert account_names(find(server, event).events) == ["Twin two", "Twin one"]
    for name, response in created:
        delivery = response.json["data"][0]["id"]
        trace = find(server, delivery)
        assert (account_names(trace.events), trace.delivery) == ([name], delivery)


def test_endpoints_accounts_and_replays_are_traced(server: Any) -> None:
    account = server.account("Found")
    endpoint = create_endpoint(server, account)
    acting = server.client(server.operator_key, account)
    event = server.event(account, {endpoint: Status.DELIVERED})
    replay = acting.post("/v1/replays", {"endpoint": endpoint}).json["id"]

    found = find(server, endpoint).endpoint
    assert found is not None
    assert found.live is cached_endpoint(server, endpoint)
    assert found.account is not None
    assert (found.account.name, found.latest[0].delivery.event_id.hex()) == ("Found", event.replace("-", ""))
    of_account = find(server, account).account
    assert of_account is not None
    assert (of_account.endpoints, of_account.latest[0].id.hex()) == (1, event.replace("-", ""))
    of_replay = find(server, replay).replay
    assert of_replay is not None
    assert of_replay.replay.account_seq == of_account.account.seq

    acting.delete(f"/v1/endpoints/{endpoint}")
    gone = find(server, endpoint).endpoint
    assert gone is not None
    assert (gone.live, gone.account, len(gone.latest)) == (None, found.account, len(found.latest))
    server.operator.delete(f"/v1/accounts/{account}")
    gone, of_account = find(server, endpoint).endpoint, find(server, account).account
    assert gone is not None
    assert of_account is not None
    assert (gone.account, of_account.deleted, of_account.endpoints) == (None, True, 0)
    assert find(server, event).events[0].account is None


def test_an_idempotency_key_traces_the_events_of_all_accounts(server: Any) -> None:
    for name in ("Key one", "Key two"):
        server.event(server.account(name), idempotency_key="order-4711")

    assert account_names(find(server, "order-4711").events) == ["Key two", "Key one"]


@pytest.mark.parametrize(
    "text",
    ["", "x" * 256, "nothing", "ep_" + "0" * 32, "acc_" + "0" * 32, "rpl_" + "0" * 32, "dlv_" + "0" * 44,
     "00000000-0000-7000-8000-000000000000", "\0", "' OR 1=1 --"],
)  # fmt: skip
def test_unknown_texts_are_not_found(server: Any, text: str) -> None:
    assert not find(server, text).found


def test_the_outbox_is_listed(server: Any) -> None:
    def add_emails(connection: Any) -> None:
        for kind in (NotificationKind.ENDPOINT_WARNED, NotificationKind.MASS_FAILURE_BEGAN):
            recipient = (bytes([kind]) * 16, f"{kind.text}@x.example")
            outbox.add(connection, kind, account_seq=None, endpoint_seq=None, recipients=[recipient], facts={}, now=5)

    server.run(lambda: server.database.write(add_emails))

    for status, expected in ((None, 2), (NotificationState.WAITING, 2), (NotificationState.SENT, 0)):
        page = server.run(lambda status=status: server.services.operator_lists.emails(caller(server), status, ALL))
        assert len(page.items) == expected


def test_only_operators_have_access(server: Any) -> None:
    account = server.account("Curious")
    key = server.operator.post(f"/v1/accounts/{account}/keys", {"name": "k"}).json["key"]
    holder, services = caller(server, key), server.services
    calls: list[Callable[[], Awaitable[Any]]] = [
        lambda: services.operator_overview.state(holder),
        lambda: services.operator_lists.endpoints(holder, EndpointSearch(), ALL),
        lambda: services.traces.find(holder, account),
        lambda: services.operator_lists.emails(holder, None, ALL),
        lambda: services.operator_lists.accounts(holder, None, ALL),
    ]
    for call in calls:
        with pytest.raises(Forbidden):
            server.run(call)
