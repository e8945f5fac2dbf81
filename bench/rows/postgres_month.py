"""PostgreSQL with a month of history: speed of pages, and latency while retention deletes half of the events."""

import re
import statistics
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
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
from bench.rows.pages import ids_of, log_lines, long_reads, page_paths, visit, wait_counted
from bench.rows.postgres import DURABLE, SECRET_KEY
from bench.scene import Measurement, Scene, conditions
from bench.server import Server, ServerFailed
from bench.visitor import Visitor
from uplift_server.core.lifecycle import Status

_EVENTS: Final = 5_000_000
_SMOKE_EVENTS: Final = 2_800
_USUAL_S: Final = 3.0
_WINDOWS: Final = 6
_ROUNDS: Final = 3
_HALF_LOAD: Final = "half load"
_AT_REST_PER_S: Final = 300.0
_AT_REST: Final = f"{_AT_REST_PER_S:g} events/s"
"""Name of a load that is so low that the machine does not delay requests."""
_LOADS: Final = (_HALF_LOAD, _AT_REST)
_THIN_OLDEST: Final = (
    "DELETE FROM deliveries USING (SELECT * FROM event_partitions WHERE NOT goes_by_row ORDER BY first_seq LIMIT 1) p"
    f" WHERE event_seq >= first_seq AND event_seq < end_seq AND status NOT IN ({Status.PENDING:d}, {Status.HELD:d})"
)
_BEGINS_WITHIN_S: Final = 120.0
_LOOK_S: Final = 0.5
_REMOVED: Final = re.compile(r'^uplift_retention_removed_rows_total\{table="deliveries"\} (\S+)', re.MULTILINE)
_ROUND: Final = re.compile(r"^uplift_retention_round_age_seconds \d", re.MULTILINE)


@dataclass(frozen=True)
class _Life:
    """A run of the server under load."""

    words: str
    database: str
    retention: str


_NOTHING: Final = _Life("empty database", "nothing", "60d")
_MONTH: Final = _Life("a month of events", "month", "60d")
_HALF_GOES: Final = _Life("while half of it is deleted", "month", "14d")
_LIVES: Final = (_NOTHING, _MONTH, _HALF_GOES)

_Runs = dict[tuple[_Life, str], list[Measurement]]
"""The measurements for each pair of a server run and the name of a load."""


def _measure(row: Row, options: Options) -> Report:
    events = _SMOKE_EVENTS if options.smoke else _EVENTS
    secs = options.duration(_USUAL_S)
    with ExitStack() as stack:
        postgres = PostgresServer(DURABLE, parent=options.directory)
        stack.callback(postgres.close)
        settings = {"UPLIFT_SECRET_KEY": SECRET_KEY}
        scene = stack.enter_context(Scene(options, settings=settings))
        scene.others = (postgres.pid,)
        _prepare(scene, settings, postgres)
        rate, words = half_rate(scene, options)
        scene.server.stop()
        settings |= {"UPLIFT_DATABASE_URL": postgres.url(_MONTH.database), "UPLIFT_RETENTION": _MONTH.retention}
        write_history(settings["UPLIFT_DATABASE_URL"], events)
        scene.server.start()
        counted_s = wait_counted(scene.server, events)
        times, reads = _pages(scene, scene.server)
        runs, gone = _rounds(scene, settings, postgres, secs, {_HALF_LOAD: rate, _AT_REST: min(rate, _AT_REST_PER_S)})
        drops, took_ms = _drops(scene, settings, postgres, secs, rate)
        measured = list(chain(*runs.values(), drops))
        notes = [
            f"p99 of every window, {load}, {life.words}: {_all_p99(runs[life, load])}"
            for load in _LOADS
            for life in _LIVES
        ]
        notes.append(f"p99 of every window in which a partition was dropped: {_all_p99(drops)}")
        notes += _trouble(measured) + scene.trouble()
        if not all(gone):
            notes.insert(0, "Retention deleted nothing in one of the runs, so the cost of deletion is not measured.")
    slowest = max(times, key=lambda path: times[path])
    middle = {key: _middle(windows) for key, windows in runs.items()}
    return Report(
        row.name,
        row.title,
        [
            at_most("first byte of the slowest page", times[slowest], "ms", 150),
            Figure("first byte of the median page", statistics.median(times.values()), "ms"),
            at_most("database reads of 100 ms or more", len(reads), "", 0),
            *(ratio for load in _LOADS for ratio in _ratios(middle, load)),
            Figure("deliveries deleted by retention", sum(gone), "deliveries"),
            *(Figure(f"p99, {load}, {life.words}", _p99(window), "ms") for (life, load), window in middle.items()),
            *_of_drops(drops, took_ms),
            Figure("time until the statistics are complete", counted_s, "s"),
            at_most("lost", sum(run.lost for run in measured), "events", 0),
        ],
        conditions(
            options,
            load=f"{words}, and {_AT_REST}, {len(runs[_MONTH, _AT_REST])} windows of {secs:g} s each; median",
            history=f"{events:,} events, {2 * events:,} attempts in one month, in 28 partitions",
            durability="PostgreSQL, synchronous_commit=on, response 202 after the commit",
        ),
        {},
        {f"{load}, {life.words}": window.received_ms for (life, load), window in middle.items()},
        [f"Slowest page: {slowest}", *(f"{read['read']} took {read['duration_ms']} ms" for read in reads), *notes],
    )


