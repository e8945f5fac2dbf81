"""The outbox command: its options, exit codes and output. `tests/e2e/test_outbox.py` tests crashes."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.cli.commands import failure, output, run
from tests.cli.fake_api import FakeApi, Request
from tests.emitter_outbox import connected, insert, new_outbox, rows
from tests.postgres import PostgresServer, run_in_thread

from uplift_server.store.postgres.emitter_outbox import SQL
from uplift_webhooks.cli.kit.errors import ExitCode

BATCH = "POST /v1/events/batch"
ONCE = ("outbox", "--once", "--source-url")


def accept(request: Request) -> Any:
    """Accept every event of a batch."""
    return 202, {"data": [{"id": event["id"], "duplicate": False} for event in request.body["events"]]}, {}


def problem(status: int, code: str) -> Any:
    """Return an error response."""
    return status, {"code": code, "detail": "It does not work."}, {}


@pytest.fixture
def url(postgres_server: PostgresServer) -> str:
    """The URL of a database with one row in its outbox."""
    url = new_outbox(postgres_server)

    async def add() -> None:
        async with connected(url) as connection:
            await insert(connection)

    run_in_thread(add())
    return url


def left(url: str) -> int:
    """Count the rows of the outbox."""

    async def count() -> int:
        async with connected(url) as connection:
            return len(await rows(connection))

    return run_in_thread(count())


def test_the_sql_is_printed_without_a_server() -> None:
    assert run("outbox", "--print-sql").stdout == SQL


def test_waiting_rows_are_sent(api: FakeApi, url: str) -> None:
    api.responses[BATCH] = accept
    assert output(*ONCE, url) == {"sent": 1, "rejected": 0}
    assert api.requests[-1].headers["authorization"] == "Bearer op_the_key_of_this_test"
    assert "idempotency-key" not in api.requests[-1].headers
    assert left(url) == 0


def test_the_url_can_be_in_a_file(api: FakeApi, url: str, tmp_path: Path) -> None:
    api.responses[BATCH] = accept
    file = tmp_path / "url"
    file.write_text(f"{url}\n")
    assert output("outbox", "--once", "--source-url-file", str(file)) == {"sent": 1, "rejected": 0}


def test_a_password_is_not_shown(api: FakeApi, url: str) -> None:
    api.responses[BATCH] = accept
    result = run(*ONCE, url.replace("postgres@", "postgres:very-secret@"))
    assert result.exit_code == 0
    assert "very-secret" not in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["outbox"],
        ["outbox", "--source-url", "postgresql://db/a", "--source-url-file", "a"],
        ["outbox", "--source-url", "mysql://db/a"],
        ["outbox", "--source-url", "postgresql://db/a?unknown=1"],
        ["outbox", "--source-url-file", "does-not-exist"],
    ],
)
def test_the_command_needs_one_valid_url(api: FakeApi, arguments: list[str]) -> None:
    assert failure(*arguments)[0] == ExitCode.USAGE


@pytest.mark.parametrize(
    ("response", "code"),
    [
        (problem(401, "unauthorized"), ExitCode.NOT_ALLOWED),
        (problem(403, "forbidden"), ExitCode.NOT_ALLOWED),
        (problem(503, "unavailable"), ExitCode.TRY_LATER),
        ((502, b"<html>", {}), ExitCode.FAILED),
        ("hang up", ExitCode.TRY_LATER),
        ((200, {"data": []}, {}), ExitCode.USAGE),
        ((202, {"data": []}, {}), ExitCode.USAGE),
        ((202, b"other", {}), ExitCode.USAGE),
    ],
)
def test_a_failure_keeps_the_row(api: FakeApi, url: str, response: Any, code: ExitCode) -> None:
    api.responses[BATCH] = response
    assert failure(*ONCE, url)[0] == code
    assert left(url) == 1


@pytest.mark.parametrize("response", [problem(422, "validation_failed"), problem(400, "malformed"), (413, b"", {})])
def test_a_rejected_row_is_a_failure(api: FakeApi, url: str, response: Any) -> None:
    api.responses[BATCH] = response
    result = run(*ONCE, url, "--json")
    assert result.exit_code == ExitCode.FAILED
    assert json.loads(result.stdout) == {"sent": 0, "rejected": 1}
    assert left(url) == 1


def test_an_unreachable_database_is_temporary(api: FakeApi, tmp_path: Path) -> None:
    code, cause, remedy = failure(*ONCE, f"postgresql://postgres@/none?host={tmp_path}")
    assert code == ExitCode.TRY_LATER, (cause, remedy)


def test_a_database_without_the_table_names_the_sql(api: FakeApi, postgres_server: PostgresServer) -> None:
    code, _, remedy = failure(*ONCE, postgres_server.new_database(empty=True))
    assert code == ExitCode.USAGE
    assert "--print-sql" in remedy
    code, _, remedy = failure(*ONCE, postgres_server.url("missing_database"))
    assert code == ExitCode.USAGE
    assert "--source-url" in remedy
