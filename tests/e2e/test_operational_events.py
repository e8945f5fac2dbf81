"""Operational events of real servers: the documented bridge, the operations account, and `kill -9`.

UPLIFT_TEST_KILLS sets the number of kills (default 3), and UPLIFT_TEST_SEED sets their times.
"""

import itertools
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from . import receiving
from .harness import Server, free_port, serving, wait_for
from .receiving import Receiver

ROOT = Path(__file__).parents[2]
FAST = {
    "UPLIFT_RETRY_SCHEDULE": ",".join(["200ms"] * 60),
    "UPLIFT_BREAKER_FAILURES": "0",
    "UPLIFT_WARN_AFTER": "1s",
    "UPLIFT_DISABLE_AFTER": "3s",
}
KILLS = int(os.environ.get("UPLIFT_TEST_KILLS", "3"))
SEED = int(os.environ.get("UPLIFT_TEST_SEED", "20251124"))
TRANSITIONS = ["endpoint.warned", "endpoint.disabled"]


def received(receiver: Receiver, path: str = "/monitor") -> list[dict[str, Any]]:
    """Return the operational events that a path received, without duplicates."""
    events = {each.headers["webhook-id"]: each.json for each in receiver.on(path)}
    return [each for each in events.values() if each["type"].startswith(("endpoint.", "delivery."))]


def types(receiver: Receiver, path: str = "/monitor") -> list[str]:
    return [each["type"] for each in received(receiver, path)]


def operations_account(server: Server) -> tuple[str, Any]:
    account, _ = server.account("Operations")
    server.api().ok("PATCH", f"/v1/accounts/{account}", {"uid": "operations"})
    return account, server.api(account=account)


def test_the_operations_account_gets_each_event_once_despite_kills(tmp_path: Path, receiver: Receiver) -> None:
    receiver.url("/down", receiving.respond(503))
    with serving(tmp_path / "data", **FAST) as server:
        _, operations = operations_account(server)
        server.stop()
        server.environ["UPLIFT_OPERATIONS_ACCOUNT"] = "operations"
        server.start()
        operations.endpoint(receiver.url("/monitor"), event_types=["endpoint.*", "delivery.failed"])
        account, api = server.account()
        failing = api.endpoint(receiver.url("/down"))
        for number in range(5):
            assert api.send(number).status == 202
        rng = random.Random(SEED)
        for _ in range(KILLS):
            # Kill the server while it may warn about endpoints or disable them, which begins 2 s after its start.
            time.sleep(rng.uniform(1.8, 3.2))
            server.kill()
            server.start()
        wait_for(lambda: set(TRANSITIONS) <= set(types(receiver)), "both transitions are reported")
        time.sleep(2)
        found = received(receiver)
        assert sorted(each["type"] for each in found if each["type"] in TRANSITIONS) == sorted(TRANSITIONS)
        assert {each["data"]["object"]["id"] for each in found if each["type"] in TRANSITIONS} == {failing["id"]}
        assert {each["data"]["object"]["account"] for each in found} == {account}
        stored = operations.list_all("/v1/events")
        assert sorted(each["type"] for each in stored if each["type"] in TRANSITIONS) == sorted(TRANSITIONS)
        assert [each for each in api.list_all("/v1/events") if each["type"] in TRANSITIONS] == []


def test_the_server_does_not_start_without_its_operations_account(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        operations_account(server)
        server.stop()
        server.environ["UPLIFT_OPERATIONS_ACCOUNT"] = "operation"
        server.launch()
        assert server.process is not None
        assert server.process.wait(20) == 2
        wait_for(lambda: "UPLIFT_OPERATIONS_ACCOUNT is operation" in "".join(server.log), "the log names the setting")
        server.environ["UPLIFT_OPERATIONS_ACCOUNT"] = "operations"
        server.start()


def fails_once() -> receiving.Action:
    """Respond with 500 to the first request, and then with 200."""
    actions = itertools.chain([receiving.respond(500)], itertools.repeat(receiving.respond(200)))

    def act(connection: receiving.Connection, request: receiving.Received) -> bool:
        return next(actions)(connection, request)

    return act


@pytest.fixture
def bridge(receiver: Receiver, tmp_path: Path) -> Iterator[Any]:
    """Return a function that starts the documented bridge with the secret of an endpoint."""
    [program] = re.findall(
        r"```python\n(# slack_bridge.py\n.*?)```", (ROOT / "docs/monitoring.md").read_text(), re.DOTALL
    )
    (tmp_path / "slack_bridge.py").write_text(program)
    port, started = free_port(), list[subprocess.Popen[bytes]]()

    def start(secret: str) -> str:
        environ = {**os.environ, "UPLIFT_WEBHOOK_SECRET": secret, "PORT": str(port)}
        environ["SLACK_WEBHOOK_URL"] = receiver.url("/slack", fails_once())
        started.append(subprocess.Popen([sys.executable, "slack_bridge.py"], cwd=tmp_path, env=environ))
        return f"http://127.0.0.1:{port}/"

    start.url = f"http://127.0.0.1:{port}/"  # type: ignore[attr-defined]
    yield start
    for process in started:
        process.kill()
        process.wait(10)


def test_the_documented_bridge_posts_to_slack(tmp_path: Path, receiver: Receiver, bridge: Any) -> None:
    receiver.url("/down", receiving.respond(503))
    with serving(tmp_path / "data", **{**FAST, "UPLIFT_RETRY_SCHEDULE": "200ms,200ms,200ms,200ms"}) as server:
        _, api = server.account()
        created = api.endpoint(bridge.url, event_types=["endpoint.*", "delivery.failed"])
        bridge(created["secret"])
        api.endpoint(receiver.url("/down"), description="Warehouse")
        assert api.send(1).status == 202

        def messages() -> list[str]:
            return [each.json["text"] for each in list(receiver.requests) if each.path == "/slack"]

        # Slack rejects the first request, so the server retries that event.
        wait_for(lambda: len(messages()) > len(set(messages())), "a message is repeated")
        wait_for(lambda: any("deliveries failed" in each for each in messages()), "the failure is reported")
        text = next(each for each in messages() if "deliveries failed" in each)
        assert " deliveries failed: 503 Service Unavailable. " in text
        assert receiver.url("/down") in text
        assert f"{server.url}/deliveries/dlv_" in text
