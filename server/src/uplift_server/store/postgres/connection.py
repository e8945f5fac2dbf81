"""Connections to PostgreSQL: how they are opened, shared and given up, and what their errors mean."""

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
from uplift_server.store.postgres.connection_errors import mistake
from uplift_server.store.postgres.hosts import Hosts

R = TypeVar("R")

CONNECT_SECONDS_MAX: Final = 5.0
VERB_SECONDS_MAX: Final = 9.0
"""How long a verb may have a connection before this side gives that up: it may lead nowhere any more."""
COMMAND_SECONDS_MAX: Final = 10.0
"""How long a statement may take where no verb is bounded."""
STATEMENT_MS_MAX: Final = 8000
IDLE_IN_TRANSACTION_MS_MAX: Final = 3000
"""How long a transaction of an unreachable process keeps its locks. Shorter than `HEARTBEAT_EXPIRES_MS` in
`core.operations.cluster`, because some of its locks delay heartbeats."""
TAKE_SECONDS_MAX: Final = 4.0

POOLER: Final = "pooler"
"""The parameter of an address that says `transaction` where every transaction may come to another connection."""

APPLICATION_NAME: Final = "uplift-webhooks"
POOLED_NAME: Final = f"{APPLICATION_NAME}-pooled"
"""The name of connections that a pooler keeps when nobody of ours uses them any more."""
_SETTINGS: Final = {
    "statement_timeout": str(STATEMENT_MS_MAX),
    "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_MS_MAX),
    # Its compilation takes longer than any of our statements.
    "jit": "off",
    # What is answered is on the disk, and who has waited for others sees what they wrote, whatever the database's
    # defaults.
    "synchronous_commit": "on",
    "default_transaction_isolation": "read committed",
}
_PATIENT: Final = {"statement_timeout": "0", "idle_in_transaction_session_timeout": "0"}
# Every statement finds the rows that it is about by an index, few or many. By what the planner supposes of tables that
# grow by the minute it would rather read all of one, in three processes: to count what the last second brought, it read
# a month of five million events.
_BY_INDEX: Final = {
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "max_parallel_workers_per_gather": "0",
}
# Hot statements find every row by its key, and are planned once.
HOT_SETTINGS: Final = {"plan_cache_mode": "force_generic_plan", "enable_bitmapscan": "off"}
NO_ANSWER: Final = "the database does not answer"
# What the driver raises, directly or through SQLAlchemy. What it cannot encode is a defect of ours.
DRIVER_ERRORS: Final = (
    sa.exc.DBAPIError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)
# Classes of SQLSTATE. A serialization failure or a deadlock: the same may well succeed when it is repeated at once.
_REPEATABLE: Final = "40"
_LOST: Final = ("08", "57P")
# No outage, and no better later: data, constraints, statements that PostgreSQL does not understand. A right that is
# missing can be given back (`mistakes`).
_REFUSED: Final = ("22", "23", "42")
_ONLY_READS: Final = "25006"

_DAMAGED: Final = Trouble("its data is damaged", "Check the log of PostgreSQL, and restore a copy.")
_SILENT: Final = Trouble("it does not respond", "Check that PostgreSQL runs and can be reached.")
_TROUBLES: Final = (
    ("53100", Trouble("its disk is full", "Free space on the disk of PostgreSQL.")),
    ("53", Trouble("it has too few resources", "Check the connections and the memory of PostgreSQL.")),
    ("58", Trouble("its disk reports errors", "Check the disk of PostgreSQL, and its log.")),
    ("XX001", _DAMAGED),
    ("XX002", _DAMAGED),
    (_ONLY_READS, Trouble("it is read-only", "Check that UPLIFT_DATABASE_URL leads to the primary.")),
)
"""By prefix of SQLSTATE; the first match applies. All other errors are the fault of a statement."""
Raw = asyncpg.Connection
"""A connection of the driver. Outside a transaction every statement is one of its own."""


# What people look for may be anything, and what nothing can be called finds nothing.
_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")
REPLACEMENT: Final = "\ufffd"


