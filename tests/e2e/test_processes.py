"""Several server processes on one PostgreSQL database deliver all accepted events, even if processes end."""

import base64
import json
import re
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.dashboard.visitors import Guest, operator
from tests.engines import PostgresPlace
from tests.pooler import Pooler
from tests.postgres import PostgresServer
from websockets.exceptions import ConnectionClosed

from .fleet import ConcurrencyCounter, Fleet, account_of, running, send_all, wait_for_propagation
from .harness import OPERATOR_KEY, TYPE, Api, Server, free_port, settled, wait_for
from .receiving import Connection, Received, Receiver, respond
from .test_listening import Listener, developer


@pytest.fixture(scope="module", params=["direct", "pooled"])
def fleet(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer, request: pytest.FixtureRequest
) -> Iterator[Fleet]:
    """Shared processes. Every test uses its own accounts, and stops no process."""
    url = postgres_server.new_database()
    reached = url if request.param == "direct" else request.getfixturevalue("pooler").url(url)
    with running(tmp_path_factory.mktemp("fleet"), reached, UPLIFT_DATABASE_DIRECT_URL=url) as fleet:
        yield fleet
    postgres_server.reuse_database(url)


def test_events_arrive_once_within_the_concurrency_limits(fleet: Fleet, receiver: Receiver) -> None:
    _, apis = account_of(fleet)
    paths = {f"/{name}": ConcurrencyCounter(0.002) for name in "abc"}
    for path, action in paths.items():
        apis[0].endpoint(receiver.url(path, action), max_in_flight=4)
    wait_for_propagation()
    accepted: set[int] = set()
    for thread in send_all(apis, range(2000), accepted):
        thread.join()
    assert accepted == set(range(2000))
    for path, action in paths.items():
        receiver.wait(path, 2000, within=60)
        assert receiver.numbers(path) == Counter(range(2000))
        assert action.most <= 4


def test_a_new_account_and_a_new_event_type_work_in_all_processes_immediately(fleet: Fleet) -> None:
    first, second = (server.api() for server in fleet.apis)
    for number in range(20):
        event_type, account = f"fresh.thing.number{number}", f"fresh-{number}"
        first.ok("POST", "/v1/accounts", {"name": account, "uid": account})
        first.ok("PUT", f"/v1/event-types/{event_type}", {"description": "New."})
        event = {"type": event_type, "data": {}, "account": account}
        assert second("POST", "/v1/events/batch", {"events": [event]}).status == 202
        first.ok("POST", "/v1/accounts", {"name": account, "uid": f"{account}-b"})
        sent = second("POST", "/v1/events", {"type": event_type, "data": {}}, **{"Uplift-Account": f"{account}-b"})
        assert sent.status == 202
    unknown = second("POST", "/v1/events/batch", {"events": [{"type": TYPE, "data": {}, "account": "never"}]})
    assert unknown.status == 422
    assert unknown.json["errors"][0]["code"] == "account_unknown"


def test_a_rate_limit_applies_to_all_processes(fleet: Fleet, receiver: Receiver) -> None:
    _, apis = account_of(fleet)
    made = apis[0].endpoint(receiver.url("/limited"), rate_limit_per_second=20)
    wait_for_propagation()
    for thread in send_all(apis, range(60), set()):
        thread.join()
    receiver.wait("/limited", 60)
    # Use the times of the server, because a busy receiver can note requests late. Registration caused one more attempt.
    query = f"/v1/attempts?endpoint={made['id']}&limit=100"
    attempts = wait_for(lambda: len(found := apis[0].ok("GET", query)["data"]) > 60 and found, "all attempts")
    started = sorted(datetime.fromisoformat(each["started_at"]).timestamp() for each in attempts)
    assert all(later - earlier >= 0.95 for earlier, later in zip(started, started[20:], strict=False))


def test_a_pause_through_one_process_applies_to_all_within_a_second(fleet: Fleet, receiver: Receiver) -> None:
    _, apis = account_of(fleet)
    made = apis[0].endpoint(receiver.url("/hook"))
    wait_for_propagation()
    apis[0].send(1)
    receiver.wait("/hook", 1)
    apis[0].ok("POST", f"/v1/endpoints/{made['id']}/pause")
    time.sleep(1)
    for number, api in enumerate(apis, 10):
        assert api.ok("GET", f"/v1/endpoints/{made['id']}")["state"] == "paused"
        api.send(number)
    time.sleep(1)
    assert receiver.numbers("/hook") == Counter([1])
    apis[1].ok("POST", f"/v1/endpoints/{made['id']}/enable")
    receiver.wait("/hook", 3)


