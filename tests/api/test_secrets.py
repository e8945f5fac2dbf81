"""Endpoint secrets: reveal with an audit entry, rotation with an overlap, and early expiry."""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

import pytest
import sqlalchemy as sa
from msgspec import structs
from rich.pretty import pretty_repr

from uplift_server.core import ids
from uplift_server.core.security.scopes import Scope
from uplift_server.core.security.signing import keys_of
from uplift_server.core.timestamps import parse_timestamp
from uplift_server.store import audit, endpoints
from uplift_server.store.errors import Unavailable
from uplift_server.store.pages import PageRequest

CUSTOM_SECRET = "a-token-of-my-own-choice"
DAY_S = 24 * 3600


@pytest.fixture(scope="module")
def account(server: Any) -> str:
    """Create an account for this module."""
    return str(server.account())


@pytest.fixture(scope="module")
def owner(server: Any, account: str) -> Any:
    """Create a client with all scopes of the account."""
    return server.owner(account, list(Scope))


@pytest.fixture
def endpoint(owner: Any) -> Any:
    """Create an endpoint, and return the response."""
    return owner.post("/v1/endpoints", {"url": "https://example.com/a"}).json


def path(endpoint: Mapping[str, Any], rest: str = "") -> str:
    return f"/v1/endpoints/{endpoint['id']}/secret{rest}"


