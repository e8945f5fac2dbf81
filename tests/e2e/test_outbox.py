"""The outbox command through crashes: every row becomes one event, and the events of a key keep their commit order.

UPLIFT_TEST_KILLS sets the number of kills (default 5), and UPLIFT_TEST_SEED sets their times.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from tests.emitter_outbox import connected, insert, new_outbox, rows
from tests.postgres import PostgresServer, run_in_thread

from .harness import PROGRAM, TYPE, Server, serving, wait_for

KILLS = int(os.environ.get("UPLIFT_TEST_KILLS", "5"))
SEED = int(os.environ.get("UPLIFT_TEST_SEED", "20251124"))
KEYS = 5


class Reader:
    """A process of `uplift-server outbox`."""

    def __init__(self, server: Server, url: str) -> None:
        self._server = server
        self._command = [PROGRAM, "outbox", "--json", "--source-url", url]
        self.process = self._launch()

    def _launch(self) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            self._command,
            cwd=self._server.data,
            env=self._server.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def kill(self) -> None:
        """Send `kill -9`."""
        self.process.kill()
        self.process.communicate()

    def restart(self) -> None:
        """Kill the process, and start another one."""
        self.kill()
        self.process = self._launch()

    def stop(self) -> dict[str, int]:
        """Stop the process with SIGTERM. Return the counts that it prints."""
        self.process.send_signal(signal.SIGTERM)
        out, err = self.process.communicate(timeout=20)
        assert self.process.returncode == 0, err
        counts: dict[str, int] = json.loads(out)
        return counts


@contextlib.contextmanager
def reading(server: Server, url: str, count: int = 1) -> Iterator[list[Reader]]:
    """Run readers during the block."""
    readers = [Reader(server, url) for _ in range(count)]
    try:
        yield readers
    finally:
        for each in readers:
            each.kill()


class Emitters:
    """Threads that insert numbered rows. Each row of a key has a higher number than the committed rows before it."""

    def __init__(self, url: str, account: str) -> None:
        self._url = url
        self._account = account
        self._stopping = threading.Event()
        self.committed = dict[str, tuple[str | None, int]]()
        """Key and number of each committed row, by ID."""
        self.unsure = set[str]()
        """Rows whose commit may or may not have succeeded."""
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(3)]
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """Stop after the current transactions."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()

    def _run(self, seed: int) -> None:
        rng = random.Random(SEED + seed)

        async def run() -> None:
            while not self._stopping.is_set():
                with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                    async with connected(self._url) as connection:
                        while not self._stopping.is_set():
                            await self._transaction(connection, rng)
                await asyncio.sleep(0.05)

        asyncio.run(run())

    async def _transaction(self, connection: asyncpg.Connection, rng: random.Random) -> None:
        found: dict[str, tuple[str | None, int]] = {}
        try:
            async with connection.transaction():
                key = rng.choice([None, *(f"k{number}" for number in range(KEYS))])
                for _ in range(rng.randint(1, 3)):
                    # The trigger serializes the transactions of a key, so the numbers have the order of the commits.
                    row = await insert(connection, account=self._account, event_type=TYPE, key=key)
                    number = await connection.fetchval(
                        "UPDATE uplift_outbox SET data = jsonb_build_object('number', nextval('numbers'))"
                        " WHERE id = $1::text::uuid RETURNING (data->>'number')::int",
                        row,
                    )
                    found[row] = (key, number)
                await asyncio.sleep(rng.uniform(0, 0.03))
        except BaseException:
            self.unsure |= found.keys()
            raise
        self.committed |= found


def waiting(url: str) -> int:
    """Count the rows of the outbox."""

    async def count() -> int:
        async with connected(url) as connection:
            return len(await rows(connection))

    return run_in_thread(count())


def stored(server: Server) -> list[tuple[str, int]]:
    """Return the ID and the number of each event, in the order of acceptance."""
    found = [json.loads(body) for (body,) in server.place.query("SELECT body FROM events ORDER BY seq")]
    return [(event["id"], event["data"]["number"]) for event in found if event["type"] == TYPE]


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    """The emitter's PostgreSQL server, which the test can restart."""
    server = PostgresServer()
    yield server
    server.close()