def test_a_filter_set_through_one_process_applies_to_all_within_a_second(fleet: Fleet, receiver: Receiver) -> None:
    _, apis = account_of(fleet)
    made = apis[0].endpoint(receiver.url("/filtered"), filter={"number": [{"numeric": ["<", 3]}]})
    wait_for_propagation()
    for number in range(6):
        assert apis[number % len(apis)].send(number).status == 202
    receiver.wait("/filtered", 3)
    apis[1].ok("PATCH", f"/v1/endpoints/{made['id']}", {"filter": {"number": [{"numeric": [">=", 8]}]}})
    time.sleep(1)
    for number in range(6, 10):
        assert apis[number % len(apis)].send(number).status == 202
    receiver.wait("/filtered", 5)
    assert receiver.numbers("/filtered") == Counter([0, 1, 2, 8, 9])


def test_tests_resends_and_cancels_reach_the_worker(fleet: Fleet, receiver: Receiver) -> None:
    _, apis = account_of(fleet)
    made = [apis[0].endpoint(receiver.url(f"/h{n}"), max_in_flight=1) for n in range(4)]
    wait_for_propagation()
    for number, endpoint in enumerate(made):
        attempt = apis[number % 2].ok("POST", f"/v1/endpoints/{endpoint['id']}/test")
        assert (attempt["status_code"], attempt["trigger"]) == (200, "test"), attempt
    [first] = apis[0].ok("GET", f"/v1/endpoints/{made[0]['id']}/deliveries?status=delivered&type=webhook.created")[
        "data"
    ]
    apis[1].ok("POST", f"/v1/deliveries/{first['id']}/resend")
    wait_for(lambda: settled(apis[0], first["id"])["attempts_made"] == 2, "the delivery is resent")

    slow = apis[0].endpoint(receiver.url("/slow", respond(after=5)), max_in_flight=1)
    wait_for_propagation()
    events = [apis[0].send(number).json["id"] for number in range(3)]
    time.sleep(0.5)
    last = next(
        each
        for each in apis[1].ok("GET", f"/v1/events/{events[2]}/deliveries")["data"]
        if each["endpoint"] == slow["id"]
    )
    assert last["status"] == "pending"
    assert apis[1].ok("POST", f"/v1/deliveries/{last['id']}/cancel")["status"] == "cancelled"


@pytest.mark.timing
@pytest.mark.timeout(180)
def test_changes_apply_in_two_seconds_without_notifications(
    tmp_path: Path, postgres_url: str, pooler: Pooler, receiver: Receiver
) -> None:
    """Through a pooler without a direct connection, no process receives notifications."""
    within_s = 3.0  # 2 seconds, and a margin for a busy machine
    with Fleet(tmp_path, pooler.url(postgres_url)) as fleet:
        fleet.add_all("api", "worker")
        _, [api] = account_of(fleet)

        def timed(path: str) -> Any:
            began = time.monotonic()
            done = api.ok("POST", path)
            assert time.monotonic() - began < within_s
            return done

        fast = api.endpoint(receiver.url("/fast"))["id"]
        slow = api.endpoint(receiver.url("/slow", respond(after=8)), max_in_flight=1)["id"]
        time.sleep(within_s)
        assert timed(f"/v1/endpoints/{fast}/test")["status_code"] == 200
        event = api.send(1).json["id"]
        [delivered] = [
            each["id"] for each in api.ok("GET", f"/v1/events/{event}/deliveries")["data"] if each["endpoint"] == fast
        ]
        wait_for(lambda: settled(api, delivered)["status"] == "delivered", "the delivery is sent", within_s)
        timed(f"/v1/deliveries/{delivered}/resend")
        wait_for(lambda: settled(api, delivered)["attempts_made"] == 2, "the delivery is resent", within_s)
        for number in range(2, 5):
            api.send(number)
        time.sleep(within_s)
        waiting, *_ = api.ok("GET", f"/v1/endpoints/{slow}/deliveries?status=pending")["data"]
        assert waiting["waiting_for"] == "worker"
        assert timed(f"/v1/deliveries/{waiting['id']}/cancel")["status"] == "cancelled"
        timed(f"/v1/endpoints/{fast}/pause")
        time.sleep(within_s)
        arrived = receiver.count("/fast")
        api.send(5)
        time.sleep(1)
        assert receiver.count("/fast") == arrived
        timed(f"/v1/endpoints/{fast}/enable")
        wait_for(lambda: receiver.count("/fast") == arrived + 1, "the held delivery is sent", within_s)


