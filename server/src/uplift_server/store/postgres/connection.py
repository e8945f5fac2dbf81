"""Connections to PostgreSQL: pools, timeouts, and error conversion."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, urlencode

import asyncpg
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from uplift_server.core.operations.postgres_urls import split_postgres_url
from uplift_server.observe.store_health import Trouble
from uplift_server.store.errors import Rejected, Unavailable
from uplift_server.store.postgres import tls
from uplift_server.store.postgres.connection_errors import configuration_error
from uplift_server.store.postgres.hosts import Hosts

R = TypeVar("R")

CONNECT_SECONDS_MAX: Final = 5.0
OPERATION_SECONDS_MAX: Final = 9.0
"""The time limit for an operation on a connection, in seconds.

When an operation exceeds this limit, the server closes the connection, because the connection may be dead.
"""
STATEMENT_SECONDS_MAX: Final = 10.0
"""The driver's timeout for a statement, for connections without a pool, in seconds."""
STATEMENT_MS_MAX: Final = 8000
IDLE_IN_TRANSACTION_MS_MAX: Final = 3000
"""The time after which PostgreSQL ends an idle transaction and releases its locks, in ms.

It is shorter than the time after which a heartbeat expires.
"""
ACQUIRE_SECONDS_MAX: Final = 4.0

POOLER: Final = "pooler"
"""The URL parameter that declares a pooler.

Its only value is `transaction`: the pooler can run each transaction on a different connection.
"""

APPLICATION_NAME: Final = "uplift-webhooks"
POOLED_NAME: Final = f"{APPLICATION_NAME}-pooled"
"""The application name of connections through a pooler.

The pooler keeps these connections open after the server has stopped.
"""
_SETTINGS: Final = {
    "statement_timeout": str(STATEMENT_MS_MAX),
    "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_MS_MAX),
    # JIT compilation takes longer than any statement of this server.
    "jit": "off",
    # Override the database's defaults. A confirmed write must be on disk.
    # After a lock is taken, the next statement must see the commits of the previous lock holder.
    "synchronous_commit": "on",
    "default_transaction_isolation": "read committed",
}
_NO_TIMEOUTS: Final = {"statement_timeout": "0", "idle_in_transaction_session_timeout": "0"}
# Every statement must use an index, even if the statistics of a fast-growing table are outdated.
# The planner once read a month's five million events to count the events in the last second.
_BY_INDEX: Final = {
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "max_parallel_workers_per_gather": "0",
}
# Hot statements find every row by its key, so one plan fits all parameters.
HOT_SETTINGS: Final = {"plan_cache_mode": "force_generic_plan", "enable_bitmapscan": "off"}
NO_ANSWER: Final = "the database does not respond"
# The driver's errors, raised directly or through SQLAlchemy. They include errors for values that the driver cannot
# encode, which indicate a bug in the server.
DRIVER_ERRORS: Final = (
    sa.exc.DBAPIError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)
# Classes of SQLSTATE. After a serialization failure or a deadlock (40), a retry is likely to succeed.
_RETRYABLE: Final = "40"
_LOST: Final = ("08", "57P")
# After invalid data, a violated constraint or a syntax error, a retry also fails.
# `connection_errors` handles missing privileges.
_REJECTED: Final = ("22", "23", "42")
_READ_ONLY: Final = "25006"

_DAMAGED: Final = Trouble("the data of the database is damaged", "Check the log of PostgreSQL, and restore a backup.")
_SILENT: Final = Trouble(NO_ANSWER, "Check that PostgreSQL is running and reachable.", is_unreachable=True)
_TROUBLES: Final = (
    ("53100", Trouble("the disk of PostgreSQL is full", "Free space on this disk.")),
    ("53", Trouble("PostgreSQL does not have enough resources", "Check its connections and memory.")),
    ("58", Trouble("the disk of PostgreSQL reports errors", "Check the disk and the log of PostgreSQL.")),
    ("XX001", _DAMAGED),
    ("XX002", _DAMAGED),
    (_READ_ONLY, Trouble("the database is read-only", "Check that UPLIFT_DATABASE_URL points to the primary.")),
)
"""Each row has the start of a SQLSTATE, and the database problem that it indicates.

The first match applies. If no row matches, the statement caused the error.
"""
Raw = asyncpg.Connection
"""A driver connection (asyncpg). Outside a transaction, each statement is its own transaction."""


