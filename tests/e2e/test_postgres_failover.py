"""Failover to a standby: servers find it, and all accepted events are delivered."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.postgres import FAST, PostgresServer
from tests.unreliable_network import UnreliableNetwork

from .fleet import Fleet, account_of, send_all, wait_for_propagation
from .harness import free_port, wait_for
from .receiving import Receiver

EVENTS = 3000
FOUND_WITHIN_S = 20


@pytest.fixture
def primary() -> Iterator[PostgresServer]:
    """A primary that the test can stop."""
    server = PostgresServer(FAST, port=free_port())
    yield server
    server.close()


@pytest.fixture
def standby(primary: PostgresServer) -> Iterator[PostgresServer]:
    """A synchronous standby, without which the primary commits nothing."""
    server = PostgresServer(FAST, port=free_port(), follows=primary)
    primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
    primary.execute("SELECT pg_reload_conf()")
    yield server
    server.close()


def port_of(server: PostgresServer) -> str:
    """Return the port of a database server."""
    return server.url("x").rpartition("port=")[2]


def survives(folder: Path, url: str, receiver: Receiver, break_it: Callable[[], None]) -> None:
    """Check that a failure under load loses no accepted event, and that events are accepted again in time."""
    # The lease is short: if the response to a commit is lost, the server sends the delivery only when the lease ends.
    with Fleet(folder, url, UPLIFT_LEASE="20s", UPLIFT_ATTEMPT_TIMEOUT="5s") as fleet:
        fleet.add("api")
        fleet.add("worker")
        _, apis = account_of(fleet)
        apis[0].endpoint(receiver.url("/hook"))
        wait_for_propagation()
        accepted: set[int] = set()
        sending = send_all(apis, range(EVENTS), accepted)
        wait_for(lambda: len(accepted) > EVENTS / 6, "some events are accepted")
        break_it()
        # Each sender may still get one response to a request in flight.
        before = len(accepted) + len(sending)
        assert before < EVENTS
        wait_for(lambda: len(accepted) > before, "events are accepted again", FOUND_WITHIN_S)
        for thread in sending:
            thread.join()
        assert accepted == set(range(EVENTS))
        wait_for(lambda: set(receiver.numbers("/hook")) >= accepted, "all events are delivered", FOUND_WITHIN_S)


def test_a_promoted_standby_takes_over_without_loss(
    tmp_path: Path, primary: PostgresServer, standby: PostgresServer, receiver: Receiver
) -> None:
    name = urlsplit(primary.new_database()).path
    hosts = ",".join(f"127.0.0.1:{port_of(each)}" for each in (primary, standby))

    def take_over() -> None:
        primary.stop("immediate")
        standby.promote()

    survives(tmp_path, f"postgresql://postgres@{hosts}{name}", receiver, take_over)
    # Start the primary again, so that its fixture can stop it.
    primary.start()


def test_an_unresponsive_host_is_replaced_by_the_next(tmp_path: Path, postgres_url: str, receiver: Receiver) -> None:
    """The host neither accepts nor refuses connections, like a machine that has lost its network."""
    first, second = UnreliableNetwork(postgres_url), UnreliableNetwork(postgres_url)
    with contextlib.closing(first), contextlib.closing(second):
        hosts = ",".join(f"127.0.0.1:{urlsplit(each.url).port}" for each in (first, second))
        url = f"postgresql://postgres@{hosts}{urlsplit(first.url).path}"
        survives(tmp_path, url, receiver, first.hold)
