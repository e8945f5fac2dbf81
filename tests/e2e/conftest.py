"""A receiver for each test, and one server for all tests that leave it in peace."""

from collections.abc import Iterator

import pytest
from tests.engines import Engine

from .harness import Server, serving
from .receiving import Receiver


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A scripted receiver."""
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture(scope="session")
def server(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a short schedule, shared: every test has accounts of its own."""
    with serving(tmp_path_factory.mktemp("shared") / "data") as server:
        yield server
