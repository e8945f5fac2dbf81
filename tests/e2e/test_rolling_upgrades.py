"""A server keeps running during a schema upgrade. After it stops, only the new release can start."""

import asyncio
import contextlib
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.postgres import PostgresServer
from tests.store import later_releases

from uplift_server.store.postgres import schema_version

from .balancer import Balancer
from .fleet import Fleet
from .harness import OPERATOR_KEY, PROGRAM, TYPE, Api, Server, serving, wait_for
from .receiving import Receiver, after_failing

SETTINGS = {"UPLIFT_SECRET_KEY": "c2VhbHMgd2hhdCBpcyBzdG9yZWQsIHRlc3RzIG9ubHk=", "UPLIFT_BREAKER_FAILURES": "0"}
NEXT_RELEASE = """
import sys
from pathlib import Path
import pytest
from tests.store import later_releases
later_releases.pretend_release(pytest.MonkeyPatch(), Path({scratch!r}), later_releases.ADDS)
sys.argv[0] = {program!r}
from uplift_server.cli.main import run
run()
"""
"""Runs `uplift-server` of a release with a newer schema."""
DRAIN_S = 1.0
"""How long a server runs after its removal begins, like `api.drainSeconds` of the Helm chart."""


def test_a_server_works_beside_the_schema_of_the_next_release(
    tmp_path: Path, receiver: Receiver, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres_server.new_database(empty=True)
    hook = receiver.url("/upgraded", after_failing(1))
    with serving(tmp_path, UPLIFT_DATABASE_URL=url, **SETTINGS) as server:
        _, api = server.account()
        api.endpoint(hook)
        for number in range(20):
            assert api.send(number).status == 202
        with monkeypatch.context() as later:
            later_releases.pretend_release(later, tmp_path, later_releases.ADDS)
            asyncio.run(schema_version.upgrade(url))
        for number in range(20, 40):
            assert api.send(number, idempotency_key=f"n-{number}").status == 202
        another = api.endpoint(receiver.url("/later"))
        assert api.send(40).status == 202
        receiver.wait("/upgraded", 82)
        receiver.wait("/later", 1)
        assert set(receiver.numbers("/upgraded").values()) == {2}
        api.ok("PATCH", f"/v1/endpoints/{another['id']}", {"description": "made later"})
        api.ok("POST", f"/v1/endpoints/{another['id']}/pause")
        wait_for(lambda: api.ok("GET", "/v1/stats?period=24h")["totals"]["attempts"] >= 83, "attempts are counted")
        assert server.stop() == 0
    assert not [line for line in server.log if "error" in line], server.log

    second_start = Server(tmp_path, UPLIFT_DATABASE_URL=url, **SETTINGS)
    second_start.launch()
    assert second_start.process is not None
    assert second_start.process.wait(20) == 1
    second_start.end()
    assert f"has the schema {later_releases.ADDS}, newer" in "".join(second_start.log)


@pytest.mark.timeout(240)
def test_replacing_servers_one_by_one_rejects_and_repeats_no_event(
    tmp_path: Path, receiver: Receiver, postgres_server: PostgresServer
) -> None:
    """The Helm chart follows the same order: migrate, then start a new server before each old one stops."""
    next_release = NEXT_RELEASE.format(scratch=str(tmp_path / "next"), program=PROGRAM)
    code_path = {"PYTHONPATH": str(Path(__file__).parents[2])}
    url = postgres_server.new_database(empty=True)
    with Fleet(tmp_path, url) as fleet, Balancer() as balancer:
        fleet.add_all("api", "api", "worker")
        first_api, second_api, worker = fleet.servers
        account, api = fleet.apis[0].account()
        api.endpoint(receiver.url("/upgraded"))
        for server in fleet.apis:
            balancer.add(server)
            wait_for(
                lambda s=server: s.api(account=account)("GET", "/v1/endpoints").status == 200, "the account is known"
            )
        with _emitting(Api(balancer.url, OPERATOR_KEY, account)) as statuses:
            wait_for(lambda: len(statuses) > 50, "events are accepted")
            migrated = subprocess.run(
                [sys.executable, "-c", next_release, "migrate"],
                env=fleet.servers[0].environ | code_path, cwd=tmp_path, capture_output=True, text=True, timeout=120,
                check=False,
            )  # fmt: skip
            assert migrated.returncode == 0, migrated
            # The Deployments of both roles roll at the same time.
            for old in ([first_api, worker], [second_api]):
                new = [fleet.launch(role, next_release, **code_path) for role in ("api", "worker")[: len(old)]]
                for server in new:
                    server.ready()
                balancer.add(new[0])
                time.sleep(DRAIN_S / 2)  # Load balancers learn of the removal later.
                balancer.remove(old[0])
                time.sleep(DRAIN_S / 2)
                assert [server.stop() for server in old] == [0] * len(old)
            sent = len(statuses)
            wait_for(lambda: len(statuses) > sent + 50, "events are accepted")

        assert Counter(statuses) == {202: len(statuses)}
        receiver.wait("/upgraded", len(statuses), within=30)
        assert receiver.numbers("/upgraded") == Counter(range(len(statuses)))
        assert min(balancer.forwarded[server] for server in fleet.apis) > 0
        assert asyncio.run(schema_version.current(url)) == later_releases.ADDS
        assert not [line for server in fleet.servers for line in server.log if "error" in line]


@contextlib.contextmanager
def _emitting(api: Api) -> Iterator[list[int]]:
    """Send numbered events during the block, each on its own connection. Yield the list of status codes so far."""
    statuses: list[int] = []
    enough = threading.Event()

    def emit() -> None:
        while not enough.wait(0.01):
            event = {"type": TYPE, "data": {"number": len(statuses)}}
            statuses.append(api("POST", "/v1/events", event, connection="close").status)

    emitter = threading.Thread(target=emit)
    emitter.start()
    try:
        yield statuses
    finally:
        enough.set()
        emitter.join(20)
        api.close()