# PostgreSQL cannot store NUL or lone surrogates, but search queries may contain them.
_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")
REPLACEMENT: Final = "\ufffd"


class RolledBack(asyncpg.InterfaceError):
    """PostgreSQL closed the connection between two statements of a transaction, and rolled back the transaction.

    This happens if the process pauses for more than IDLE_IN_TRANSACTION_MS_MAX.
    """


@contextlib.asynccontextmanager
async def transaction(raw: Raw, settings: str = "") -> AsyncIterator[None]:
    """Run the block in a transaction, or in a savepoint of the current transaction.

    `settings` contains SET statements to run first. After RolledBack, the caller can repeat the transaction.
    """
    current = raw.transaction(isolation="read_committed")
    await current.start()
    try:
        if settings:
            await raw.execute(settings)
        yield
    except asyncio.CancelledError:
        # Do not wait, because PostgreSQL notices the closed connection only when the running statement ends.
        raw.terminate()
        raise
    except BaseException as error:
        # On a closed connection, `rollback` raises an error that would hide the cause.
        with contextlib.suppress(*DRIVER_ERRORS):
            await current.rollback()
        if _closed_while_idle(raw, error):
            raw.terminate()
            raise RolledBack(str(driver_error(error))) from error
        raise
    await current.commit()


class Pair:
    """A connection in two forms: `raw` is the driver's connection, and `sql` runs SQLAlchemy statements on it."""

    __slots__ = ("raw", "settings", "sql")

    def __init__(self, raw: Raw, sql: AsyncConnection, settings: str) -> None:
        self.raw = raw
        self.sql = sql
        self.settings = settings
        """SET statements to run at the start of each transaction.

        Empty if the settings already apply to the connection.
        """

    def transaction(self) -> AbstractAsyncContextManager[None]:
        """Return a context manager for a transaction, or for a savepoint of the current transaction.

        The transaction or savepoint starts with the statements in `settings`.
        """
        return transaction(self.raw, self.settings)

    def statement_scope(self) -> AbstractAsyncContextManager[None]:
        """Return a context manager for a single statement.

        The context manager opens a transaction only if `settings` is not empty.
        """
        return self.transaction() if self.settings else contextlib.nullcontext()

    @property
    def is_clean(self) -> bool:
        """Whether the connection is open and has no unfinished transaction."""
        return not self.raw.is_closed() and not self.raw.is_in_transaction()

    async def close(self) -> None:
        """Close the connection without waiting for PostgreSQL."""
        self.raw.terminate()
        with contextlib.suppress(*DRIVER_ERRORS, sa.exc.SQLAlchemyError):
            await self.sql.invalidate()
            await self.sql.close()


class Opener:
    """Opens connections to one database."""

    def __init__(self, url: str, *, no_timeouts: bool = False, settings: Mapping[str, str] | None = None) -> None:
        """`settings` are added to the common PostgreSQL settings.

        With `no_timeouts`, long operations such as migrations have no time limit, and may read whole tables.
        """
        self._url, self.is_pooled = _split_pooler(url)
        self._hosts = Hosts(self._url)
        self._settings = _SETTINGS | (_NO_TIMEOUTS if no_timeouts else _BY_INDEX) | dict(settings or {})
        self._command_seconds = None if no_timeouts else STATEMENT_SECONDS_MAX
        self._engine = create_async_engine(
            "postgresql+asyncpg://",
            creator=self._connect_dbapi,
            poolclass=sa.NullPool,
            isolation_level="AUTOCOMMIT",
            # Errors are logged, and parameters can contain personal data and credentials in URLs.
            hide_parameters=True,
        )
        sa.event.listen(self._engine.sync_engine, "before_cursor_execute", _with_storable_texts, retval=True)

    async def raw(self) -> Raw:
        """Open a driver connection. Raises DRIVER_ERRORS."""
        return await self._connect()

    async def pair(self) -> Pair:
        """Open a connection for the driver and for SQLAlchemy. Raises DRIVER_ERRORS."""
        sql = await self._engine.connect()
        raw = (await sql.get_raw_connection()).driver_connection
        assert isinstance(raw, asyncpg.Connection)
        return Pair(raw, sql, self._transaction_settings)

    @property
    def _transaction_settings(self) -> str:
        settings = self._settings.items() if self.is_pooled else ()
        return "".join(f"SET LOCAL {name} = '{value}'; " for name, value in settings)

    async def _connect(self) -> Raw:
        # A pooler shares its connections, so do not rely on their settings or prepared statements.
        name, settings = (POOLED_NAME, {}) if self.is_pooled else (APPLICATION_NAME, self._settings)
        more: dict[str, Any] = {"statement_cache_size": 0} if self.is_pooled else {}
        async with asyncio.timeout(CONNECT_SECONDS_MAX):
            if tls.uses_system_trust(self._url):
                # Reading the system's certificates would block the event loop for too long.
                more["ssl"] = await asyncio.to_thread(tls.system_trust, self._url)
            return await self._hosts.connect(
                lambda host: asyncpg.connect(
                    self._hosts.url,
                    timeout=CONNECT_SECONDS_MAX,
                    command_timeout=self._command_seconds,
                    server_settings={"application_name": name, **settings},
                    **more,
                    **host,
                )
            )

    def _connect_dbapi(self) -> Any:
        # Prepared statements without names do not conflict on shared connections.
        kept = {"prepared_statement_cache_size": 0, "prepared_statement_name_func": str} if self.is_pooled else {}
        return self._engine.sync_engine.dialect.dbapi.connect(async_creator_fn=self._connect, **kept)  # type: ignore[union-attr]


