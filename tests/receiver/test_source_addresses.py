"""Source addresses: current, upcoming and cached."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from uplift_webhooks import source_addresses
from uplift_webhooks.api import ApiError, ApiUnreachable, AsyncClient, Client
from uplift_webhooks.source_addresses import REFRESH_SECONDS, STALE_SECONDS, SourceAddresses

from .conftest import Clock
from .scripted_api import ScriptedApi, json_response, problem_response

UPLIFT = "54.245.28.22"


@pytest.fixture
def advance(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return a function that advances the clock of the refresh by a number of seconds."""
    now = [1000.0]
    monkeypatch.setattr("uplift_webhooks.source_addresses.time.monotonic", lambda: now[0])

    def move(seconds: float) -> None:
        now[0] += seconds

    return move


def _refresh(sources: SourceAddresses) -> None:
    """Make a call that starts a refresh, and wait until the refresh ends."""
    sources.allows(UPLIFT)
    for thread in threading.enumerate():
        if thread.name == "uplift-source-addresses":
            thread.join(10)


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        (UPLIFT, True),
        ("::ffff:54.245.28.22", True),
        ("::FFFF:36F5:1C16", True),
        ("54.245.28.23", False),
        ("::54.245.28.22", False),
        ("2001:db8::1", True),
        ("2001:0DB8:0:0::1", True),
        ("2001:db8::2", False),
        ("192.0.2.77", True),
        ("192.0.3.1", False),
        ("", False),
        ("localhost", False),
        ("54.245.28.22:443", False),
        ("54.245.28.022", False),
        (" 54.245.28.22", False),
    ],
)
def test_allowed_addresses(address: str, allowed: bool) -> None:
    assert SourceAddresses([UPLIFT, "2001:db8::1", "192.0.2.0/24"]).allows(address) is allowed


@pytest.mark.parametrize("starts_at", ["2025-11-24T16:00:00.000Z", "2025-11-24T17:00:00+01:00", "2025-11-24T16:00:00"])
def test_an_upcoming_address_is_allowed_from_its_time(clock: Clock, starts_at: str) -> None:
    sources = SourceAddresses({"current": [UPLIFT], "upcoming": [{"address": "198.51.100.7", "from": starts_at}]})

    clock.now = 1_764_000_000 - 0.001
    assert [sources.allows(UPLIFT), sources.allows("198.51.100.7")] == [True, False]
    clock.now = 1_764_000_000
    assert [sources.allows(UPLIFT), sources.allows("198.51.100.7")] == [True, True]


@pytest.mark.parametrize("source", [["nowhere"], UPLIFT, {"current": ["300.1.1.1"]}, {"current": [7]}])
def test_invalid_addresses_are_rejected(source: Any) -> None:
    with pytest.raises(ValueError, match=r"address|appear to be"):
        SourceAddresses(source)


@pytest.mark.parametrize("source", [{}, {"current": 7}, {"current": [], "upcoming": [UPLIFT]}])
def test_an_invalid_response_is_rejected_with_a_fix(source: Any) -> None:
    with pytest.raises(ValueError, match=r"valid response from `source_ips`"):
        SourceAddresses(source)


@pytest.mark.parametrize("source", [AsyncClient("http://127.0.0.1:9"), object(), None])
def test_an_invalid_source_is_rejected_with_a_fix(source: Any) -> None:
    with pytest.raises(ValueError, match=r"must be a Client.*await AsyncClient\.source_ips\(\)"):
        SourceAddresses(source)


def test_an_invalid_refresh_time_is_rejected() -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        SourceAddresses([UPLIFT], refresh_seconds=0)


def test_the_api_is_called_once_an_hour(api: ScriptedApi, client: Client, advance: Callable[[float], None]) -> None:
    sources = SourceAddresses(client)
    api.script = [
        json_response({"current": [UPLIFT], "upcoming": []}),
        json_response({"current": ["192.0.2.1"], "upcoming": []}),
        json_response({"current": ["192.0.2.2"], "upcoming": []}),
    ]
    assert not sources.allows("no address")
    assert api.requests == []

    assert [sources.allows(UPLIFT), sources.allows("192.0.2.1")] == [True, False]
    advance(REFRESH_SECONDS - 1)
    assert sources.allows(UPLIFT)
    assert [request.target for request in api.requests] == ["/v1/source-ips"]
    advance(1)
    _refresh(sources)
    assert [sources.allows(UPLIFT), sources.allows("192.0.2.1")] == [False, True]
    advance(REFRESH_SECONDS + STALE_SECONDS)
    assert [sources.allows("192.0.2.1"), sources.allows("192.0.2.2")] == [False, True]


