"""The integrators' client against a real server."""

import pytest

from uplift_webhooks.api import ApiError, Client

from .harness import TYPE, Server, settled
from .receiving import Receiver, answer


def test_an_integrator_registers_sends_looks_and_reconciles(server: Server, receiver: Receiver) -> None:
    account, api = server.account()
    key = server.api().ok("POST", f"/v1/accounts/{account}/keys", {"name": "what keys have without scopes"})["key"]
    with Client(server.url, key) as client, Client(server.url, api_key="op_wrong") as stranger:
        endpoint = client.endpoints.create(receiver.url("/hook", answer(500)), event_types=[TYPE])
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

        receiver.url("/hook", answer(200))
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
            stranger.endpoints.list()
        assert stranger.source_ips()["current"]


def test_everything_wrong_with_a_request_is_told_by_field(server: Server) -> None:
    account, _ = server.account()
    with Client(server.url, server.environ["UPLIFT_OPERATOR_KEY"], account=account) as client:
        with pytest.raises(ApiError) as refused:
            client.endpoints.create("ftp://example.com", event_types=["no.such.type"])
        assert {(error.field, error.code) for error in refused.value.errors} == {
            ("url", "url_scheme"),
            ("event_types", "event_type_unknown"),
        }
