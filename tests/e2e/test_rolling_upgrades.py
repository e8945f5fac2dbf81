"""A server keeps running during a schema upgrade. After its stop, only the new release starts."""

import asyncio
from pathlib import Path

import pytest
from tests.postgres import PostgresServer
from tests.store import later_releases

from uplift_server.store.postgres import schema_version

from .harness import Server, serving, wait_for
from .receiving import Receiver, after_failing

SETTINGS = {"UPLIFT_SECRET_KEY": "c2VhbHMgd2hhdCBpcyBzdG9yZWQsIHRlc3RzIG9ubHk=", "UPLIFT_BREAKER_FAILURES": "0"}


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
