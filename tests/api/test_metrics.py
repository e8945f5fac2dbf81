"""GET /metrics: permissions, and responses during a database outage."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.lifecycle import Status
from uplift_server.core.operations.cluster import ProcessRole
from uplift_server.core.scheduling.waiting import HeldUpBy
from uplift_server.service import backlogs
from uplift_server.service.backlogs import STALE_MS
from uplift_server.store.errors import Unavailable
from uplift_server.store.processes import Process

from .conftest import METRICS_TOKEN
from .test_statistics import update_statistics


def read(server: Any, key: str | None = METRICS_TOKEN) -> dict[str, float]:
    """Return the metrics by name with labels."""
    response = server.client(key).get("/metrics")
    assert response.status == 200, response.body
    return {
        sample.name + "".join(f" {value}" for value in sample.labels.values()): sample.value
        for family in parse(response.body.decode())
        for sample in family.samples
    }


@pytest.fixture(autouse=True)
def _expired_cache(server: Any) -> None:
    expire_readings(server)


def expire_readings(server: Any) -> None:
    """Expire all cached readings."""
    server.services.metrics._backlogs._last = None


def test_only_the_token_and_operator_keys_can_read_metrics(server: Any) -> None:
    account = server.account("Curious")
    for key in (METRICS_TOKEN, server.operator_key):
        assert read(server, key)["uplift_accounts"] >= 1
    for key in (None, METRICS_TOKEN + "x", METRICS_TOKEN[:-1], ""):
        assert server.client(key).get("/metrics").status == 401, key
    assert server.owner(account).get("/metrics").code == "forbidden"
    # The metrics token allows nothing else.
    assert server.client(METRICS_TOKEN).get("/v1/accounts").status == 401


def test_the_processes_on_the_database_are_counted(server: Any) -> None:
    engine = server.services.context.engine.status
    exposed = read(server)
    assert {role: exposed[f"uplift_processes {role}"] for role in ProcessRole} == {"all": 1, "api": 0, "worker": 0}
    processes = [
        (ProcessRole.API, False),
        (ProcessRole.API, False),
        (ProcessRole.WORKER, True),
        (ProcessRole.WORKER, False),
    ]
    engine.live_processes = [
        Process(seq, role, "h", 1, "1", 0, 0, delivers, 0, 0, 0, 0) for seq, (role, delivers) in enumerate(processes, 1)
    ]
    exposed = read(server)
    # The second worker is starting or stopping, so it is not counted.
    assert {role: exposed[f"uplift_processes {role}"] for role in ProcessRole} == {"all": 0, "api": 2, "worker": 1}
    engine.live_processes = []
    exposed = read(server)
    engine.live_processes = None
    # Without a valid heartbeat, the metric is omitted. Zeros would report that no process is alive.
    assert not any(name.startswith("uplift_processes") for name in exposed)


def test_due_deliveries_are_reported_by_the_cause_of_their_delay(server: Any) -> None:
    account = server.account("Waiting")
    acting = server.client(server.operator_key, account)
    first, second, off = (
        acting.post("/v1/endpoints", {"url": f"https://example.com/{name}"}).json["id"] for name in "abc"
    )
    now = server.services.context.now()
    cache = server.services.context.cache
    seqs = {each.id_text: seq for seq, each in cache.endpoints.items()}
    server.services.context.engine.status.delay_causes[seqs[second]] = HeldUpBy.PROBE
    before = read(server)
    for endpoint, ago_ms in ((first, 90_000), (second, 700_000), (off, 7_000_000)):
        server.event(account, {endpoint: Status.PENDING}, created_at=now - ago_ms)
    server.event(account, {first: Status.HELD})
    acting.post(f"/v1/endpoints/{off}/pause")
    expire_readings(server)
    after = read(server)

    assert after["uplift_deliveries_waiting due"] - before["uplift_deliveries_waiting due"] == 3
    assert after["uplift_deliveries_waiting held"] - before["uplift_deliveries_waiting held"] == 1
    # The age omits the delivery of the paused endpoint, because it will be held.
    assert 90 <= after["uplift_oldest_due_age_seconds server"] < 100
    assert 700 <= after["uplift_oldest_due_age_seconds probe"] < 710
    assert after["uplift_oldest_due_age_seconds endpoint"] == 0
    assert after["uplift_endpoints paused"] == 1
    on_the_disk = {"uplift_database_bytes", "uplift_database_disk_size_bytes", "uplift_database_disk_free_bytes"}
    if server.place.file is None:
        assert on_the_disk.isdisjoint(after)
        return
    assert after["uplift_database_bytes"] > 4096
    assert after["uplift_database_disk_size_bytes"] > after["uplift_database_disk_free_bytes"]


def test_a_slow_reading_replaces_an_old_one(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    read(server)
    backlogs, probe = server.services.metrics._backlogs, server.services.readiness.probe
    old = backlogs._last.stored.read_at - STALE_MS - 1
    backlogs._last = replace(backlogs._last, stored=replace(backlogs._last.stored, read_at=old), next_at=0)

    async def slow() -> None:
        await asyncio.sleep(0.2)
        await probe()

    monkeypatch.setattr(server.services.readiness, "probe", slow)
    assert "uplift_oldest_due_age_seconds server" in read(server)


def test_failing_endpoints_are_counted_with_their_backlog(server: Any) -> None:
    account = server.account("Failing metrics")
    acting = server.client(server.operator_key, account)
    failing, hot = (acting.post("/v1/endpoints", {"url": "https://example.com/"}).json["id"] for _ in "ab")
    live = {each.id_text: each for each in server.services.context.cache.endpoints.values()}
    server.services.context.engine.status.delay_causes[live[hot].seq] = HeldUpBy.ENDPOINT
    update_statistics(server)
    expire_readings(server)
    before = read(server)
    now = server.services.context.now()
    live[failing].health = live[failing].health.after(Outcome.TLS_ERROR, now, own_fault=False)
    for endpoint, ago_ms in ((failing, 0), (hot, 90_000)):
        server.event(account, {endpoint: Status.PENDING}, created_at=now - ago_ms)
    update_statistics(server)
    expire_readings(server)
    after = read(server)

    name = "uplift_endpoints_failing tls_error"
    assert after[name] - before[name] == 1
    # The second pending delivery is the registration event.
    name = "uplift_deliveries_pending_failing"
    assert after[name] - before[name] == 2
    assert after["uplift_endpoints_at_limit"] - before["uplift_endpoints_at_limit"] == 1
    server.services.context.engine.status.delay_causes.clear()


def test_readings_are_cached(server: Any) -> None:
    account = server.account("Repeated")
    endpoint = server.client(server.operator_key, account).post("/v1/endpoints", {"url": "https://example.com/"})
    before = read(server)["uplift_deliveries_waiting held"]
    server.event(account, {endpoint.json["id"]: Status.HELD})

    assert read(server)["uplift_deliveries_waiting held"] == before
    expire_readings(server)
    assert read(server)["uplift_deliveries_waiting held"] == before + 1


def test_emails_wait_only_if_email_is_configured(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"/v1/accounts/{server.account('Mailed')}/members"
    assert server.operator.post(path, {"email": "eva@example.com", "role": "member"}).status == 201
    assert read(server)["uplift_mails_waiting"] >= 1

    monkeypatch.setattr(server.services.metrics._backlogs, "_sends_email", False)
    expire_readings(server)
    exposed = read(server)
    assert (exposed["uplift_mails_waiting"], exposed["uplift_oldest_mail_age_seconds"]) == (0, 0)


def test_an_unresponsive_database_does_not_delay_metrics(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlogs, "FRESH_MS", 0)
    monkeypatch.setattr(backlogs, "REST_PER_READING", 0)
    released = asyncio.Event()
    database = server.database

    async def hang(body: Any) -> Any:
        await released.wait()
        raise Unavailable("no response")

    assert read(server)["uplift_store_up"] == 1
    monkeypatch.setattr(database, "read", hang)
    during_outage = read(server)
    server.loop.call_soon_threadsafe(released.set)
    server.run(lambda: asyncio.sleep(0.05))
    monkeypatch.setattr(backlogs, "STALE_MS", -1)
    after_outage = read(server)
    monkeypatch.undo()

    # The last reading is reported for a minute.
    assert during_outage["uplift_deliveries_waiting due"] >= 0
    assert after_outage["uplift_store_up"] == 0
    assert "uplift_deliveries_waiting due" not in after_outage
    assert after_outage["uplift_attempts_in_flight"] == 3
    # Without a last reading, a request for metrics waits longer, so that the new reading is complete.
    expire_readings(server)
    assert read(server)["uplift_store_up"] == 1