class Pair:
    """One connection, as the driver has it and for statements of SQLAlchemy, which neither begins nor commits on it."""

    __slots__ = ("raw", "settings", "sql")

    def __init__(self, raw: Raw, sql: AsyncConnection, settings: str) -> None:
        self.raw = raw
        self.sql = sql
        self.settings = settings
        """Statements that every transaction is to begin with; none where the connection has them made."""

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """A transaction, or a part of the one under way that can be undone by itself."""
        transaction = self.raw.transaction(isolation="read_committed")
        await transaction.start()
        try:
            if self.settings:
                await self.raw.execute(self.settings)
            yield
        except asyncio.CancelledError:
            # Nobody waits until PostgreSQL has noticed that the connection is gone: amid a statement, that is when the
            # statement has ended, or has lasted too long.
            self.raw.terminate()
            raise
        except BaseException:
            await transaction.rollback()
            raise
        await transaction.commit()

    def alone(self) -> AbstractAsyncContextManager[None]:
        """What a statement needs that is a transaction of its own: where each may come to another connection, one
        around it.
        """
        return self.transaction() if self.settings else contextlib.nullcontext()

    @property
    def is_clean(self) -> bool:
        """Whether somebody else can use it."""
        return not self.raw.is_closed() and not self.raw.is_in_transaction()

    async def close(self) -> None:
        """Let go of it. Nobody waits for what PostgreSQL says to that, which may say nothing any more."""
        self.raw.terminate()
        with contextlib.suppress(*DRIVER_ERRORS, sa.exc.SQLAlchemyError):
            await self.sql.invalidate()
            await self.sql.close()


class Opener:
    """Opens connections to one database."""

    def __init__(self, url: str, *, patient: bool = False, settings: Mapping[str, str] | None = None) -> None:
        """`patient`: what is done may take as long as it does. `settings` are PostgreSQL's, beside those of all."""
        self._url, self.is_pooled = _parted(url)
        self._places = Hosts(self._url)
        self._settings = _SETTINGS | (_PATIENT if patient else _BY_INDEX) | dict(settings or {})
        self._command_seconds = None if patient else COMMAND_SECONDS_MAX
        self._engine = create_async_engine(
            "postgresql+asyncpg://", creator=self._adapted, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT"
        )
        sa.event.listen(self._engine.sync_engine, "before_cursor_execute", _with_storable_texts, retval=True)

    async def raw(self) -> Raw:
        """A connection of the driver alone. Raises what the driver does."""
        return await self._connect()

    async def pair(self) -> Pair:
        """A connection for both. Raises what the driver does."""
        sql = await self._engine.connect()
        raw = (await sql.get_raw_connection()).driver_connection
        assert isinstance(raw, asyncpg.Connection)
        return Pair(raw, sql, self._made_in_transactions)

    @property
    def _made_in_transactions(self) -> str:
        settings = self._settings.items() if self.is_pooled else ()
        return "".join(f"SET LOCAL {name} = '{value}'; " for name, value in settings)

    async def _connect(self) -> Raw:
        # A pooler has its own connections, whose settings and prepared statements nobody else knows.
        name, settings = (POOLED_NAME, {}) if self.is_pooled else (APPLICATION_NAME, self._settings)
        more: dict[str, Any] = {"statement_cache_size": 0} if self.is_pooled else {}
        async with asyncio.timeout(CONNECT_SECONDS_MAX):
            if tls.is_left_to_system(self._url):
                # Reading all authorities takes longer than a loop that delivers may be held up.
                more["ssl"] = await asyncio.to_thread(tls.system_trust, self._url)
            return await self._places.first(
                lambda place: asyncpg.connect(
                    self._places.url,
                    timeout=CONNECT_SECONDS_MAX,
                    command_timeout=self._command_seconds,
                    server_settings={"application_name": name, **settings},
                    **more,
                    **place,
                )
            )

    def _adapted(self) -> Any:
        # Without a name a statement is prepared anew each time, and nobody finds it in his way.
        kept = {"prepared_statement_cache_size": 0, "prepared_statement_name_func": str} if self.is_pooled else {}
        return self._engine.sync_engine.dialect.dbapi.connect(async_creator_fn=self._connect, **kept)  # type: ignore[union-attr]


def _parted(url: str) -> tuple[str, bool]:
    """The address that PostgreSQL's own programs know, and whether a pooler stands between."""
    parts = split_postgres_url(url)
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    pooler = given.pop(POOLER, None)
    return (url, False) if pooler is None else (str(parts._replace(query=urlencode(given))), True)


class Silence:
    """Waits for PostgreSQL: a connection over which it has not said all in time is given up, not asked to cancel.

    That would have to go over the same network, and so would whatever is to be said after it.
    """

    def __init__(self, pair: Pair, seconds: float) -> None:
        self._pair = pair
        self._timer = asyncio.get_running_loop().call_later(seconds, self._give_up)
        self.is_over = False
        """Whether it was given up."""

    def end(self) -> None:
        """All was said."""
        self._timer.cancel()

    def _give_up(self) -> None:
        self.is_over = True
        self._pair.raw.terminate()


