"""Stops PostgreSQL behind NATS JetStream under load, and checks that every event is accepted and delivered."""

import time
from contextlib import ExitStack
from typing import Final

from tests.nats import NatsCluster
from tests.postgres import PostgresServer

from bench.options import Options
from bench.progress import bar
from bench.report import Figure, Report, at_most
from bench.row import Row
from bench.rows.postgres import DURABLE
from bench.rows.stream import STREAM, nats_servers, stream_conditions, stream_settings
from bench.scene import Scene, workspace
from bench.server import Server

_OUTAGE_S: Final = 60.0
_SMOKE_OUTAGE_S: Final = 2.0
_BEFORE_S: Final = 3.0
_RATE: Final = 500.0
_SMOKE_RATE: Final = 50.0
_BACKLOG_WITHIN_S: Final = 120.0
_LOOK_S: Final = 0.1


def _measure(row: Row, options: Options) -> Report:
    outage_s = _SMOKE_OUTAGE_S if options.smoke else options.secs or _OUTAGE_S
    rate = _SMOKE_RATE if options.smoke else options.rate or _RATE
    with ExitStack() as stack:
        postgres = PostgresServer(DURABLE, parent=options.directory)
        stack.callback(postgres.close)
        cluster = stack.enter_context(nats_servers(options))
        scene = _scene(options, stack, stream_settings(postgres.new_database(), cluster))
        load = scene.begin(secs=0, rate=rate)
        usual = _messages_max(cluster, _BEFORE_S)
        postgres.stop("immediate")
        with bar("outage", outage_s) as step:
            began = time.monotonic()
            while (passed := time.monotonic() - began) < outage_s:
                step(passed, f"{cluster.messages(STREAM):,} messages in the stream")
                time.sleep(_LOOK_S)
        waiting = cluster.messages(STREAM)
        postgres.start()
        gone_s = _backlog_gone(cluster, usual)
        load.terminate()
        result, accepted = scene.finish(load)
        lost = scene.drain(accepted)
        counts = scene.receiver.statistics()["counts"]["ok"]
    return Report(
        row.name,
        row.title,
        [
            at_most("responses other than 202", result["sent"] - len(accepted), "", 0),
            at_most("lost", len(lost), "events", 0),
            Figure("duplicates", counts["duplicates"], "events"),
            Figure("accepted with 202", len(accepted), "events"),
            Figure("in the stream before the outage, at most", usual, "messages"),
            Figure("in the stream at the end of the outage", waiting, "messages"),
            at_most("time until the backlog is gone", gone_s, "s", outage_s),
            Figure("accept p99", result["accept_ms"].get("p99", 0), "ms"),
            Figure("accept maximum", result["accept_ms"].get("max", 0), "ms"),
        ],
        stream_conditions(
            options,
            load=f"{rate:g} events/s to an API server, open loop, until the backlog is gone",
            outage=f"PostgreSQL is stopped for {outage_s:g} s",
        ),
        notes=[f"Responses: {result['codes']}. Example: {result['refusal']}"] if result["refusal"] else [],
    )


def _scene(options: Options, stack: ExitStack, settings: dict[str, str]) -> Scene:
    """Start an API server and a worker."""
    scene = stack.enter_context(Scene(options, settings=settings, role="api"))
    scene.server.start()
    worker = Server(workspace(options, stack), options, settings, role="worker")
    stack.callback(worker.kill)
    worker.start()
    scene.extra_servers.append(worker)
    scene.add([f"ok/{number}" for number in range(options.endpoints)])
    scene.receiver.reset()
    return scene


def _messages_max(cluster: NatsCluster, during_s: float) -> int:
    """Return the maximum number of messages in the stream during this many seconds."""
    found, until = 0, time.monotonic() + during_s
    while time.monotonic() < until:
        found = max(found, cluster.messages(STREAM))
        time.sleep(_LOOK_S)
    return found


def _backlog_gone(cluster: NatsCluster, usual: int) -> float:
    """Wait until the stream has as few messages as before the outage. Return the elapsed seconds."""
    began = time.monotonic()
    while cluster.messages(STREAM) > usual and time.monotonic() - began < _BACKLOG_WITHIN_S:
        time.sleep(_LOOK_S)
    return time.monotonic() - began


ROW: Final = Row(
    "stream-outage",
    "PostgreSQL stops for 60 s under load, with NATS in front: every event is accepted and delivered",
    _measure,
    150,
)
