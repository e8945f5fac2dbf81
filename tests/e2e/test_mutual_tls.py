"""Mutual TLS: a receiver in another process accepts only clients with a certificate from its authority."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from tests.dashboard.visitors import member

from .harness import Api, Server, deliveries_of, serving, settled
from .mtls_receiver import MtlsReceiver, mtls_receiver


@pytest.fixture
def tls_receiver(tmp_path: Path) -> Iterator[MtlsReceiver]:
    """A running receiver."""
    with mtls_receiver(tmp_path) as receiver:
        yield receiver


@pytest.fixture
def tls_server(tmp_path: Path, tls_receiver: MtlsReceiver) -> Iterator[Server]:
    """A server that trusts the authority of the receiver."""
    files = {"UPLIFT_EGRESS_CA_FILE": str(tls_receiver.ca_file), "UPLIFT_LOG_FORMAT": "json"}
    with serving(tmp_path / "data", **files) as server:
        yield server


def last_attempt(api: Api, number: int) -> Any:
    """Send an event, and return the last attempt of its completed delivery."""
    [delivery] = deliveries_of(api, api.send(number).json["id"])
    settled(api, delivery["id"])
    return api.ok("GET", f"/v1/deliveries/{delivery['id']}/attempts")["data"][0]


def test_each_endpoint_presents_its_own_certificate(tls_server: Server, tls_receiver: MtlsReceiver) -> None:
    for name in ("one", "two"):
        _, api = tls_server.account(name)
        endpoint = api.endpoint(tls_receiver.url, auth=tls_receiver.auth(name))["id"]
        assert last_attempt(api, 1)["response"]["body"] == f'"{name}"'
        api.ok("PATCH", f"/v1/endpoints/{endpoint}", {"auth": tls_receiver.auth(f"{name} renewed")})
        assert last_attempt(api, 2)["response"]["body"] == f'"{name} renewed"'


def test_a_missing_or_rejected_certificate_is_explained(tls_server: Server, tls_receiver: MtlsReceiver) -> None:
    _, api = tls_server.account()
    endpoint = api.endpoint(tls_receiver.url)["id"]
    path = f"/v1/endpoints/{endpoint}"
    attempt = last_attempt(api, 1)
    assert (attempt["outcome"], attempt["error"]) == ("tls_error", "the TLS connection failed: certificate required")
    assert api.ok("GET", path)["health"]["cause"] == "client_certificate_required"
    api.ok("PATCH", path, {"auth": tls_receiver.auth("stranger", trustme.CA())})
    assert last_attempt(api, 2)["error"] == "the TLS connection failed: unknown ca"
    assert api.ok("GET", path)["health"]["cause"] == "client_certificate_rejected"
    api.ok("PATCH", path, {"auth": tls_receiver.auth("known")})
    assert last_attempt(api, 3)["outcome"] == "delivered"


def test_a_client_certificate_needs_https(tls_server: Server, tls_receiver: MtlsReceiver) -> None:
    _, api = tls_server.account()
    plain, auth = tls_receiver.url.replace("https:", "http:"), tls_receiver.auth("one")
    assert api("POST", "/v1/endpoints", {"url": plain, "auth": auth}).json["errors"][0]["code"] == "https_required"
    path = f"/v1/endpoints/{api.endpoint(tls_receiver.url, auth=auth)['id']}"
    for change, status in (({"url": plain}, 422), ({"url": plain, "auth": None}, 200), ({"auth": auth}, 422)):
        assert api("PATCH", path, change).status == status


def test_a_private_key_is_only_in_memory(tls_server: Server, tls_receiver: MtlsReceiver, tmp_path: Path) -> None:
    account, api = tls_server.account()
    auth = tls_receiver.auth("one")
    endpoint = api.endpoint(tls_receiver.url, auth=auth)["id"]
    assert last_attempt(api, 1)["outcome"] == "delivered"
    shown = [str(api.ok("GET", path)) for path in (f"/v1/endpoints/{endpoint}", "/v1/audit-log")]
    coach = member(tls_server, account)
    for page in ("subscription", "edit", "activity"):
        shown.append(coach.get(f"/accounts/{account}/endpoints/{endpoint}/{page}").html)
    tls_server.stop()
    shown += tls_server.log
    lines = [line for line in auth["private_key"].splitlines() if len(line) == 64]
    stored = tls_server.place.contents() + b"".join(
        each.read_bytes() for each in tls_server.data.rglob("*") if each.is_file()
    )
    for hidden in (lines[0], base64.b64decode(lines[0])):
        assert not [text for text in shown if str(hidden) in text]
        assert (hidden if isinstance(hidden, bytes) else hidden.encode()) not in stored