def _ratios(middle: dict[tuple[_Life, str], Measurement], load: str) -> list[Figure]:
    nothing, month, half_goes = (_p99(middle[life, load]) for life in _LIVES)
    return [
        at_most(f"p99 at {load} with a month of events, relative to an empty database", month / nothing, "times", 1.2),
        at_most(
            f"p99 at {load} while half of the month is deleted, relative to before", half_goes / month, "times", 1.2
        ),
    ]


def _prepare(scene: Scene, settings: dict[str, str], postgres: PostgresServer) -> None:
    """Create a database with the endpoints of the scene, start the server on it, and copy it twice."""
    postgres.execute("CREATE DATABASE prepared")
    settings["UPLIFT_DATABASE_URL"] = postgres.url("prepared")
    scene.server.start()
    scene.add([f"ok/{number}" for number in range(scene.options.endpoints)])
    scene.server.stop()
    for name in (_NOTHING.database, _MONTH.database):
        postgres.execute(f"CREATE DATABASE {name} TEMPLATE prepared")
    scene.server.start()


def _pages(scene: Scene, server: Server) -> tuple[dict[str, float], list[dict[str, object]]]:
    paths = page_paths(ids_of(server, scene.accounts[0]))
    visitor = Visitor(server)
    log_began = server.log.stat().st_size
    times = visit(visitor, paths)
    visitor.close()
    return times, long_reads(server, log_began)


def _rounds(
    scene: Scene, settings: dict[str, str], postgres: PostgresServer, secs: float, rates: dict[str, float]
) -> tuple[_Runs, list[float]]:
    """Return the windows of every run, and the number of deleted deliveries in each run with deletion."""
    runs: _Runs = {(life, load): [] for load in rates for life in _LIVES}
    gone = []
    for number in range(1 if scene.options.smoke else _ROUNDS):
        # Later runs have more history, so the order changes in each round.
        first = number % len(_LIVES)
        for life in (*_LIVES[first:], *_LIVES[:first]):
            scene.server.stop()
            _start(scene, settings, postgres, life)
            if not scene.options.smoke:
                _wait_retention(scene.server)
            before = _gone(scene.server)
            for load, rate in rates.items():
                for _ in range(1 if scene.options.smoke else _WINDOWS):
                    run = scene.run(f"{load}, {life.words}", secs=secs, rate=rate, connections=CONNECTIONS_MAX)
                    runs[life, load].append(run)
            if life is _HALF_GOES:
                gone.append(_gone(scene.server) - before)
    return runs, gone


