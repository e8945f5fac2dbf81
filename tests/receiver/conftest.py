"""Fixtures of the library's tests."""

import time
from collections.abc import Iterator

import pytest

from uplift_webhooks.api import Client

from .scripted_api import ScriptedApi, scripted

ENVIRONMENT_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "UPLIFT_API_URL", "UPLIFT_API_KEY")


@pytest.fixture(autouse=True)
def _without_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the proxy and API variables from the environment."""
    for name in ENVIRONMENT_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def delays(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record the client's delays instead of sleeping."""
    waits: list[float] = []
    monkeypatch.setattr("uplift_webhooks.api.client.time.sleep", waits.append)
    return waits


@pytest.fixture
def api() -> Iterator[ScriptedApi]:
    """A server with scripted responses."""
    with scripted() as server:
        yield server


@pytest.fixture
def client(api: ScriptedApi) -> Iterator[Client]:
    """A client of the scripted server."""
    with Client(api.url, "sk_secret_of_the_test", timeout_seconds=5) as client:
        yield client


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> "Clock":
    """The library's clock, which tests advance."""
    clock = Clock()
    monkeypatch.setattr(time, "time", lambda: clock.now)
    return clock


class Clock:
    """A clock in Unix seconds that tests set."""

    def __init__(self) -> None:
        self.now = 1_764_000_000.0
