"""Replays: requests, responses and engine calls."""

import time
from typing import Any

import pytest
import sqlalchemy as sa

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.lifecycle import Status
from uplift_server.core.limits import REPLAYS_UNFINISHED_PER_ACCOUNT_MAX
from uplift_server.core.timestamps import format_timestamp
from uplift_server.service import replays as replay_service
from uplift_server.store.schema import audit_log

HOUR_MS = 3_600_000


class Owner:
    """An account with an endpoint that has failed deliveries."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self.account = server.account()
        self.client = server.owner(self.account)
        self.endpoint = self.new_endpoint()

    def new_endpoint(self) -> str:
        """Create another endpoint whose registration event is delivered."""
        endpoint = str(self.client.post("/v1/endpoints", {"url": "https://example.com/a"}).json["id"])
        [registration] = self.server.lease(endpoint)
        self.server.settle(registration, Outcome.DELIVERED, Status.DELIVERED)
        return endpoint

    def failed(self, count: int, **event: Any) -> None:
        """Create events with failed deliveries."""
        for _ in range(count):
            self.server.event(self.account, {self.endpoint: Status.PENDING}, **event)
        for leased in self.server.lease(self.endpoint):
            self.server.settle(leased, Outcome.SERVER_ERROR, Status.FAILED)
        # A replay may or may not include deliveries that end in the millisecond of the request.
        time.sleep(0.002)

    def replay(self, **fields: Any) -> Any:
        """Request a replay of the endpoint."""
        return self.client.post("/v1/replays", {"endpoint": self.endpoint, **fields})


@pytest.fixture
def owner(server: Any) -> Owner:
    """A new account."""
    return Owner(server)


def test_a_replay_is_paused_resumed_and_cancelled(server: Any, owner: Owner) -> None:
    """Each step returns the replay and notifies the engine."""
    owner.failed(3)
    engine = server.services.context.engine.status
    engine.replays.clear()
    created = owner.replay(rate_per_second=7, types=["movement.*"])
    assert created.status == 201
    job = created.json
    assert job == {
        "id": job["id"],
        "endpoint": owner.endpoint,
        "state": "running",
        "reason": None,
        "status": ["failed"],
        "types": ["movement.*"],
        "outcome": [],
        "status_code": [],
        "object_id": None,
        "created_after": None,
        "created_before": None,
        "rate_per_second": 7,
        "include_missing": False,
        "total": 3,
        "sent": 0,
        "delivered": 0,
        "failed": 0,
        "skipped": 0,
        "created_at": job["created_at"],
        "updated_at": job["created_at"],
        "completed_at": None,
    }
    path = f"/v1/replays/{job['id']}"
    assert owner.client.get(path).json == job
    assert owner.client.get("/v1/replays").json["data"] == [job]
    for verb, state in (("pause", "paused"), ("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")):
        response = owner.client.post(f"{path}/{verb}")
        assert (response.status, response.json["state"]) == (200, state)
        assert owner.client.get(path).json == response.json
    assert response.json["completed_at"] is not None
    # Steps without a change send no notification.
    assert [replay.state.text for replay in engine.replays] == ["running", "paused", "running", "cancelled"]
    rejected = owner.client.post(f"{path}/resume")
    assert rejected.code == "conflict"
    assert "is cancelled" in rejected.json["detail"]
    assert owner.client.post(f"{path}/cancel").status == 200
    entries = server.run(
        lambda: server.database.read(
            lambda c: c.execute(
                sa.select(audit_log).where(audit_log.c.subject == job["id"]).order_by(audit_log.c.seq)
            ).all()
        )
    )
    actions = [entry.action for entry in entries]
    assert actions == ["replay.created", "replay.paused", "replay.resumed", "replay.cancelled"]
    assert owner.endpoint in entries[0].details


def test_a_preview_counts_without_creating_a_replay(owner: Owner) -> None:
    """The preview has the times of the oldest and the newest event."""
    now = owner.server.services.context.now()
    owner.failed(2, created_at=now - 2 * HOUR_MS)
    owner.failed(3, created_at=now - HOUR_MS)
    owner.failed(1, type_name="athlete.created", created_at=now - HOUR_MS // 2)
    response = owner.replay(dry_run=True)
    assert (response.status, response.json) == (
        200,
        {
            "count": 6,
            "missing": 0,
            "oldest_at": format_timestamp(now - 2 * HOUR_MS),
            "newest_at": format_timestamp(now - HOUR_MS // 2),
            "complete": True,
            "filtered": False,
        },
    )
    counts = {
        3: {
            "created_after": format_timestamp(now - 2 * HOUR_MS),
            "created_before": format_timestamp(now - HOUR_MS // 2),
        },
        5: {"types": ["movement.*"]},
        1: {"types": ["athlete.created"]},
        0: {"status": ["cancelled"]},
        # The registration event was delivered.
        7: {"status": ["delivered", "failed", "cancelled"]},
    }
    for count, fields in counts.items():
        assert owner.replay(dry_run=True, **fields).json["count"] == count, fields
    nothing = owner.replay(dry_run=True, created_after=format_timestamp(now + HOUR_MS)).json
    assert nothing == {
        "count": 0,
        "missing": 0,
        "oldest_at": None,
        "newest_at": None,
        "complete": True,
        "filtered": False,
    }
    assert owner.client.get("/v1/replays").json["data"] == []


def test_a_preview_counts_missing_events_of_the_subscription(owner: Owner) -> None:
    """The missing events exclude registration events, test events and events of other accounts."""
    now = owner.server.services.context.now()
    for hours in (3, 2):
        owner.server.event(owner.account, created_at=now - hours * HOUR_MS)
    owner.server.event(owner.account, type_name="athlete.created")
    owner.server.event(owner.server.account())
    owner.failed(4)
    new = owner.client.post("/v1/endpoints", {"url": "https://example.com/b", "event_types": ["movement.*"]}).json["id"]

    def previewed(**fields: Any) -> tuple[int, int]:
        preview = owner.client.post("/v1/replays", {"include_missing": True, "dry_run": True, **fields}).json
        return preview["count"], preview["missing"]

    assert previewed(endpoint=owner.endpoint) == (7, 3)
    assert previewed(endpoint=owner.endpoint, status=[]) == (3, 3)
    assert previewed(endpoint=owner.endpoint, status=["delivered"]) == (4, 3)
    assert previewed(endpoint=owner.endpoint, types=["athlete.*"]) == (1, 1)
    assert previewed(endpoint=new) == (6, 6)
    assert previewed(endpoint=new, created_after=format_timestamp(now - 3 * HOUR_MS)) == (5, 5)
    job = owner.replay(include_missing=True, status=[]).json
    assert (job["include_missing"], job["status"], job["total"]) == (True, [], 3)
    assert owner.client.get(f"/v1/replays/{job['id']}").json == job
    assert owner.replay(include_missing="yes").problems == {("include_missing", "type_boolean")}


def test_all_problems_are_reported_together(owner: Owner) -> None:
    """The problems include statuses that cannot be replayed."""
    response = owner.client.post(
        "/v1/replays",
        {
            "endpoint": "ep_0",
            "status": ["pending", "held", "lost"],
            "types": ["Nonsense", "no.such_type"],
            "created_after": "2026-01-02T00:00:00Z",
            "created_before": "2026-01-01T00:00:00Z",
            "rate_per_second": 1001,
            "speed": 1,
        },
    )
    assert response.problems == {
        ("endpoint", "endpoint_unknown"),
        ("status", "status_not_replayable"),
        ("status", "value_unknown"),
        ("types", "event_type_invalid"),
        ("types", "event_type_unknown"),
        ("created_before", "range_empty"),
        ("rate_per_second", "out_of_range"),
        ("speed", "unknown_field"),
    }
    assert owner.client.post("/v1/replays", {}).problems == {("endpoint", "required")}
    assert owner.client.post("/v1/replays", {"endpoint": None}).problems == {("endpoint", "type_text")}
    assert owner.replay(status=[], rate_per_second=0).problems == {
        ("status", "required"),
        ("rate_per_second", "out_of_range"),
    }
    assert owner.replay(created_after="yesterday").problems == {("created_after", "instant_invalid")}
    for no_text in (1, 1.5, True, [], {}):
        assert owner.replay(created_before=no_text).problems == {("created_before", "type_text")}
    assert owner.replay(types=["athlete.created"] * 101).problems == {("types", "too_many")}
    job = owner.replay(status=None, types=None, rate_per_second=None).json
    assert (job["status"], job["types"], job["rate_per_second"]) == (["failed"], [], 50)
    assert owner.client.post(f"/v1/replays/{job['id']}/pause", {"for": "ever"}).problems == {("for", "unknown_field")}


def test_unfinished_replays_are_limited_per_endpoint_and_account(owner: Owner) -> None:
    """The error names the existing replay."""
    first = owner.replay().json["id"]
    rejected = owner.replay()
    assert rejected.code == "conflict"
    assert first in rejected.json["detail"]
    owner.client.post(f"/v1/replays/{first}/cancel")
    for _ in range(REPLAYS_UNFINISHED_PER_ACCOUNT_MAX):
        assert owner.replay().status == 201
        owner.endpoint = owner.new_endpoint()
    assert f"{REPLAYS_UNFINISHED_PER_ACCOUNT_MAX} unfinished" in owner.replay().json["detail"]


def test_a_repeated_request_returns_the_same_replay(owner: Owner) -> None:
    """A different request with the same key is rejected."""
    first = owner.client.post("/v1/replays", {"endpoint": owner.endpoint}, idempotency_key="k1")
    again = owner.client.post("/v1/replays", {"endpoint": owner.endpoint}, idempotency_key="k1")
    assert (again.status, again.json) == (201, first.json)
    assert again.headers["idempotency-replayed"] == "true"
    other = owner.client.post("/v1/replays", {"endpoint": owner.endpoint, "types": []}, idempotency_key="k1")
    assert other.code == "idempotency_conflict"


def test_an_operator_can_replay_without_selecting_an_account(server: Any, owner: Owner) -> None:
    """The endpoint determines the account, and the response names it."""
    created = server.operator.post("/v1/replays", {"endpoint": owner.endpoint})
    assert (created.status, created.json["account"]) == (201, owner.account)
    assert owner.client.get(f"/v1/replays/{created.json['id']}").status == 200


def test_a_slow_count_is_left_to_the_replay_job(server: Any, owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    """The response does not wait for the count."""
    owner.failed(5)
    monkeypatch.setattr(replay_service, "COUNT_WAIT_MS", 0)
    preview = owner.replay(dry_run=True).json
    assert (preview["count"], preview["complete"]) == (0, False)
    job = owner.replay().json
    assert (job["total"], job["reason"]) == (None, "counting")


def test_replays_are_paginated(owner: Owner) -> None:
    """The list is ordered newest first."""
    created = []
    for _ in range(3):
        created.append(owner.replay().json["id"])
        owner.endpoint = owner.new_endpoint()
    first = owner.client.get("/v1/replays?limit=2").json
    second = owner.client.get(f"/v1/replays?limit=2&cursor={first['next_cursor']}").json
    assert [each["id"] for each in first["data"] + second["data"]] == created[::-1]
    assert second["next_cursor"] is None
    assert owner.client.get("/v1/replays?limit=0").problems == {("limit", "out_of_range")}


def test_unknown_replays_are_not_found(owner: Owner) -> None:
    """Covers each call with unknown and malformed IDs."""
    for replay in ("rpl_" + "0" * 32, "nonsense", owner.endpoint):
        assert owner.client.get(f"/v1/replays/{replay}").code == "not_found"
        for verb in ("pause", "resume", "cancel"):
            assert owner.client.post(f"/v1/replays/{replay}/{verb}").code == "not_found"
