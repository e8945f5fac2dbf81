"""PostgreSQL after a month of five million events: its pages, and traffic, also while retention drops half of it."""

import re
import statistics
import time
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from typing import Final

from tests.postgres import PostgresServer

from bench.half import half_rate
from bench.options import Options
from bench.postgres_history import write_history
from bench.progress import bar
from bench.report import Figure, Report, at_most
from bench.row import Row
from bench.rows.half_load import CONNECTIONS_MAX
from bench.rows.pages import ids_of, long_reads, page_paths, visit, wait_counted
from bench.rows.postgres import DURABLE, SECRET_KEY
from bench.scene import Measurement, Scene, conditions
from bench.server import Server
from bench.visitor import Visitor

_EVENTS: Final = 5_000_000
_SMOKE_EVENTS: Final = 2_800
_USUAL_S: Final = 3.0
_WINDOWS: Final = 6
_ROUNDS: Final = 3
_BEGINS_WITHIN_S: Final = 120.0
_LOOK_S: Final = 0.5
_REMOVED: Final = re.compile(r'^uplift_retention_removed_rows_total\{table="deliveries"\} (\S+)', re.MULTILINE)
_ROUND: Final = re.compile(r"^uplift_retention_round_age_seconds \d", re.MULTILINE)


@dataclass(frozen=True)
class _Life:
    """A life of the server, under load."""

    words: str
    database: str
    retention: str


_NOTHING: Final = _Life("nothing stored", "nothing", "60d")
_MONTH: Final = _Life("a month stored", "month", "60d")
_HALF_GOES: Final = _Life("while half of it goes", "month", "14d")
_LIVES: Final = (_NOTHING, _MONTH, _HALF_GOES)

_Runs = dict[_Life, list[Measurement]]


