"""The reader of an emitter outbox on PostgreSQL, with a scripted server."""

import asyncio
import json
import re
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import create_async_engine
from structlog.testing import capture_logs
from tests.emitter_outbox import connected, insert, new_outbox, rows
from tests.pooler import Pooler
from tests.postgres import PostgresServer, name_of

from uplift_server.core.events.emitter_outbox import BatchRejection
from uplift_server.core.limits import EVENT_DATA_BYTES_MAX, OUTBOX_BATCH_BYTES_MAX, OUTBOX_BATCH_ROWS_MAX
from uplift_server.core.problems import Problem
from uplift_server.delivery.emitter_outbox import OutboxReader, ServerUnavailable
from uplift_server.store.errors import Misaddressed, Unavailable
from uplift_server.store.postgres import emitter_outbox
from uplift_server.store.postgres.emitter_outbox import SQL, EmitterOutbox

WITHIN_SECONDS = 20
Event = dict[str, Any]


class ScriptedServer:
    """Accepts batches, but rejects those with an event that `wrong` selects. Raises `failure` if it is set."""

    def __init__(self) -> None:
        self.batches: list[list[Event]] = []
        """The events of each accepted batch."""
        self.requests = 0
        self.wrong: Callable[[Event], bool] = lambda _: False
        self.names_positions = True
        self.failure: Exception | None = None
        self.during: Callable[[], Any] | None = None
        """A function that runs at the beginning of each request."""

    async def send(self, body: bytes, count: int) -> BatchRejection | None:
        self.requests += 1
        if self.during is not None:
            await self.during()
        if self.failure is not None:
            raise self.failure
        events = json.loads(body)["events"]
        assert len(events) == count
        wrong = [index for index, event in enumerate(events) if self.wrong(event)]
        if wrong:
            errors = [Problem(f"events.{index}.data.n", "minimum", "Too small.") for index in wrong]
            return BatchRejection(422, "validation_failed", "Not valid.", errors if self.names_positions else [])
        self.batches.append(events)
        return None

    @property
    def numbers(self) -> list[int]:
        """The numbers of the accepted events, in order."""
        return [event["data"]["n"] for batch in self.batches for event in batch]


@pytest.fixture
def server() -> ScriptedServer:
    return ScriptedServer()


@pytest.fixture
def url(postgres_server: PostgresServer) -> str:
    return new_outbox(postgres_server)


@pytest.fixture
async def emitter(url: str) -> AsyncIterator[asyncpg.Connection]:
    async with connected(url) as connection:
        yield connection


