"""`Idempotency-Key`: repeated and concurrent requests create one object."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

URL = {"url": "https://example.com/a"}


def test_a_repeated_request_returns_the_same_object_without_its_secret(server: Any) -> None:
    """Covers accounts, keys and endpoints."""
    account = server.account()
    owner = server.owner(account)
    for client, path, body, secret in (
        (server.operator, "/v1/accounts", {"name": "Once"}, None),
        (server.operator, f"/v1/accounts/{account}/keys", {"name": "once"}, "key"),
        (owner, "/v1/endpoints", URL, "secret"),
    ):
        key = str(uuid.uuid4())
        first = client.post(path, body, idempotency_key=key)
        again = client.post(path, body, idempotency_key=key)
        assert (first.status, again.status) == (201, 201)
        assert "idempotency-replayed" not in first.headers
        assert again.headers["idempotency-replayed"] == "true"
        expected = first.json
        if secret is not None:
            assert expected.pop(secret)
        assert again.json == expected
    assert len(owner.get("/v1/endpoints").json["data"]) == 1
    assert len(owner.get("/v1/events").json["data"]) == 1


def test_a_repeated_listen_session_has_its_secret_for_the_same_key(server: Any) -> None:
    """The secret is derived from the API key, so a client that lost the response can still connect."""
    account = server.account()
    owner, colleague = server.owner(account, ["listen"]), server.owner(account, ["listen"])
    body = {"description": "ana-laptop", "since": "2026-01-01T00:00:00Z"}
    first = owner.post("/v1/listen-sessions", body, idempotency_key="k")
    again = owner.post("/v1/listen-sessions", body, idempotency_key="k")
    assert (first.status, again.status, again.json) == (201, 201, first.json)
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert len(owner.get("/v1/listen-sessions").json["data"]) == 1
    others = colleague.post("/v1/listen-sessions", body, idempotency_key="k").json
    assert (others["id"], "secret" in others) == (first.json["id"], False)
    assert owner.post("/v1/listen-sessions", {}, idempotency_key="k").code == "idempotency_conflict"
    assert owner.post("/v1/listen-sessions", body, idempotency_key="").problems == {
        ("Idempotency-Key", "idempotency_key_invalid")
    }
    owner.delete(f"/v1/listen-sessions/{first.json['id']}")
    assert owner.post("/v1/listen-sessions", body, idempotency_key="k").code == "idempotency_conflict"


def test_concurrent_requests_create_one_object(server: Any) -> None:
    """Only one response has the secret."""
    owner = server.owner(server.account())
    with ThreadPoolExecutor(8) as pool:
        responses = list(pool.map(lambda _: owner.post("/v1/endpoints", URL, idempotency_key="k"), range(24)))
    assert {response.status for response in responses} == {201}
    assert len({response.json["id"] for response in responses}) == 1
    assert sum("secret" in response.json for response in responses) == 1
    assert len(owner.get("/v1/endpoints").json["data"]) == 1


def test_a_key_identifies_one_request(server: Any) -> None:
    """A different body, a different call or a deleted object results in 409. Each account has its own keys."""
    account = server.account()
    owner, other = server.owner(account), server.owner(server.account())
    created = owner.post("/v1/endpoints", URL, idempotency_key="k").json
    for response in (
        owner.post("/v1/endpoints", URL | {"description": "x"}, idempotency_key="k"),
        server.operator.post(f"/v1/accounts/{account}/keys", {"name": "x"}, idempotency_key="k"),
    ):
        assert (response.status, response.code) == (409, "idempotency_conflict")
    assert other.post("/v1/endpoints", URL, idempotency_key="k").json["id"] != created["id"]
    # An operator who acts for the account shares its idempotency keys.
    acting = server.client(server.operator_key, account)
    assert acting.post("/v1/endpoints", URL, idempotency_key="k").json["id"] == created["id"]
    owner.delete(f"/v1/endpoints/{created['id']}")
    assert owner.post("/v1/endpoints", URL, idempotency_key="k").code == "idempotency_conflict"


def test_a_rejected_request_does_not_use_its_key(server: Any) -> None:
    """The corrected request can use the same key. Empty and too long keys are rejected."""
    owner = server.owner(server.account())
    assert owner.post("/v1/endpoints", {"url": "x"}, idempotency_key="k").status == 422
    assert owner.post("/v1/endpoints", URL, idempotency_key="k").status == 201
    for key in ("", "x" * 256):
        response = owner.post("/v1/endpoints", URL, idempotency_key=key)
        assert response.problems == {("Idempotency-Key", "idempotency_key_invalid")}