@pytest.mark.timing
def test_a_process_reports_that_a_worker_handles_a_delivery(fleet: Fleet, receiver: Receiver) -> None:
    _, apis = account_of(fleet)
    may_respond = threading.Event()

    def act(connection: Connection, received: Received) -> bool:
        if received.json["type"] == TYPE:  # not the registration event
            may_respond.wait(14)
        return respond()(connection, received)

    made = apis[0].endpoint(receiver.url("/slow", act), max_in_flight=1)
    wait_for_propagation()
    for number in range(3):
        apis[number % 2].send(number)
    path = f"/v1/endpoints/{made['id']}/deliveries?status=pending&type={TYPE}"

    def waiting_reasons(api: Api) -> list[str | None]:
        return [each["waiting_for"] for each in api.ok("GET", path)["data"]]

    for api in apis:
        wait_for(lambda api=api: waiting_reasons(api) == ["worker"] * 3, "a worker has leased all deliveries")
    for each in apis[0].ok("GET", path)["data"]:
        [explained] = apis[1].ok("GET", f"/v1/events/{each['event']}/explain?endpoint={made['id']}")["data"]
        assert "is in flight or queued" in explained["text"]
    for worker in fleet.workers:
        worker.process.send_signal(signal.SIGSTOP)  # type: ignore[union-attr]
    try:
        without_workers = apis[0]("GET", path)
    finally:
        for worker in fleet.workers:
            worker.process.send_signal(signal.SIGCONT)  # type: ignore[union-attr]
    assert without_workers.seconds < 2
    assert [each["waiting_for"] for each in without_workers.json["data"]] == ["worker"] * 3
    may_respond.set()


@pytest.mark.timing
def test_a_stream_gets_changes_of_other_processes_within_a_second(fleet: Fleet) -> None:
    account, apis = account_of(fleet)
    developing, key = developer(fleet.apis[0], account, scopes=["listen", "events:write"])
    session = developing.ok("POST", "/v1/listen-sessions", {})["id"]
    listener = Listener(fleet.apis[0], key, session)
    time.sleep(0.2)
    for number in range(5):
        began = time.monotonic()
        apis[1].send(number)
        assert listener.take(1) == [number]
        assert time.monotonic() - began < 1
    began = time.monotonic()
    apis[1].ok("DELETE", f"/v1/listen-sessions/{session}")
    with pytest.raises(ConnectionClosed):
        listener.socket.recv(timeout=10)
    assert time.monotonic() - began < 1


def test_a_service_key_works_in_all_processes_until_its_expiry(fleet: Fleet) -> None:
    """Every process accepts events with the key, and applies the expiry and the revocation of the key."""
    account, (api, _) = account_of(fleet)
    administrators = [server.api() for server in fleet.apis]
    made = administrators[0].ok("POST", "/v1/keys", {"name": "capture", "scopes": ["events:write", "events:read"]})
    holders = [server.api(made["key"], account=account) for server in fleet.apis]
    for holder in holders:
        wait_for(lambda holder=holder: holder("GET", "/v1/events").status == 200, "every process knows the key")
        event = {"type": TYPE, "data": {"object": {"number": 1}}, "account": account}
        sent = holder.ok("POST", "/v1/events/batch", {"events": [event]})["data"][0]["id"]
        assert api.ok("GET", f"/v1/events/{sent}")["id"] == sent
        assert holder("GET", "/v1/fleet").status == 403
    expires_at = datetime.fromtimestamp(time.time() + 1, UTC).isoformat(timespec="milliseconds")
    administrators[1].ok("PATCH", f"/v1/keys/{made['id']}", {"expires_at": expires_at})
    for holder in holders:
        wait_for(lambda holder=holder: holder("GET", "/v1/events").status == 401, "the key expires", within=5)
        assert holder("GET", "/v1/events").json["detail"].startswith("The API key expired at ")
    administrators[0].ok("PATCH", f"/v1/keys/{made['id']}", {"expires_at": None})
    for holder in holders:
        wait_for(lambda holder=holder: holder("GET", "/v1/events").status == 200, "the key works again")
    administrators[1].ok("DELETE", f"/v1/keys/{made['id']}")
    for holder in holders:
        wait_for(lambda holder=holder: holder("GET", "/v1/events").status == 401, "the key is revoked")
        assert "unknown or revoked" in holder("GET", "/v1/events").json["detail"]


