"""The command `uplift-server outbox`, which sends the rows of an emitter's outbox as events."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Callable
from typing import Annotated, Final

import typer
import uvloop

from uplift_server.cli.advice import ADVICE
from uplift_server.cli.reach import running_client
from uplift_server.cli.session import Session, command
from uplift_server.config.parsers import POSTGRESQL, InvalidValue, database_url, without_password
from uplift_server.core.events.emitter_outbox import BatchRejection
from uplift_server.core.limits import OUTBOX_REQUEST_SECONDS_MAX
from uplift_server.core.operations.fleet import counted
from uplift_server.core.problems import Problem
from uplift_server.observe.logs import configure_logs
from uplift_webhooks.api import ApiError, ApiFailure
from uplift_webhooks.api.client import api_error
from uplift_webhooks.api.connections import ApiResponse, Connections
from uplift_webhooks.api.failures import ApiMisaddressed
from uplift_webhooks.cli.kit.calls import Calls, call_failure
from uplift_webhooks.cli.kit.errors import CliError, ExitCode
from uplift_webhooks.cli.kit.inputs import read_secret
from uplift_webhooks.cli.kit.output import Output

_REJECTED: Final = frozenset({400, 409, 413, 415, 422})
"""Status codes that mean that the server rejected the events in a request."""
_TOO_LARGE: Final = 413
_TOO_MANY_REQUESTS: Final = 429
_SERVER_ERRORS: Final = 500
_SECOND_SIGNAL: Final = 128 + signal.SIGINT


def register(app: typer.Typer) -> None:
    """Add the `outbox` command to the program."""
    examples = (
        "uplift-server outbox --print-sql | psql mydb",
        "uplift-server outbox --source-url postgresql://uplift@db.example.com/mydb?sslmode=verify-full",
        "uplift-server outbox --source-url-file /run/secrets/mydb-url",
    )
    command(app, "outbox", examples=examples)(outbox)


def outbox(
    session: Session,
    source_url: Annotated[
        str | None,
        typer.Option(
            "--source-url",
            metavar="URL",
            help="URL of your PostgreSQL database. Other users on this machine can see the values of command-line"
            " options: if the URL has a password, use --source-url-file.",
        ),
    ] = None,
    source_url_file: Annotated[
        str | None,
        typer.Option("--source-url-file", metavar="FILE", help="File that contains the URL, or - for standard input."),
    ] = None,
    print_sql: Annotated[
        bool,
        typer.Option("--print-sql", help="Print the SQL that creates the table and its triggers in your own database."),
    ] = False,
    once: Annotated[
        bool, typer.Option("--once", help="Send the waiting rows, then exit. Exit with 1 if the server rejected rows.")
    ] = False,
) -> None:
    """Send each row of the uplift_outbox table in your own PostgreSQL database as an event.

    Insert a row in the same database transaction as your change. The command sends each row to the running server. The
    row's ID becomes the event's ID. When the server has accepted the event, the command deletes the row. The command
    sends rows with the same account and ordering key in commit order.

    If the server rejects a row, the command keeps the row and sets its columns rejected_at and problem. Later rows with
    the same account and ordering key wait until you fix the problem: delete the rejected row, or correct the row and
    set both columns to NULL.

    The command runs until SIGTERM or Ctrl-C. You can run several processes. One process sends the rows, and another
    process takes over if the first process stops. Even if a process, the server or a database stops, no row is lost,
    and no row becomes two events.
    """
    from uplift_server.store.postgres.emitter_outbox import SQL  # noqa: PLC0415 - slow to load

    if print_sql:
        session.output.exactly(SQL.encode())
        return
    url = _source(source_url, source_url_file)
    config = session.config()
    with contextlib.closing(running_client(config)) as calls:
        configure_logs(config.log_format)
        session.output.note(f"Sending the rows of uplift_outbox in {without_password(url)} to {calls.api_url}.")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            sent, rejected = runner.run(_read(url, calls, once=once))
    _report(session.output, sent, rejected, once=once)


def _source(url: str | None, file: str | None) -> str:
    """Return the URL of the emitter's database. Raises CliError."""
    if (url is None) == (file is None):
        remedy = "pass --source-url or --source-url-file"
        raise CliError("the command needs exactly one database URL", remedy, ExitCode.USAGE)
    place = "--source-url-file" if url is None else "--source-url"
    found = read_secret(file).strip() if file is not None else url or ""
    if not found.startswith(POSTGRESQL):
        remedy = "use postgresql://user:password@host:port/database"
        raise CliError(f"{place} is not a PostgreSQL URL", remedy, ExitCode.USAGE)
    try:
        return database_url(found)
    except InvalidValue as error:
        raise CliError(f"{place} {error.reason}", error.remedy, ExitCode.USAGE) from error


