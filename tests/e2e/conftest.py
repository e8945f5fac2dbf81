"""A receiver for each test, and one server that most tests share."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.engines import Engine

from .harness import Server, serving
from .listening import Listening
from .receiving import Receiver


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A scripted receiver."""
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture(scope="session")
def server(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A shared server with a short retry schedule. Every test uses its own accounts."""
    with serving(tmp_path_factory.mktemp("shared") / "data") as server:
        yield server


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A server that the test can kill."""
    with serving(tmp_path / "data") as server:
        yield server


@pytest.fixture
def start() -> Iterator[Callable[..., Listening]]:
    """Start `uplift listen`. Each call starts another process."""
    started: list[Listening] = []

    def start(environ: dict[str, str], *arguments: str) -> Listening:
        started.append(Listening(environ, *arguments))
        return started[-1]

    yield start
    for each in started:
        each.close()
        print(*each.out[-5:], *each.err)  # pytest shows this output if the test fails
