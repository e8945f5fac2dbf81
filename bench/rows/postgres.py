"""Events per second on PostgreSQL with one, two and four server processes, and with two through a connection pooler."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

from tests.pooler import Pooler
from tests.postgres import PostgresServer

from bench.meter import cpu_s
from bench.options import Options
from bench.report import Figure, Report, at_least, at_most
from bench.row import Row
from bench.scene import Measurement, Scene, conditions
from bench.server import Server

_USUAL_S: Final = 20.0
_PROCESSES: Final = (1, 2, 4)
_PROMISED: Final = 2
"""The number of server processes for which the row `postgres` has targets."""
# Default durability, and settings that every tuning guide recommends.
DURABLE: Final = "-c shared_buffers=512MB -c max_wal_size=4GB -c max_connections=100"
SECRET_KEY: Final = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


def _measure(row: Row, options: Options) -> Report:
    return _measured(row, options, (_PROMISED,) if options.smoke else _PROCESSES, pooled=False)


def _measure_pooled(row: Row, options: Options) -> Report:
    return _measured(row, options, (_PROMISED,), pooled=True)


def _measured(row: Row, options: Options, counts: Sequence[int], *, pooled: bool) -> Report:
    figures: list[Figure] = []
    notes: list[str] = []
    secs = options.duration(_USUAL_S)
    for count in counts:
        with _scene(options, count, pooled=pooled) as (scene, postgres):
            scene.warm_up()
            before = cpu_s(postgres.pid)
            found = scene.run(_processes(count), secs=secs)
            database_us = (cpu_s(postgres.pid) - before) / max(1, found.delivered) * 1e6
            figures += _figures(count, found, database_us, promised=count == _PROMISED and not pooled)
            notes += found.trouble + scene.trouble()
    return Report(
        row.name,
        row.title,
        figures,
        conditions(
            options,
            load=f"{options.connections} connections, spread over all processes, closed loop, {secs:g} s",
            durability="PostgreSQL, synchronous_commit=on, response 202 after the commit",
            postgres=DURABLE.replace("-c ", ""),
        ),
        {},
        {},
        list(dict.fromkeys(notes)),
    )


@contextmanager
def _scene(options: Options, count: int, *, pooled: bool) -> Iterator[tuple[Scene, PostgresServer]]:
    """Start processes on an empty database, and create the endpoints."""
    with ExitStack() as stack:
        postgres = PostgresServer(DURABLE, parent=options.directory)
        stack.callback(postgres.close)
        url = direct = postgres.new_database()
        if pooled:
            pooler = Pooler(postgres.directory)
            stack.callback(pooler.close)
            url = pooler.url(url)
        settings = {
            "UPLIFT_DATABASE_URL": url,
            "UPLIFT_DATABASE_DIRECT_URL": direct,
            "UPLIFT_SECRET_KEY": SECRET_KEY,
        }
        scene = stack.enter_context(Scene(options, settings=settings))
        scene.others = (postgres.pid,)
        scene.server.start()
        for number in range(1, count):
            folder = scene.directory / str(number)
            folder.mkdir()
            extra = Server(folder, options, settings)
            stack.callback(extra.kill)
            extra.start()
            scene.extra_servers.append(extra)
        scene.add([f"ok/{number}" for number in range(options.endpoints)])
        yield scene, postgres


def _figures(count: int, found: Measurement, database_us: float, *, promised: bool) -> list[Figure]:
    by = _processes(count)
    together_us = found.cpu_us + database_us
    return [
        at_least(f"delivered by {by}", found.per_s, "events/s", 5000)
        if promised
        else Figure(f"delivered by {by}", found.per_s, "events/s"),
        at_most(f"CPU time, {by}", together_us, "µs per event", 250)
        if promised
        else Figure(f"CPU time, {by}", together_us, "µs per event"),
        Figure(f"CPU time of PostgreSQL alone, {by}", database_us, "µs per event"),
        Figure(f"accepted → received p50, {by}", found.received_ms.get("p50", 0), "ms"),
        Figure(f"accepted → received p99, {by}", found.received_ms.get("p99", 0), "ms"),
        Figure(f"memory, {by}", found.memory_mib, "MiB"),
        Figure(f"duplicates, {by}", found.duplicates, "events"),
        at_most(f"lost, {by}", found.lost, "events", 0),
    ]


def _processes(count: int) -> str:
    return f"{count} process" + ("es" if count > 1 else "")


ROW: Final = Row("postgres", "throughput on PostgreSQL with one, two and four processes", _measure, 150)
POOLED_ROW: Final = Row(
    "postgres-pooler", "throughput on PostgreSQL with two processes through a pooler", _measure_pooled, 60
)
