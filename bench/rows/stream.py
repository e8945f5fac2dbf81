"""Events per second and latencies with NATS JetStream in front of PostgreSQL."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from tests.nats import NatsCluster
from tests.postgres import PostgresServer
from tests.tools import find

from bench.meter import cpu_s
from bench.options import Options
from bench.report import Figure, Report, at_least, at_most
from bench.row import Row
from bench.rows.postgres import DURABLE, SECRET_KEY
from bench.scene import Scene, conditions, workspace
from bench.server import Server

STREAM: Final = "UPLIFT_EVENTS"
SYNC_INTERVALS: Final = ("always", "2m")
"""Values of the NATS setting `sync_interval`: the value that docs/nats.md recommends, and the default of NATS."""
_USUAL_S: Final = 20.0
_RATE: Final = 1000.0
_SMOKE_RATE: Final = 100.0


def _measure(row: Row, options: Options) -> Report:
    secs = options.duration(_USUAL_S)
    rate = _SMOKE_RATE if options.smoke else _RATE
    figures: list[Figure] = []
    curves: dict[str, dict[str, float]] = {}
    notes: list[str] = []
    for sync_interval in SYNC_INTERVALS[:1] if options.smoke else SYNC_INTERVALS:
        with ExitStack() as stack:
            cluster, scene = _scene(options, stack, sync_interval)
            scene.warm_up()
            # The full load comes last: the kernel writes its pages to the disk some seconds later. This writing stops
            # the commits of NATS for up to 0.2 s, because NATS and PostgreSQL share the disk here.
            paced = scene.run(f"sync_interval {sync_interval}, {rate:g} events/s", secs=secs, rate=rate)
            before = _cpu_s(cluster)
            full = scene.run(f"sync_interval {sync_interval}, full load", secs=secs)
            nats_us = (_cpu_s(cluster) - before) / max(1, full.delivered) * 1e6
            notes += paced.trouble + full.trouble + scene.trouble()
        named = f"sync_interval {sync_interval}"
        figures += [
            at_least(f"accepted, {named}", full.accepted / full.load["secs"], "events/s", 4000),
            Figure(f"delivered, {named}", full.per_s, "events/s"),
            Figure(f"CPU time of the NATS servers, {named}", nats_us, "µs per event"),
            Figure(f"accept p50 at {rate:g}/s, {named}", paced.accept_ms.get("p50", 0), "ms"),
            at_most(f"accept p99 at {rate:g}/s, {named}", paced.accept_ms.get("p99", 0), "ms", 20),
            Figure(f"accepted → received p99 at {rate:g}/s, {named}", paced.received_ms.get("p99", 0), "ms"),
            at_most(f"lost, {named}", full.lost + paced.lost, "events", 0),
            at_most(f"duplicates, {named}", full.duplicates + paced.duplicates, "events", 0),
        ]
        curves[f"accept at {rate:g}/s, {named}"] = paced.accept_ms
    return Report(
        row.name,
        row.title,
        figures,
        stream_conditions(
            options,
            processes="an API server and a worker",
            load=f"{rate:g} events/s, {secs:g} s; then {options.connections} connections, closed loop, {secs:g} s",
        ),
        {},
        curves,
        list(dict.fromkeys(notes)),
    )


def _scene(options: Options, stack: ExitStack, sync_interval: str) -> tuple[NatsCluster, Scene]:
    """Start an API server and a worker behind three NATS servers."""
    postgres = PostgresServer(DURABLE, parent=options.directory)
    stack.callback(postgres.close)
    cluster = stack.enter_context(nats_servers(options, sync_interval))
    settings = stream_settings(postgres.new_database(), cluster)
    scene = stack.enter_context(Scene(options, settings=settings, role="api"))
    scene.others = (postgres.pid, *(cluster.pid(node) for node in cluster.nodes))
    scene.server.start()
    worker = Server(workspace(options, stack), options, settings, role="worker")
    stack.callback(worker.kill)
    worker.start()
    scene.extra_servers.append(worker)
    scene.add([f"ok/{number}" for number in range(options.endpoints)])
    return cluster, scene


def _cpu_s(cluster: NatsCluster) -> float:
    return sum(cpu_s(cluster.pid(node)) for node in cluster.nodes)


@contextmanager
def nats_servers(options: Options, sync_interval: str = SYNC_INTERVALS[0]) -> Iterator[NatsCluster]:
    """Run three NATS servers on the measured disk during the block. Raises RuntimeError if the program is missing."""
    if find("nats-server") is None:
        raise RuntimeError("this row needs nats-server, which scripts/test bench builds")
    with ExitStack() as stack:
        cluster = NatsCluster(workspace(options, stack), sync_interval=sync_interval)
        stack.callback(cluster.close)
        yield cluster.start()


def stream_settings(url: str, cluster: NatsCluster) -> dict[str, str]:
    """Return the settings of a server with the database and the NATS servers."""
    return {"UPLIFT_DATABASE_URL": url, "UPLIFT_SECRET_KEY": SECRET_KEY, "UPLIFT_NATS_URL": cluster.url}


def stream_conditions(options: Options, **more: str) -> dict[str, str]:
    """Return the conditions of the rows with NATS."""
    durability = "three replicas in the stream before response 202; PostgreSQL, synchronous_commit=on"
    return conditions(options, durability=durability, **more)


ROW: Final = Row("stream", "throughput and latency with three NATS servers in front of PostgreSQL", _measure, 120)