def test_a_failed_refresh_keeps_the_last_addresses(
    api: ScriptedApi, client: Client, advance: Callable[[float], None], delays: list[float]
) -> None:
    sources = SourceAddresses(client)
    api.script = [
        problem_response(500, "internal_error"),
        json_response({"hello": 1}),
        json_response({"current": [UPLIFT]}),
    ]
    with pytest.raises(ApiError):
        sources.allows(UPLIFT)
    advance(60)
    with pytest.raises(ApiUnreachable, match="not from an Uplift Webhooks server"):
        sources.allows(UPLIFT)
    advance(60)
    assert sources.allows(UPLIFT)

    advance(REFRESH_SECONDS)
    api.script = [problem_response(500, "internal_error"), json_response({"current": ["192.0.2.1"]})]
    _refresh(sources)
    assert sources.allows(UPLIFT)
    advance(59)
    assert sources.allows(UPLIFT)
    assert len(api.requests) == 4
    advance(1)
    _refresh(sources)
    assert not sources.allows(UPLIFT)


def test_failures_in_the_background_do_not_postpone_the_wait(
    api: ScriptedApi, client: Client, advance: Callable[[float], None]
) -> None:
    sources = SourceAddresses(client)
    api.script = [
        json_response({"current": [UPLIFT]}),
        problem_response(501, "background"),
        problem_response(501, "waiting"),
        problem_response(501, "background"),
        json_response({"current": ["192.0.2.1"]}),
    ]
    assert sources.allows(UPLIFT)
    advance(REFRESH_SECONDS)
    _refresh(sources)
    advance(STALE_SECONDS)
    assert sources.allows(UPLIFT)
    assert len(api.requests) == 3
    advance(60)
    _refresh(sources)
    advance(REFRESH_SECONDS)
    assert sources.allows("192.0.2.1")


def test_a_failure_is_cached_for_a_minute(api: ScriptedApi, client: Client, advance: Callable[[float], None]) -> None:
    sources = SourceAddresses(client)
    api.script = [problem_response(501, "first"), problem_response(501, "second")]
    for _ in range(3):
        with pytest.raises(ApiError, match="first") as caught:
            sources.allows(UPLIFT)
    advance(59)
    with pytest.raises(ApiError, match="first") as again:
        sources.allows(UPLIFT)
    assert len(api.requests) == 1
    # The traceback of the cached failure does not grow.
    assert len(again.traceback) == len(caught.traceback)


def test_no_call_waits_for_a_refresh(advance: Callable[[float], None]) -> None:
    started, finish = threading.Event(), threading.Event()
    calls: list[int] = []

    class Slow:
        """A source with an immediate first response and a delayed second one."""

        def source_ips(self) -> dict[str, Any]:
            """Return the addresses, as the client does."""
            calls.append(1)
            if len(calls) == 2:
                started.set()
                assert finish.wait(10)
            return {"current": [UPLIFT] if len(calls) == 1 else ["192.0.2.1"]}

    sources = SourceAddresses(Slow())
    assert sources.allows(UPLIFT)
    advance(REFRESH_SECONDS)
    assert sources.allows(UPLIFT)
    assert started.wait(10)
    assert sources.allows(UPLIFT)
    finish.set()
    _refresh(sources)
    assert sources.allows("192.0.2.1")
    assert len(calls) == 2


def test_known_addresses_stay_valid_if_no_thread_can_start(
    api: ScriptedApi, client: Client, advance: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    sources = SourceAddresses(client)
    api.script = [json_response({"current": [UPLIFT]}), json_response({"current": ["192.0.2.1"]})]
    assert sources.allows(UPLIFT)
    advance(REFRESH_SECONDS)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        assert sources.allows(UPLIFT)
    _refresh(sources)
    assert sources.allows("192.0.2.1")


def test_a_process_that_forks_during_a_refresh_can_refresh(
    api: ScriptedApi, client: Client, advance: Callable[[float], None]
) -> None:
    """The test calls the function that runs in a child, because coverage does not measure a forked process."""
    sources = SourceAddresses(client)
    api.script = [json_response({"current": [UPLIFT]})]
    with sources._refreshing:
        source_addresses._begin_in_child()
        assert sources.allows(UPLIFT)


def test_threads_share_the_first_request(advance: Callable[[float], None]) -> None:
    started, waiting = threading.Event(), threading.Event()
    calls: list[int] = []

    class Slow:
        """A source that responds when the other thread waits."""

        def source_ips(self) -> dict[str, Any]:
            """Return the addresses, as the client does."""
            calls.append(1)
            started.set()
            assert waiting.wait(10)
            return {"current": [UPLIFT]}

    class Lock:
        """A lock that reports when a second thread tries to acquire it."""

        def __init__(self) -> None:
            self.lock = threading.Lock()

        def __enter__(self) -> None:
            if started.is_set():
                waiting.set()
            self.lock.acquire()

        def __exit__(self, *_: object) -> None:
            self.lock.release()

    sources = SourceAddresses(Slow())
    sources._refreshing = Lock()  # type: ignore[assignment]
    first = threading.Thread(target=sources.allows, args=(UPLIFT,))
    first.start()
    assert started.wait(10)
    assert sources.allows(UPLIFT)
    first.join(10)
    assert len(calls) == 1