def _drops(
    scene: Scene, settings: dict[str, str], postgres: PostgresServer, secs: float, rate: float
) -> tuple[list[Measurement], list[float]]:
    """Return the windows in which a partition without completed deliveries was dropped, and the drop durations (ms)."""
    windows, took_ms = [], []
    for _ in range(1 if scene.options.smoke else _ROUNDS):
        scene.server.stop()
        postgres.execute(_THIN_OLDEST, _HALF_GOES.database)
        log_began = scene.server.log.stat().st_size
        _start(scene, settings, postgres, _HALF_GOES)
        began = time.monotonic()
        words = f"{_HALF_LOAD}, while a partition is dropped"
        while not scene.options.smoke and time.monotonic() < began + _BEGINS_WITHIN_S:
            run = scene.run(words, secs=secs, rate=rate, connections=CONNECTIONS_MAX)
            if dropped := log_lines(scene.server, log_began, "partition dropped"):
                took_ms += [line["duration_ms"] for line in dropped]
                if any(_fell_into(run, line["at"]) for line in dropped):
                    windows.append(run)
                break
    return windows, took_ms


def _fell_into(run: Measurement, at: str) -> bool:
    """Whether a time (RFC 3339) is within the load."""
    since_s = datetime.fromisoformat(at).timestamp() - run.load["began_at"] / 1e9
    return bool(0 <= since_s <= run.load["secs"])


def _of_drops(windows: list[Measurement], took_ms: list[float]) -> list[Figure]:
    found = []
    if windows:
        found.append(Figure(f"p99, {_HALF_LOAD}, while a partition is dropped", _p99(_middle(windows)), "ms"))
    if took_ms:
        found.append(Figure("longest drop of a partition, including waits for locks", max(took_ms), "ms"))
    return found


def _start(scene: Scene, settings: dict[str, str], postgres: PostgresServer, life: _Life) -> None:
    settings |= {"UPLIFT_DATABASE_URL": postgres.url(life.database), "UPLIFT_RETENTION": life.retention}
    # Pending writes of the previous run must not overlap with this one.
    postgres.execute("CHECKPOINT")
    scene.server.start()


def _gone(server: Server) -> float:
    """Return the number of deliveries that retention has deleted in this run."""
    found = _REMOVED.search(server.text("/metrics"))
    return 0.0 if found is None else float(found[1])


def _wait_retention(server: Server) -> None:
    """Wait until retention has begun or found nothing to delete. Retention runs once a minute. Raises ServerFailed."""
    began = time.monotonic()
    with bar("waiting for retention", _BEGINS_WITHIN_S) as step:
        while not (_gone(server) or _ROUND.search(server.text("/metrics"))):
            if time.monotonic() > began + _BEGINS_WITHIN_S:
                raise ServerFailed("retention did not start in time")
            step(time.monotonic() - began)
            time.sleep(_LOOK_S)


def _middle(windows: list[Measurement]) -> Measurement:
    return sorted(windows, key=_p99)[(len(windows) - 1) // 2]


def _p99(run: Measurement) -> float:
    return max(run.received_ms.get("p99", 0.0), 1e-9)


def _trouble(windows: list[Measurement]) -> list[str]:
    """Return the warnings about windows: the last of each kind, with the number of affected windows."""
    kinds: dict[str, list[str]] = {}
    for note in chain.from_iterable(each.trouble for each in windows):
        kinds.setdefault(note.partition(":")[0], []).append(note)
    return [f"{notes[-1]} This applies to {len(notes)} of {len(windows)} windows." for notes in kinds.values()]


def _all_p99(windows: list[Measurement]) -> str:
    return " ".join(f"{p99:.1f}" for p99 in sorted(map(_p99, windows))) + " ms" if windows else "none"


ROW: Final = Row(
    "postgres-month", "PostgreSQL with 5,000,000 events, and while retention deletes half of them", _measure, 1700
)
