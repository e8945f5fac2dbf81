"""Statistics of an endpoint, an account and all accounts, and the required permissions."""

import asyncio
from typing import Any

import pytest

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.lifecycle import Status
from uplift_server.core.operations.statistics import HOUR_MS, Series
from uplift_server.core.security.scopes import Scope
from uplift_server.core.timestamps import format_timestamp
from uplift_server.delivery.maintenance.statistics import StatisticsUpdater
from uplift_server.delivery.shards import LocalShards
from uplift_server.service.errors import Forbidden, NotFound
from uplift_server.service.principals import Caller, Principal

from .conftest import parse

EMPTY_TOTALS = {
    "deliveries": 0,
    "delivered": 0,
    "failed": 0,
    "pending": 0,
    "held": 0,
    "cancelled": 0,
    "attempts": 0,
    "first_try_rate": None,
    "p50_ms": None,
    "p95_ms": None,
}


class Owner:
    """An account with an endpoint that has a delivery in each status, and three attempts."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self.id = server.account()
        self.client = server.owner(self.id)
        self.endpoint = str(self.client.post("/v1/endpoints", {"url": "https://example.com/a"}).json["id"])
        for leased in server.lease(self.endpoint):
            server.settle(leased, Outcome.DELIVERED, Status.DELIVERED)
        for status in (Status.FAILED, Status.PENDING):
            server.event(self.id, {self.endpoint: Status.PENDING})
            for leased in server.lease(self.endpoint):
                due_at = leased.lease_until if status is Status.PENDING else None
                server.settle(leased, Outcome.TIMEOUT, status, due_at)
        server.event(self.id, {self.endpoint: Status.HELD}, created_at=self.now - 2 * HOUR_MS)
        server.event(self.id, {self.endpoint: Status.CANCELLED}, created_at=self.now - 26 * HOUR_MS)
        update_statistics(server)

    @property
    def now(self) -> int:
        """The current time in Unix ms."""
        return int(self.server.services.context.now())


def update_statistics(server: Any) -> None:
    """Update the statistics."""
    loop = StatisticsUpdater(server.database, LocalShards(), server.services.context.clock, every_ms=1000)
    server.run(lambda: loop.count_all(asyncio.Event()))


@pytest.fixture(scope="module")
def mine(server: Any) -> Owner:
    """Create an account."""
    return Owner(server)


@pytest.fixture(scope="module")
def theirs(server: Any) -> Owner:
    """Create another account with the same content."""
    return Owner(server)


def test_a_day_has_hourly_buckets(mine: Owner) -> None:
    before = mine.now
    response = mine.client.get("/v1/stats").json
    hour = mine.now - mine.now % HOUR_MS
    assert set(response) == {"period", "since", "until", "totals", "buckets", "failures"}
    assert response["period"] == "24h"
    totals = {"deliveries": 4, "delivered": 1, "failed": 1, "pending": 1, "held": 1, "attempts": 3}
    measured = {"first_try_rate": 0.3333, "p50_ms": 12.4, "p95_ms": 12.5}
    assert {name: response["totals"][name] for name in totals} == totals
    assert response["totals"]["first_try_rate"] == measured["first_try_rate"]
    assert 10 <= response["totals"]["p50_ms"] <= response["totals"]["p95_ms"] <= 12.5
    assert response["failures"] == {"timeout": 2}
    if before - before % HOUR_MS == hour:
        assert [bucket["at"] for bucket in response["buckets"]] == [
            format_timestamp(hour - back * HOUR_MS) for back in range(23, -1, -1)
        ]
        assert [bucket["held"] for bucket in response["buckets"]] == [0] * 21 + [1, 0, 0]
    empty = response["buckets"][0]
    assert empty == {"at": empty["at"], **EMPTY_TOTALS}
    assert next(iter(empty)) == "at"


@pytest.mark.parametrize(("period", "count", "hours"), [("24h", 24, 1), ("7d", 28, 6), ("30d", 30, 24)])
def test_periods_have_their_buckets(mine: Owner, period: str, count: int, hours: int) -> None:
    response = mine.client.get(f"/v1/endpoints/{mine.endpoint}/stats?period={period}").json
    assert (response["period"], len(response["buckets"])) == (period, count)
    assert all(bucket["at"].endswith(":00:00.000Z") for bucket in response["buckets"])
    assert {int(bucket["at"][11:13]) % hours for bucket in response["buckets"]} == {0}
    assert response["totals"]["cancelled"] == (1 if period != "24h" else 0)
    assert response["totals"]["deliveries"] == sum(bucket["deliveries"] for bucket in response["buckets"])


def test_the_last_hour_has_minutes(mine: Owner) -> None:
    response = mine.client.get(f"/v1/endpoints/{mine.endpoint}/stats?period=1h").json
    assert len(response["buckets"]) == 60
    assert all(bucket["at"].endswith(":00.000Z") for bucket in response["buckets"])
    # Two of the five events are older than an hour.
    assert (response["totals"]["deliveries"], response["totals"]["attempts"]) == (3, 3)


def test_an_account_sees_only_its_own_statistics(mine: Owner, theirs: Owner, server: Any) -> None:
    other = server.account()
    assert server.owner(other).get("/v1/stats?period=30d").json["totals"] == EMPTY_TOTALS
    for one in (mine, theirs):
        acting = server.client(server.operator_key, one.id)
        for client in (one.client, acting):
            assert client.get("/v1/stats?period=30d").json["totals"]["deliveries"] == 5
        assert acting.get(f"/v1/endpoints/{one.endpoint}/stats?period=30d").json["totals"]["deliveries"] == 5
    foreign = mine.client.get(f"/v1/endpoints/{theirs.endpoint}/stats")
    assert (foreign.status, foreign.code) == (404, "not_found")
    assert mine.client.get("/v1/endpoints/ep_nonsense/stats").code == "not_found"


def test_an_operator_sees_the_totals_of_all_accounts(mine: Owner, theirs: Owner, server: Any) -> None:
    assert server.operator.get("/v1/stats?period=30d").json["totals"]["deliveries"] >= 10
    found = server.operator.get(f"/v1/endpoints/{theirs.endpoint}/stats?period=30d").json
    assert found["totals"]["deliveries"] == 5


def test_an_invalid_period_is_rejected(mine: Owner) -> None:
    for path in ("/v1/stats", f"/v1/endpoints/{mine.endpoint}/stats"):
        assert mine.client.get(f"{path}?period=1y&x=y").problems == {
            ("period", "value_unknown"),
            ("x", "unknown_field"),
        }


def test_deleted_endpoints_stay_in_the_statistics_of_the_account(server: Any) -> None:
    owner = Owner(server)
    assert owner.client.delete(f"/v1/endpoints/{owner.endpoint}").status == 204
    assert owner.client.get("/v1/stats?period=30d").json["totals"]["deliveries"] == 5
    assert owner.client.get(f"/v1/endpoints/{owner.endpoint}/stats").code == "not_found"


def test_a_page_of_endpoints_or_accounts_takes_one_read(
    mine: Owner, theirs: Owner, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = server.services
    second = str(mine.client.post("/v1/endpoints", {"url": "https://example.com/b"}).json["id"])
    update_statistics(server)
    reads = []
    read = services.context.database.read
    monkeypatch.setattr(services.context.database, "read", lambda body: reads.append(body) or read(body))

    def caller(account: str | None, *scopes: Scope) -> Caller:
        seq = None if account is None else services.context.cache.accounts_by_id[parse("acc", account)].seq
        return Caller(Principal.of_key(b"k" * 16, seq, frozenset(scopes), "test"), seq)

    reader = caller(mine.id, Scope.DELIVERIES_READ)
    found: dict[str, Series] = server.run(lambda: services.statistics.of_endpoints(reader, [mine.endpoint, second]))
    assert {name: each.totals.deliveries for name, each in found.items()} == {mine.endpoint: 4, second: 1}
    assert {len(each.buckets) for each in found.values()} == {24}
    assert len(reads) == 1
    operator = caller(None)
    found = server.run(lambda: services.statistics.of_accounts(operator, [mine.id, theirs.id]))
    assert {name: each.totals.deliveries for name, each in found.items()} == {mine.id: 5, theirs.id: 4}
    assert len(reads) == 2
    for rejected, call in (
        (NotFound, lambda: services.statistics.of_endpoints(reader, [mine.endpoint, theirs.endpoint])),
        (NotFound, lambda: services.statistics.of_accounts(operator, ["acc_nonsense"])),
        (Forbidden, lambda: services.statistics.of_accounts(reader, [mine.id])),
        (Forbidden, lambda: services.statistics.of_endpoints(caller(mine.id), [mine.endpoint])),
    ):
        with pytest.raises(rejected):
            server.run(call)
    assert len(reads) == 2


def test_an_endpoint_missing_in_the_cache_has_empty_statistics(mine: Owner, server: Any) -> None:
    """The cache of this process gets the endpoint a moment later."""
    services = server.services
    cache = services.context.cache
    second = str(mine.client.post("/v1/endpoints", {"url": "https://example.com/b"}).json["id"])
    live = cache.endpoints_by_id[parse("ep", second)]
    cache.drop_endpoint(live.seq)
    seq = cache.accounts_by_id[parse("acc", mine.id)].seq
    reader = Caller(Principal.of_key(b"k" * 16, seq, frozenset([Scope.DELIVERIES_READ]), "test"), seq)
    found: dict[str, Series] = server.run(lambda: services.statistics.of_endpoints(reader, [second, mine.endpoint]))
    assert {name: each.totals.deliveries for name, each in found.items()} == {second: 0, mine.endpoint: 4}
    assert mine.client.get(f"/v1/endpoints/{second}/deliveries").status == 200
    assert mine.client.get("/v1/endpoints/ep_nonsense/deliveries").code == "not_found"


def test_a_range_has_whole_hours_or_days(server: Any) -> None:
    mine = Owner(server)
    since, until = format_timestamp(mine.now - 27 * HOUR_MS), format_timestamp(mine.now)
    for path in ("/v1/stats", f"/v1/endpoints/{mine.endpoint}/stats"):
        hours = mine.client.get(f"{path}?since={since}&until={until}").json
        assert (hours["period"], len(hours["buckets"])) == (None, 28)
        assert hours["since"] == hours["buckets"][0]["at"] <= since < until <= hours["until"]
        assert {name: hours["totals"][name] for name in ("deliveries", "failed", "held", "cancelled", "attempts")} == {
            "deliveries": 5, "failed": 1, "held": 1, "cancelled": 1, "attempts": 3,
        }  # fmt: skip
        assert hours["failures"] == {"timeout": 2}
        days = mine.client.get(f"{path}?since={since}&by=day").json
        assert all(bucket["at"].endswith("T00:00:00.000Z") for bucket in days["buckets"])
        assert days["totals"]["deliveries"] == 5
        before = mine.client.get(f"{path}?until={format_timestamp(mine.now - 25 * HOUR_MS)}").json
        assert before["totals"]["deliveries"] == before["totals"]["cancelled"] == 1
        assert len(mine.client.get(f"{path}?by=hour").json["buckets"]) in {24, 25}


def test_a_range_is_listed_by_event_type_and_endpoint(server: Any) -> None:
    """Deleted endpoints and types stay in the list. Accounts see only their own deliveries."""
    owner = Owner(server)
    other = str(owner.client.post("/v1/endpoints", {"url": "https://example.com/b"}).json["id"])
    quiet = str(owner.client.post("/v1/endpoints", {"url": "https://example.com/c"}).json["id"])
    for leased in server.lease(quiet):
        server.settle(leased, Outcome.DELIVERED, Status.DELIVERED)
    server.operator.put("/v1/event-types/counted.once", {"description": "x"})
    server.event(owner.id, {other: Status.FAILED}, type_name="counted.once")
    update_statistics(server)
    server.operator.delete("/v1/event-types/counted.once")
    owner.client.delete(f"/v1/endpoints/{other}")
    since = format_timestamp(owner.now - 30 * HOUR_MS)
    by_type = owner.client.get(f"/v1/stats?since={since}&by=type").json
    assert by_type["buckets"] == []
    groups = {each["type"]: each for each in by_type["groups"]}
    assert groups["counted.once"] == {
        "type": "counted.once", "deliveries": 1, "delivered": 0, "failed": 1, "pending": 0, "held": 0, "cancelled": 0,
        "attempts": None, "first_try_rate": None,
    }  # fmt: skip
    assert {name: groups["movement.analytics.created"][name] for name in ("deliveries", "failed", "held")} == {
        "deliveries": 4, "failed": 1, "held": 1,
    }  # fmt: skip
    assert sum(each["deliveries"] for each in groups.values()) == by_type["totals"]["deliveries"]
    by_endpoint = owner.client.get(f"/v1/stats?since={since}&by=endpoint").json
    assert [each["endpoint"] for each in by_endpoint["groups"]] == [quiet, other, owner.endpoint]
    assert [each["attempts"] for each in by_endpoint["groups"]] == [1, 0, 3]
    assert by_endpoint["groups"][2]["first_try_rate"] == 0.3333
    first = owner.client.get(f"/v1/stats?since={since}&by=endpoint&limit=2&order=asc").json
    assert [each["endpoint"] for each in first["groups"]] == [owner.endpoint, other]
    rest = owner.client.get(f"/v1/stats?since={since}&by=endpoint&order=asc&cursor={first['next_cursor']}").json
    assert [each["endpoint"] for each in rest["groups"]] == [quiet]
    back = owner.client.get(f"/v1/stats?since={since}&by=endpoint&order=asc&cursor={rest['prev_cursor']}").json
    assert back["groups"] == first["groups"]
    everything = server.operator.get(f"/v1/stats?since={since}&by=type&limit=500").json
    total = {each["type"]: each["deliveries"] for each in everything["groups"]}
    assert total["counted.once"] == 1
    assert total["movement.analytics.created"] > 4
    assert other in {each["endpoint"] for each in server.operator.get("/v1/stats?by=endpoint").json["groups"]}


def test_parameters_that_exclude_each_other_are_named(mine: Owner) -> None:
    def problems(query: str) -> Any:
        return mine.client.get(f"/v1/stats?{query}").problems

    assert problems("period=24h&by=day") == {("period", "combination_invalid")}
    assert problems("by=day&limit=5&order=asc") == {("limit", "combination_invalid"), ("order", "combination_invalid")}
    assert problems("since=2026-01-02T00:00:00Z&until=2026-01-02T00:00:00Z") == {("since", "range_empty")}
    assert problems("since=2025-01-01T00:00:00Z&until=2025-03-01T00:00:00Z") == {("since", "range_too_long")}
    assert problems("since=2020-01-01T00:00:00Z&until=2025-03-01T00:00:00Z&by=day") == {("since", "range_too_long")}
    assert problems("by=week&since=x") == {("by", "value_unknown"), ("since", "instant_invalid")}
    path = f"/v1/endpoints/{mine.endpoint}/stats"
    for until in ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"):
        assert problems(f"until={until}") == {("until", "instant_invalid")}
        assert mine.client.get(f"{path}?by=day&until={until}").problems == {("until", "instant_invalid")}
    assert mine.client.get(f"{path}?by=type").problems == {("by", "value_unknown")}
    assert mine.client.get("/v1/stats?since=2025-01-01T00:00:00Z&until=2025-03-01T00:00:00Z&by=day").status == 200