def test_the_next_worker_sends_due_deliveries(tmp_path: Path, postgres_url: str, receiver: Receiver) -> None:
    with Fleet(tmp_path, postgres_url, UPLIFT_LEASE="5m") as fleet:
        fleet.add("api")
        _, [api] = account_of(fleet)
        api.endpoint(receiver.url("/hook"))
        event = api.send(1).json["id"]
        [explanation] = api.ok("GET", f"/v1/events/{event}/explain")["data"]
        assert (
            explanation["text"]
            == "Attempt 1 is due, but the server is not sending deliveries. The server made no attempt."
        )
        assert "no worker is running" in explanation["hint"]
        tested = api("POST", f"/v1/endpoints/{explanation['endpoint']}/test", {"type": TYPE})
        assert (tested.status, "database" in tested.json["detail"]) == (503, False)
        wait_for(lambda: _oldest_due_s(fleet.apis[0]) > 1, "the metric shows the due delivery")
        worker = fleet.add("worker")
        receiver.wait("/hook", 1)
        wait_for(lambda: _oldest_due_s(fleet.apis[0]) == 0, "the metric shows no due delivery")
        [delivery] = [each["id"] for each in api.ok("GET", f"/v1/events/{event}/deliveries")["data"]]
        assert settled(api, delivery)["status"] == "delivered"
        worker.stop()
        api.ok("POST", f"/v1/deliveries/{delivery}/resend")
        # The resend must not wait until a lease of 5 minutes ends.
        time.sleep(2)
        worker.start()
        wait_for(lambda: settled(api, delivery)["attempts_made"] == 2, "the delivery is resent", every=0.1)


def test_a_database_command_detects_a_running_worker(tmp_path: Path, postgres_url: str, receiver: Receiver) -> None:
    with Fleet(tmp_path, postgres_url) as fleet:
        server = fleet.add("all")
        _, [api] = account_of(fleet)
        api.endpoint(receiver.url("/hook", respond(after=10)), max_in_flight=1)
        wait_for_propagation()
        event = api.send(1).json["id"]
        [explanation] = api.ok("GET", f"/v1/events/{event}/explain")["data"]
        result = server.run("explain", event, "--json", UPLIFT_OPERATOR_KEY="")
        assert result.returncode == 0, result
        assert "waiting in the queue" in explanation["text"]
        assert "A worker has the delivery" in result.stdout
        assert "sends nothing" not in result.stdout


def test_commands_beside_a_worker_work_on_the_database(tmp_path: Path, postgres_url: str, receiver: Receiver) -> None:
    with Fleet(tmp_path, postgres_url) as fleet:
        fleet.add("api")
        worker = fleet.add("worker")
        account, [api] = account_of(fleet)
        endpoint = api.endpoint(receiver.url("/hook"))["id"]

        def result(*command: str) -> subprocess.CompletedProcess[str]:
            """Run a command with the port and the operator key of the worker."""
            return worker.run(*command, UPLIFT_OPERATOR_KEY=OPERATOR_KEY)

        assert json.loads(result("accounts", "--json").stdout)["id"] == account
        (worker.data / "data.json").write_text('{"number": 1}')
        sent = result("send", TYPE, "--account", account, "--data", "data.json", "--json")
        assert sent.returncode == 0, sent
        receiver.wait("/hook", 1)
        tested = result("endpoints", "test", endpoint)
        assert tested.returncode == 75, tested
        explanation = " ".join(tested.stderr.split())
        assert "set UPLIFT_HOST and UPLIFT_PORT to the address of a server with the role api" in explanation