@pytest.fixture
async def outbox(url: str) -> AsyncIterator[EmitterOutbox]:
    outbox = EmitterOutbox(url)
    yield outbox
    await outbox.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition is true."""
    async with asyncio.timeout(WITHIN_SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


async def drain(outbox: EmitterOutbox, server: ScriptedServer) -> OutboxReader:
    """Send the waiting rows, and return the reader that sent them."""
    reader = OutboxReader(outbox, server.send)
    async with asyncio.timeout(WITHIN_SECONDS):
        await reader.run(once=True)
    return reader


async def number(emitter: asyncpg.Connection, n: int, **fields: Any) -> str:
    """Insert a row with `n` in its data, and return its ID."""
    return await insert(emitter, json.dumps({"n": n}), **fields)


async def test_rows_become_events_with_their_ids(
    emitter: asyncpg.Connection, outbox: EmitterOutbox, server: ScriptedServer
) -> None:
    plain = await insert(emitter, '{"a": 12345678901234567890, "b": 1.50, "c": "ü"}')
    full = await insert(emitter, key="k", account="mine", expires_at="2030-01-02 03:04:05.678+02")
    forever = await insert(emitter, expires_at="infinity")

    reader = await drain(outbox, server)

    [events] = server.batches
    assert events == [
        {
            "id": plain,
            "account": "acc_1",
            "type": "test.numbered",
            "data": {"a": 12345678901234567890, "b": 1.5, "c": "ü"},
        },
        {
            "id": full,
            "account": "mine",
            "type": "test.numbered",
            "ordering_key": "k",
            "expires_at": "2030-01-02T01:04:05.678Z",
            "data": {},
        },
        {"id": forever, "account": "acc_1", "type": "test.numbered", "data": {}},
    ]
    assert (reader.sent, reader.rejected, await rows(emitter)) == (3, 0, [])


async def test_generated_ids_are_in_the_order_of_the_rows(
    emitter: asyncpg.Connection, outbox: EmitterOutbox, server: ScriptedServer
) -> None:
    """Events of one request have the same time, so receivers compare their IDs to find the newest event."""
    await emitter.execute(
        "INSERT INTO uplift_outbox (account, type, data, ordering_key)"
        " SELECT 'acc_1', 'test.numbered', jsonb_build_object('n', n), 'a' FROM generate_series(1, 100) AS n"
    )
    await drain(outbox, server)

    [events] = server.batches
    found = [uuid.UUID(each["id"]) for each in events]
    assert server.numbers == list(range(1, 101))
    assert found == sorted(set(found))
    assert {(each.version, each.variant) for each in found} == {(8, uuid.RFC_4122)}


async def test_the_log_names_the_database_without_its_password(url: str, server: ScriptedServer) -> None:
    outbox = EmitterOutbox(url.replace("postgres@", "postgres:very-secret@"))
    reader = OutboxReader(outbox, server.send)
    with capture_logs() as logs:
        async with asyncio.timeout(WITHIN_SECONDS):
            running = asyncio.create_task(reader.run())
            while not logs:
                await asyncio.sleep(0.01)
            reader.stop()
            await running
    await outbox.close()
    [line] = [each for each in logs if each["event"] == "outbox connected"]
    assert line["table"] == "uplift_outbox"
    assert name_of(url) in line["database"]
    assert "very-secret" not in str(logs)


async def test_rows_of_a_key_are_sent_in_the_order_of_their_commits(
    url: str, emitter: asyncpg.Connection, outbox: EmitterOutbox, server: ScriptedServer
) -> None:
    async with connected(url) as other:
        first = emitter.transaction()
        await first.start()
        await number(emitter, 1, key="a")
        second = asyncio.create_task(number(other, 2, key="a"))
        async with connected(url) as third:
            await number(third, 3, key="b")
            await number(third, 4)
            await drain(outbox, server)
            assert server.numbers == [3, 4]
            assert not second.done()
        await first.commit()
        await second

    await drain(outbox, server)
    assert server.numbers == [3, 4, 1, 2]


async def test_a_rejected_row_holds_only_its_key_until_it_is_corrected(
    emitter: asyncpg.Connection, outbox: EmitterOutbox, server: ScriptedServer
) -> None:
    server.wrong = lambda event: event["data"]["n"] < 0
    wrong = await number(emitter, -1, key="a")
    alone = await number(emitter, -2)
    for n, key, account in ((2, "a", "acc_1"), (3, "a", "acc_2"), (4, "b", "acc_1"), (5, None, "acc_1")):
        await number(emitter, n, key=key, account=account)

    reader = await drain(outbox, server)
    await number(emitter, 6, key="a")
    await drain(outbox, server)

    assert server.numbers == [3, 4, 5]
    assert (reader.sent, reader.rejected) == (3, 2)
    first, second, *rest = await rows(emitter)
    assert [str(first["id"]), str(second["id"])] == [wrong, alone]
    assert json.loads(first["problem"]) == {
        "status": 422,
        "code": "validation_failed",
        "errors": [{"field": "data.n", "code": "minimum", "message": "Too small."}],
    }
    assert [(row["rejected_at"], str(row["waits_for"])) for row in rest] == [(None, wrong), (None, wrong)]
    assert (await outbox.status())[:3] == (0, 2, 2)

    await emitter.execute("UPDATE uplift_outbox SET data = '{\"n\": 1}', rejected_at = NULL WHERE id = $1", first["id"])
    await emitter.execute("DELETE FROM uplift_outbox WHERE id = $1", second["id"])
    await drain(outbox, server)
    assert server.numbers == [3, 4, 5, 1, 2, 6]
    assert await rows(emitter) == []


async def test_an_expired_rejected_row_does_not_hold_its_key(
    emitter: asyncpg.Connection, outbox: EmitterOutbox, server: ScriptedServer
) -> None:
    server.wrong = lambda event: event["data"]["n"] < 0
    await number(emitter, -1, key="a", expires_at="2020-01-01 00:00+00")
    await number(emitter, 2, key="a")

    await drain(outbox, server)

    assert server.numbers == [2]
    assert [row["rejected_at"] is not None for row in await rows(emitter)] == [True]


async def test_rows_behind_a_rejected_row_follow_when_it_is_deleted_or_expires(
    emitter: asyncpg.Connection, outbox: EmitterOutbox, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Small limits, so that the reader needs several turns.
    monkeypatch.setattr(emitter_outbox, "OUTBOX_AWAITED_MAX", 2)
    monkeypatch.setattr(emitter_outbox, "OUTBOX_UNBLOCKED_MAX", 3)
    server.wrong = lambda event: event["data"]["n"] < 0
    wrong = [await number(emitter, -1, key=f"k{key}") for key in range(7)]
    for n in range(70):
        await number(emitter, n, key=f"k{n % 7}")
    await drain(outbox, server)
    assert server.numbers == []

    for row in wrong[:5]:
        await emitter.execute("DELETE FROM uplift_outbox WHERE id = $1::text::uuid", row)
    await emitter.execute("UPDATE uplift_outbox SET expires_at = now() WHERE id = $1::text::uuid", wrong[5])
    for n in range(70, 140):
        await number(emitter, n, key=f"k{n % 7}")
    await drain(outbox, server)

    assert sorted(server.numbers) == [n for n in range(140) if n % 7 < 6]
    for key in range(6):
        assert [n for n in server.numbers if n % 7 == key] == [n for n in range(140) if n % 7 == key]
    assert (await outbox.status())[:3] == (0, 20, 2)


async def test_smaller_batches_find_a_row_that_a_rejection_does_not_name(
    emitter: asyncpg.Connection, outbox: EmitterOutbox, server: ScriptedServer
) -> None:
    server.wrong = lambda event: event["data"]["n"] == 13
    server.names_positions = False
    for n in range(20):
        await number(emitter, n, key="a" if n in (13, 14) else None)

    reader = await drain(outbox, server)

    assert server.numbers == [n for n in range(20) if n not in (13, 14)]
    assert (reader.sent, reader.rejected) == (18, 1)


async def test_a_row_that_someone_changes_waits_with_its_key(
    url: str, emitter: asyncpg.Connection, outbox: EmitterOutbox, server: ScriptedServer
) -> None:
    changed = await number(emitter, 1, key="a")
    await number(emitter, 2, key="a")
    await number(emitter, 3, key="b")
    async with connected(url) as other, other.transaction():
        await other.execute("UPDATE uplift_outbox SET data = '{\"n\": 10}' WHERE id = $1::text::uuid", changed)
        await drain(outbox, server)
        assert server.numbers == [3]

    await drain(outbox, server)
    assert server.numbers == [3, 10, 2]


async def test_a_row_does_not_change_while_it_is_sent(
    url: str, emitter: asyncpg.Connection, outbox: EmitterOutbox, server: ScriptedServer
) -> None:
    sent = await number(emitter, 1)

    async def change() -> None:
        async with connected(url) as other:
            await other.execute("SET lock_timeout = '50ms'")
            with pytest.raises(asyncpg.LockNotAvailableError):
                await other.execute("UPDATE uplift_outbox SET data = '{}' WHERE id = $1::text::uuid", sent)

    server.during = change
    await drain(outbox, server)
    assert server.numbers == [1]


async def test_only_one_reader_sends_at_a_time(
    url: str, emitter: asyncpg.Connection, outbox: EmitterOutbox, server: ScriptedServer
) -> None:
    await number(emitter, 1, key="a")
    other = EmitterOutbox(url)
    turns = []

    async def look() -> None:
        async with other.turn() as turn:
            turns.append(turn)

    server.during = look
    await drain(outbox, server)
    assert turns == [None]
    async with other.turn() as turn:
        assert turn is not None
    await other.close()


async def test_a_lost_connection_gives_the_rows_to_another_reader(
    url: str, emitter: asyncpg.Connection, outbox: EmitterOutbox, server: ScriptedServer
) -> None:
    await number(emitter, 1, key="a")
    await number(emitter, 2, key="a")

    async def lose() -> None:
        server.during = None
        await emitter.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        other = EmitterOutbox(url)
        await drain(other, server)
        await other.close()

    server.during = lose
    with pytest.raises(Unavailable):
        await drain(outbox, server)

    # The scripted server accepts the first reader's request, too. A real server would recognize the repeated IDs.
    assert server.numbers == [1, 2, 1, 2]
    assert await rows(emitter) == []


async def test_a_batch_has_bounds(emitter: asyncpg.Connection, outbox: EmitterOutbox, server: ScriptedServer) -> None:
    size = EVENT_DATA_BYTES_MAX - len('{"n": 1, "x": ""}')
    for n in range(6):
        await insert(emitter, json.dumps({"n": n, "x": "x" * size}))
    too_large = await insert(emitter, json.dumps({"n": 6, "x": "x" * (size + 1)}))
    for n in range(OUTBOX_BATCH_ROWS_MAX + 1):
        await number(emitter, 100 + n)

    reader = await drain(outbox, server)

    assert len(server.numbers) == 6 + OUTBOX_BATCH_ROWS_MAX + 1
    assert server.numbers == sorted(server.numbers)
    assert len(server.batches[0]) == OUTBOX_BATCH_BYTES_MAX // EVENT_DATA_BYTES_MAX
    assert max(map(len, server.batches)) <= OUTBOX_BATCH_ROWS_MAX
    assert reader.rejected == 1
    assert [str(row["id"]) for row in await rows(emitter)] == [too_large]


async def test_the_reader_continues_after_failures_and_stops(
    emitter: asyncpg.Connection, outbox: EmitterOutbox, server: ScriptedServer
) -> None:
    reader = OutboxReader(outbox, server.send)
    running = asyncio.create_task(reader.run())

    await number(emitter, 1)
    await until(lambda: server.numbers == [1])
    # After a success, the reader also retries permanent failures, because a deployment can cause them.
    with capture_logs() as logs:
        for is_permanent in (False, True):
            server.failure = ServerUnavailable(OSError(), is_permanent=is_permanent, retry_after_seconds=0)
            await number(emitter, 2)
            requests = server.requests
            await until(lambda requests=requests: server.requests >= requests + 2)
    assert [each["log_level"] for each in logs if each["event"] == "outbox waiting"] == ["warning", "error"]
    server.failure = None
    await until(lambda: server.numbers == [1, 2, 2])
    await number(emitter, 3)
    await until(lambda: server.numbers == [1, 2, 2, 3])
    reader.stop()
    async with asyncio.timeout(WITHIN_SECONDS):
        await running
    assert reader.sent == 4


async def test_a_wrong_setting_ends_a_reader_that_never_worked(
    emitter: asyncpg.Connection, outbox: EmitterOutbox, server: ScriptedServer, postgres_server: PostgresServer
) -> None:
    """An empty table does not prove that the settings of the server are right."""
    server.failure = ServerUnavailable(OSError(), is_permanent=True)
    with capture_logs() as logs:
        running = asyncio.create_task(OutboxReader(outbox, server.send).run())
        await until(lambda: "outbox connected" in [each["event"] for each in logs])
    await number(emitter, 1)
    with pytest.raises(ServerUnavailable):
        await asyncio.wait_for(running, WITHIN_SECONDS)

    without_table = EmitterOutbox(postgres_server.new_database(empty=True))
    with pytest.raises(Misaddressed, match="print-sql"):
        await OutboxReader(without_table, server.send).run()
    await without_table.close()


async def test_an_insert_wakes_the_reader(emitter: asyncpg.Connection, outbox: EmitterOutbox) -> None:
    woken = asyncio.Event()
    outbox.listen(woken.set)
    async with outbox.turn():
        pass
    await number(emitter, 1)
    async with asyncio.timeout(WITHIN_SECONDS):
        await woken.wait()


async def test_the_status_counts_rows(emitter: asyncpg.Connection, outbox: EmitterOutbox) -> None:
    assert await outbox.status() == (0, 0, 0, 0)
    await number(emitter, 1)
    await number(emitter, 2)
    await emitter.execute("UPDATE uplift_outbox SET rejected_at = now() WHERE data = '{\"n\": 1}'")
    await emitter.execute("UPDATE uplift_outbox SET created_at = now() - interval '90 s'")
    waiting, blocked, rejected, oldest_seconds = await outbox.status()
    assert (waiting, blocked, rejected) == (1, 0, 1)
    assert 90 <= oldest_seconds < 90 + WITHIN_SECONDS


async def test_the_reader_needs_few_privileges(
    url: str, emitter: asyncpg.Connection, server: ScriptedServer, postgres_server: PostgresServer
) -> None:
    await emitter.execute("CREATE ROLE my_service LOGIN; CREATE ROLE my_reader LOGIN")
    reader = EmitterOutbox(url.replace("postgres@", "my_reader@"))
    try:
        with pytest.raises(Misaddressed, match="grant"):
            await drain(reader, server)
        grants = [line[3:] for line in SQL.splitlines() if line.startswith("-- GRANT")]
        postgres_server.execute("".join(grants), name_of(url))
        async with connected(url.replace("postgres@", "my_service@")) as service:
            for n, key in ((1, "a"), (-1, None)):
                await service.execute(
                    "INSERT INTO uplift_outbox (account, type, data, ordering_key) VALUES ('a', 'b', $1, $2)",
                    json.dumps({"n": n}),
                    key,
                )
        server.wrong = lambda event: event["data"]["n"] < 0
        await drain(reader, server)
        assert server.numbers == [1]
        assert len(await rows(emitter)) == 1
    finally:
        await reader.close()
        await emitter.execute("DROP OWNED BY my_service, my_reader; DROP ROLE my_service, my_reader")


async def test_the_sql_can_be_repeated(
    url: str,
    emitter: asyncpg.Connection,
    outbox: EmitterOutbox,
    server: ScriptedServer,
    postgres_server: PostgresServer,
) -> None:
    """The SQL replaces the random IDs of an earlier release."""
    await emitter.execute("ALTER TABLE uplift_outbox ALTER COLUMN id SET DEFAULT gen_random_uuid()")
    first = await number(emitter, 1)
    postgres_server.execute(SQL, name_of(url))
    second = await number(emitter, 2)
    await drain(outbox, server)
    assert server.numbers == [1, 2]
    assert [uuid.UUID(each).version for each in (first, second)] == [4, 8]


async def test_a_table_in_another_schema_works(
    url: str, emitter: asyncpg.Connection, server: ScriptedServer, postgres_server: PostgresServer
) -> None:
    await emitter.execute(f"DROP TABLE uplift_outbox; CREATE SCHEMA other; SET search_path = other; {SQL}")
    await emitter.execute(f"ALTER DATABASE {name_of(url)} SET search_path = other; SET search_path = public")
    await emitter.execute("INSERT INTO other.uplift_outbox (account, type, data) VALUES ('a', 'b', '{\"n\": 1}')")
    outbox = EmitterOutbox(url)
    await drain(outbox, server)
    await outbox.close()
    assert server.numbers == [1]


async def test_the_reader_works_through_a_pooler(
    url: str, emitter: asyncpg.Connection, server: ScriptedServer, pooler: Pooler
) -> None:
    await number(emitter, 1, key="a")
    outbox = EmitterOutbox(pooler.url(url))
    await drain(outbox, server)
    await outbox.close()
    assert server.numbers == [1]


async def test_the_examples_of_the_documentation_insert_rows(
    url: str, emitter: asyncpg.Connection, outbox: EmitterOutbox, server: ScriptedServer
) -> None:
    page = (Path(__file__).parents[2] / "docs/outbox.md").read_text(encoding="utf-8")
    statements, query, correction = re.findall(r"^```sql\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    [program] = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    await emitter.execute("CREATE TABLE athletes (id text PRIMARY KEY, first_name text NOT NULL)")
    defined: dict[str, Any] = {}
    exec(compile(program, "docs/outbox.md", "exec"), defined)

    await emitter.execute(statements)
    engine = create_async_engine("postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(url))
    async with engine.begin() as connection:
        await connection.run_sync(defined["add_athlete"], "acc_1", "a2", "Ben")
    await engine.dispose()
    server.wrong = lambda event: event["ordering_key"] == "a1"
    await drain(outbox, server)

    [batch] = server.batches
    assert [(event["account"], event["ordering_key"], event["data"]) for event in batch] == [
        ("acc_1", "a2", {"object": {"id": "a2", "first_name": "Ben"}})
    ]
    [left] = await emitter.fetch(query)
    server.wrong = lambda _: False
    await emitter.execute(correction.splitlines()[0].replace("…", str(left["id"])))
    await drain(outbox, server)
    assert len(server.batches) == 2
