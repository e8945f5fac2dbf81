"""PostgreSQL after a month of five million events: its pages, and traffic, also while retention drops half of it."""

import re
import statistics
import time
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from typing import Final, NamedTuple

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
from bench.server import Server, ServerFailed
from bench.visitor import Visitor

_EVENTS: Final = 5_000_000
_SMOKE_EVENTS: Final = 2_800
_USUAL_S: Final = 3.0
_WINDOWS: Final = 6
_ROUNDS: Final = 3
_BEGINS_WITHIN_S: Final = 120.0
_LOOK_S: Final = 0.5
_REMOVED: Final = re.compile(r'^uplift_retention_removed_rows_total\{table="(\w+)"\} (\S+)', re.MULTILINE)
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
        runs, gone = _rounds(scene, settings, postgres, secs, rate)
        measured = list(chain(*runs.values()))
        notes = [f"p99 of every window, {life.words}: {_all_p99(runs[life])} ms" for life in _LIVES]
        notes += list(dict.fromkeys(note for run in measured for note in run.trouble)) + scene.trouble()
        if not all(each.deliveries for each in gone):
            notes.insert(0, "Nothing went in one of the lives: it tells nothing of what that costs.")
    slowest = max(times, key=lambda path: times[path])
    middle = {life: sorted(runs[life], key=_p99)[(len(runs[life]) - 1) // 2] for life in _LIVES}
    p99 = {life: _p99(middle[life]) for life in _LIVES}
    return Report(
        row.name,
        row.title,
        [
            at_most("first byte of the slowest page", times[slowest], "ms", 150),
            Figure("the page in the middle", statistics.median(times.values()), "ms"),
            at_most("reads of the database that took 100 ms or more", len(reads), "", 0),
            at_most("p99 with a month, of that with none, median windows", p99[_MONTH] / p99[_NOTHING], "times", 1.2),
            at_most("p99 while half goes, of that before, median windows", p99[_HALF_GOES] / p99[_MONTH], "times", 1.2),
            Figure("deliveries that went meanwhile", sum(each.deliveries for each in gone), "deliveries"),
            Figure("events that went with their partition", sum(each.events for each in gone), "events"),
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


def _prepare(scene: Scene, settings: dict[str, str], postgres: PostgresServer) -> None:
    """Make a database with the endpoints of the scene alone, on which the server is started, and two copies of it."""
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


class _Gone(NamedTuple):
    """How much retention has removed in this life of the server."""

    deliveries: float
    events: float


def _rounds(
    scene: Scene, settings: dict[str, str], postgres: PostgresServer, secs: float, rate: float
) -> tuple[_Runs, list[_Gone]]:
    """The windows of every life, and what retention removed in each of those in which it had something to remove."""
    runs: _Runs = {life: [] for life in _LIVES}
    gone = []
    for number in range(1 if scene.options.smoke else _ROUNDS):
        # Whichever comes later has more behind it.
        first = number % len(_LIVES)
        for life in (*_LIVES[first:], *_LIVES[:first]):
            scene.server.stop()
            settings |= {"UPLIFT_DATABASE_URL": postgres.url(life.database), "UPLIFT_RETENTION": life.retention}
            # What the life before has left to be written is not to be written beside this one.
            postgres.execute("CHECKPOINT")
            scene.server.start()
            if not scene.options.smoke:
                _wait_retention(scene.server)
            before = _gone(scene.server)
            words = f"half load, {life.words}"
            for _ in range(1 if scene.options.smoke else _WINDOWS):
                runs[life].append(scene.run(words, secs=secs, rate=rate, connections=CONNECTIONS_MAX))
            if life is _HALF_GOES:
                after = _gone(scene.server)
                gone.append(_Gone(after.deliveries - before.deliveries, after.events - before.events))
    return runs, gone


def _gone(server: Server) -> _Gone:
    removed = {table: float(count) for table, count in _REMOVED.findall(server.text("/metrics"))}
    return _Gone(removed.get("deliveries", 0.0), removed.get("events", 0.0))


def _wait_retention(server: Server) -> None:
    """Until retention has begun, or has found nothing; it looks once a minute. Raises ServerFailed."""
    began = time.monotonic()
    with bar("waiting for retention", _BEGINS_WITHIN_S) as step:
        while not (_gone(server).deliveries or _ROUND.search(server.text("/metrics"))):
            if time.monotonic() > began + _BEGINS_WITHIN_S:
                raise ServerFailed("retention has not looked at what there is")
            step(time.monotonic() - began)
            time.sleep(_LOOK_S)


def _p99(run: Measurement) -> float:
    return max(run.received_ms.get("p99", 0.0), 1e-9)


def _all_p99(windows: list[Measurement]) -> str:
    return " ".join(f"{p99:.1f}" for p99 in sorted(map(_p99, windows)))


ROW: Final = Row(
    "postgres-month", "PostgreSQL after a month of five million events, and while half goes", _measure, 1200
)
