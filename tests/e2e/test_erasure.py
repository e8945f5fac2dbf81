"""After an erasure, no file, response, page, log or metric contains the data of the person."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.dashboard.visitors import operator
from tests.rejected_events import PROBLEM, reject

from .harness import OPERATOR_KEY, TYPE, Api, Server, deliveries_of, serving, wait_for
from .listening import Listening, developer_environment
from .receiving import Action, Receiver, hang, respond

NAME = "Zebulon Quixwhistle"
OBJECT_ID = "athlete-9c41f07d"
OTHER_NAME = "Ottoline Brambleworth"
SETTINGS = {
    "UPLIFT_LOG_FORMAT": "json",
    "UPLIFT_WARN_AFTER": "1s",
    "UPLIFT_DISABLE_AFTER": "1h",
    "UPLIFT_RETRY_SCHEDULE": ",".join(["300ms"] * 30),
    "UPLIFT_BREAKER_FAILURES": "0",
    "UPLIFT_MAIL_FROM": "Uplift Webhooks <webhooks@uplift.example>",
    # No server listens on this port, so emails stay in the outbox.
    "UPLIFT_SMTP_URL": "smtp://127.0.0.1:9",
}


def about(object_id: str, name: str, **fields: Any) -> dict[str, Any]:
    """Return an event about a person."""
    return {"type": TYPE, "data": {"object": {"id": object_id, "name": name, **fields}}}


def to_the_person(action: Action, status: int = 204) -> Action:
    """Perform `action` for events about the person. Respond with `status` to other events."""
    other = respond(status, b"")
    return lambda connection, received: (action if OBJECT_ID.encode() in received.body else other)(connection, received)


def completed(api: Api, path: str, erasure: str, within: float = 60) -> Any:
    """Wait until an erasure is completed, and return the receipt."""

    def found() -> Any:
        shown = api.ok("GET", f"{path}/{erasure}")
        return shown if shown["state"] == "completed" else None

    return wait_for(found, "the erasure is completed", within, every=0.1)


def test_an_erased_person_is_nowhere(tmp_path: Path, receiver: Receiver, start: Callable[..., Listening]) -> None:
    with serving(tmp_path / "data", **SETTINGS) as server:
        account, api = server.account()
        echo = f'{{"hello": "{NAME}", "id": "{OBJECT_ID}"}}'.encode()
        redirect = respond(302, echo, Location=f"https://club.example/{OBJECT_ID}")
        moved = receiver.url("/moved", to_the_person(redirect, 503))
        greets = receiver.url("/greets", to_the_person(respond(200, echo, X_Athlete=OBJECT_ID)))
        endpoints = {
            "moved": api.endpoint(moved)["id"],
            "greets": api.endpoint(greets)["id"],
            "paused": api.endpoint(receiver.url("/paused"))["id"],
        }
        api.ok("POST", f"/v1/endpoints/{endpoints['paused']}/pause")
        _, environ = developer_environment(server, account)
        local = start(environ, "--forward-to", receiver.url("/local", to_the_person(respond(500, echo)))).ready()
        events = []
        for number in range(5):
            key = f"{OBJECT_ID}-{number}"
            sent = api.ok("POST", "/v1/events", about(OBJECT_ID, NAME, number=number), idempotency_key=key)
            events.append(sent["id"])
        other = api.ok("POST", "/v1/events", about("athlete-2", OTHER_NAME))["id"]
        receiver.wait("/greets", 6)
        receiver.wait("/local", 6)
        local.stop()
        wait_for(lambda: server.place.query("SELECT 1 FROM notices"), "a warning is in the outbox")
        filters = {"object_id": OBJECT_ID, "status": ["delivered"]}
        resent = api.ok("POST", "/v1/deliveries/resend", filters)
        assert resent["replays"]
        wrong = {"field": "data.object.name", "code": "schema_mismatch", "message": f"{NAME!r} is too long."}
        for key in (f"{OBJECT_ID}-0", f"{OBJECT_ID}-9"):
            problem = {**PROBLEM, "detail": f"The idempotency key {key} was already used.", "errors": [wrong]}
            reject(server.place, account, idempotency_key=key, event_id=OBJECT_ID, problem=problem)
        contents = server.place.contents()
        assert NAME.encode() in contents
        assert OBJECT_ID.encode() in contents

        path = f"/v1/accounts/{account}/erasures"
        counted = api.ok("POST", path, {"object_id": OBJECT_ID, "dry_run": True})
        assert (counted["events"], counted["complete"]) == (5, True)
        made = api("POST", path, {"object_id": OBJECT_ID}, idempotency_key="once")
        assert made.status == 202
        receipt = completed(api, path, made.json["id"])
        assert receipt["events"] == 5
        assert receipt["object_id_digest"] == counted["object_id_digest"]
        repeated = api("POST", path, {"object_id": OBJECT_ID}, idempotency_key="once")
        assert (repeated.json["id"], repeated.headers["Idempotency-Replayed"]) == (receipt["id"], "true")

        before = len(receiver.requests)
        for event in events:
            found = api.ok("GET", f"/v1/events/{event}")
            assert (found["type"], found["body"], found["object_id"]) == (TYPE, None, None)
            assert found["erased_at"] is not None
            for delivery in deliveries_of(api, event):
                is_greeted = delivery["endpoint"] == endpoints["greets"]
                assert delivery["status"] == ("delivered" if is_greeted else "cancelled")
                for attempt in api.list_all(f"/v1/deliveries/{delivery['id']}/attempts"):
                    assert (attempt["request"], attempt["response"]) == ({"headers": {}}, None)
                    assert attempt["status_code"] in {200, 302}
                rejected = api("POST", f"/v1/deliveries/{delivery['id']}/resend")
                assert rejected.status == 409
                expected = "paused" if delivery["endpoint"] == endpoints["paused"] else "erased"
                assert expected in rejected.json["detail"]
        replay = {"endpoint": endpoints["greets"], "status": ["delivered"], "types": [TYPE], "dry_run": True}
        assert api.ok("POST", "/v1/replays", replay)["count"] == 1
        assert api.ok("GET", f"/v1/events?object_id={OBJECT_ID}")["data"] == []
        assert api.ok("GET", f"/v1/events/{other}")["body"]["data"]["object"]["name"] == OTHER_NAME
        time.sleep(0.5)
        new = [each for each in receiver.requests[before:] if each.headers["webhook-id"] in events]
        assert new == []

        shown = {"database": server.place.contents(), "log": "".join(server.log).encode()}
        visitor = operator(server)
        own = f"/accounts/{account}"
        [delivery, *_] = deliveries_of(api, events[0])
        pages = ["overview", "events", "deliveries", "replays", "endpoints", "settings/audit-log", "settings/erasures",
                 "rejected-events",
                 f"events/{events[0]}", f"deliveries/{delivery['id']}", f"settings/erasures/{receipt['id']}",
                 f"endpoints/{endpoints['moved']}", f"replays/{resent['replays'][0]['id']}"]  # fmt: skip
        for page in [*(f"{own}/{each}" for each in pages), f"/operator/trace?id={events[0]}", "/operator/mail"]:
            response = visitor.get(page)
            assert response.status == 200, page
            shown[page] = response.html.encode()
        for call in ("/v1/events", "/v1/deliveries", "/v1/replays", "/v1/endpoints", "/v1/audit-log", path,
                     "/v1/rejected-events", f"/v1/events/{events[0]}/explain", "/metrics"):  # fmt: skip
            shown[call] = server.api(account=account)("GET", call).body
        if server.place.file is not None:
            copy = tmp_path / "copy.db"
            assert server.run("backup", str(copy)).returncode == 0
            shown["backup"] = copy.read_bytes()
    shown["database after the stop"] = server.place.contents()
    for place, content in shown.items():
        assert NAME.encode() not in content, place
        assert OBJECT_ID.encode() not in content, place
        assert b"Zebulon" not in content, place
    assert OTHER_NAME.encode() in shown["database"]
    assert b'"erased"' in shown["/v1/audit-log"]


def test_an_erasure_continues_after_kill_9(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        account, api = server.account()
        batch = {"events": [about(OBJECT_ID, f"{NAME} {'x' * 2000}") for _ in range(500)]}
        ids = [each["id"] for _ in range(6) for each in api.ok("POST", "/v1/events/batch", batch)["data"]]
        path = f"/v1/accounts/{account}/erasures"
        erasure = api.ok("POST", path, {"object_id": OBJECT_ID})["id"]
        wait_for(lambda: api.ok("GET", f"{path}/{erasure}")["events"] > 0, "some events are erased", every=0.01)
        server.kill()
        assert NAME.encode() in server.place.contents()
        server.start()
        assert completed(api, path, erasure)["events"] == len(ids)
        assert NAME.encode() not in server.place.contents()
        assert api.ok("GET", f"/v1/events/{ids[-1]}")["erased_at"] is not None


def test_an_attempt_in_flight_does_not_restore_the_content(own_server: Server, receiver: Receiver) -> None:
    account, api = own_server.account()
    api.endpoint(receiver.url("/slow", hang))
    event = api.ok("POST", "/v1/events", about(OBJECT_ID, NAME))["id"]
    receiver.wait("/slow", 1)
    path = f"/v1/accounts/{account}/erasures"
    erasure = api.ok("POST", path, {"event_ids": [event]})
    wait_for(lambda: api.ok("GET", f"/v1/events/{event}")["erased_at"], "the event is erased")
    # The attempt times out after 15 s, but the erasure is completed only when the lease ends after 30 s.
    receipt = completed(api, path, erasure["id"])
    assert (receipt["events"], receipt["missing"]) == (1, 0)
    [delivery] = deliveries_of(api, event)
    assert (delivery["status"], delivery["attempts_made"]) == ("cancelled", 0)
    assert api.ok("GET", f"/v1/deliveries/{delivery['id']}/attempts")["data"] == []
    assert NAME.encode() not in own_server.place.contents()


def test_the_command_erases_and_lists(own_server: Server) -> None:
    account, api = own_server.account()
    event = api.ok("POST", "/v1/events", about(OBJECT_ID, NAME))["id"]

    def run(*arguments: str, given: str = "") -> "subprocess.CompletedProcess[str]":
        command = ("erasures", *arguments, "--account", account)
        return own_server.run(*command, text=given, UPLIFT_OPERATOR_KEY=OPERATOR_KEY)

    counted = run("create", "--object-id", "-", given=f"{OBJECT_ID}\n")
    assert counted.returncode == 0, counted.stderr
    assert "repeat the command with --yes" in counted.stderr
    assert api.ok("GET", f"/v1/events/{event}")["erased_at"] is None
    erased = run("create", "--object-id", OBJECT_ID, "--yes", "--wait")
    assert erased.returncode == 0, erased.stderr
    assert "completed" in erased.stdout
    assert api.ok("GET", f"/v1/events/{event}")["body"] is None
    assert "completed" in run("list").stdout
    assert run("create").returncode == 2
