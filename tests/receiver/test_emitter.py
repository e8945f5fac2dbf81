"""The emitter: order, batches, retries, rejected events and limits."""

import asyncio
import itertools
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import uplift_webhooks
from uplift_webhooks import AsyncEmitter, Emitter, EventsRejected
from uplift_webhooks.api import ApiError, ApiUnreachable
from uplift_webhooks.api import emitter as module

from .scripted_api import ScriptedApi, ScriptStep, hang_up, json_response, problem_response, scripted

TYPE = "athlete.updated"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry quickly."""
    monkeypatch.setattr(module, "_BACKOFF_SECONDS", 0.001)


@pytest.fixture
def api() -> Iterator[ScriptedApi]:
    """A scripted server."""
    with scripted() as server:
        yield server


def emitter(api: ScriptedApi, **limits: int) -> Emitter:
    """Return an emitter with an operator's key."""
    return Emitter(api.url, "op_secret_of_the_test", "acc_1", **limits)


def accepted(*numbers: int) -> bytes:
    """Return a response that accepts a batch of these events."""
    return json_response({"data": [{"id": f"event {number}", "duplicate": False} for number in numbers]}, 202)


class Gate:
    """A response that waits, so that further events gather in the queue."""

    def __init__(self, response: bytes) -> None:
        self.response = response
        self.reached, self.open = threading.Event(), threading.Event()

    def __call__(self, connection: Any) -> None:
        self.reached.set()
        assert self.open.wait(20)
        connection.sendall(self.response)


def gathered(api: ScriptedApi, events: Emitter, count: int, *script: ScriptStep) -> list[Future[Any]]:
    """Send event 0 alone and the others in the next batch, which gets the script's responses."""
    gate = Gate(accepted(0))
    api.script = [gate, *script]
    futures = [events.send(TYPE, {"number": 0})]
    assert gate.reached.wait(20)
    futures += [events.send(TYPE, {"number": number}) for number in range(1, count)]
    gate.open.set()
    return futures


def numbers(api: ScriptedApi) -> list[list[int]]:
    """Return the numbers of the events in each request."""
    return [[each["data"]["number"] for each in request.json["events"]] for request in api.requests]


def test_events_are_sent_in_order_in_batches(api: ScriptedApi) -> None:
    with emitter(api) as events:
        futures = gathered(api, events, 4, accepted(1, 2, 3))
        assert [future.result(20)["id"] for future in futures] == [f"event {number}" for number in range(4)]
        assert (events.accepted, events.waiting) == (4, 0)

    assert numbers(api) == [[0], [1, 2, 3]]
    first, second = api.requests
    assert (first.method, first.target) == ("POST", "/v1/events/batch")
    assert second.json["events"][0] == {
        "type": TYPE,
        "data": {"number": 1},
        "account": "acc_1",
        "idempotency_key": second.json["events"][0]["idempotency_key"],
    }
    keys = {each["idempotency_key"] for request in api.requests for each in request.json["events"]}
    assert len(keys) == 4


def test_ids_keys_accounts_and_expiry_of_the_caller_are_sent(api: ScriptedApi) -> None:
    with emitter(api) as events:
        api.script = [accepted(1), accepted(2)]
        events.send(TYPE, {}, account="acc_2", id="0197f0c2-0000-7000-8000-000000000001").result(20)
        events.send(TYPE, {}, idempotency_key="k", ordering_key="athlete_1", expires_at="2100-01-01T00:00:00Z").result(
            20
        )

    with_id, with_key = (request.json["events"][0] for request in api.requests)
    assert with_id == {
        "type": TYPE, "data": {}, "account": "acc_2", "id": "0197f0c2-0000-7000-8000-000000000001",
    }  # fmt: skip
    assert with_key["idempotency_key"] == "k"
    assert with_key["ordering_key"] == "athlete_1"
    assert with_key["expires_at"] == "2100-01-01T00:00:00Z"