async def _read(url: str, calls: Calls, *, once: bool) -> tuple[int, int]:
    """Send the outbox rows until a signal arrives. With `once`, stop when no rows are left.

    Return the counts of sent and rejected rows. Raises CliError or Unavailable.
    """
    from uplift_server.delivery.emitter_outbox import OutboxReader, ServerUnavailable  # noqa: PLC0415 - slow to load
    from uplift_server.store.postgres.emitter_outbox import EmitterOutbox  # noqa: PLC0415 - slow to load

    connections = Connections(calls.api_url, OUTBOX_REQUEST_SECONDS_MAX, use_proxy=False)
    headers = {"authorization": f"Bearer {calls.api_key}", "content-type": "application/json"}

    async def send(body: bytes, count: int) -> BatchRejection | None:
        try:
            answer = await asyncio.to_thread(connections.exchange, "POST", "/v1/events/batch", body, headers)
            _check_accepted(answer, count)
        except ApiFailure as failure:
            if (rejection := _rejection(failure)) is not None:
                return rejection
            raise ServerUnavailable(
                call_failure(failure, calls.api_url, ADVICE),
                is_permanent=_is_permanent(failure),
                retry_after_seconds=failure.retry_after_seconds if isinstance(failure, ApiError) else None,
            ) from failure
        return None

    outbox = EmitterOutbox(url)
    reader = OutboxReader(outbox, send)
    _stop_on_signals(reader.stop)
    try:
        await reader.run(once=once)
    except ServerUnavailable as error:
        raise error.failure from error
    finally:
        await outbox.close()
        connections.close()
    return reader.sent, reader.rejected


def _check_accepted(answer: ApiResponse, count: int) -> None:
    """Raise ApiFailure unless the response shows that the server accepted all events."""
    if answer.status != 202:
        raise api_error(answer)
    try:
        is_complete = len(json.loads(answer.content)["data"]) == count
    except (ValueError, LookupError, TypeError):
        is_complete = False
    if not is_complete:
        raise ApiMisaddressed(
            "The response to POST /v1/events/batch is not from an Uplift Webhooks server: it has no list of events."
        )


def _rejection(failure: ApiFailure) -> BatchRejection | None:
    """Convert an API failure to a BatchRejection if the server rejected the events. Otherwise, return None."""
    if not isinstance(failure, ApiError) or failure.status not in _REJECTED:
        return None
    # An error without a code comes from a proxy. A proxy can also reject a batch that is too large (413).
    if not failure.code and failure.status != _TOO_LARGE:
        return None
    errors = [Problem(each.field, each.code, each.message) for each in failure.errors]
    return BatchRejection(failure.status, failure.code, failure.detail, errors)


def _is_permanent(failure: ApiFailure) -> bool:
    """Return whether a retry would probably fail too, because the key or the address is wrong."""
    if isinstance(failure, ApiError):
        return failure.status != _TOO_MANY_REQUESTS and failure.status < _SERVER_ERRORS
    return isinstance(failure, ApiMisaddressed)


def _stop_on_signals(stop: Callable[[], None]) -> None:
    """On the first signal, stop after the current request. On the second signal, exit immediately.

    No events are lost in either case.
    """
    signals = 0

    def signalled() -> None:
        nonlocal signals
        signals += 1
        if signals > 1:
            os._exit(_SECOND_SIGNAL)
        stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, signalled)


def _report(output: Output, sent: int, rejected: int, *, once: bool) -> None:
    output.fields({"sent": sent, "rejected": rejected})
    if once and rejected:
        remedy = "correct or delete the rows: SELECT id, problem FROM uplift_outbox WHERE rejected_at IS NOT NULL"
        raise CliError(f"the server rejected {counted(rejected, 'row')}", remedy)
