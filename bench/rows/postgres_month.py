"""PostgreSQL after a month of five million events: its pages, and traffic, also while retention drops half of it."""

import re
import statistics
import time
from contextlib import ExitStack
from itertools import chain
from typing import Final

from tests.postgres import PostgresServer

from bench.half import half_rate
from bench.options import Options
from bench.pairs import p99_times
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
_USUAL_S: Final = 10.0
_RUNS: Final = 3
_PAIRS: Final = 5
_ALL: Final = "60d"
_HALF: Final = "14d"
_BEGINS_WITHIN_S: Final = 120.0
_LOOK_S: Final = 0.5
_REMOVED: Final = re.compile(r'^uplift_retention_removed_rows_total\{table="deliveries"\} (\S+)', re.MULTILINE)
_ROUND: Final = re.compile(r"^uplift_retention_round_age_seconds \d", re.MULTILINE)


def _measure(row: Row, options: Options) -> Report:
    events = _SMOKE_EVENTS if options.smoke else _EVENTS
    secs = options.duration(_USUAL_S)
    with ExitStack() as stack:
        postgres = PostgresServer(DURABLE, parent=options.directory)
        stack.callback(postgres.close)
        settings = {
            "UPLIFT_DATABASE_URL": postgres.new_database(),
            "UPLIFT_SECRET_KEY": SECRET_KEY,
            "UPLIFT_RETENTION": _ALL,
        }
        scene = stack.enter_context(Scene(options, settings=settings))
        scene.others = (postgres.pid,)
        server = scene.server
        server.start()
        scene.add([f"ok/{number}" for number in range(options.endpoints)])
        rate, words = half_rate(scene, options)
        empty = _runs(scene, "half load, nothing stored", secs, rate)
        server.stop()
        write_history(settings["UPLIFT_DATABASE_URL"], events)
        server.start()
        counted_s = wait_counted(server, events)
        times, reads = _pages(scene, server)
        full = _runs(scene, "half load, a month stored", secs, rate)
        pairs, gone = [], []
        for number in range(1 if options.smoke else _PAIRS):
            # Whichever comes second has more behind it.
            order = (_ALL, _HALF) if number % 2 == 0 else (_HALF, _ALL)
            runs = {kept: _beside_retention(scene, settings, kept, secs, rate) for kept in order}
            pairs.append((runs[_ALL][0], runs[_HALF][0]))
            gone.append(runs[_HALF][1])
        measured = [*empty, *full, *chain(*pairs)]
        notes = list(dict.fromkeys(note for run in measured for note in run.trouble)) + scene.trouble()
        if not all(gone):
            notes.insert(0, "Nothing went in one of the runs: it tells nothing of what that costs.")
    slowest = max(times, key=lambda path: times[path])
    alone, beside = sorted(pairs, key=p99_times)[len(pairs) // 2]
    return Report(
        row.name,
        row.title,
        [
            at_most("first byte of the slowest page", times[slowest], "ms", 150),
            Figure("the page in the middle", statistics.median(times.values()), "ms"),
            at_most("reads of the database that took 100 ms or more", len(reads), "", 0),
            at_most("p99 with a month stored, of that with nothing", _p99(full) / _p99(empty), "times", 1.2),
            at_most("p99 while half of it goes, the median", statistics.median(map(p99_times, pairs)), "times", 1.2),
            Figure("deliveries that went meanwhile", statistics.median(gone), "a second"),
            Figure("accepted → received p99, nothing stored", _p99(empty), "ms"),
            Figure("the same, a month stored", _p99(full), "ms"),
            Figure("the same while half of it goes", beside.received_ms.get("p99", 0), "ms"),
            Figure("beside it, while nothing goes", alone.received_ms.get("p99", 0), "ms"),
            Figure("the numbers of the whole history counted after", counted_s, "s"),
            at_most("lost", sum(run.lost for run in measured), "events", 0),
        ],
        conditions(
            options,
            load=f"{words}, {secs:g} s each, {_RUNS} times, the median; {len(pairs)} pairs with and without retention",
            history=f"{events:,} events, {2 * events:,} attempts, a month in 28 partitions",
            durability="PostgreSQL, synchronous_commit=on, 202 after the commit",
        ),
        {},
        {
            "nothing stored": _median(empty).received_ms,
            "a month stored": _median(full).received_ms,
            "while nothing goes": alone.received_ms,
            "while half of it goes": beside.received_ms,
        },
        [f"The slowest page: {slowest}", *(f"{read['read']} took {read['duration_ms']} ms" for read in reads), *notes],
    )


def _pages(scene: Scene, server: Server) -> tuple[dict[str, float], list[dict[str, object]]]:
    paths = page_paths(ids_of(server, scene.accounts[0]))
    visitor = Visitor(server)
    log_began = server.log.stat().st_size
    times = visit(visitor, paths)
    visitor.close()
    return times, long_reads(server, log_began)


def _beside_retention(
    scene: Scene, settings: dict[str, str], kept: str, secs: float, rate: float
) -> tuple[Measurement, float]:
    """The load in a new life of the server that keeps so much; how many deliveries went meanwhile, a second."""
    server = scene.server
    server.stop()
    settings["UPLIFT_RETENTION"] = kept
    server.start()
    if not scene.options.smoke:
        _wait_retention(server)
    words = "half load while half of it goes" if kept == _HALF else "half load while nothing goes"
    removed, began = _removed(server), time.monotonic()
    run = scene.run(words, secs=secs, rate=rate, connections=CONNECTIONS_MAX)
    return run, (_removed(server) - removed) / (time.monotonic() - began)


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


def _runs(scene: Scene, words: str, secs: float, rate: float) -> list[Measurement]:
    count = 1 if scene.options.smoke else _RUNS
    return [scene.run(words, secs=secs, rate=rate, connections=CONNECTIONS_MAX) for _ in range(count)]


def _median(runs: list[Measurement]) -> Measurement:
    return sorted(runs, key=lambda run: run.received_ms.get("p99", 0.0))[len(runs) // 2]


def _p99(runs: list[Measurement]) -> float:
    return max(_median(runs).received_ms.get("p99", 0.0), 1e-9)


ROW: Final = Row(
    "postgres-month", "PostgreSQL after a month of five million events, and while half goes", _measure, 1200
)