def test_a_request_is_repeated_with_the_same_keys_until_the_server_accepts(api: ScriptedApi) -> None:
    busy = problem_response(503, "unavailable", retry_after="0")
    with emitter(api) as events:
        api.script = [hang_up, busy, problem_response(500, "internal"), problem_response(429, "x"), accepted(0)]
        assert events.send(TYPE, {"number": 0}).result(20)["id"] == "event 0"

    assert len({request.body for request in api.requests}) == 1
    assert len(api.requests) == 5


def test_a_long_outage_is_logged_once_a_minute(
    api: ScriptedApi, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The clock of the emitter advances by 20 s with each call."""
    ticks = itertools.count(1000, 20)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    busy = problem_response(503, "unavailable", retry_after="0")
    with emitter(api) as events:
        api.script = [*[busy] * 9, accepted(0)]
        events.send(TYPE, {"number": 0}).result(20)

    waiting = [each for each in caplog.messages if each.startswith("events waiting: 1; request failed, retrying")]
    assert 2 <= len(waiting) <= 5


def test_only_the_named_events_of_a_batch_are_rejected(api: ScriptedApi) -> None:
    errors = [
        {"field": "events.0.data.object", "code": "required", "message": "Missing."},
        {"field": "events.0.type", "code": "event_type_unknown", "message": "Unknown."},
        {"field": "events.7.type", "code": "no_such_event", "message": "Ignored."},
    ]
    events = emitter(api)
    futures = gathered(
        api, events, 4, problem_response(422, "validation_failed", errors=errors), accepted(2, 3)
    )  # fmt: skip
    with pytest.raises(
        EventsRejected,
        match=r"1 of the events. The first rejected event has the type athlete.updated: The event is not valid. data",
    ) as got:
        events.flush(20)
    events.close()

    assert [future.exception(20) is None for future in futures] == [True, False, True, True]
    [rejection] = got.value.rejections
    assert isinstance(rejection.error, ApiError)
    assert [error.field for error in rejection.error.errors] == ["data.object", "type"]
    assert rejection.idempotency_key == api.requests[1].json["events"][0]["idempotency_key"]
    assert numbers(api) == [[0], [1, 2, 3], [2, 3]]
    assert pickle.loads(pickle.dumps(got.value)).count == 1


@pytest.mark.parametrize(
    "too_large", [problem_response(413, "payload_too_large"), json_response({"error": "limit of a proxy"}, 413)]
)
def test_an_event_that_no_error_names_is_found_by_halves(api: ScriptedApi, too_large: bytes) -> None:
    events = emitter(api)
    futures = gathered(api, events, 5, too_large, accepted(1, 2), too_large, too_large, accepted(4))
    with pytest.raises(EventsRejected):
        events.close()

    assert [future.exception(20) is None for future in futures] == [True, True, True, False, True]
    assert numbers(api) == [[0], [1, 2, 3, 4], [1, 2], [3, 4], [3], [4]]


FOREIGN = [
    *(json_response({"error": "not from the server"}, status) for status in (301, 400, 404, 405, 409, 415, 422)),
    b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nMaintenance",
    json_response({"data": []}, 202),
    json_response({"data": None}, 202),
    json_response([], 202),
]


@pytest.mark.parametrize("response", [problem_response(403, "forbidden"), *FOREIGN])
def test_a_response_that_no_retry_can_change_rejects_the_batch(api: ScriptedApi, response: bytes) -> None:
    events = emitter(api)
    api.script = [response]
    assert events.send(TYPE, {}).exception(20) is not None
    with pytest.raises(EventsRejected):
        events.close()
    assert len(api.requests) == 1


@pytest.mark.parametrize("response", FOREIGN)
def test_a_proxy_without_a_server_rejects_no_event(api: ScriptedApi, response: bytes) -> None:
    api.script = [accepted(0), response, response, accepted(1), problem_response(404, "account_not_found")]
    with pytest.raises(EventsRejected) as rejected, emitter(api) as events:  # noqa: PT012
        assert events.send(TYPE, {}).result(20)["id"] == "event 0"
        assert events.send(TYPE, {}).result(20)["id"] == "event 1"
        assert isinstance(events.send(TYPE, {}).exception(20), ApiError)
    assert rejected.value.count == 1


@pytest.mark.parametrize("status", [408, 425, 429, 502])
def test_a_temporary_error_of_a_proxy_rejects_no_event(api: ScriptedApi, status: int) -> None:
    api.script = [json_response(status=status), accepted(0)]
    with emitter(api) as events:
        assert events.send(TYPE, {}).result(20)["id"] == "event 0"


def test_an_error_of_the_block_is_not_hidden(api: ScriptedApi) -> None:
    api.script = [problem_response(422, "x")] * 2
    with pytest.raises(ZeroDivisionError), emitter(api) as events:  # noqa: PT012
        events.send(TYPE, {})
        raise ZeroDivisionError
    with pytest.raises(EventsRejected), emitter(api) as events:
        events.send(TYPE, {})


def test_with_a_key_of_an_account_events_need_no_account(api: ScriptedApi) -> None:
    with Emitter(api.url, "sk_secret_of_the_test") as events:
        gathered(api, events, 3, accepted(1, 2))
        events.flush(20)
    assert {request.target for request in api.requests} == {"/v1/events/batch"}
    assert all("account" not in event for request in api.requests for event in request.json["events"])


def test_batches_are_bounded(api: ScriptedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_EVENTS_MAX", 3)
    with emitter(api) as events:
        gathered(api, events, 6, accepted(1, 2, 3), accepted(4, 5))
        events.flush(20)
        monkeypatch.setattr(module, "BATCH_BYTES_MAX", 100)
        gathered(api, events, 3, accepted(1), accepted(2))
        events.flush(20)
    assert numbers(api) == [[0], [1, 2, 3], [4, 5], [0], [1], [2]]


@pytest.mark.parametrize("limits", [{"waiting_events_max": 2}, {"waiting_bytes_max": 250}])
def test_send_waits_for_room(api: ScriptedApi, limits: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_EVENTS_MAX", 1)
    with emitter(api, **limits) as events:
        gate = Gate(accepted(1))
        api.script = [gate, accepted(2), accepted(3)]
        events.send(TYPE, {"number": 1})
        events.send(TYPE, {"number": 2})
        sender = threading.Thread(target=events.send, args=(TYPE, {"number": 3}))
        assert gate.reached.wait(20)
        sender.start()
        with pytest.raises(TimeoutError, match="2 of the events"):
            events.flush(0)
        sender.join(0.05)
        assert sender.is_alive()
        gate.open.set()
        sender.join(20)
        assert not sender.is_alive()
    assert numbers(api)[-1] == [3]


def test_an_event_larger_than_the_limit_is_sent_alone(api: ScriptedApi) -> None:
    with emitter(api, waiting_bytes_max=10) as events:
        api.script = [accepted(0)]
        assert events.send(TYPE, {"number": 0}).result(20)


def test_a_cancelled_event_is_not_sent(api: ScriptedApi) -> None:
    events = emitter(api)
    gate = Gate(accepted(0))
    api.script = [gate, accepted(2)]
    events.send(TYPE, {"number": 0})
    assert gate.reached.wait(20)
    cancelled = events.send(TYPE, {"number": 1})
    events.send(TYPE, {"number": 2})
    assert cancelled.cancel()
    gate.open.set()
    events.close()
    assert numbers(api) == [[0], [2]]
    with pytest.raises(ValueError, match="closed"):
        events.send(TYPE, {})


def test_closing_gives_up_after_the_timeout(api: ScriptedApi) -> None:
    events = emitter(api)
    api.close()
    futures = [events.send(TYPE, {}) for _ in range(200)]
    with pytest.raises(EventsRejected, match="did not accept 200"):
        events.close(0.05)
    assert all(isinstance(future.exception(20), ApiUnreachable) for future in futures)
    assert f"The request to {api.url} failed" in str(futures[0].exception())


def test_an_interrupt_ends_the_wait_of_closing(api: ScriptedApi) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    events = emitter(api)
    api.close()
    future = events.send(TYPE, {})
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(KeyboardInterrupt):
            events.close(60)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert isinstance(future.exception(20), ApiUnreachable)
    with pytest.raises(EventsRejected):
        events.close()


def test_arguments_are_checked(api: ScriptedApi) -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        emitter(api, waiting_events_max=0)
    with Emitter(api.url, "op_x") as events:
        with pytest.raises(ValueError, match="has no account"):
            events.send(TYPE, {})
        with pytest.raises(ValueError, match="must be a dictionary"):
            events.send(TYPE, [], account="acc_1")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="JSON"):
            events.send(TYPE, {"value": float("nan")}, account="acc_1")


def test_a_callback_can_send_although_the_queue_is_full(api: ScriptedApi) -> None:
    with emitter(api, waiting_events_max=1) as events:
        gate, queued = Gate(accepted(0)), threading.Event()
        api.script = [gate, accepted(1)]
        sent = events.send(TYPE, {"number": 0})
        sent.add_done_callback(lambda _: (events.send(TYPE, {"number": 1}), queued.set()))
        gate.open.set()
        assert queued.wait(20)
    assert numbers(api) == [[0], [1]]


def test_a_thread_that_cannot_start_rejects_only_the_current_event(
    api: ScriptedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with emitter(api) as events:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", fail)
            with pytest.raises(RuntimeError, match="new thread"):
                events.send(TYPE, {"number": 0})
        assert events.waiting == 0
        api.script = [accepted(1)]
        events.send(TYPE, {"number": 1})
        events.flush(20)
    assert numbers(api) == [[1]]


PROGRAM = """
import os, sys
from uplift_webhooks import Emitter
emitter = Emitter(account="acc_1")
emitter.send("a.b", {"number": 1})
emitter.flush()
if os.fork() == 0:
    emitter.send("a.b", {"number": 2})
    sys.exit()
os.wait()
emitter.send("a.b", {"number": 3})
"""


def test_the_end_of_a_process_and_of_its_child_sends_the_events(api: ScriptedApi) -> None:
    api.script = [accepted(1), accepted(2), problem_response(422, "validation_failed")]
    environ = {**os.environ, "UPLIFT_API_URL": api.url, "UPLIFT_API_KEY": "op_x"}
    ran = subprocess.run([sys.executable, "-c", PROGRAM], env=environ, capture_output=True, text=True, check=True)
    assert numbers(api) == [[1], [2], [3]]
    assert "did not accept 1 of the events" in ran.stderr


POOL_PROGRAM = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
from uplift_webhooks import Emitter
emitter = Emitter(account="acc_1")
def send(number):
    emitter.send("a.b", {"number": number})
if __name__ == "__main__":
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(sys.argv[1])) as pool:
        pool.submit(send, 1).result()
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_end_of_a_process_of_multiprocessing_sends_the_events(
    api: ScriptedApi, tmp_path: Path, method: str
) -> None:
    api.script = [accepted(1)]
    program = tmp_path / "pool.py"
    program.write_text(POOL_PROGRAM)
    environ = {**os.environ, "UPLIFT_API_URL": api.url, "UPLIFT_API_KEY": "op_x"}
    subprocess.run([sys.executable, program, method], env=environ, check=True)
    assert numbers(api) == [[1]]


def test_the_parents_process_forgets_nothing_when_a_child_begins(api: ScriptedApi) -> None:
    """The test calls the function that runs in a child, because coverage does not measure a forked process."""
    with emitter(api) as events:
        api.script = [accepted(0), accepted(1)]
        events.send(TYPE, {"number": 0}).result(20)
        module._begin_in_child()
        assert events.accepted == 0
        events.send(TYPE, {"number": 1}).result(20)


def test_an_error_at_the_end_of_the_process_is_logged(api: ScriptedApi, caplog: pytest.LogCaptureFixture) -> None:
    events = emitter(api)
    api.script = [problem_response(422, "x")]
    events.send(TYPE, {})
    events._exit()
    assert "did not accept 1 of the events" in caplog.text


async def test_the_async_emitter_sends_in_order(api: ScriptedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_EVENTS_MAX", 1)
    async with AsyncEmitter(api.url, "op_x", "acc_1", waiting_events_max=2) as events:
        gate = Gate(accepted(0))
        api.script = [gate, accepted(1), accepted(2)]
        first = await events.send(TYPE, {"number": 0})
        second = await events.send(TYPE, {"number": 1})
        third = asyncio.ensure_future(events.send(TYPE, {"number": 2}))
        await asyncio.sleep(0.02)
        assert (third.done(), events.waiting) == (False, 2)
        gate.open.set()
        answers = [await first, await second, await (await third)]
        assert [answer["id"] for answer in answers] == ["event 0", "event 1", "event 2"]
        await events.flush(20)
        assert events.accepted == 3
    assert numbers(api) == [[0], [1], [2]]


async def test_calls_that_wait_for_room_occupy_no_thread_and_keep_their_order(api: ScriptedApi) -> None:
    """Waiting calls must not occupy the threads in which asyncio also resolves host names."""
    events = AsyncEmitter(api.url, "op_x", "acc_1", waiting_events_max=1)
    gate = Gate(accepted(0))
    api.script = [gate, *(accepted(number) for number in range(1, 100))]
    await events.send(TYPE, {"number": 0})
    sent = [asyncio.create_task(events.send(TYPE, {"number": number})) for number in range(1, 100)]
    flushed = [asyncio.create_task(events.flush()) for _ in range(50)]
    with pytest.raises(TimeoutError, match="1 of the events"):
        await events.flush(0.02)
    await asyncio.wait_for(asyncio.to_thread(gate.reached.wait), 20)
    assert sent[1].cancel()
    assert sent[98].cancel()
    gate.open.set()
    await asyncio.gather(*flushed)
    await asyncio.wait(sent)
    await events.close()
    assert numbers(api) == [[number] for number in range(99) if number != 2]


async def test_closing_ends_calls_that_wait_for_room(api: ScriptedApi) -> None:
    events = AsyncEmitter(api.url, "op_x", "acc_1", waiting_events_max=1)
    api.close()
    await events.send(TYPE, {})
    waiting = [asyncio.create_task(events.send(TYPE, {})) for _ in range(50)]
    await asyncio.sleep(0)
    with pytest.raises(EventsRejected, match="did not accept 1 "):
        await asyncio.wait_for(events.close(0.05), 20)
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert {str(each) for each in results} == {"The emitter is closed. Create a new emitter to send more events."}


async def test_the_async_emitter_reports_rejected_events(api: ScriptedApi) -> None:
    api.script = [problem_response(422, "x")]
    events = AsyncEmitter(api.url, "op_x", "acc_1")
    await events.send(TYPE, {})
    with pytest.raises(EventsRejected):
        await events.close()
    with pytest.raises(ValueError, match="closed"):
        await events.send(TYPE, {})


def test_the_package_loads_the_emitter_on_first_use() -> None:
    program = "import sys, uplift_webhooks; print('http.client' in sys.modules); uplift_webhooks.Emitter"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"
    assert json.dumps(sorted(uplift_webhooks.__all__))
    with pytest.raises(AttributeError, match="no attribute 'Emiter'"):
        uplift_webhooks.Emiter  # noqa: B018
