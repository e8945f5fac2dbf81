"""Kills server processes, PostgreSQL and NATS servers, and checks that every event accepted with 202 is delivered."""

import asyncio
import os
import random
import re
import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

import asyncpg
from tests.nats import NatsCluster
from tests.postgres import PostgresServer

from bench.options import Options
from bench.progress import bar
from bench.report import Figure, Report, at_most
from bench.row import Row
from bench.rows.postgres import DURABLE, SECRET_KEY
from bench.rows.stream import STREAM, nats_servers, stream_conditions, stream_settings
from bench.scene import Scene, conditions
from bench.server import Server

_ROLES: Final = ("api", "api", "worker", "worker")
_POSTGRES: Final = len(_ROLES)
_NATS: Final = _POSTGRES + 1
"""A random number selects the process to kill: an index of `_ROLES`, `_POSTGRES`, or `_NATS` (the stream's leader)."""
_UPTIME_S: Final = (0.2, 2.0)
_SMOKE_KILLS: Final = 2
_SMOKE_RATE: Final = 100.0
_SEQ: Final = re.compile(rb'"seq":\s*(\d+)')
_LEASED: Final = (
    "SELECT e.body FROM deliveries d JOIN events e ON e.seq = d.event_seq WHERE d.status = 0 AND d.lease_owner <> 0"
)
_TWICE: Final = "SELECT count(*) FROM (SELECT FROM attempts GROUP BY event_seq, endpoint_seq HAVING count(*) > 1) t"


def _measure(row: Row, options: Options) -> Report:
    return _measured(row, options, with_nats=False)


def _measure_stream(row: Row, options: Options) -> Report:
    return _measured(row, options, with_nats=True)


def _measured(row: Row, options: Options, *, with_nats: bool) -> Report:
    kills = _SMOKE_KILLS if options.smoke else options.kills
    rng = random.Random(options.seed)
    killed = [0] * (_NATS + 1)
    victims = _NATS + 1 if with_nats else _NATS
    cut_off: set[int] = set()
    with ExitStack() as stack:
        postgres = PostgresServer(DURABLE, parent=options.directory)
        stack.callback(postgres.close)
        url = postgres.new_database()
        settings = {"UPLIFT_DATABASE_URL": url, "UPLIFT_SECRET_KEY": SECRET_KEY}
        if with_nats:
            cluster = stack.enter_context(nats_servers(options))
            settings = stream_settings(url, cluster)
        scene = _scene(options, stack, settings)
        with bar("kill -9", kills) as step:
            load = scene.begin(secs=0, rate=_SMOKE_RATE if options.smoke else 0.0)
            for kill in range(kills):
                time.sleep(rng.uniform(*_UPTIME_S))
                victim = rng.randrange(victims)
                killed[victim] += 1
                if victim == _NATS:
                    _crash_leader(cluster)
                else:
                    cut_off |= _crash(scene, postgres, url, victim)
                step(kill + 1, f"{len(cut_off):,} sent but not settled")
            time.sleep(rng.uniform(*_UPTIME_S))
            load.terminate()
            result, accepted = scene.finish(load)
        began = time.monotonic()
        lost = scene.drain(accepted)
        drained = time.monotonic() - began
        counts = scene.receiver.statistics()["counts"]["ok"]
        twice = asyncio.run(_ask(url, _TWICE))[0][0]
        notes = [f"To repeat the kills at the same times, use --seed {options.seed}."]
    return Report(
        row.name,
        row.title,
        [
            at_most("lost", len(lost), "events", 0),
            at_most("duplicates", counts["duplicates"], "events", len(cut_off)),
            Figure("sent but not settled at the kills", len(cut_off), "deliveries"),
            at_most("deliveries with two recorded attempts", twice, "", 0),
            Figure("kills of an API server", killed[0] + killed[1]),
            Figure("kills of a worker", killed[2] + killed[3]),
            Figure("crashes of PostgreSQL", killed[_POSTGRES]),
            *([Figure("kills of the NATS server that leads the stream", killed[_NATS])] if with_nats else []),
            Figure("accepted with 202", len(accepted), "events"),
            Figure("delivered", counts["unique"], "events"),
            Figure("failed or interrupted requests", sum(result["codes"].values()) - result["codes"].get("202", 0)),
            Figure("time until the last delivery", drained, "s"),
        ],
        _conditions(options, kills, with_nats=with_nats),
        notes=notes,
    )


def _conditions(options: Options, kills: int, *, with_nats: bool) -> dict[str, str]:
    load = f"{_SMOKE_RATE:g} events/s" if options.smoke else f"{options.connections} connections, closed loop"
    load += ", to two API servers"
    spread = f"{kills}, {_UPTIME_S[0]} to {_UPTIME_S[1]} s apart, of two API servers, two workers"
    if with_nats:
        return stream_conditions(options, load=load, kills=f"{spread}, PostgreSQL or the NATS server that leads")
    return conditions(
        options,
        load=load,
        kills=f"{spread} or PostgreSQL",
        durability="PostgreSQL, synchronous_commit=on, response 202 after the commit",
    )


def _scene(options: Options, stack: ExitStack, settings: dict[str, str]) -> Scene:
    """Start two API servers, which receive the load, and two workers."""
    scene = stack.enter_context(Scene(options, settings=settings, role=_ROLES[0]))
    scene.server.start()
    for number, role in enumerate(_ROLES[1:], 1):
        folder = scene.directory / str(number)
        folder.mkdir()
        extra = Server(folder, options, settings, role=role)
        stack.callback(extra.kill)
        extra.start()
        scene.extra_servers.append(extra)
    scene.add([f"ok/{number}" for number in range(options.endpoints)])
    scene.receiver.reset()
    return scene


def _crash(scene: Scene, postgres: PostgresServer, url: str, victim: int) -> set[int]:
    """Kill and restart a process. Return the numbers of the events that were sent but not settled."""
    leased = _kill(scene.servers, postgres, url, victim)
    # The receiver counts a request only after it has read it from the socket.
    time.sleep(0.1)
    cut_off = leased & scene.receiver.seen()
    if victim == _POSTGRES:
        postgres.start()
    else:
        scene.servers[victim].start()
    return cut_off


def _kill(servers: Sequence[Server], postgres: PostgresServer, url: str, victim: int) -> set[int]:
    """Kill a process. Return the numbers of the events that were leased.

    The workers are suspended during the query, so that they send nothing before the kill.
    """
    workers = {number: servers[number].pid for number, role in enumerate(_ROLES) if role == "worker"}
    for pid in workers.values():
        os.kill(pid, signal.SIGSTOP)
    try:
        rows = asyncio.run(_ask(url, _LEASED))
        if victim == _POSTGRES:
            postgres.stop("immediate")
        else:
            servers[victim].kill()
    finally:
        for number, pid in workers.items():
            if number != victim:
                os.kill(pid, signal.SIGCONT)
    found = (_SEQ.search(row[0]) for row in rows)
    return {int(match[1]) for match in found if match is not None}


def _crash_leader(cluster: NatsCluster) -> None:
    """Kill and restart the NATS server that leads the stream."""
    node = cluster.leader(STREAM)
    cluster.kill(node)
    cluster.restart(node)


async def _ask(url: str, statement: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetch(statement)
    finally:
        await connection.close()


ROW: Final = Row(
    "kill-fleet",
    "kill -9 of API servers, workers and PostgreSQL under load: no accepted event is lost",
    _measure,
    240,
)
STREAM_ROW: Final = Row(
    "stream-kill",
    "kill -9 of API servers, workers, PostgreSQL and NATS servers under load: no accepted event is lost",
    _measure_stream,
    300,
)