@pytest.mark.timeout(300)  # each kill waits for the start of a process
def test_rows_become_events_once_and_in_order_through_kills(tmp_path: Path, postgres: PostgresServer) -> None:
    rng = random.Random(SEED)
    url = new_outbox(postgres)
    postgres.execute("CREATE SEQUENCE numbers", url.partition("?")[0].rpartition("/")[2])
    with serving(tmp_path / "data") as server:
        account, _ = server.account()
        with reading(server, url, 2) as readers:
            emitters = Emitters(url, account)
            for kill in range(KILLS):
                threading.Event().wait(rng.uniform(0.2, 1.0))
                match kill % 3:
                    case 0:
                        rng.choice(readers).restart()
                    case 1:
                        server.kill()
                        server.start()
                    case 2:
                        postgres.stop("immediate")
                        postgres.start()
            emitters.finish()
            wait_for(lambda: waiting(url) == 0, "the outbox is empty", 60, every=0.2)

        events = stored(server)
        found = dict(events)
        assert len(events) == len(found), "an event was stored twice"
        assert len(emitters.committed) > 10 * KILLS, "too few rows"
        assert emitters.committed.keys() <= found.keys() <= emitters.committed.keys() | emitters.unsure
        by_key = defaultdict(list)
        for event, number in events:
            key = emitters.committed.get(event, (None, 0))[0]
            if key is not None:
                by_key[key].append(number)
        assert len(by_key) == KEYS
        for numbers in by_key.values():
            assert numbers == sorted(numbers)


def test_rows_wait_for_the_server_and_for_the_database(tmp_path: Path, postgres: PostgresServer) -> None:
    url = new_outbox(postgres)

    def add(account: str) -> None:
        async def run() -> None:
            async with connected(url) as connection:
                await insert(connection, '{"number": 1}', account=account, event_type=TYPE)

        run_in_thread(run())

    with serving(tmp_path / "data") as server:
        account, _ = server.account()
        server.kill()
        add(account)
        with reading(server, url) as [reader]:
            threading.Event().wait(1)
            assert waiting(url) == 1
            server.start()
            wait_for(lambda: len(stored(server)) == 1, "the first event")
            postgres.stop()
            threading.Event().wait(0.5)
            postgres.start()
            add(account)
            wait_for(lambda: len(stored(server)) == 2, "the second event")
            wait_for(lambda: waiting(url) == 0, "the outbox is empty")
            assert reader.stop() == {"sent": 2, "rejected": 0}


def test_a_rejected_row_keeps_its_problem(tmp_path: Path, postgres_server: PostgresServer) -> None:
    url = new_outbox(postgres_server)
    with serving(tmp_path / "data") as server:
        account, _ = server.account()

        async def run() -> None:
            async with connected(url) as emitter:
                await insert(emitter, '{"number": 1}', account=account, event_type="no.such_type", key="a")
                await insert(emitter, '{"number": 2}', account=account, event_type=TYPE, key="a")
                await insert(emitter, '{"number": 3}', account=account, event_type=TYPE, key="b")
                await insert(emitter, "[4]", account=account, event_type=TYPE)
                await insert(emitter, '{"number": 5}', account="acc_unknown", event_type=TYPE)

        run_in_thread(run())
        done = server.run("outbox", "--once", "--json", "--source-url", url)

        assert (done.returncode, json.loads(done.stdout)) == (1, {"sent": 1, "rejected": 3}), done.stderr
        assert [number for _, number in stored(server)] == [3]

        async def problems() -> list[object]:
            async with connected(url) as emitter:
                found = [row["problem"] for row in await rows(emitter)]
            return [each and [error["field"] for error in json.loads(each)["errors"]] for each in found]

        assert run_in_thread(problems()) == [["type"], None, ["data"], ["account"]]


def test_a_second_signal_ends_the_reader_during_a_request(tmp_path: Path, postgres_server: PostgresServer) -> None:
    url = new_outbox(postgres_server)

    async def add() -> None:
        async with connected(url) as connection:
            await insert(connection)

    run_in_thread(add())
    server = Server(tmp_path)
    with socket.create_server(("127.0.0.1", server.port)) as silent, reading(server, url) as [reader]:
        silent.settimeout(60)
        connection, _ = silent.accept()
        with connection:
            reader.process.send_signal(signal.SIGTERM)
            with pytest.raises(subprocess.TimeoutExpired):
                reader.process.wait(0.5)
            reader.process.send_signal(signal.SIGTERM)
            assert reader.process.wait(5) == 130
    assert waiting(url) == 1
