"""OAuth 2.0 client credentials: an Authlib server issues tokens, and its receiver requires them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.dashboard.visitors import member, operator

from .harness import Api, Server, deliveries_of, serving, settled, wait_for
from .oauth_server import OAuthServer, oauth_server


@pytest.fixture
def oauth() -> Iterator[OAuthServer]:
    """A running OAuth server with a receiver."""
    with oauth_server() as server:
        yield server


def send(api: Api, number: int) -> Any:
    """Send an event, and return its completed delivery."""
    [delivery] = deliveries_of(api, api.send(number).json["id"])
    return settled(api, delivery["id"])


def attempts_of(api: Api, delivery: Any) -> Any:
    """Return the attempts of a delivery, oldest first."""
    return api.ok("GET", f"/v1/deliveries/{delivery['id']}/attempts?order=asc")["data"]


def numbers(oauth: OAuthServer) -> list[int]:
    """Return the numbers of the received events."""
    return [each["body"]["data"]["number"] for each in oauth.seen()["received"] if "number" in each["body"]["data"]]


def test_a_token_is_used_until_it_expires(server: Server, oauth: OAuthServer) -> None:
    _, api = server.account()
    created = api.endpoint(f"{oauth.url}/hook", auth=oauth.auth())
    assert created["auth"] == {
        "type": "oauth2_client_credentials",
        "token_url": f"{oauth.url}/token",
        "client_id": "uplift hooks",
        "scope": "hooks:write hooks:read",
    }
    assert [send(api, number)["status"] for number in range(5)] == ["delivered"] * 5
    assert len(oauth.seen()["tokens"]) == 1
    oauth.set(expires_in=1)
    api.ok("PATCH", f"/v1/endpoints/{created['id']}", {"auth": oauth.auth(scope="hooks:write")})
    send(api, 5)
    wait_for(
        lambda: send(api, 6) and len(oauth.seen()["tokens"]) > 2, "a new token replaces the expired one", every=0.5
    )


def test_concurrent_deliveries_share_one_token_request(server: Server, oauth: OAuthServer) -> None:
    _, api = server.account()
    api.endpoint(f"{oauth.url}/hook", auth=oauth.auth())
    items = [{"type": "test.numbered", "data": {"number": number}} for number in range(30)]
    api.ok("POST", "/v1/events/batch", {"events": items})
    wait_for(lambda: sorted(set(numbers(oauth))) == list(range(30)), "all events arrive")
    assert len(oauth.seen()["requested"]) == 1


def test_a_401_response_discards_the_token(server: Server, oauth: OAuthServer) -> None:
    _, api = server.account()
    api.endpoint(f"{oauth.url}/hook", auth=oauth.auth())
    assert send(api, 1)["status"] == "delivered"
    oauth.set(revoke=True)
    delivery = send(api, 2)
    first, second = attempts_of(api, delivery)
    assert (first["status_code"], second["status_code"]) == (401, 200)
    assert first["request"]["headers"]["authorization"] == "********"
    assert len(oauth.seen()["tokens"]) == 2


@pytest.mark.parametrize(
    ("fault", "error", "cause"),
    [
        ("down", "the server responded with 503", "token_missing"),
        ("redirect", "the server responded with 307, a redirect, which is not followed", "token_missing"),
        ("huge", "the response has more than 16384 bytes", "token_missing"),
        ("page", "the response has no valid access_token", "token_missing"),
    ],
)
def test_an_attempt_without_a_token_fails(
    server: Server, oauth: OAuthServer, fault: str, error: str, cause: str
) -> None:
    _, api = server.account()
    oauth.set(fault=fault)
    endpoint = api.endpoint(f"{oauth.url}/hook", auth=oauth.auth(), state="enabled")
    [delivery] = deliveries_of(api, api.send(1).json["id"])
    first = wait_for(lambda: attempts_of(api, delivery), "the first attempt fails")[0]
    assert first["error"] == f"token request: {error}"
    assert (first["outcome"], first["status_code"], first["request"]["headers"]) == ("protocol_error", None, {})
    assert first["response"] is None
    health = api.ok("GET", f"/v1/endpoints/{endpoint['id']}")["health"]
    assert (health["status"], health["cause"]) == ("failing", cause)
    oauth.set(fault=None)
    assert settled(api, delivery["id"])["status"] == "delivered"


def test_rejected_credentials_are_replaced_at_once(server: Server, oauth: OAuthServer) -> None:
    _, api = server.account()
    endpoint = api.endpoint(f"{oauth.url}/hook", auth=oauth.auth())["id"]
    assert send(api, 1)["status"] == "delivered"
    oauth.set(secret="rotated", revoke=True)
    delivery = send(api, 2)
    assert delivery["status"] == "failed"
    rejected, failed, *_ = attempts_of(api, delivery)
    assert rejected["status_code"] == 401
    assert failed["error"] == "token request: the server responded with 401 and the error invalid_client"
    assert api.ok("GET", f"/v1/endpoints/{endpoint}")["health"]["cause"] == "token_rejected"
    api.ok("PATCH", f"/v1/endpoints/{endpoint}", {"auth": oauth.auth(client_secret="rotated")})
    assert send(api, 3)["status"] == "delivered"
    api.ok("PATCH", f"/v1/endpoints/{endpoint}", {"auth": None})
    assert send(api, 4)["status"] == "failed"
    assert 4 not in numbers(oauth)


def test_neither_secrets_nor_tokens_are_shown_or_stored(tmp_path: Path, oauth: OAuthServer) -> None:
    with serving(tmp_path / "data", UPLIFT_LOG_FORMAT="json") as server:
        _check_hidden(server, oauth)


def _check_hidden(own_server: Server, oauth: OAuthServer) -> None:
    account, api = own_server.account()
    endpoint = api.endpoint(f"{oauth.url}/hook", auth=oauth.auth())["id"]
    delivery = send(api, 1)
    oauth.set(fault="down", revoke=True)
    failed = send(api, 2)
    secret = oauth.auth()["client_secret"]
    [token, *_] = oauth.seen()["tokens"]
    own, coach = f"/accounts/{account}", member(own_server, account)
    paths = (
        "/v1/endpoints", f"/v1/endpoints/{endpoint}", "/v1/audit-log", f"/v1/deliveries/{delivery['id']}/attempts",
        f"/v1/deliveries/{failed['id']}/attempts",
    )  # fmt: skip
    shown = [str(api.ok("GET", path)) for path in paths]
    pages = ["overview", f"deliveries/{failed['id']}"]
    pages += [f"endpoints/{endpoint}{tab}" for tab in ("", "/subscription", "/edit", "/activity")]
    for path in pages:
        page = coach.get(f"{own}/{path}")
        assert page.status == 200, path
        shown.append(page.html)
    shown.append(operator(own_server).get("/operator").html)
    own_server.stop()
    shown += own_server.log
    assert any(failed["id"] in line for line in own_server.log)
    for hidden in (secret, token, token[:60]):
        assert not [text for text in shown if hidden in text]
        assert hidden.encode() not in own_server.place.contents()
