"""Fixtures and options for all tests."""

import gc
import logging
import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings
from tests import engines
from tests.engines import Engine, Place
from tests.nats import NatsCluster
from tests.pooler import Pooler
from tests.postgres import PostgresServer
from tests.unreliable_network import UnreliableNetwork

from uplift_server.core.limits import EVENT_INTEGER_DIGITS_MAX

# A delay on a busy machine must not fail a test.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")
# As in the server: an integer with more digits raises ValueError.
sys.set_int_max_str_digits(EVENT_INTEGER_DIGITS_MAX)

MOSTLY_WAITING = "e2e"
"""The directory whose tests mostly wait. Parallel runs mix its modules with the others, so that the cores stay busy."""
WAITING_SHARE = 0.85
"""The part of a parallel run after which all modules of MOSTLY_WAITING have started. The slowest must not run last."""
WITH_SERVERS = ("e2e", "dashboard")
"""Directories whose tests may start servers in their `tmp_path`."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--engine`."""
    parser.addoption(
        "--engine",
        choices=sorted(engines.ENGINES),
        default="sqlite",
        help="the database engine of the tests; on PostgreSQL, tests without a database are skipped",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Choose the engine."""
    config.addinivalue_line("markers", "sqlite(reason): a test that needs a SQLite file")
    config.addinivalue_line(
        "markers", "timing: a test of latencies, which `scripts/test` runs beside at most three others"
    )
    engines.choose(config.getoption("--engine"))
    log_plainly()
    # A shell starts parallel runs with this signal ignored, so that Ctrl-C would not end them.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and not hasattr(config, "workerinput"):
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `-m timing`, do not import modules without timing tests. The import takes longer than the tests."""
    if config.option.markexpr != "timing" or collection_path.suffix != ".py":
        return None
    return ".timing" not in collection_path.read_text() or None


def pytest_unconfigure() -> None:
    """Stop the servers of the engine."""
    engines.chosen().close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Empty the databases of a test after the teardown of its fixtures."""
    yield
    folder = getattr(item, "funcargs", {}).get("tmp_path")
    if folder is not None:
        engines.chosen().clear(folder)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order the modules of parallel runs. Except on SQLite, deselect tests that do not depend on the engine."""
    if engines.chosen().name != "sqlite":
        config.hook.pytest_deselected(items=[item for item in items if not _has_a_database(item)])
        items[:] = filter(_has_a_database, items)
        for item in items:
            for mark in item.iter_markers("sqlite"):
                item.add_marker(pytest.mark.skip(reason=mark.kwargs["reason"]))
    if hasattr(config, "workerinput"):
        places = _mixed({item.path: None for item in items})
        # Start slow modules, which have a longer timeout, in the first half. Otherwise, one could run alone at the end.
        for slow in {item.path for item in items if item.get_closest_marker("timeout")}:
            places[slow] /= 2
        items.sort(key=lambda item: places[item.path])


def pytest_collection_finish() -> None:
    """Exclude the collected tests from garbage collection, which they would slow down."""
    gc.collect()
    gc.freeze()


def _mixed(modules: Iterable[Path]) -> dict[Path, float]:
    """Return the place of each module in a parallel run, from 0 to 1. The modules of a directory are evenly spread."""
    by_directory: dict[Path, list[Path]] = {}
    for module in modules:
        by_directory.setdefault(module.parent, []).append(module)
    return {
        module: (index / len(found)) * (WAITING_SHARE if directory.name == MOSTLY_WAITING else 1)
        for directory, found in by_directory.items()
        for index, module in enumerate(found)
    }


def _has_a_database(item: pytest.Item) -> bool:
    """Return whether a test needs a database of the chosen engine, itself or for servers in its `tmp_path`.

    Tests that use `postgres_server` do not depend on the engine. They run with the default engine.
    """
    fixtures = set(getattr(item, "fixturenames", ()))
    has_servers = item.path.parent.name in WITH_SERVERS and "tmp_path" in fixtures
    return ("engine" in fixtures or has_servers) and "postgres_server" not in fixtures


def log_plainly() -> None:
    """Use the default settings of structlog, but plain tracebacks. A colored traceback with variables takes seconds."""
    structlog.reset_defaults()
    *others, _ = structlog.get_config()["processors"]
    plain = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*others, plain])


@pytest.fixture(autouse=True)
def _logs_restored() -> Iterator[None]:
    """Restore the log handlers. Commands that run in this process log to a stream that is closed after the test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    log_plainly()
    root.handlers[:], root.level = handlers, level


@pytest.fixture(scope="session")
def engine() -> Engine:
    """The engine of the tests."""
    return engines.chosen()


@pytest.fixture
def place(engine: Engine, tmp_path: Path) -> Place:
    """An empty database of the engine."""
    return engine.place(tmp_path)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server for all tests of this process."""
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def pooler(postgres_server: PostgresServer) -> Iterator[Pooler]:
    """A pooler in front of the PostgreSQL server."""
    pooler = Pooler(postgres_server.directory)
    yield pooler
    pooler.close()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of a PostgreSQL database with empty tables."""
    url = postgres_server.new_database()
    yield url
    postgres_server.reuse_database(url)


@pytest.fixture(params=["direct", "pooled"])
def direct_or_pooled_url(postgres_url: str, request: pytest.FixtureRequest) -> str:
    """The URL of a PostgreSQL database with empty tables, directly or through a pooler."""
    if request.param == "direct":
        return postgres_url
    pooler: Pooler = request.getfixturevalue("pooler")
    return pooler.url(postgres_url)


@pytest.fixture
def network(postgres_url: str) -> Iterator[UnreliableNetwork]:
    """An unreliable network to a PostgreSQL database."""
    unreliable = UnreliableNetwork(postgres_url)
    yield unreliable
    unreliable.close()


@pytest.fixture(scope="module")
def nats_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsCluster]:
    """Three NATS servers with JetStream, for the tests of a module."""
    cluster = NatsCluster(tmp_path_factory.mktemp("nats"))
    try:
        yield cluster.start()
    finally:
        cluster.close()