def _split_pooler(url: str) -> tuple[str, bool]:
    """Return the URL without the parameter POOLER, and whether the URL had this parameter."""
    parts = split_postgres_url(url)
    parameters = dict(parse_qsl(parts.query, keep_blank_values=True))
    pooler = parameters.pop(POOLER, None)
    return (url, False) if pooler is None else (str(parts._replace(query=urlencode(parameters))), True)


class ConnectionTimeout:
    """A timeout that closes a connection if an operation takes too long.

    The timeout does not send a cancel request to PostgreSQL first, because this request would also hang after a
    network failure.
    """

    def __init__(self, pair: Pair, seconds: float) -> None:
        self._pair = pair
        self._timer = asyncio.get_running_loop().call_later(seconds, self._expire)
        self.is_expired = False

    def cancel(self) -> None:
        """Cancel the timeout after the operation."""
        self._timer.cancel()

    def _expire(self) -> None:
        self.is_expired = True
        self._pair.raw.terminate()


class ConnectionPool:
    """A pool of up to `limit` connections, each opened on demand.

    Up to `waiting_max` operations wait for a connection.
    """

    def __init__(self, open_pair: Callable[[], Coroutine[Any, Any, Pair]], *, limit: int, waiting_max: int) -> None:
        self._open = open_pair
        self._free: list[Pair] = []
        self._slots = asyncio.Semaphore(limit)
        self._waiting = 0
        self._waiting_max = waiting_max

    @contextlib.asynccontextmanager
    async def acquire(self) -> AsyncIterator[Pair]:
        """Acquire a connection for one operation.

        Raises Unavailable if too many operations are waiting, if the wait takes too long, or if the operation exceeds
        OPERATION_SECONDS_MAX.
        """
        if self._waiting >= self._waiting_max:
            raise Unavailable("too many operations are waiting for the database")
        self._waiting += 1
        try:
            async with asyncio.timeout(ACQUIRE_SECONDS_MAX):
                await self._slots.acquire()
        except TimeoutError:
            raise Unavailable("the database does not respond: all connections are busy") from None
        finally:
            self._waiting -= 1
        try:
            pair = await self._pop_free() or await self._open()
            timeout = ConnectionTimeout(pair, OPERATION_SECONDS_MAX)
            try:
                yield pair
            except (asyncpg.InternalClientError, asyncio.CancelledError):
                # Close the connection, because its protocol state is unknown.
                pair.raw.terminate()
                raise
            except DRIVER_ERRORS as error:
                if timeout.is_expired:
                    # Close the idle connections: they are probably also dead, and each one would cost another timeout.
                    await self.close()
                    raise Unavailable(NO_ANSWER) from error
                if _state(driver_error(error)) == _READ_ONLY:
                    # The database server has become a standby. A new connection may find the primary.
                    pair.raw.terminate()
                raise
            finally:
                timeout.cancel()
                # A connection with an unfinished statement or transaction must not be used again.
                if pair.is_clean:
                    self._free.append(pair)
                else:
                    await pair.close()
        finally:
            self._slots.release()

    @property
    def waiting(self) -> int:
        """The number of operations that wait for a connection."""
        return self._waiting

    async def close(self) -> None:
        """Close the idle connections."""
        free, self._free = self._free, []
        for pair in free:
            await pair.close()

    async def _pop_free(self) -> Pair | None:
        while self._free:
            # Take the most recently used connection, so that connections beyond the usual load stay idle.
            pair = self._free.pop()
            if pair.is_clean:
                return pair
            await pair.close()
        return None


