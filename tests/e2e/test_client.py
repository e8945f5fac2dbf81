"""The integrators' API client with a real server."""

from typing import Any

import pytest

from uplift_webhooks import Webhook
from uplift_webhooks.api import ApiError, Client
from uplift_webhooks.deduplication import MemoryDeduplicator

from .harness import TYPE, Server, settled, wait_for
from .receiving import Receiver, respond


def test_an_integrator_registers_sends_inspects_and_reconciles(server: Server, receiver: Receiver) -> None:
    account, api = server.account()
    key = server.api().ok("POST", f"/v1/accounts/{account}/keys", {"name": "what keys have without scopes"})["key"]
    with Client(server.url, key) as client, Client(server.url, api_key="op_wrong") as wrong_client:
        endpoint = client.endpoints.create(receiver.url("/hook", respond(500)), event_types=[TYPE])
        assert endpoint["secret"].startswith("whsec_")
        with pytest.raises(ApiError, match="403 forbidden"):
            client.endpoints.secret(endpoint["id"])
        sent = [api.send(number).json["id"] for number in range(5)]

        run = client.reconcile(types=[TYPE])
        assert [event["id"] for event in run] == sent
        assert list(client.reconcile(run.cursor)) == []
        later = api.send(5).json["id"]
        assert [event["id"] for event in client.reconcile(run.cursor, ["*.nothing", TYPE])] == [later]
        assert client.events.fetch(later).data["number"] == 5

        receiver.url("/hook", respond(200))
        [delivery] = client.events.deliveries(sent[0]).data
        settled(api, delivery["id"])
        assert client.deliveries.attempts(delivery["id"]).data[0]["number"] >= 1
        assert {each["id"] for each in client.events.iterate(type=TYPE)} == {*sent, later}
        assert client.endpoints.pause(endpoint["id"])["state"] == "paused"
        assert client.endpoints.enable(endpoint["id"], "drop")["state"] == "enabled"
        assert client.endpoints.update(endpoint["id"], description="new")["description"] == "new"
        client.endpoints.delete(endpoint["id"])
        with pytest.raises(ApiError) as missing:
            client.endpoints.get(endpoint["id"])
        assert (missing.value.status, missing.value.code) == (404, "not_found")
        with pytest.raises(ApiError, match="401 unauthorized"):
            wrong_client.endpoints.list()
        assert wrong_client.source_ips()["current"]


def test_tests_are_marked_and_skipped(server: Server, receiver: Receiver) -> None:
    account, api = server.account()
    seen = MemoryDeduplicator()
    with Client(server.url, server.environ["UPLIFT_OPERATOR_KEY"], account=account) as client:
        endpoint = client.endpoints.create(receiver.url("/marked"), event_types=["athlete.created"])
        test = client.endpoints.test(endpoint["id"], "athlete.created")["delivery"]
        live = api.ok("POST", "/v1/events", {"type": "athlete.created", "data": receiver.on("/marked")[0].json["data"]})
        requests = receiver.wait("/marked", 2)
        webhook = Webhook(endpoint["secret"])
        events = {webhook.unwrap(each.body, each.headers).test: each for each in requests}
        assert [(each.headers.get("x-uplift-test")) for each in (events[True], events[False])] == ["true", None]
        for is_test, request in events.items():
            with seen.newest(webhook.unwrap(request.body, request.headers)) as newest:
                assert newest is not is_test
            assert client.events.fetch(request.headers["webhook-id"]).test is is_test
            event = request.headers["webhook-id"]
            own = {"endpoint": endpoint["id"], "type": "athlete.created", "test": is_test}
            assert [each["event"] for each in client.deliveries.list(**own).data] == [event]
            assert [each["event"] for each in client.endpoints.deliveries(**own).data] == [event]
            for order in (None, "asc"):
                found = client.events.list(type="athlete.created", test=is_test, order=order)
                assert [(each["id"], each["test"]) for each in found.data] == [(event, is_test)]
        assert client.deliveries.get(test)["test"] is True
        assert [each["id"] for each in client.reconcile(types=["athlete.*"])] == [live["id"]]
        assert len(list(client.reconcile(types=["athlete.*"], include_tests=True))) == 2
        assert [each.field for each in _rejected(client, test="maybe").errors] == ["test"]


def _rejected(client: Client, **filters: Any) -> ApiError:
    with pytest.raises(ApiError) as rejected:
        client.deliveries.list(**filters)
    return rejected.value


def test_all_problems_of_a_request_are_reported_by_field(server: Server) -> None:
    account, _ = server.account()
    with Client(server.url, server.environ["UPLIFT_OPERATOR_KEY"], account=account) as client:
        with pytest.raises(ApiError) as rejected:
            client.endpoints.create("ftp://example.com", event_types=["no.such.type"])
        assert {(error.field, error.code) for error in rejected.value.errors} == {
            ("url", "url_scheme"),
            ("event_types", "event_type_unknown"),
        }


def test_an_integrator_replays_cancelled_deliveries(server: Server, receiver: Receiver) -> None:
    server.account()
    with Client(server.url, server.environ["UPLIFT_OPERATOR_KEY"]) as operator:
        made = operator.accounts.create("Rapids Academy", contact_emails=["data@rapids.example"])
        assert operator.accounts.update(made["id"], name="Rapids")["name"] == "Rapids"
        key = operator.keys.create(made["id"], "laptop", scopes=["endpoints:write", "deliveries:write"])
        with Client(server.url, key["key"]) as client:
            endpoint = client.endpoints.create(receiver.url("/hook"), event_types=[TYPE])["id"]
            client.endpoints.pause(endpoint)
            sent = operator.events.send_batch(
                [{"type": TYPE, "data": {"number": number}, "account": made["id"]} for number in range(3)]
            )
            acting = server.api(account=made["id"])
            for event in sent["data"]:
                [delivery] = acting.ok("GET", f"/v1/events/{event['id']}/deliveries")["data"]
                client.deliveries.cancel(delivery["id"])
            client.endpoints.enable(endpoint)
            assert client.replays.create(endpoint, status=["cancelled"], dry_run=True)["count"] == 3
            replay = client.replays.create(endpoint, status=["cancelled"], rate_per_second=100)
            with Client(server.url, server.environ["UPLIFT_OPERATOR_KEY"], account=made["id"]) as operator_client:
                wait_for(
                    lambda: operator_client.replays.get(replay["id"])["state"] == "completed", "the replay is completed"
                )
                found = {
                    each["event"] for each in operator_client.endpoints.deliveries(endpoint, status="delivered").data
                }
                assert {each["id"] for each in sent["data"]} <= found
                assert "replay.created" in {each["action"] for each in operator_client.audit_log.iterate()}
            operator.keys.revoke(made["id"], key["id"])
            with pytest.raises(ApiError, match="401 unauthorized"):
                client.replays.list()
        operator.accounts.delete(made["id"])
        assert made["id"] not in {each["id"] for each in operator.accounts.iterate()}
