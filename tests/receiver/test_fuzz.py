"""Fuzzing: every invalid request raises WebhookVerificationError only."""

import json
import time
from contextlib import suppress
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift_webhooks import Reason, Webhook, WebhookVerificationError
from uplift_webhooks.testing import sign

from . import fuzz

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NAMES = ["webhook-id", "webhook-timestamp", "webhook-signature", "x-uplift-signature-256"]
WEBHOOKS = [Webhook(SECRET), Webhook([SECRET, "0123456789abcdef"], allow_uplift_signature=True)]

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
names = (
    st.sampled_from(NAMES + [name.title() for name in NAMES] + ["HTTP_WEBHOOK_ID"])
    | st.sampled_from(NAMES).map(str.encode)
    | scalars
)
values = (
    scalars
    | st.integers(min_value=0).map(str)
    | st.integers(min_value=-400, max_value=400).map(lambda offset: str(int(time.time()) + offset))
    | st.from_regex(r"\A(v1,[A-Za-z0-9+/=]{0,44} ?){0,4}\Z")
    | st.from_regex(r"\Asha256=[0-9a-f]{0,64}\Z")
    | st.lists(scalars, max_size=3)
)
headers = (
    st.dictionaries(names, values, max_size=6)
    | st.lists(st.tuples(names, values), max_size=6)
    | st.lists(st.lists(values, max_size=3), max_size=4)
    | scalars
)
bodies = st.binary() | st.text() | scalars | st.dictionaries(st.text(), scalars)


def _check_verdict(body: Any, given_headers: Any) -> None:
    for webhook in WEBHOOKS:
        for call in (webhook.verify, webhook.unwrap):
            with suppress(WebhookVerificationError):
                call(body, given_headers)


@given(bodies, headers)
def test_any_body_with_any_headers(body: Any, given_headers: Any) -> None:
    _check_verdict(body, given_headers)


@given(bodies, st.dictionaries(st.sampled_from(NAMES), values))
def test_any_body_with_some_headers_replaced(body: Any, replaced: dict[str, Any]) -> None:
    signed = body if isinstance(body, bytes) else b"{}"
    _check_verdict(body, {**sign(signed, SECRET), **replaced})


json_values = st.recursive(scalars.filter(lambda value: not isinstance(value, bytes)), st.lists)


@given(
    st.dictionaries(
        st.sampled_from(["id", "object", "type", "api_version", "created", "data"]) | st.text(), json_values
    )
)
def test_any_signed_json_object(envelope: dict[str, Any]) -> None:
    body = json.dumps(envelope).encode()
    _check_verdict(body, sign(body, SECRET, message_id="msg_1"))


@given(st.binary(), st.integers(min_value=0))
def test_any_changed_bit_is_detected(body: bytes, position: int) -> None:
    body = b'{"a":"' + body.hex().encode() + b'"}'
    headers = sign(body, SECRET)
    WEBHOOKS[0].verify(body, headers)
    bit = position % (8 * len(body))
    changed = bytearray(body)
    changed[bit // 8] ^= 1 << bit % 8

    for webhook in WEBHOOKS:
        with pytest.raises(WebhookVerificationError, match="no_matching_signature"):
            webhook.verify(changed, headers)


@given(st.lists(scalars, max_size=3) | scalars)
def test_any_secret(secret: Any) -> None:
    with suppress(WebhookVerificationError):
        Webhook(secret)


def test_many_malformed_requests() -> None:
    """`fuzz.py` runs a million requests by default."""
    results = fuzz.run(20_000, seed=1)

    assert results.total() == 20_000
    # The requests must also reach the signature check.
    assert results["MovementAnalyticsCreated"] > 200
    assert results["UnknownEvent"] > 20
    assert results.keys() >= set(get_args(Reason)) - {"secret_missing", "secret_invalid"}
