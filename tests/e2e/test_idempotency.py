"""Repeated events create one event: concurrently, after a restart, and after a crash."""

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from .harness import TYPE, Api, ApiResponse, Server, deliveries_of, serving, settled, wait_for
from .receiving import Receiver

FIELDS = ["idempotency_key", "id"]
THREADS = 20


def _fresh(field: str) -> dict[str, str]:
    return {field: str(uuid.uuid4())}


@pytest.mark.parametrize("field", FIELDS)
def test_twenty_concurrent_repeats_create_one_event(server: Server, receiver: Receiver, field: str) -> None:
    _, api = server.account()
    api.endpoint(receiver.url("/hook"))
    for _ in range(5):
        same = _fresh(field)
        responses = _run_concurrently(lambda _, same=same: api.send(1, **same))
        assert [response.status for response in responses] == [202] * THREADS
        assert len({response.json["id"] for response in responses}) == 1
        assert [response.json["duplicate"] for response in responses].count(False) == 1
    events = api.list_all(f"/v1/events?type={TYPE}")
    assert len(events) == 5
    for event in events:
        assert sum(event["deliveries"].values()) == 1
        settled(api, deliveries_of(api, event["id"])[0]["id"])
    assert len(receiver.on("/hook")) == 5


@pytest.mark.parametrize("field", FIELDS)
def test_twenty_concurrent_requests_with_different_content_conflict(server: Server, field: str) -> None:
    _, api = server.account()
    same = _fresh(field)
    responses = _run_concurrently(lambda number: api.send(number, **same))
    assert sorted(response.status for response in responses) == [202] + [409] * (THREADS - 1)
    rejected = next(response for response in responses if response.status == 409)
    assert rejected.json["code"] == "idempotency_conflict"
    assert rejected.headers["content-type"] == "application/problem+json"
    assert len(api.list_all(f"/v1/events?type={TYPE}")) == 1


def test_batches_that_overlap_concurrently_store_each_event_once(server: Server) -> None:
    account, api = server.account()
    keys = [str(uuid.uuid4()) for _ in range(30)]

    def batch(offset: int) -> ApiResponse:
        events = [
            {"type": TYPE, "data": {"number": n}, "account": account, "idempotency_key": keys[n]}
            for n in range(offset, offset + 10)
        ]
        return api("POST", "/v1/events/batch", {"events": events})

    responses = _run_concurrently(batch)
    assert {response.status for response in responses} == {202}
    ids: dict[int, set[str]] = {}
    for offset, response in enumerate(responses):
        for place, stored in enumerate(response.json["data"]):
            ids.setdefault(offset + place, set()).add(stored["id"])
    assert all(len(each) == 1 for each in ids.values())
    assert len(api.list_all(f"/v1/events?type={TYPE}")) == len(ids)


def test_two_accounts_can_use_the_same_key_and_id(server: Server) -> None:
    same = {**_fresh("idempotency_key"), **_fresh("id")}
    for name in ("One", "Two"):
        _, api = server.account(name)
        assert api.send(1, **same).json["duplicate"] is False
        assert api.send(1, **same).json["duplicate"] is True


def test_keys_survive_a_restart_and_a_crash(tmp_path: Path, receiver: Receiver) -> None:
    with serving(tmp_path / "data") as server:
        account, api = server.account()
        api.endpoint(receiver.url("/hook"))
        sent = [(_fresh(field), number) for number, field in enumerate(FIELDS * 2)]
        first = [api.send(number, **same) for same, number in sent]
        assert server.stop() == 0
        server.start()
        _expect_repeats(server.api(account=account), sent, first)
        # Crash right after the responses, because recognizing repeats must not depend on a later write.
        more = [(_fresh(field), number) for number, field in enumerate(FIELDS * 2, start=100)]
        first += [server.api(account=account).send(number, **same) for same, number in more]
        server.kill()
        server.start()
        api = server.api(account=account)
        _expect_repeats(api, sent + more, first)
        assert len(api.list_all(f"/v1/events?type={TYPE}")) == len(first)
        wait_for(lambda: set(receiver.numbers("/hook")) == {n for _, n in sent + more}, "all events arrive")


def test_repeats_after_a_crash_create_one_event_each(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        account, api = server.account()
        keys = [str(uuid.uuid4()) for _ in range(THREADS)]
        interrupted = threading.Event()

        def send_until_stored(thread: int) -> list[Any]:
            stored = []
            for number in range(25):
                key = f"{keys[thread]}-{number}"
                stored.append(wait_for(lambda: _stored(api.send(number, idempotency_key=key)), "stored", 30))  # noqa: B023
                if number == 8:
                    interrupted.set()
            return stored

        with ThreadPoolExecutor(THREADS) as pool:
            working = [pool.submit(send_until_stored, thread) for thread in range(THREADS)]
            assert interrupted.wait(20)
            server.kill()
            server.start()
            results = [stored for future in working for stored in future.result(60)]
        ids = {stored["id"] for stored in results}
        assert len(ids) == len(results) == THREADS * 25
        assert len(server.api(account=account).list_all(f"/v1/events?type={TYPE}")) == len(ids)


def _stored(response: ApiResponse) -> Any:
    assert response.status in {0, 202, 503}, response
    return response.json if response.status == 202 else None


def _expect_repeats(api: Api, sent: list[tuple[dict[str, str], int]], first: list[ApiResponse]) -> None:
    for (same, number), before in zip(sent, first, strict=True):
        again = api.send(number, **same)
        assert (again.status, again.json["duplicate"]) == (202, True)
        assert again.json["id"] == before.json["id"]
        assert again.json["created_at"] == before.json["created_at"]
        assert api.send(number + 1000, **same).status == 409


def _run_concurrently(send: Any) -> list[ApiResponse]:
    """Run THREADS calls that start together."""
    barrier = threading.Barrier(THREADS)

    def call(number: int) -> ApiResponse:
        barrier.wait(10)
        return send(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(call, range(THREADS), timeout=30))