def test_a_resend_without_a_worker_does_not_wait_for_a_lease(
    tmp_path: Path, postgres_url: str, receiver: Receiver
) -> None:
    with Fleet(tmp_path, postgres_url, UPLIFT_LEASE="5m") as fleet:
        server = fleet.add("api")
        worker = fleet.add("worker")
        _, [api] = account_of(fleet)
        api.endpoint(receiver.url("/hook"))
        event = api.send(1).json["id"]
        receiver.wait("/hook", 1)
        [delivery] = [each["id"] for each in api.ok("GET", f"/v1/events/{event}/deliveries")["data"]]
        wait_for(lambda: settled(api, delivery)["status"] == "delivered", "the outcome is stored")
        worker.stop()
        command = ("deliveries", "resend", delivery)
        assert server.run(*command, UPLIFT_OPERATOR_KEY="").returncode == 0
        assert api.ok("POST", f"/v1/deliveries/{delivery}/cancel")["status"] == "delivered"
        assert server.run(*command, UPLIFT_OPERATOR_KEY="").returncode == 0
        worker.start()
        receiver.wait("/hook", 2)


def test_a_link_points_to_an_api_server(tmp_path: Path, postgres_url: str) -> None:
    def link(server: Server, *arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
        return server.run("sign-in-links", "create", "--json", *arguments, **environ)

    with Fleet(tmp_path, postgres_url) as fleet:
        result = link(fleet.add("worker"))
        assert result.returncode == 1, result
        assert "set UPLIFT_HOST and UPLIFT_PORT" in result.stderr
        api = fleet.add("api")
        account, _ = api.account()
        # Without the setting, the command would use its own key, which the server that opens the link does not have.
        result = link(api, UPLIFT_OPERATOR_KEY="")
        assert result.returncode == 3, result
        assert "set UPLIFT_OPERATOR_KEY" in result.stderr
        for result in (link(api), link(api, "--account", account, UPLIFT_OPERATOR_KEY="")):
            url = json.loads(result.stdout)["url"]
            assert url.startswith(api.url)
            guest = Guest(api.url)
            guest.post(urlsplit(url).path, follow=False)
            assert "uplift_session" in guest.cookies


def test_operators_see_the_running_processes(tmp_path: Path, postgres_url: str) -> None:
    with Fleet(tmp_path, postgres_url) as fleet:
        api = fleet.add("api")
        worker = fleet.add("worker")
        guest = operator(api)

        def explanation(text: str) -> bool:
            return text in guest.get("/operator").text

        wait_for(lambda: explanation(f"process {worker.pid}"), "the page shows the worker")
        page = guest.get("/operator").text
        for server in (api, worker):
            assert f"{socket.gethostname()}, process {server.pid}" in page
        assert "No worker is running" not in page
        worker.stop()
        wait_for(
            lambda: explanation("No worker is running."),
            "the page shows that no worker is running",
        )
        metrics = api.api()("GET", "/metrics").body.decode()
        assert 'uplift_processes{role="worker"} 0.0' in metrics
        assert 'uplift_processes{role="api"} 1.0' in metrics


def test_a_process_with_another_key_is_rejected_before_it_encrypts(tmp_path: Path, postgres_url: str) -> None:
    """Otherwise, values would be encrypted with two keys, and no process could decrypt all of them."""
    with Fleet(tmp_path, postgres_url) as fleet:
        first = fleet.add("api")
        other = {"UPLIFT_SECRET_KEY": base64.b64encode(b"o" * 32).decode(), "UPLIFT_OPERATOR_KEY": ""}
        result = first.run("serve", "--role", "worker", UPLIFT_PORT=str(free_port()), **other)
        assert result.returncode == 2, result
        assert "differs from the key of the other servers" in " ".join(result.stderr.split())
        assert "Traceback" not in result.stderr
        assert PostgresPlace(postgres_url, postgres_url).query("SELECT * FROM api_keys") == []
        first.stop()
        # There are no encrypted values, and no other process runs: an operator who lost the key can start with another
        # one.
        first.environ["UPLIFT_SECRET_KEY"] = other["UPLIFT_SECRET_KEY"]
        first.start()
        assert first.api()("GET", "/readyz").status == 200


def _oldest_due_s(server: Server) -> float:
    """Return the age of the oldest due delivery from the metrics of a process."""
    text = server.api()("GET", "/metrics").body.decode()
    found = re.search(r'^uplift_oldest_due_age_seconds\{held_up_by="server"\} (\S+)', text, re.MULTILINE)
    return 0.0 if found is None else float(found[1])


def test_a_worker_serves_only_health_and_metrics(fleet: Fleet) -> None:
    worker = fleet.workers[0].api()
    assert worker("GET", "/healthz").status == worker("GET", "/readyz").status == 200
    assert worker("GET", "/metrics").status == 200
    rejected = worker("GET", "/v1/accounts")
    assert (rejected.status, rejected.json["code"]) == (421, "misdirected")
