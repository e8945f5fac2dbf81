"""Faults of NATS servers, PostgreSQL and the service's processes: every accepted event arrives once."""

import contextlib
import itertools
import random
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import nats.errors
import pytest
from nats.aio.client import Client
from tests.nats import NatsCluster
from tests.postgres import PostgresServer

from .fleet import Fleet, account_of, wait_for_propagation
from .harness import Api, wait_for
from .receiving import Receiver, respond
from .storage import STORAGE_KINDS, small_storage
from .test_stream import publish, through_nats

STREAM = "UPLIFT_EVENTS"
REJECTED = "UPLIFT_REJECTED"
IN_FLIGHT = 3
KILLS = 8
# A leader election in NATS takes up to 9 s.
ARRIVE_WITHIN_S = 60
CHECKS_S = 10
"""Time for a process to check the stream several times, even if it must reconnect."""

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server that the tests kill and start."""
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsCluster]:
    """Three NATS servers that the tests kill and start."""
    cluster = NatsCluster(tmp_path_factory.mktemp("nats"), can_isolate=True)
    try:
        yield cluster.start()
    finally:
        cluster.close()


@pytest.fixture(scope="module")
def fleet(
    postgres_server: PostgresServer, cluster: NatsCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    """An API server and two workers with PostgreSQL and NATS, which the tests kill and start."""
    settings = {"UPLIFT_NATS_URL": cluster.url, "UPLIFT_LEASE": "7s", "UPLIFT_ATTEMPT_TIMEOUT": "2s"}
    with Fleet(tmp_path_factory.mktemp("fleet"), postgres_server.new_database(), **settings) as fleet:
        for role in ("api", "worker", "worker"):
            fleet.add(role)
        yield fleet


class Load:
    """Threads that send numbered events through all API servers, and repeat each event until it is accepted."""

    def __init__(self, apis: list[Api]) -> None:
        self.accepted: set[int] = set()
        self._apis = apis
        self._numbers = itertools.count()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(2)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(30)

    def grows(self, by: int = 20) -> None:
        """Wait until more events are accepted."""
        before = len(self.accepted)
        wait_for(lambda: len(self.accepted) >= before + by, "events are accepted", within=40)

    def _send(self) -> None:
        while not self._ended.wait(0.02):
            number = next(self._numbers)
            for repeat in itertools.count():
                api = self._apis[(number + repeat) % len(self._apis)]
                if api.send(number, idempotency_key=f"n{number}").status == 202:
                    self.accepted.add(number)
                    break
                if self._ended.wait(0.1):
                    return


def ready(fleet: Fleet, receiver: Receiver, path: str = "/hook") -> list[Api]:
    """Create an account with an endpoint. Return a client for each API server."""
    _, apis = account_of(fleet)
    apis[0].endpoint(receiver.url(path, respond(after=0.01)), max_in_flight=IN_FLIGHT)
    wait_for_propagation()
    return apis


def arrived(receiver: Receiver, accepted: set[int], *, duplicates: int = 0, path: str = "/hook") -> None:
    """Check that all accepted events arrive, with at most this many duplicates."""
    assert accepted
    wait_for(lambda: set(receiver.numbers(path)) >= accepted, "all accepted events arrive", ARRIVE_WITHIN_S, every=0.2)
    assert sum(count - 1 for count in receiver.numbers(path).values()) <= duplicates


def test_killing_each_nats_server_loses_nothing(fleet: Fleet, cluster: NatsCluster, receiver: Receiver) -> None:
    with Load(ready(fleet, receiver)) as load:
        load.grows()
        for node in cluster.nodes:
            cluster.kill(node)
            load.grows()
            cluster.restart(node)
            cluster.wait_until_ready()
            cluster.leader(STREAM)
    arrived(receiver, load.accepted)


def test_a_leader_that_hangs_loses_nothing(fleet: Fleet, cluster: NatsCluster, receiver: Receiver) -> None:
    with Load(ready(fleet, receiver)) as load:
        load.grows()
        leader = cluster.leader(STREAM)
        cluster.pause(leader)
        load.grows(40)
        assert cluster.leader(STREAM) != leader
        cluster.resume(leader)
        load.grows(40)
    arrived(receiver, load.accepted)


def test_an_isolated_leader_loses_nothing(fleet: Fleet, cluster: NatsCluster, receiver: Receiver) -> None:
    """Processes that are connected to the isolated node must find another node."""
    with Load(ready(fleet, receiver)) as load:
        load.grows()
        leader = cluster.leader(STREAM)
        cluster.isolate(leader)
        load.grows(40)
        assert cluster.leader(STREAM) != leader
        cluster.rejoin()
        load.grows(40)
    arrived(receiver, load.accepted)


def test_no_process_is_ready_while_the_stream_has_no_leader(
    fleet: Fleet, cluster: NatsCluster, receiver: Receiver
) -> None:
    """A node without a majority still describes the stream, but NATS stores nothing."""
    api = ready(fleet, receiver)[0]
    leader = cluster.leader(STREAM)
    for node in set(cluster.nodes) - {leader}:
        cluster.kill(node)
    cluster.wait_until_leaderless(STREAM)
    wait_for(lambda: api("GET", "/readyz").status == 503, "the process is not ready", within=20)
    until = time.monotonic() + CHECKS_S
    while time.monotonic() < until:
        assert api("GET", "/readyz").status == 503
        time.sleep(0.5)
    assert api.send(1).status == 503
    cluster.start()
    wait_for(lambda: api.send(1).status == 202, "events are accepted again", within=40)
    wait_for(lambda: api("GET", "/readyz").status == 200, "the process is ready again")


def test_events_arrive_while_only_the_stream_of_rejected_events_has_no_leader(
    fleet: Fleet, cluster: NatsCluster, receiver: Receiver
) -> None:
    def set_replicas(replicas: int) -> None:
        async def update(client: Client) -> bool:
            jetstream = client.jetstream(timeout=ARRIVE_WITHIN_S / 4)
            try:
                config = (await jetstream.stream_info(REJECTED)).config
                config.num_replicas = replicas
                await jetstream.update_stream(config)
            except nats.errors.Error:  # NATS does not respond while it elects a leader
                return False
            return True

        wait_for(lambda: through_nats(cluster, update), "the number of replicas changes", within=ARRIVE_WITHIN_S)

    set_replicas(1)
    only = cluster.only_node(REJECTED)
    try:
        apis = ready(fleet, receiver)
        with Load(apis) as load:
            load.grows()
            cluster.kill(only)
            load.grows()
            publish(cluster, "uplift.events.unknown", b"{}")
            fleet.apis[0].kill()
            fleet.apis[0].start()
            for node in set(cluster.nodes) - {only}:  # each process must connect again
                cluster.restart(node)
                cluster.leader(STREAM)
                load.grows()
        arrived(receiver, load.accepted)
        rejected = fleet.apis[0].api().list_all("/v1/rejected-events")
        assert [each["subject"] for each in rejected] == ["uplift.events.unknown"]
    finally:
        cluster.start()
        set_replicas(len(cluster.nodes))


def test_events_in_the_stream_survive_a_restart_of_all_nats_servers(
    fleet: Fleet, cluster: NatsCluster, receiver: Receiver, postgres_server: PostgresServer
) -> None:
    apis = ready(fleet, receiver)
    postgres_server.stop("immediate")
    accepted = {number for number in range(100) if apis[0].send(number).status == 202}
    assert len(accepted) == 100
    for node in cluster.nodes:
        cluster.kill(node)
    wait_for(lambda: apis[0].send(1000).status == 503, "events are rejected without NATS")
    cluster.start()
    assert cluster.messages(STREAM) >= 100
    postgres_server.start()
    arrived(receiver, accepted)
    wait_for(lambda: apis[0].send(1001).status == 202, "events are accepted again", within=40)


@pytest.mark.skipif("small disk" not in STORAGE_KINDS, reason="this user cannot mount a file system")
def test_a_full_disk_of_one_nats_server_loses_nothing(
    tmp_path: Path, postgres_server: PostgresServer, receiver: Receiver
) -> None:
    cluster = NatsCluster(tmp_path / "nats")
    with contextlib.ExitStack() as stack:
        disks = []
        for node in cluster.nodes:
            store = cluster.node_folder(node) / "jetstream"
            store.rmdir()
            disks.append(stack.enter_context(small_storage("small disk", store)))
        stack.callback(cluster.close)
        cluster.start()
        fleet = stack.enter_context(Fleet(tmp_path, postgres_server.new_database(), UPLIFT_NATS_URL=cluster.url))
        fleet.add("all")
        with Load(ready(fleet, receiver)) as load:
            load.grows()
            for full in (cluster.leader(STREAM), (cluster.leader(STREAM) + 1) % 3):
                filler = disks[full].data / "filler"
                subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=4096"], check=False, capture_output=True)
                load.grows(100)
                assert "[ERR]" in (cluster.node_folder(full) / "log").read_text(), "the node had enough space"
                filler.unlink()
                cluster.restart(full)
                cluster.wait_until_ready()
                cluster.wait_until_current(STREAM)
                load.grows()
        arrived(receiver, load.accepted)


def test_kills_in_random_order_lose_nothing(
    fleet: Fleet, cluster: NatsCluster, receiver: Receiver, postgres_server: PostgresServer
) -> None:
    """A killed worker, or a worker whose database is killed, repeats at most its requests in flight."""
    chance = random.Random(24)
    cut_off = 0
    with Load(ready(fleet, receiver)) as load:
        for _ in range(KILLS):
            time.sleep(chance.uniform(0.2, 2))
            victim = chance.choice(["api", "worker", "nats", "postgresql"])
            if victim == "nats":
                leader = cluster.leader(STREAM)
                cluster.kill(leader)
                cluster.restart(leader)
            elif victim == "postgresql":
                cut_off += IN_FLIGHT
                postgres_server.stop("immediate")
                postgres_server.start()
            else:
                server = chance.choice(fleet.apis if victim == "api" else fleet.workers)
                cut_off += IN_FLIGHT * (victim == "worker")
                server.kill()
                server.start()
        load.grows()
    arrived(receiver, load.accepted, duplicates=cut_off)