def _measure(row: Row, options: Options) -> Report:
    events = _SMOKE_EVENTS if options.smoke else _EVENTS
    secs = options.duration(_USUAL_S)
    with ExitStack() as stack:
        postgres = PostgresServer(DURABLE, parent=options.directory)
        stack.callback(postgres.close)
        settings = {"UPLIFT_SECRET_KEY": SECRET_KEY, "UPLIFT_RETENTION": _MONTH.retention}
        scene = stack.enter_context(Scene(options, settings=settings))
        scene.others = (postgres.pid,)
        server = scene.server
        rate, words = _prepare(scene, settings, postgres)
        write_history(settings["UPLIFT_DATABASE_URL"], events)
        server.start()
        counted_s = wait_counted(server, events)
        times, reads = _pages(scene, server)
        runs: _Runs = {life: [] for life in _LIVES}
        gone = []
        for number in range(1 if options.smoke else _ROUNDS):
            # Whichever comes later has more behind it.
            for life in (*_LIVES[number % 3 :], *_LIVES[: number % 3]):
                server.stop()
                settings |= {"UPLIFT_DATABASE_URL": postgres.url(life.database), "UPLIFT_RETENTION": life.retention}
                server.start()
                windows, removed = _run(scene, life, secs, rate)
                runs[life] += windows
                gone += [removed] if life is _HALF_GOES else []
        measured = list(chain(*runs.values()))
        notes = [f"p99 of every window, {life.words}: {_all_p99(runs[life])} ms" for life in _LIVES]
        notes += list(dict.fromkeys(note for run in measured for note in run.trouble)) + scene.trouble()
        if not all(gone):
            notes.insert(0, "Nothing went in one of the lives: it tells nothing of what that costs.")
    slowest = max(times, key=lambda path: times[path])
    middle = {life: sorted(runs[life], key=_p99)[len(runs[life]) // 2] for life in _LIVES}
    p99 = {life: statistics.median(map(_p99, runs[life])) for life in _LIVES}
    return Report(
        row.name,
        row.title,
        [
            at_most("first byte of the slowest page", times[slowest], "ms", 150),
            Figure("the page in the middle", statistics.median(times.values()), "ms"),
            at_most("reads of the database that took 100 ms or more", len(reads), "", 0),
            at_most("p99 with a month stored, of that with nothing", p99[_MONTH] / p99[_NOTHING], "times", 1.2),
            at_most("p99 while half of it goes, of that before", p99[_HALF_GOES] / p99[_MONTH], "times", 1.2),
            Figure("deliveries that went meanwhile", statistics.median(gone), "a second"),
            *(Figure(f"accepted → received p99, {life.words}", p99[life], "ms") for life in _LIVES),
            Figure("the numbers of the whole history counted after", counted_s, "s"),
            at_most("lost", sum(run.lost for run in measured), "events", 0),
        ],
        conditions(
            options,
            load=f"{words}, {len(runs[_MONTH])} windows of {secs:g} s each, the median",
            history=f"{events:,} events, {2 * events:,} attempts, a month in 28 partitions",
            durability="PostgreSQL, synchronous_commit=on, 202 after the commit",
        ),
        {},
        {life.words: middle[life].received_ms for life in _LIVES},
        [f"The slowest page: {slowest}", *(f"{read['read']} took {read['duration_ms']} ms" for read in reads), *notes],
    )


def _prepare(scene: Scene, settings: dict[str, str], postgres: PostgresServer) -> tuple[float, str]:
    """Two databases with the endpoints of the scene and nothing else, the month's being set; and half of the load."""
    server = scene.server
    postgres.execute("CREATE DATABASE prepared")
    settings["UPLIFT_DATABASE_URL"] = postgres.url("prepared")
    server.start()
    scene.add([f"ok/{number}" for number in range(scene.options.endpoints)])
    server.stop()
    for name in (_NOTHING.database, _MONTH.database):
        postgres.execute(f"CREATE DATABASE {name} TEMPLATE prepared")
    server.start()
    rate, words = half_rate(scene, scene.options)
    server.stop()
    postgres.execute("DROP DATABASE prepared")
    settings["UPLIFT_DATABASE_URL"] = postgres.url(_MONTH.database)
    return rate, words


def _pages(scene: Scene, server: Server) -> tuple[dict[str, float], list[dict[str, object]]]:
    paths = page_paths(ids_of(server, scene.accounts[0]))
    visitor = Visitor(server)
    log_began = server.log.stat().st_size
    times = visit(visitor, paths)
    visitor.close()
    return times, long_reads(server, log_began)


def _run(scene: Scene, life: _Life, secs: float, rate: float) -> tuple[list[Measurement], float]:
    """The load in several windows, once retention has looked; how many deliveries went meanwhile, a second."""
    if not scene.options.smoke:
        _wait_retention(scene.server)
    removed, began = _removed(scene.server), time.monotonic()
    windows = [
        scene.run(f"half load, {life.words}", secs=secs, rate=rate, connections=CONNECTIONS_MAX)
        for _ in range(1 if scene.options.smoke else _WINDOWS)
    ]
    return windows, (_removed(scene.server) - removed) / (time.monotonic() - began)


def _removed(server: Server) -> float:
    """How many deliveries retention has removed in this life of the server."""
    found = _REMOVED.search(server.text("/metrics"))
    return float(found[1]) if found else 0.0


def _wait_retention(server: Server) -> None:
    """Until retention has begun, or has found nothing; it looks once a minute."""
    began = time.monotonic()
    with bar("waiting for retention", _BEGINS_WITHIN_S) as step:
        while time.monotonic() < began + _BEGINS_WITHIN_S:
            if _removed(server) or _ROUND.search(server.text("/metrics")):
                break
            step(time.monotonic() - began)
            time.sleep(_LOOK_S)


def _p99(run: Measurement) -> float:
    return max(run.received_ms.get("p99", 0.0), 1e-9)


def _all_p99(windows: list[Measurement]) -> str:
    return " ".join(f"{p99:.1f}" for p99 in sorted(map(_p99, windows)))


ROW: Final = Row(
    "postgres-month", "PostgreSQL after a month of five million events, and while half goes", _measure, 1200
)