def _with_storable_texts(
    _connection: object, _cursor: object, statement: str, parameters: Any, _context: object, many: bool
) -> tuple[str, Any]:
    """Return the statement, and its parameters with REPLACEMENT for each character that PostgreSQL cannot store."""
    return statement, [_storable(row) for row in parameters] if many else _storable(parameters)


def storable_texts(column: Sequence[str | None]) -> Sequence[str | None]:
    """Return the column's values, with REPLACEMENT for each character that PostgreSQL cannot store."""
    if not _UNSTORABLE.search("".join(filter(None, column))):
        return column
    return [text and _UNSTORABLE.sub(REPLACEMENT, text) for text in column]


def _storable(row: Sequence[Any]) -> Sequence[Any]:
    if not any(isinstance(value, str) and _UNSTORABLE.search(value) for value in row):
        return row
    return tuple(_UNSTORABLE.sub(REPLACEMENT, value) if isinstance(value, str) else value for value in row)


def driver_error(error: BaseException) -> BaseException:
    """Return the driver's error, which SQLAlchemy wraps in two other errors."""
    while isinstance(error, sa.exc.DBAPIError | AsyncAdapt_asyncpg_dbapi.Error):
        below = error.orig if isinstance(error, sa.exc.DBAPIError) else error.__cause__
        if below is None:
            break
        error = below
    return error


def _closed_while_idle(raw: Raw, error: BaseException) -> bool:
    """Whether a statement failed because PostgreSQL had already closed the connection.

    The result is False if PostgreSQL closed the connection during the statement, because the statement itself can be
    the cause.
    """
    cause = driver_error(error)
    if isinstance(cause, asyncpg.InternalClientError):
        # The driver has read PostgreSQL's error, but has not yet detected that the connection is closed.
        # The driver did not send the statement.
        return True
    if isinstance(cause, asyncpg.ConnectionDoesNotExistError):
        return isinstance(cause.__cause__, OSError | asyncpg.IdleInTransactionSessionTimeoutError)
    return isinstance(cause, asyncpg.InterfaceError) and raw.is_closed()


def is_retryable(error: BaseException) -> bool:
    """Whether a conflict with a concurrent transaction caused the error, so that a retry can succeed."""
    return _state(driver_error(error)).startswith(_RETRYABLE)


def is_connection_lost(error: BaseException) -> bool:
    """Whether the connection is lost, or PostgreSQL is shutting down."""
    cause = driver_error(error)
    return _state(cause).startswith(_LOST) or isinstance(
        cause, asyncpg.InterfaceError | asyncpg.InternalClientError | OSError
    )


def trouble_of(error: BaseException) -> Trouble | None:
    """Return the database problem that caused the error, or None if the statement itself caused the error."""
    cause = driver_error(error)
    if isinstance(cause, TimeoutError) or is_connection_lost(error):
        return _SILENT
    state = _state(cause)
    return next((trouble for start, trouble in _TROUBLES if state.startswith(start)), None)


def store_error(error: BaseException) -> Unavailable | Rejected:
    """Convert a driver error to a store error."""
    cause = driver_error(error)
    if isinstance(cause, TimeoutError):
        return Unavailable(NO_ANSWER)
    text = str(cause) or type(cause).__name__
    known = configuration_error(cause)
    if known is not None:
        return known
    if isinstance(cause, ValueError) or _state(cause).startswith(_REJECTED):
        return Rejected(f"the database rejected the operation: {text}")
    return Unavailable(f"the database cannot execute the operation now: {text}")


def _state(error: BaseException) -> str:
    return getattr(error, "sqlstate", None) or ""