def entries(server: Any, endpoint: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the audit entries of an endpoint's secrets, oldest first."""
    found = server.run(
        lambda: server.database.read(lambda c: audit.page(c, None, audit.AuditFilter(), PageRequest(500)).items)
    )
    return [
        (each.action, dict(each.details))
        for each in reversed(found)
        if each.subject == endpoint["id"] and each.action.startswith("secret.")
    ]


def cached_endpoint(server: Any, endpoint: Mapping[str, Any]) -> Any:
    """Return the endpoint in the cache."""
    endpoint_id = ids.parse_prefixed(ids.ENDPOINT, endpoint["id"])
    return server.services.context.cache.endpoints_by_id[endpoint_id]


def signatures(server: Any, endpoint: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """Return the signatures of the endpoint's next request."""
    uplift, standard = cached_endpoint(server, endpoint).parts.signer.sign(b"id", b"1", b"{}")
    return uplift, standard


def signed_by(*secrets: str) -> tuple[bytes, bytes]:
    """Return the expected signatures. The Uplift signature uses only the first secret."""
    tokens = [b"v1," + base64.b64encode(hmac.digest(keys_of(each).standard, b"id.1.{}", "sha256")) for each in secrets]
    uplift = hmac.new(secrets[0].encode(), b"{}", hashlib.sha256).hexdigest()
    return b"sha256=" + uplift.encode(), b" ".join(tokens)


# ---- reveal


def test_a_secret_is_revealed_with_permission_and_audited(server: Any, owner: Any, account: str, endpoint: Any) -> None:
    response = owner.get(path(endpoint))

    assert response.status == 200
    assert response.headers["cache-control"] == "no-store"
    assert response.json == {
        "secret": endpoint["secret"],
        "standard_webhooks_secret": endpoint["secret"],
        "created_at": endpoint["created_at"],
        "previous_expires_at": None,
        "uplift_header": "new",
    }
    assert server.client(server.operator_key, account).get(path(endpoint)).json == response.json
    assert server.operator.get(path(endpoint)).json == response.json
    assert entries(server, endpoint) == [("secret.revealed", {})] * 3


def test_a_custom_secret_is_shown_in_the_standard_format_too(owner: Any) -> None:
    endpoint = owner.post("/v1/endpoints", {"url": "https://example.com/a", "secret": CUSTOM_SECRET}).json

    shown = owner.get(path(endpoint)).json
    assert shown["secret"] == CUSTOM_SECRET
    assert shown["standard_webhooks_secret"] == "whsec_" + base64.b64encode(CUSTOM_SECRET.encode()).decode()


def test_the_audit_log_names_actor_and_address(server: Any, account: str, owner: Any, endpoint: Any) -> None:
    owner.get(path(endpoint))

    found = server.run(
        lambda: server.database.read(lambda c: audit.page(c, None, audit.AuditFilter(), PageRequest(1)).items[0])
    )
    holder = server.operator.get(f"/v1/accounts/{account}/keys").json["data"]
    assert found.actor.id in {each["id"] for each in holder}
    assert found.actor.address == "127.0.0.1"
    assert server.services.context.cache.accounts[found.account_seq].id == ids.parse_prefixed(ids.ACCOUNT, account)


def test_no_secret_is_revealed_without_an_audit_entry(
    server: Any, owner: Any, endpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise Unavailable("the disk is full")

    monkeypatch.setattr(audit, "add", fail)
    for response in (owner.get(path(endpoint)), owner.post(path(endpoint, "/rotate"))):
        assert response.code == "unavailable"
        assert endpoint["secret"].encode() not in response.body
    monkeypatch.undo()
    assert entries(server, endpoint) == []
    assert owner.get(path(endpoint)).json["secret"] == endpoint["secret"]


# ---- rotation


def test_a_rotation_keeps_the_old_secret_for_a_day(server: Any, owner: Any, endpoint: Any) -> None:
    response = owner.post(path(endpoint, "/rotate"))

    assert response.status == 200
    assert response.headers["cache-control"] == "no-store"
    new = response.json["secret"]
    assert new.startswith("whsec_")
    assert new != endpoint["secret"]
    assert response.json["standard_webhooks_secret"] == new
    assert response.json["uplift_header"] == "old"
    created_at, expires_at = (parse_timestamp(response.json[each]) for each in ("created_at", "previous_expires_at"))
    assert expires_at - created_at == DAY_S * 1000
    assert owner.get(path(endpoint)).json == response.json
    assert signatures(server, endpoint) == signed_by(endpoint["secret"], new)
    assert entries(server, endpoint)[0] == (
        "secret.rotated",
        {"chosen": False, "overlap_seconds": DAY_S, "uplift_header": "old"},
    )


def test_the_uplift_header_can_use_the_new_secret_at_once(server: Any, owner: Any, endpoint: Any) -> None:
    body = {"secret": CUSTOM_SECRET, "overlap_seconds": 60, "uplift_header": "new"}
    response = owner.post(path(endpoint, "/rotate"), body)

    assert response.json["secret"] == CUSTOM_SECRET
    assert response.json["uplift_header"] == "new"
    assert signatures(server, endpoint) == signed_by(CUSTOM_SECRET, endpoint["secret"])
    details = {"chosen": True, "overlap_seconds": 60, "uplift_header": "new"}
    assert entries(server, endpoint) == [("secret.rotated", details)]


def test_without_an_overlap_only_the_new_secret_signs(server: Any, owner: Any, endpoint: Any) -> None:
    response = owner.post(path(endpoint, "/rotate"), {"overlap_seconds": 0, "uplift_header": "old"}).json

    assert (response["previous_expires_at"], response["uplift_header"]) == (None, "new")
    assert signatures(server, endpoint) == signed_by(response["secret"])


def test_a_second_rotation_drops_the_oldest_secret(server: Any, owner: Any, endpoint: Any) -> None:
    first = owner.post(path(endpoint, "/rotate")).json["secret"]
    second = owner.post(path(endpoint, "/rotate")).json["secret"]

    assert signatures(server, endpoint) == signed_by(first, second)
    # A rotation back to the first secret is possible.
    owner.post(path(endpoint, "/rotate"), {"secret": first, "uplift_header": "new"})
    assert signatures(server, endpoint) == signed_by(first, second)


def test_the_overlap_is_limited_to_seven_days(owner: Any, endpoint: Any) -> None:
    longest = owner.post(path(endpoint, "/rotate"), {"overlap_seconds": 7 * DAY_S})
    assert longest.status == 200
    response = owner.post(path(endpoint, "/rotate"), {"overlap_seconds": 7 * DAY_S + 1})
    assert response.problems == {("overlap_seconds", "out_of_range")}


def test_all_problems_are_reported_together(server: Any, owner: Any, endpoint: Any) -> None:
    body = {"secret": "short", "overlap_seconds": -1, "uplift_header": "both", "secert": "x"}
    response = owner.post(path(endpoint, "/rotate"), body, idempotency_key="")

    assert response.problems == {
        ("secret", "secret_invalid"),
        ("overlap_seconds", "out_of_range"),
        ("uplift_header", "value_unknown"),
        ("secert", "unknown_field"),
        ("Idempotency-Key", "idempotency_key_invalid"),
    }
    same = {"secret": endpoint["secret"]}
    both = owner.post(path(endpoint, "/rotate"), {**same, "overlap_seconds": 10**9})
    assert both.problems == {("secret", "secret_unchanged"), ("overlap_seconds", "out_of_range")}
    foreign = owner.post(path(endpoint, "/rotate"), {"secret": "Überraschung" * 3})
    assert foreign.problems == {("secret", "secret_invalid")}
    alone = owner.post(path(endpoint, "/rotate"), same)
    assert alone.problems == {("secret", "secret_unchanged")}
    assert endpoint["secret"].encode() not in alone.body + both.body
    assert entries(server, endpoint) == []
    assert signatures(server, endpoint) == signed_by(endpoint["secret"])
    assert owner.post(path(endpoint, "/expire-old"), {"now": True}).problems == {("now", "unknown_field")}


def test_a_repeated_rotation_request_rotates_once(server: Any, owner: Any, endpoint: Any) -> None:
    for number, body in enumerate((None, {"secret": CUSTOM_SECRET})):
        key = f"{endpoint['id']} {number}"
        first = owner.post(path(endpoint, "/rotate"), body, idempotency_key=key)
        again = owner.post(path(endpoint, "/rotate"), body, idempotency_key=key)
        assert again.headers["idempotency-replayed"] == "true"
        assert "idempotency-replayed" not in first.headers
        shown = first.json
        secret = shown.pop("secret")
        del shown["standard_webhooks_secret"]
        assert again.json == shown
        assert owner.get(path(endpoint)).json["secret"] == secret
    assert [action for action, _ in entries(server, endpoint)].count("secret.rotated") == 2
    other = owner.post(path(endpoint, "/rotate"), {"overlap_seconds": 1}, idempotency_key=key)
    assert other.code == "idempotency_conflict"
    other_endpoint = owner.post("/v1/endpoints", {"url": "https://example.com/b"}).json
    assert owner.post(path(other_endpoint, "/rotate"), body, idempotency_key=key).code == "idempotency_conflict"


# ---- expiry of the old secret


def test_the_previous_secret_can_be_expired_early(server: Any, owner: Any, endpoint: Any) -> None:
    rotated = owner.post(path(endpoint, "/rotate")).json
    response = owner.post(path(endpoint, "/expire-old"))

    # The response omits the secret, because the caller may have only the scope secrets:write.
    expected = {"created_at": rotated["created_at"], "previous_expires_at": None, "uplift_header": "new"}
    assert (response.status, response.json) == (200, expected)
    assert signatures(server, endpoint) == signed_by(rotated["secret"])
    assert owner.post(path(endpoint, "/expire-old")).json == expected
    assert [action for action, _ in entries(server, endpoint)] == ["secret.rotated", "secret.old_expired"]
    assert cached_endpoint(server, endpoint).record.previous_secret is None


# ---- storage and permissions


def test_secrets_are_encrypted_in_the_store_and_absent_elsewhere(server: Any, owner: Any, endpoint: Any) -> None:
    owner.post(path(endpoint, "/rotate"), {"secret": CUSTOM_SECRET})
    owner.get(path(endpoint))

    record = cached_endpoint(server, endpoint).record
    texts = [repr(record), repr(cached_endpoint(server, endpoint)), json.dumps(entries(server, endpoint))]
    for table in ("endpoints", "audit_log", "idempotent_creates"):
        rows = server.run(
            lambda table=table: server.database.read(lambda c: c.execute(sa.text(f"SELECT * FROM {table}")).all())
        )
        texts += [repr(tuple(row)) for row in rows]
    for secret in (endpoint["secret"], CUSTOM_SECRET):
        assert not [text for text in texts if secret in text]
    encrypted = {"secret": b"s1", "previous_secret": b"s2", "headers": b"s3", "auth": b"s4"}
    changed = structs.replace(record, **encrypted)
    for shown in (repr(changed), pretty_repr(changed)):
        assert not [value for value in encrypted.values() if repr(value) in shown]


def test_a_deleted_endpoint_has_no_secret(owner: Any, endpoint: Any) -> None:
    owner.delete(f"/v1/endpoints/{endpoint['id']}")

    for response in (
        owner.get(path(endpoint)),
        owner.post(path(endpoint, "/rotate")),
        owner.post(path(endpoint, "/expire-old")),
        owner.get("/v1/endpoints/ep_nonsense/secret"),
    ):
        assert (response.status, response.code) == (404, "not_found")


def test_an_endpoint_during_its_deletion_has_no_secret(server: Any, owner: Any, endpoint: Any) -> None:
    """The database has the deletion, but the cache does not yet."""
    endpoint_id = cached_endpoint(server, endpoint).record.id
    server.run(lambda: server.database.write(lambda c: endpoints.delete(c, None, endpoint_id, now=1)))

    for response in (
        owner.get(path(endpoint)),
        owner.post(path(endpoint, "/rotate")),
        owner.post(path(endpoint, "/expire-old")),
    ):
        assert (response.status, response.code) == (404, "not_found")
    assert entries(server, endpoint) == []
