"""Signature checks of endpoints with a real receiver: API, library and commands."""

import json

from uplift_webhooks.api import Client

from .harness import Server
from .listening import environment, uplift
from .receiving import Receiver, respond, verify

SECRET = "whsec_" + "QUJD" * 8


def test_a_receiver_that_verifies_signatures_is_verified(server: Server, receiver: Receiver) -> None:
    _, api = server.account()
    endpoint = api.endpoint(receiver.url("/hook", verify(SECRET)), secret=SECRET)
    assert endpoint["verified_at"] is None
    before = api.ok("GET", f"/v1/endpoints/{endpoint['id']}")["health"]

    checked = api.ok("POST", f"/v1/endpoints/{endpoint['id']}/verify")

    assert (checked["verified"], checked["verdict"], checked["hint"]) == (True, "verified", None)
    assert checked["wrong_signature"]["status_code"] == 401
    assert "wrong signature" in checked["wrong_signature"]["hint"]
    assert (checked["valid_signature"]["status_code"], checked["valid_signature"]["hint"]) == (204, None)
    shown = api.ok("GET", f"/v1/endpoints/{endpoint['id']}")
    assert shown["verified_at"] == checked["verified_at"]
    assert shown["health"] == before
    [entry] = api.ok("GET", "/v1/audit-log?action=endpoint.verified")["data"]
    assert entry["subject"] == endpoint["id"]
    api.ok("PATCH", f"/v1/endpoints/{endpoint['id']}", {"description": "same URL"})
    assert api.ok("GET", f"/v1/endpoints/{endpoint['id']}")["verified_at"] == checked["verified_at"]
    api.ok("PATCH", f"/v1/endpoints/{endpoint['id']}", {"url": receiver.url("/other")})
    assert api.ok("GET", f"/v1/endpoints/{endpoint['id']}")["verified_at"] is None


def test_a_receiver_that_accepts_everything_is_not_verified(server: Server, receiver: Receiver) -> None:
    account, operator = server.account()
    key = server.api().ok("POST", f"/v1/accounts/{account}/keys", {"name": "ana"})["key"]
    endpoint = operator.endpoint(receiver.url("/hook", respond(200)), secret=SECRET)["id"]
    environ = environment(server, key)

    failed = uplift(environ, "endpoints", "verify", endpoint)
    assert failed.returncode == 1
    assert failed.stderr.splitlines() == [
        "Error: Your server accepted a request with a wrong signature",
        "How to fix: Verify the signature before you respond with 2xx.",
    ]
    receiver.url("/hook", verify(SECRET))
    passed = uplift(environ, "endpoints", "verify", endpoint, "--json")
    assert (passed.returncode, json.loads(passed.stdout)["verdict"]) == (0, "verified"), passed.stderr
    with Client(environ["UPLIFT_API_URL"], key) as client:
        assert client.endpoints.verify(endpoint)["verified"] is True


def test_an_endpoint_of_another_account_is_not_found(server: Server) -> None:
    _, other = server.account("Other")
    foreign = other.endpoint("http://127.0.0.1:9/x")["id"]
    _, api = server.account()
    assert api("POST", f"/v1/endpoints/{foreign}/verify").status == 404


def test_a_missing_server_is_explained(server: Server) -> None:
    _, api = server.account()
    endpoint = api.endpoint("http://127.0.0.1:9/hook")["id"]
    checked = api.ok("POST", f"/v1/endpoints/{endpoint}/verify")
    assert (checked["verdict"], checked["verified"], checked["valid_signature"]) == ("error", False, None)
    assert "no program is listening" in checked["text"] + checked["hint"]
