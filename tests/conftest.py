"""What holds for every test."""

import logging
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings
from tests.postgres import PostgresServer

# A slow moment of a shared machine is not a counterexample.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")

ALONE = "e2e"
TOGETHER = {ALONE, "dashboard"}
"""Rooms whose modules share what is dear to start: a server, a browser."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where tests run in several processes, those of a module share one, with the server they share.

    So do those of a whole room, in some. Those that measure latencies run one after the other, and begin first:
    together they take the longest.
    """
    for item in items:
        room = item.path.parent.name
        item.add_marker(pytest.mark.xdist_group(room if room in TOGETHER else str(item.path)))
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.path.parent.name != ALONE)


@pytest.fixture(autouse=True)
def _logs_restored() -> Iterator[None]:
    """Commands run in this process send its log lines to a stream that ends with their test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:], root.level = handlers, level


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server for all tests of this process."""
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A PostgreSQL database with the program's tables and nothing in them."""
    url = postgres_server.new_database()
    yield url
    postgres_server.give_back(url)
