"""Requests signed by us verify with what others wrote, and theirs with us."""

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import standardwebhooks
import urllib3
from hypothesis import assume, given
from hypothesis import strategies as st

from uplift_server.core.signing import Signer, check_secret
from uplift_webhooks import Webhook
from uplift_webhooks.testing import sign

HERE = Path(__file__).parent
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
CHOSEN = "e4a1" * 10
BODY = json.dumps(
    {"id": "0197f0c2-0000-7000-8000-000000000001", "type": "t.u", "data": {"object": {"name": "Zoë 🏀", "v": 1.0}}},
    ensure_ascii=False,
).encode()


def test_the_public_library_verifies_ours() -> None:
    headers = sign(BODY, [SECRET, CHOSEN])

    assert standardwebhooks.Webhook(SECRET).verify(BODY, headers) == json.loads(BODY)
    # The form in which the server shows a chosen token to users of such libraries.
    as_standard = "whsec_" + base64.b64encode(CHOSEN.encode()).decode()
    assert standardwebhooks.Webhook(as_standard).verify(BODY, headers) == json.loads(BODY)
    Webhook(as_standard).verify(BODY, headers)


def test_we_verify_the_public_librarys() -> None:
    now = datetime.now(tz=UTC)
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": standardwebhooks.Webhook(SECRET).sign("msg_1", now, BODY.decode()),
    }

    assert Webhook(SECRET).unwrap(BODY, headers).raw == json.loads(BODY)


@given(
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=16, max_size=256)
    | st.binary(min_size=24, max_size=64).map(lambda key: "whsec_" + base64.b64encode(key).decode()),
    st.binary().map(lambda value: b'{"id":"x","data":"' + value.hex().encode() + b'"}'),
)
def test_what_the_server_signs_verifies_by_either_signature(secret: str, body: bytes) -> None:
    assume(check_secret(secret) is None)
    timestamp = str(int(time.time()))
    uplift, standard = Signer([CHOSEN, secret], secret).sign(b"x", timestamp.encode(), body)

    Webhook(secret).verify(
        body, {"webhook-id": "x", "webhook-timestamp": timestamp, "webhook-signature": standard.decode()}
    )
    Webhook(secret, allow_uplift_signature=True).verify(body, {"x-uplift-signature-256": uplift.decode()})


@pytest.fixture
def http() -> Iterator[urllib3.PoolManager]:
    """A client that keeps its connections until the test ends."""
    with urllib3.PoolManager(timeout=10, retries=False) as pool:
        yield pool


@pytest.fixture
def receiver(request: pytest.FixtureRequest) -> Iterator[str]:
    """The base URL of a receiver process; the parameter is its script and secret."""
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
    ("receiver", "secret", "accepted", "refused"),
    [
        (("article_receiver.py", CHOSEN), CHOSEN, 200, 401),
        (("article_receiver.py", SECRET), SECRET, 200, 401),
        (("standard_receiver.py", SECRET), SECRET, 204, 400),
    ],
    indirect=["receiver"],
)
def test_receivers_without_our_code_verify_ours(
    receiver: str, secret: str, accepted: int, refused: int, http: urllib3.PoolManager
) -> None:
    url = f"{receiver}/webhook/submit"

    assert http.request("POST", url, body=BODY, headers=sign(BODY, secret)).status == accepted
    assert http.request("POST", url, body=BODY, headers=sign(BODY, "another-secret-16")).status == refused

    assert http.request("GET", f"{receiver}/received").json() == {
        "verified": 1,
        "rejected": 1,
        "ids": ["0197f0c2-0000-7000-8000-000000000001"],
    }
