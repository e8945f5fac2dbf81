"""A row that conflicts with stored rows affects only one delivery."""

import re
import threading
from pathlib import Path

import sqlalchemy as sa
from tests.dashboard.visitors import operator

from uplift_server.store.schema import attempts

from .harness import TYPE, Api, deliveries_of, serving, settled, wait_for
from .receiving import Connection, Received, Receiver, respond


def count_rejected_rows(api: Api, kind: str) -> int:
    found = re.search(
        rf'^uplift_rows_set_aside_total{{kind="{kind}"}} (\d+)', api("GET", "/metrics").body.decode(), re.MULTILINE
    )
    assert found
    return int(found[1])


def test_a_rejected_attempt_record_does_not_stop_other_deliveries(tmp_path: Path, receiver: Receiver) -> None:
    may_respond = threading.Event()

    def slow(connection: Connection, received: Received) -> bool:
        may_respond.wait(15)
        return respond()(connection, received)

    with serving(tmp_path / "data") as server:
        _, api = server.account()
        endpoint = api.endpoint(receiver.url("/hook", respond()), event_types=[TYPE])["id"]
        wait_for(lambda: receiver.count("/hook") == 1, "the registration event arrives")
        receiver.url("/hook", slow)
        event = api.send(1).json["id"]
        receiver.wait("/hook", 1)
        [(event_seq, endpoint_seq)] = server.place.query(
            "SELECT d.event_seq, d.endpoint_seq FROM deliveries d WHERE d.lease_owner <> 0"
        )
        row = {"event_seq": event_seq, "endpoint_seq": endpoint_seq, "number": 1, "trigger": 0, "started_at": 1,
               "duration_us": 1, "outcome": 1, "request_head": b"", "body_truncated": False}  # fmt: skip
        server.place.run(lambda c: c.execute(sa.insert(attempts).values(**row)))
        may_respond.set()
        receiver.url("/hook", respond())
        _, others = server.account("Other")
        others.endpoint(receiver.url("/other", respond()))
        for number in range(10, 30):
            assert others.send(number).status == api.send(number).status == 202
        wait_for(
            lambda: len(receiver.numbers("/other")) == len(receiver.numbers("/hook")) - 1 == 20,
            "all other deliveries are sent",
        )
        [delivery] = deliveries_of(api, event)
        assert settled(api, delivery["id"])["status"] == "delivered"
        assert receiver.numbers("/hook")[1] == 1
        assert count_rejected_rows(server.api(), "attempt") == 1
        assert count_rejected_rows(server.api(), "delivery") == count_rejected_rows(server.api(), "event") == 0
        assert "rejected 1 row" in operator(server).get("/operator").text
        assert len([line for line in server.log if "row not stored" in line]) == 1
        assert api("GET", f"/v1/endpoints/{endpoint}").status == 200
        assert server.stop() == 0
