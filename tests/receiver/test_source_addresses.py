"""Source addresses: published, announced and cached."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from uplift_webhooks.api import ApiError, ApiUnreachable, AsyncClient, Client
from uplift_webhooks.source_addresses import REFRESH_SECONDS, SourceAddresses

from .conftest import Clock
from .scripted_api import ScriptedApi, answer, refusal

UPLIFT = "54.245.28.22"


@pytest.fixture
def advance(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Advance the clock of the refresh."""
    now = [1000.0]
    monkeypatch.setattr("uplift_webhooks.source_addresses.time.monotonic", lambda: now[0])

    def move(seconds: float) -> None:
        now[0] += seconds

    return move


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
def test_addresses_given(address: str, allowed: bool) -> None:
    assert SourceAddresses([UPLIFT, "2001:db8::1", "192.0.2.0/24"]).allows(address) is allowed


@pytest.mark.parametrize("instant", ["2025-11-24T16:00:00.000Z", "2025-11-24T17:00:00+01:00", "2025-11-24T16:00:00"])
def test_one_that_is_announced_is_allowed_from_its_instant(clock: Clock, instant: str) -> None:
    sources = SourceAddresses({"current": [UPLIFT], "upcoming": [{"address": "198.51.100.7", "from": instant}]})

    clock.now = 1_764_000_000 - 0.001
    assert [sources.allows(UPLIFT), sources.allows("198.51.100.7")] == [True, False]
    clock.now = 1_764_000_000
    assert [sources.allows(UPLIFT), sources.allows("198.51.100.7")] == [True, True]


@pytest.mark.parametrize("source", [["nowhere"], UPLIFT, {"current": ["300.1.1.1"]}])
def test_what_is_no_address_is_refused(source: Any) -> None:
    with pytest.raises(ValueError, match=r"address|appear to be"):
        SourceAddresses(source)


@pytest.mark.parametrize("source", [AsyncClient("http://127.0.0.1:9"), object(), None])
def test_who_cannot_be_asked_at_once_is_refused_with_what_to_pass(source: Any) -> None:
    with pytest.raises(ValueError, match=r"Pass a Client.*await AsyncClient\.source_ips\(\)"):
        SourceAddresses(source)


def test_a_time_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        SourceAddresses([UPLIFT], refresh_seconds=0)


def test_the_api_is_asked_once_an_hour(api: ScriptedApi, client: Client, advance: Callable[[float], None]) -> None:
    sources = SourceAddresses(client)
    api.script = [answer({"current": [UPLIFT], "upcoming": []}), answer({"current": ["192.0.2.1"], "upcoming": []})]
    assert not sources.allows("no address")
    assert api.asked == []

    assert [sources.allows(UPLIFT), sources.allows("192.0.2.1")] == [True, False]
    advance(REFRESH_SECONDS - 1)
    assert sources.allows(UPLIFT)
    assert [asked.target for asked in api.asked] == ["/v1/source-ips"]
    advance(1)
    assert [sources.allows(UPLIFT), sources.allows("192.0.2.1")] == [False, True]


def test_without_an_answer_the_last_one_holds_and_the_first_is_needed(
    api: ScriptedApi, client: Client, advance: Callable[[float], None], slept: list[float]
) -> None:
    sources = SourceAddresses(client)
    api.script = [refusal(500, "internal_error"), answer({"hello": 1}), answer({"current": [UPLIFT]})]
    with pytest.raises(ApiError):
        sources.allows(UPLIFT)
    advance(60)
    with pytest.raises(ApiUnreachable, match="not from an Uplift Webhooks server"):
        sources.allows(UPLIFT)
    advance(60)
    assert sources.allows(UPLIFT)

    advance(REFRESH_SECONDS)
    api.script = [refusal(500, "internal_error"), answer({"current": ["192.0.2.1"]})]
    assert sources.allows(UPLIFT)
    advance(59)
    assert sources.allows(UPLIFT)
    advance(1)
    assert not sources.allows(UPLIFT)


def test_a_failure_holds_for_a_minute_in_which_nobody_asks_anew(
    api: ScriptedApi, client: Client, advance: Callable[[float], None]
) -> None:
    sources = SourceAddresses(client)
    api.script = [refusal(501, "first"), refusal(501, "second")]
    for _ in range(3):
        with pytest.raises(ApiError, match="first") as caught:
            sources.allows(UPLIFT)
    advance(59)
    with pytest.raises(ApiError, match="first") as again:
        sources.allows(UPLIFT)
    assert len(api.asked) == 1
    # It is the same failure, and its traceback does not grow.
    assert len(again.traceback) == len(caught.traceback)


def test_while_one_thread_asks_the_others_go_on(advance: Callable[[float], None]) -> None:
    asking, over = threading.Event(), threading.Event()
    asked: list[int] = []

    class Slow:
        """A source with an immediate first response and a delayed second one."""

        def source_ips(self) -> dict[str, Any]:
            """Return the addresses, as the client does."""
            asked.append(1)
            if len(asked) == 2:
                asking.set()
                assert over.wait(10)
            return {"current": [UPLIFT] if len(asked) == 1 else ["192.0.2.1"]}

    sources = SourceAddresses(Slow())
    assert sources.allows(UPLIFT)
    advance(REFRESH_SECONDS)
    other = threading.Thread(target=sources.allows, args=(UPLIFT,))
    other.start()
    assert asking.wait(10)
    assert sources.allows(UPLIFT)
    over.set()
    other.join(10)
    assert sources.allows("192.0.2.1")
    assert len(asked) == 2


def test_a_thread_that_needs_the_first_answer_waits_for_that_of_another(advance: Callable[[float], None]) -> None:
    asking, waiting = threading.Event(), threading.Event()
    asked: list[int] = []

    class Slow:
        """A source that responds when the other thread waits."""

        def source_ips(self) -> dict[str, Any]:
            """Return the addresses, as the client does."""
            asked.append(1)
            asking.set()
            assert waiting.wait(10)
            return {"current": [UPLIFT]}

    class Lock:
        """A lock that reports a second thread."""

        def __init__(self) -> None:
            self.lock = threading.Lock()
            self.release = self.lock.release

        def acquire(self, *, blocking: bool) -> bool:
            """Acquire, as a lock does."""
            if asking.is_set():
                waiting.set()
            return self.lock.acquire(blocking=blocking)

    sources = SourceAddresses(Slow())
    sources._refreshing = Lock()  # type: ignore[misc,assignment]
    first = threading.Thread(target=sources.allows, args=(UPLIFT,))
    first.start()
    assert asking.wait(10)
    assert sources.allows(UPLIFT)
    first.join(10)
    assert len(asked) == 1
