"""The commands of `uplift` other than `listen`, with a real server."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from .harness import TYPE, Api, Server, settled, wait_for
from .listening import Listening, environment, on_terminal, uplift
from .receiving import Receiver, respond


@dataclass
class Integrator:
    """An account, its key, and the commands of its developer."""

    api: Api
    operator: Api
    environ: dict[str, str]

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        done = uplift(self.environ, *arguments)
        return done.returncode, done.stdout, done.stderr

    def json(self, *arguments: str) -> list[Any]:
        code, out, err = self(*arguments, "--json")
        assert (code, err) == (0, ""), err
        return [json.loads(line) for line in out.splitlines()]


@pytest.fixture
def integrator(server: Server) -> Integrator:
    account, operator = server.account()
    key = server.api().ok("POST", f"/v1/accounts/{account}/keys", {"name": "ana"})["key"]
    return Integrator(server.api(key), operator, environment(server, key))


@pytest.fixture
def listening(integrator: Integrator, receiver: Receiver) -> Iterator[Listening]:
    listening = Listening(integrator.environ, "--forward-to", receiver.url("/local")).ready()
    yield listening
    listening.close()


def test_trigger_sends_to_the_listener_and_shows_the_response(
    integrator: Integrator, receiver: Receiver, listening: Listening
) -> None:
    [tested] = integrator.json("trigger", "export.completed")
    [got] = receiver.wait("/local", 1)
    assert (tested["event"], tested["type"]) == (got.headers["webhook-id"], "export.completed")
    assert tested["answer"]["status_code"] == 200
    receiver.url("/local", respond(500))
    code, _, err = integrator("trigger", "--session", tested["session"][:16])
    assert (code, err.splitlines()[0]) == (1, "Error: your server responded with 500")
    assert integrator("trigger", "export.complete") == (
        4,
        "",
        (
            "Error: there is no event type export.complete\n"
            "How to fix: did you mean export.completed? To list all: `uplift event-types`\n"
        ),
    )  # fmt: skip
    assert integrator("trigger", "--session", "lsn_0", "--endpoint", "ep_0")[0] == 2
    assert listening.stop() == 0
    code, _, err = integrator("trigger")
    assert (code, err.splitlines()[0]) == (4, "Error: no listen session is connected")


def test_trigger_to_a_listener_that_only_prints(integrator: Integrator) -> None:
    printing = Listening(integrator.environ, "--json").ready()
    assert integrator("trigger", TYPE)[0] == 0
    [delivery] = wait_for(lambda: printing.printed("delivery"), "the delivery is printed")
    assert (delivery["type"], delivery["test"], delivery["status_code"]) == (TYPE, True, None)
    assert printing.stop() == 0
    printing.close()


def test_endpoints_are_created_tested_paused_and_enabled(integrator: Integrator, receiver: Receiver) -> None:
    url = receiver.url("/x")
    [made] = integrator.json("endpoints", "create", url, "--type", "test.*", "--description", "ours")
    assert made["secret"].startswith("whsec_")
    code, out, err = integrator("endpoints", "create", receiver.url("/y"))
    assert (code, "whsec_" in out, "UPLIFT_WEBHOOK_SECRET" in err) == (0, True, True)
    assert integrator("endpoints", "create", "ftp://x")[0] == 2
    code, _, err = integrator("endpoints", "create", url, "--type", "test.numberd")
    assert (code, err.splitlines()[1]) == (2, "How to fix: correct --type")
    assert {each["url"] for each in integrator.json("endpoints")} == {url, receiver.url("/y")}
    heading, *lines = integrator("endpoints")[1].splitlines()
    assert heading.split("\t") == ["ENDPOINT", "URL", "STATE", "HEALTH", "TYPES"]
    assert any(line.split("\t")[:3] == [made["id"], url, "enabled"] for line in lines)
    [tested] = integrator.json("endpoints", "test", made["id"][:24])
    assert (tested["outcome"], tested["trigger"]) == ("delivered", "test")
    [tested] = integrator.json("trigger", TYPE, "--endpoint", made["id"])
    assert tested["outcome"] == "delivered"
    receiver.url("/x", respond(404))
    code, out, err = integrator("endpoints", "test", made["id"])
    assert (code, err.splitlines()[0]) == (1, "Error: the test attempt failed: client_error")
    code, _, err = integrator("endpoints", "test", made["id"], "--type", "test.numberd")
    assert (code, err.splitlines()[1]) == (
        4,
        "How to fix: did you mean test.numbered? To list all: `uplift event-types`",
    )
    [paused] = integrator.json("endpoints", "pause", made["id"])
    assert paused["state"] == "paused"
    assert integrator("endpoints", "enable", made["id"], "--held", "nonsense")[0] == 2
    [enabled] = integrator.json("endpoints", "enable", made["id"], "--held", "drop")
    assert enabled["state"] == "enabled"
    code, out, _ = integrator("endpoints", made["id"])
    assert (code, "ours" in out, "secret" in out) == (0, True, False)
    code, _, err = integrator("endpoints", "ep_nonsense")
    assert (code, "there is no endpoint" in err) == (4, True)
    assert integrator("endpoints", "ep_0")[0] == 2  # a prefix of both endpoint IDs


def test_events_and_deliveries_are_listed_shown_and_resent(integrator: Integrator, receiver: Receiver) -> None:
    endpoint = integrator.operator.endpoint(receiver.url("/x", respond(500)), event_types=[TYPE])["id"]
    event = integrator.operator.send(1).json["id"]
    [delivery] = integrator.api.ok("GET", f"/v1/events/{event}/deliveries")["data"]
    settled(integrator.api, delivery["id"])
    [listed] = integrator.json("events", "--type", TYPE)
    assert listed["id"] == event
    [shown] = integrator.json("events", event[:23])
    assert (shown["body"]["data"], shown["endpoints"][0]["reason"]) == ({"number": 1}, "failed")
    assert "failed" in integrator("events", "show", event)[1]
    assert integrator("events", "show", event, "--body")[1] == receiver.on("/x")[0].body.decode()
    assert integrator("events", "--type", TYPE)[1].splitlines()[1].split("\t")[2] == "failed 1"
    assert integrator("events", "list", "--type", "test.numberd")[0] == 4
    [listed] = integrator.json("deliveries", "--status", "failed", "--endpoint", endpoint, "--type", TYPE)
    assert listed["id"] == delivery["id"]
    assert integrator("deliveries", "--status", "nonsense")[0] == 2
    [shown] = integrator.json("deliveries", delivery["id"])
    assert [each["status_code"] for each in shown["attempts"]] == [500] * 5
    assert "server_error" in integrator("deliveries", "show", delivery["id"])[1]
    receiver.url("/x", respond(200))
    assert integrator("deliveries", "resend", delivery["id"])[0] == 0
    assert settled(integrator.api, delivery["id"])["status"] == "delivered"
    assert integrator("deliveries", "dlv_nonsense")[0] == 4


def test_ids_are_complete_on_a_terminal(integrator: Integrator, receiver: Receiver) -> None:
    endpoint = integrator.operator.endpoint(receiver.url(f"/{'x' * 100}"), event_types=[TYPE])["id"]
    event = integrator.operator.send(1).json["id"]
    [delivery] = integrator.api.ok("GET", f"/v1/events/{event}/deliveries")["data"]
    for command, whole in (("deliveries", delivery["id"]), ("endpoints", endpoint), ("events", event)):
        with on_terminal({**integrator.environ, "NO_COLOR": "1"}, command) as (process, shown):
            assert process.wait(20) == 0
        lines = shown.decode().splitlines()
        assert sum(line.startswith(whole) for line in lines) == 1
        assert max(map(len, lines)) <= 80
    with on_terminal(integrator.environ, "events", "show", event) as (process, shown):
        assert process.wait(20) == 0
    assert endpoint in shown.decode()


def test_objects_of_other_accounts_are_not_visible(server: Server, integrator: Integrator, receiver: Receiver) -> None:
    _, foreign = server.account("Lions")
    endpoint = foreign.endpoint(receiver.url("/x"))["id"]
    for command in (["show"], ["pause"], ["enable"], ["test"]):
        assert integrator("endpoints", *command, endpoint)[0] == 4
    assert integrator("endpoints")[1] == ""


def test_ips_need_no_key(integrator: Integrator) -> None:
    del integrator.environ["UPLIFT_API_KEY"]
    assert integrator.json("ips") == [{"address": "54.245.28.22", "from": None}]
    assert integrator("ips")[1] == "ADDRESS\tIN USE FROM\n54.245.28.22\tnow\n"
