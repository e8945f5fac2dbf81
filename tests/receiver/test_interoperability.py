"""Interoperability with public libraries: they verify our requests, and we verify theirs."""

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import standardwebhooks
import svix.webhooks
import urllib3
from hypothesis import assume, given
from hypothesis import strategies as st

from uplift_server.core.security.signing import Signer, check_secret, standard_form
from uplift_webhooks import Webhook
from uplift_webhooks.testing import sign

HERE = Path(__file__).parent
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
CHOSEN = "e4a1" * 10
BODY = json.dumps(
    {"id": "0197f0c2-0000-7000-8000-000000000001", "type": "t.u", "data": {"object": {"name": "Zoë 🏀", "v": 1.0}}},
    ensure_ascii=False,
).encode()


PUBLIC_LIBRARIES: dict[str, Callable[[str], Any]] = {
    "standardwebhooks": standardwebhooks.Webhook,
    "svix": svix.webhooks.Webhook,
}


@pytest.mark.parametrize("library", PUBLIC_LIBRARIES)
# Secrets in the format for Standard Webhooks libraries. Generated secrets already have it.
@pytest.mark.parametrize("shown", [SECRET, standard_form(CHOSEN)])
def test_public_libraries_verify_our_requests(library: str, shown: str) -> None:
    headers = sign(BODY, [SECRET, CHOSEN])

    PUBLIC_LIBRARIES[library](shown).verify(BODY, headers)
    Webhook(shown).verify(BODY, headers)
    for changed in (BODY.replace(b"1.0", b"1"), BODY + b"\n"):
        with pytest.raises(standardwebhooks.WebhookVerificationError):
            PUBLIC_LIBRARIES[library](shown).verify(changed, headers)


@pytest.mark.parametrize("library", PUBLIC_LIBRARIES)
@pytest.mark.parametrize(("shown", "secret"), [(SECRET, SECRET), (standard_form(CHOSEN), CHOSEN)])
def test_we_verify_requests_signed_by_public_libraries(library: str, shown: str, secret: str) -> None:
    now = datetime.now(tz=UTC)
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": PUBLIC_LIBRARIES[library](shown).sign("msg_1", now, BODY.decode()),
    }

    assert Webhook(secret).unwrap(BODY, headers).raw == json.loads(BODY)


@given(
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=16, max_size=256)
    | st.binary(min_size=24, max_size=64).map(lambda key: "whsec_" + base64.b64encode(key).decode()),
    st.binary().map(lambda value: b'{"id":"x","data":"' + value.hex().encode() + b'"}'),
)
def test_either_server_signature_verifies(secret: str, body: bytes) -> None:
    assume(check_secret(secret) is None)
    timestamp = str(int(time.time()))
    uplift, standard = Signer([CHOSEN, secret], secret).sign(b"x", timestamp.encode(), body)

    Webhook(secret).verify(
        body, {"webhook-id": "x", "webhook-timestamp": timestamp, "webhook-signature": standard.decode()}
    )
    Webhook(secret, allow_uplift_signature=True).verify(body, {"x-uplift-signature-256": uplift.decode()})


@pytest.fixture
def http() -> Iterator[urllib3.PoolManager]:
    """A client that keeps its connections until the end of the test."""
    with urllib3.PoolManager(timeout=10, retries=False) as pool:
        yield pool


@pytest.fixture
def receiver(request: pytest.FixtureRequest) -> Iterator[str]:
    """The base URL of a receiver process. The parameter is its script and secret."""
    script, secret = request.param
    process = subprocess.Popen(
        [sys.executable, HERE / script],
        env={**os.environ, "PORT": "0", "SECRET": secret},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    with process:
        port = process.stdout.readline().removeprefix("listening on ").strip()
        yield f"http://127.0.0.1:{port}"
        process.kill()


@pytest.mark.parametrize(
    ("receiver", "secret", "accepted", "rejected"),
    [
        (("article_receiver.py", CHOSEN), CHOSEN, 200, 401),
        (("article_receiver.py", SECRET), SECRET, 200, 401),
        (("standard_receiver.py", SECRET), SECRET, 204, 400),
    ],
    indirect=["receiver"],
)
def test_receivers_without_our_code_verify_our_requests(
    receiver: str, secret: str, accepted: int, rejected: int, http: urllib3.PoolManager
) -> None:
    url = f"{receiver}/webhook/submit"

    assert http.request("POST", url, body=BODY, headers=sign(BODY, secret)).status == accepted
    assert http.request("POST", url, body=BODY, headers=sign(BODY, "another-secret-16")).status == rejected

    assert http.request("GET", f"{receiver}/received").json() == {
        "verified": 1,
        "rejected": 1,
        "ids": ["0197f0c2-0000-7000-8000-000000000001"],
    }
