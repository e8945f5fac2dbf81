"""The line through a pooler: what one process tells all others hear, soon and once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
from tests.pooler import Pooler
from tests.postgres import PostgresServer, name_of

from uplift_server.store import told_texts
from uplift_server.store.postgres.line import PolledLine, line_to
from uplift_server.store.schema_processes import CHANGED

WITHIN_SECONDS = 10.0
WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'told_texts'::regclass"


class Heard:
    """What a line told, in order."""

    def __init__(self, line: PolledLine) -> None:
        self.texts: list[str] = []
        self._more = asyncio.Event()
        line.on_told = self._told

    def _told(self, text: str) -> None:
        self.texts.append(text)
        self._more.set()
        if text == "stumble":
            raise ZeroDivisionError

    async def until(self, *texts: str) -> None:
        """Wait until these were heard, and nothing else."""
        async with asyncio.timeout(WITHIN_SECONDS):
            while self.texts != list(texts):
                self._more.clear()
                await self._more.wait()


@asynccontextmanager
async def hearing(url: str) -> AsyncIterator[tuple[PolledLine, Heard]]:
    """A line that has begun to hear."""
    line = line_to(url)
    assert isinstance(line, PolledLine)
    heard = Heard(line)
    await line.write(lambda _: None)
    yield line, heard
    await line.close()


@pytest.fixture
def url(postgres_url: str, pooler: Pooler) -> str:
    return pooler.url(postgres_url)


async def test_all_hear_what_one_tells_once_and_nothing_of_what_was_told_before(url: str) -> None:
    async with hearing(url) as (first, _):
        await first.tell(["early"])
        async with hearing(url) as (second, theirs), hearing(url) as (third, ours):
            await second.tell(["a", "b"])
            await theirs.until("a", "b")
            await third.tell(["c"])
            for heard in (theirs, ours):
                await heard.until("a", "b", "c")


async def test_what_can_be_read_later_than_higher_numbers_is_heard(url: str, postgres_url: str) -> None:
    direct = await asyncpg.connect(postgres_url)
    async with hearing(url) as (line, heard):
        transaction = direct.transaction()
        await transaction.start()
        await direct.execute("INSERT INTO told_texts (text) VALUES ('late')")
        await line.tell(["soon"])
        await heard.until("soon")
        await transaction.commit()
        await heard.until("soon", "late")
    await direct.close()


async def test_a_text_that_nobody_can_take_keeps_no_other_from_being_heard(url: str) -> None:
    async with hearing(url) as (line, heard):
        await line.tell(["stumble", "on"])
        await line.tell(["and on"])
        await heard.until("stumble", "on", "and on")


async def test_it_hears_on_where_it_was_once_its_connection_broke(
    url: str, postgres_url: str, postgres_server: PostgresServer
) -> None:
    name = name_of(postgres_url)
    async with hearing(url) as (line, heard):
        await line.tell(["before"])
        await heard.until("before")
        postgres_server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            f" WHERE datname = '{name}' AND pid <> pg_backend_pid()"
        )
        async with hearing(url) as (other, _):
            await other.tell(["after"])
        await heard.until("before", "after")


async def test_it_ends_while_it_waits_for_an_answer(url: str, postgres_url: str) -> None:
    direct = await asyncpg.connect(postgres_url)
    async with hearing(url) as (line, _), direct.transaction():
        await direct.execute("LOCK TABLE told_texts IN ACCESS EXCLUSIVE MODE")
        async with asyncio.timeout(WITHIN_SECONDS):
            while not await direct.fetchval(WAITING):
                await asyncio.sleep(0.01)
            await line.close()
    await direct.close()


async def test_that_something_was_changed_is_heard(url: str, postgres_url: str) -> None:
    direct = await asyncpg.connect(postgres_url)
    async with hearing(url) as (_, heard):
        await direct.execute(
            "INSERT INTO accounts (id, name, contact_emails, created_at, updated_at) VALUES ('x', 'x', '[]', 1, 1)"
        )
        await heard.until(CHANGED)
    await direct.close()


async def test_what_is_old_is_removed(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(told_texts, "KEPT", 10)
    async with hearing(url) as (line, _):
        for _ in range(5):
            await line.tell(["x"] * 10)
        found, _ = await line.write(lambda c: told_texts.since(c, told_texts.Place(0, frozenset(), 0)))
        assert 10 <= len(found) <= 21


async def test_it_hears_on_where_numbers_went_back(url: str, postgres_url: str) -> None:
    """As after a failover that has lost what came last."""
    direct = await asyncpg.connect(postgres_url)
    async with hearing(url) as (line, heard):
        await line.tell([str(number) for number in range(2000)])
        await heard.until(*map(str, range(2000)))
        heard.texts.clear()
        await direct.execute("DELETE FROM told_texts WHERE seq > 5; SELECT setval('told_texts_seq_seq', 5)")
        await heard.until(CHANGED)
        await line.tell(["and on"])
        await heard.until(CHANGED, "and on")
    await direct.close()