class Connections:
    """A few connections, opened as they are needed and anew where one broke."""

    def __init__(self, open_pair: Callable[[], Coroutine[Any, Any, Pair]], *, limit: int, waiting_max: int) -> None:
        self._open = open_pair
        self._free: list[Pair] = []
        self._places = asyncio.Semaphore(limit)
        self._waiting = 0
        self._waiting_max = waiting_max

    @contextlib.asynccontextmanager
    async def taken(self) -> AsyncIterator[Pair]:
        """One of them for oneself. Raises Unavailable where too many wait, none is to be had, or none answers."""
        if self._waiting >= self._waiting_max:
            raise Unavailable("too much waits for the database")
        self._waiting += 1
        try:
            async with asyncio.timeout(TAKE_SECONDS_MAX):
                await self._places.acquire()
        except TimeoutError:
            raise Unavailable("the database does not answer: all connections to it are busy") from None
        finally:
            self._waiting -= 1
        try:
            pair = await self._usable() or await self._open()
            silence = Silence(pair, VERB_SECONDS_MAX)
            try:
                yield pair
            except (asyncpg.InternalClientError, asyncio.CancelledError):
                # The driver has lost its way, as it may where the server's last word came between two statements; or it
                # waits for a word on what was cancelled.
                pair.raw.terminate()
                raise
            except DRIVER_ERRORS as error:
                if silence.is_over:
                    # So are the others that rest: they lead where this one did, and each would be waited for.
                    await self.close()
                    raise Unavailable(NO_ANSWER) from error
                if _state(driver_error(error)) == _ONLY_READS:
                    # The server has become a standby. Who is not any more, a new connection may find.
                    pair.raw.terminate()
                raise
            finally:
                silence.end()
                # Whatever went wrong, or was cancelled amid a statement: what is left of it must not reach the next.
                if pair.is_clean:
                    self._free.append(pair)
                else:
                    await pair.close()
        finally:
            self._places.release()

    @property
    def waiting(self) -> int:
        """How many wait for one."""
        return self._waiting

    async def close(self) -> None:
        """Let go of those that nobody has."""
        free, self._free = self._free, []
        for pair in free:
            await pair.close()

    async def _usable(self) -> Pair | None:
        while self._free:
            # The last one that was used, so that what is seldom needed rests.
            pair = self._free.pop()
            if pair.is_clean:
                return pair
            await pair.close()
        return None


def _with_storable_texts(
    _connection: object, _cursor: object, statement: str, parameters: Any, _context: object, many: bool
) -> tuple[str, Any]:
    """Give a statement of SQLAlchemy no text that PostgreSQL cannot hold: with NUL, or half of a character."""
    return statement, [_storable(row) for row in parameters] if many else _storable(parameters)


def storable_texts(column: Sequence[str | None]) -> Sequence[str | None]:
    """The same for a column of texts that the driver is given itself."""
    if not _UNSTORABLE.search("".join(filter(None, column))):
        return column
    return [text and _UNSTORABLE.sub(REPLACEMENT, text) for text in column]


def _storable(row: Sequence[Any]) -> Sequence[Any]:
    if not any(isinstance(value, str) and _UNSTORABLE.search(value) for value in row):
        return row
    return tuple(_UNSTORABLE.sub(REPLACEMENT, value) if isinstance(value, str) else value for value in row)


def driver_error(error: BaseException) -> BaseException:
    """What the driver said, where SQLAlchemy wrapped it, twice."""
    while isinstance(error, sa.exc.DBAPIError | AsyncAdapt_asyncpg_dbapi.Error):
        below = error.orig if isinstance(error, sa.exc.DBAPIError) else error.__cause__
        if below is None:
            break
        error = below
    return error


def is_repeatable(error: BaseException) -> bool:
    """Whether nothing happened but that another transaction was in the way."""
    return _state(driver_error(error)).startswith(_REPEATABLE)


def is_lost(error: BaseException) -> bool:
    """Whether the connection broke, or the server is going down."""
    said = driver_error(error)
    return _state(said).startswith(_LOST) or isinstance(
        said, asyncpg.InterfaceError | asyncpg.InternalClientError | OSError
    )


def trouble_of(error: BaseException) -> Trouble | None:
    """The trouble of the database; None if the statement is at fault."""
    said = driver_error(error)
    if isinstance(said, TimeoutError) or is_lost(error):
        return _SILENT
    state = _state(said)
    return next((trouble for start, trouble in _TROUBLES if state.startswith(start)), None)


def translated(error: BaseException) -> Unavailable | Rejected:
    """What the driver said, as the store's error."""
    said = driver_error(error)
    if isinstance(said, TimeoutError):
        return Unavailable(NO_ANSWER)
    text = str(said) or type(said).__name__
    mistaken = mistake(said)
    if mistaken is not None:
        return mistaken
    if isinstance(said, ValueError) or _state(said).startswith(_REFUSED):
        return Rejected(f"the database refuses this: {text}")
    return Unavailable(f"the database cannot do this now: {text}")


def _state(error: BaseException) -> str:
    return getattr(error, "sqlstate", None) or ""
