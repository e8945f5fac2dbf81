"""Facts about the server for operators, and diagnostic checks with a time limit."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from uplift_server import __version__
from uplift_server.config import Config, load
from uplift_server.core.operations.findings import Finding
from uplift_server.service import system
from uplift_server.service.errors import Busy, Forbidden
from uplift_server.service.principals import Caller, Principal
from uplift_server.service.system import System
from uplift_server.store import schema_version

OPERATOR = Caller(Principal.of_key(b"o" * 16, None, frozenset(), "ops"), None)
MEMBER = Caller(Principal.of_key(b"k" * 16, 1, frozenset(), "k"), 1)
CLOCK_FINDING = Finding("clock", "ok", "it is noon")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load({"UPLIFT_DATABASE_URL": f"sqlite:///{tmp_path / 'uplift.db'}", "UPLIFT_OPERATOR_KEY": f"op_{'k' * 43}"})


@pytest.fixture
def hanging_check(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Make the first check finish at once, and the second one after the event is set."""
    finished = threading.Event()

    def environment_findings(_: Config) -> Iterator[Finding]:
        yield CLOCK_FINDING
        finished.wait(20)
        yield Finding("dns", "ok", "it resolves")

    monkeypatch.setattr(system, "environment_findings", environment_findings)
    yield finished
    finished.set()


def test_facts_mask_secrets(config: Config) -> None:
    config.database_path.write_bytes(b"x" * 100)
    config.database_path.with_name("uplift.db-wal").write_bytes(b"x" * 23)

    facts = System(config, 7).facts(OPERATOR)

    assert (facts.version, facts.revision, facts.started_at) == (__version__, schema_version.HEAD, 7)
    assert (facts.database, facts.database_bytes) == (str(config.database_path), 123)
    values = {each.setting.name: (each.value, each.source) for each in facts.settings}
    assert values["UPLIFT_OPERATOR_KEY"] == ("•" * 8, "environment")
    assert values["UPLIFT_PORT"] == ("8420", "default")


async def test_only_operators_have_access(config: Config, hanging_check: threading.Event) -> None:
    server = System(config, 7)
    with pytest.raises(Forbidden):
        server.facts(MEMBER)
    with pytest.raises(Forbidden):
        await server.run_checks(MEMBER)


async def test_unfinished_checks_are_reported_with_finished_ones(
    config: Config, hanging_check: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "CHECKS_WAIT_SECONDS", 0.2)
    server = System(config, 7)

    found = await server.run_checks(OPERATOR)

    assert found[0] == CLOCK_FINDING
    assert [(each.check, each.result) for each in found[1:]] == [("checks", "warn")]
    # The checks of the first call are still running.
    with pytest.raises(Busy):
        await server.run_checks(OPERATOR)


async def test_finished_checks_can_be_repeated(config: Config, hanging_check: threading.Event) -> None:
    hanging_check.set()
    server = System(config, 7)
    for _ in range(2):
        found = await server.run_checks(OPERATOR)
        assert [each.check for each in found] == ["clock", "dns"]
