"""Explanations: every common mistake has its cause, and no secret leaks."""

import base64
import json
import time
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift_webhooks import Webhook, WebhookVerificationError
from uplift_webhooks.explanation import VERIFIED, Cause
from uplift_webhooks.secret import parse_secret
from uplift_webhooks.signature import standard_signature, uplift_signature
from uplift_webhooks.testing import make_event, sign

from .conftest import Clock

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_" + base64.b64encode(b"o" * 32).decode()
BODY = make_event(athlete={"id": "a", "name": "Zoë"})
VALUE = json.loads(BODY)
NOW = time.time()
SIGNED = sign(BODY, SECRET)
STANDARD, UPLIFT = "webhook-signature", "x-uplift-signature-256"


@pytest.fixture(scope="module", autouse=True)
def _signed_now() -> Iterator[None]:
    """Stop the clock at the import of this module, so that its signatures stay valid."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: NOW)
        yield


def _sorted() -> bytes:
    return json.dumps(VALUE, sort_keys=True).encode()


def _dumped(**how: Any) -> bytes:
    return json.dumps(VALUE, **how).encode()


def _without(*names: str, **replaced: str) -> dict[str, str]:
    found = {name: value for name, value in SIGNED.items() if name not in names}
    return {**found, **{name.replace("_", "-"): value for name, value in replaced.items()}}


def _signed_with(key: bytes) -> dict[str, str]:
    signature = standard_signature(key, SIGNED["webhook-id"].encode(), SIGNED["webhook-timestamp"].encode(), BODY)
    return _without(UPLIFT, webhook_signature=f"v1,{signature.decode()}")


def _with_content_length(length: int) -> dict[str, str]:
    return {**SIGNED, "Content-Length": str(length)}


def _envelope_around(data: bytes) -> bytes:
    """Return a body with the sender's data, unchanged, in Uplift's envelope, which has no spaces."""
    return BODY[: BODY.index(b',"data":')] + b',"data":' + data + b"}"


def _as_javascript_writes(body: bytes) -> bytes:
    return json.dumps(json.loads(body), ensure_ascii=False, separators=(",", ":")).encode()


SPACED = _envelope_around(json.dumps(VALUE["data"]).encode())
INDENTED = _envelope_around(json.dumps(VALUE["data"], ensure_ascii=False, indent=2).encode())
SWAPPED = {**SIGNED, "webhook-id": SIGNED["webhook-timestamp"], "webhook-timestamp": SIGNED["webhook-id"]}
LETTER_CHANGED = BODY.replace(b'"name":"Z', b'"name":"R')
FOREIGN = json.dumps({"b": 1, "a": "é"}, indent=2).encode()
TEXT = json.dumps(BODY.decode()).encode()

MISTAKES: list[tuple[str, Any, bytes, Any]] = [
    # Bodies
    ("body_reserialised", SECRET, _dumped(), SIGNED),
    ("body_reserialised", SECRET, _dumped(separators=(",", ":")), SIGNED),
    ("body_reserialised", SECRET, _dumped(ensure_ascii=False), SIGNED),
    ("body_reserialised", SECRET, _dumped(indent=2, ensure_ascii=False), SIGNED),
    ("body_reserialised", SECRET, _sorted(), SIGNED),
    ("body_reserialised", SECRET, TEXT, SIGNED),
    ("body_reserialised", SECRET, b'{"a":"\\u00e9","b":1}', sign(b'{"a": "\xc3\xa9", "b": 1}', SECRET)),
    ("body_reserialised", SECRET, b'[1, "x"]', sign(b'[1,"x"]', SECRET)),
    ("body_reserialised", [OTHER, SECRET], _dumped(), SIGNED),
    ("body_reserialised", SECRET, _dumped(), _without(STANDARD, "webhook-id", "webhook-timestamp")),
    ("body_reserialised", SECRET, _dumped(), _with_content_length(len(BODY))),
    ("body_reserialised", SECRET, _as_javascript_writes(SPACED), sign(SPACED, SECRET)),
    ("body_reserialised", SECRET, _as_javascript_writes(SPACED), {**sign(SPACED, SECRET), "content-length": "9"}),
    ("body_reserialised", SECRET, _as_javascript_writes(INDENTED), sign(INDENTED, SECRET)),
    ("body_reserialised", SECRET, json.dumps(json.loads(INDENTED)).encode(), sign(INDENTED, SECRET)),
    ("body_reserialised", SECRET, b'{"a":1}', sign(b'{\n  "a": 1\n}', SECRET)),
    ("body_recoded", SECRET, BODY + b"\n", SIGNED),
    ("body_recoded", SECRET, BODY + b"\r\n", SIGNED),
    ("body_recoded", SECRET, BODY, sign(BODY + b"\n", SECRET)),
    ("body_recoded", SECRET, FOREIGN, sign(FOREIGN.replace(b"\n", b"\r\n"), SECRET)),
    ("body_recoded", SECRET, FOREIGN.replace(b"\n", b"\r\n"), sign(FOREIGN, SECRET)),
    ("body_recoded", SECRET, b"\xef\xbb\xbf" + BODY, SIGNED),
    ("body_recoded", SECRET, BODY.decode("latin-1").encode(), SIGNED),
    ("body_recoded", SECRET, BODY.decode().encode("latin-1"), SIGNED),
    ("body_recoded", SECRET, base64.b64encode(BODY), SIGNED),
    ("body_empty", SECRET, b"", SIGNED),
    ("body_truncated", SECRET, BODY[:-40], SIGNED),
    ("body_truncated", SECRET, BODY[:-40], {**SIGNED, "Content-Length": str(len(BODY))}),
    ("body_truncated", SECRET, BODY[:-40], [(b"content-length", b"9" * 5000), *SIGNED.items()]),
    ("body_truncated", SECRET, b'"x"', {"CONTENT_LENGTH": "9", "HTTP_WEBHOOK_SIGNATURE": SIGNED[STANDARD]}),
    ("body_truncated", SECRET, BODY[:-40], _with_content_length(len(BODY))),
    ("body_changed", SECRET, LETTER_CHANGED + b"   ", _with_content_length(len(BODY))),
    ("body_changed", SECRET, BODY + b"}", SIGNED),
    ("body_changed", SECRET, BODY + b"x", _with_content_length(len(BODY))),
    ("secret_wrong", SECRET, LETTER_CHANGED, SIGNED),
    ("secret_wrong", SECRET, LETTER_CHANGED, _with_content_length(len(BODY))),
    ("headers_of_another_request", SECRET, make_event(), SIGNED),
    ("headers_of_another_request", SECRET, make_event(), _with_content_length(1)),
    ("body_not_json_object", SECRET, b"[]", sign(b"[]", SECRET)),
    ("body_not_event", SECRET, b'{"id":5}', sign(b'{"id":5}', SECRET)),
    ("body_not_event", SECRET, b"{}", sign(b"{}", SECRET)),
    # Headers
    ("headers_swapped", SECRET, BODY, SWAPPED),
    ("headers_changed", SECRET, BODY, _without(webhook_id="another")),
    ("headers_changed", SECRET, BODY, _without("webhook-id")),
    ("header_duplicated", SECRET, BODY, [*SIGNED.items(), ("Webhook-Id", "another")]),
    ("header_duplicated", SECRET, BODY, {**SIGNED, "webhook-timestamp": f"{SIGNED['webhook-timestamp']}, 5"}),
    ("header_duplicated", SECRET, BODY, {**SIGNED, STANDARD: f"{SIGNED[STANDARD]}, v1,{'A' * 43}="}),
    ("header_truncated", SECRET, BODY, {**SIGNED, STANDARD: SIGNED[STANDARD][:30]}),
    ("scheme_mixed_up", SECRET, BODY, {**SIGNED, STANDARD: SIGNED[UPLIFT]}),
    ("scheme_mixed_up", SECRET, BODY, {**SIGNED, STANDARD: SIGNED[UPLIFT], UPLIFT: SIGNED[STANDARD]}),
    ("scheme_mixed_up", SECRET, BODY, {UPLIFT: SIGNED[STANDARD]}),
    ("missing_header", SECRET, BODY, {UPLIFT: SIGNED[UPLIFT]}),
    ("missing_header", SECRET, BODY, {"content-type": "application/json"}),
    ("missing_header", SECRET, _dumped(), {}),
    ("malformed_header", SECRET, BODY, {**SIGNED, STANDARD: " ".join([SIGNED[STANDARD]] * 17)}),
    ("headers_unreadable", SECRET, BODY, 5),
    # Secrets
    ("secret_wrong", OTHER, BODY, SIGNED),
    ("secret_wrong", [OTHER, "0123456789abcdef"], BODY, SIGNED),
    ("secret_decorated", f'"{SECRET}"', BODY, SIGNED),
    ("secret_decorated", f"'{SECRET}',", BODY, SIGNED),
    ("secret_decorated", f"UPLIFT_WEBHOOK_SECRET={SECRET}", BODY, SIGNED),
    ("secret_decorated", f"secret:{SECRET}", BODY, SIGNED),
    ("secret_decorated", "TOKEN='0123456789abcdef'", BODY, sign(BODY, "0123456789abcdef")),
    ("secret_without_prefix", SECRET.removeprefix("whsec_"), BODY, SIGNED),
    ("secret_without_prefix", SECRET.removeprefix("whsec_"), BODY, {UPLIFT: SIGNED[UPLIFT]}),
    ("key_not_decoded", SECRET, BODY, _signed_with(SECRET.encode())),
    ("key_not_decoded", SECRET, BODY, _signed_with(SECRET.removeprefix("whsec_").encode())),
]  # fmt: skip


def _text_of(secret: Any) -> list[str]:
    return [secret] if isinstance(secret, str) else secret


@pytest.mark.parametrize(("cause", "secret", "body", "headers"), MISTAKES)
@pytest.mark.parametrize("uplift_allowed", [False, True])
def test_each_mistake_has_its_cause(cause: str, secret: Any, body: bytes, headers: Any, uplift_allowed: bool) -> None:
    webhook = Webhook(secret, allow_uplift_signature=uplift_allowed)
    if uplift_allowed and isinstance(headers, dict) and headers.keys() == {UPLIFT} and cause == "missing_header":
        assert webhook.explain(body, headers) == VERIFIED
        return

    found = webhook.explain(body, headers)

    assert (found.verified, found.cause) == (False, cause)
    assert found.text.endswith(".")
    assert found.hint.endswith((".", "?"))
    for text in _text_of(secret):
        assert text.strip("\"',") not in str(found)
        _assert_no_signature(str(found), text, body, headers)


def _assert_no_signature(text: str, secret: str, body: bytes, headers: Any) -> None:
    keys = parse_secret(secret)
    assert uplift_signature(keys.uplift_key, body).decode() not in text
    assert SIGNED[STANDARD][3:] not in text
    assert "Zoë" not in text


def test_a_changed_body_is_reported() -> None:
    found = Webhook(SECRET).explain(LETTER_CHANGED, SIGNED)
    assert LETTER_CHANGED != BODY
    assert "the body was changed" in found.text


def test_every_cause_is_tested() -> None:
    reasons, found = map(get_args, get_args(Cause))
    assert {cause for cause, *_ in MISTAKES} | {"clock_off"} >= set(found)
    assert not set(reasons) & set(found)


def test_a_valid_request_is_explained_as_verified() -> None:
    assert Webhook(SECRET).explain(BODY, SIGNED) == VERIFIED
    assert VERIFIED.verified
    assert str(VERIFIED) == "The request is verified. No action is required. [verified]"


@pytest.mark.parametrize(("seconds", "words"), [(301, "301 seconds old"), (-301, "301 seconds in the future")])
def test_a_wrong_clock_is_distinguished_from_a_wrong_signature(clock: Clock, seconds: int, words: str) -> None:
    headers = sign(BODY, SECRET)
    clock.now += seconds

    found = Webhook(SECRET).explain(BODY, headers)
    assert (found.cause, words in found.text) == ("clock_off", True)
    assert Webhook(OTHER).explain(BODY, headers).cause == "secret_wrong"
    assert Webhook(SECRET).explain(_dumped(), headers).cause == "body_reserialised"


@pytest.mark.parametrize("body", [BODY.decode(), VALUE, None])
def test_a_body_that_is_not_bytes_is_reported(body: Any) -> None:
    assert Webhook(SECRET).explain(body, SIGNED).cause == "body_not_bytes"


def test_debug_mode_adds_the_cause_to_errors() -> None:
    webhook = Webhook(SECRET, debug=True)

    webhook.verify(BODY, SIGNED)
    with pytest.raises(WebhookVerificationError, match="serialized again as JSON") as caught:
        webhook.unwrap(_dumped(), SIGNED)
    assert caught.value.reason == "no_matching_signature"
    assert caught.value.__cause__ is None
    with pytest.raises(WebhookVerificationError, match="No signature in the request"):
        Webhook(SECRET).unwrap(_dumped(), SIGNED)


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' + b"9" * 10_000 + b"}", b'"\\ud800"', b'{"\\ud800":1}'])
def test_unusual_bodies_have_an_explanation(body: bytes) -> None:
    assert not Webhook(SECRET).explain(body, SIGNED).verified


def _numbers(count: int, depth: int = 1) -> bytes:
    return b'{"id":"a","data":' + b"[" * depth + b",".join([b"1"] * count) + b"]" * depth + b"}"


@pytest.mark.parametrize(
    "body",
    [_numbers(8000), _numbers(8000, 25), _numbers(7500, 480), b'{"id":"a","data":[' + b'{"":1},' * 2300 + b"0]}"],
)
def test_the_cost_of_an_explanation_is_bounded(body: bytes) -> None:
    """Each serialization of these bodies takes milliseconds, and an indented one takes longer."""
    assert len(body) < 16.5 * 1024
    webhook = Webhook([SECRET, OTHER])

    def cost_seconds() -> float:
        began = time.process_time()
        assert not webhook.explain(body, SIGNED).verified
        return time.process_time() - began

    # About 15 ms on an idle machine. Coverage and a slow machine multiply it.
    assert min(cost_seconds() for _ in range(3)) < 0.5


@pytest.mark.parametrize(
    ("value", "how", "cause"),
    [
        ({"b": [{"time_ms": 17 * n, "note": "é"} for n in range(500)], "a": 1}, {"indent": 4}, "body_reserialised"),
        ({"b": [0.5] * 12_000, "a": 1}, {"separators": (",", ":")}, "body_reserialised"),
        ({"b": [[[[[0.5] * 12_000]]]], "a": 1}, {"indent": 4}, "secret_wrong"),
        ({"b": [0.5] * 14_000, "a": 1}, {"separators": (",", ":")}, "secret_wrong"),
    ],
)
def test_larger_bodies_are_compared_in_fewer_forms(value: dict[str, Any], how: dict[str, Any], cause: str) -> None:
    sent = json.dumps(value, **how).encode()
    assert Webhook(SECRET).explain(json.dumps(value).encode(), sign(sent, SECRET)).cause == cause


texts = st.text(max_size=60) | st.sampled_from([*SIGNED.values(), "v1,", "sha256=", str(int(NOW))])
headers = st.dictionaries(st.sampled_from([*SIGNED, "content-length"]), texts | st.lists(texts, max_size=2))
bodies = st.binary(max_size=60) | st.sampled_from([BODY, _dumped(), b"[]", b'"x"', b"{}"])


@given(bodies, headers | st.integers() | st.just(SIGNED))
def test_explain_never_raises_and_agrees_with_unwrap(body: bytes, found: Any) -> None:
    webhook = Webhook([SECRET, "0123456789abcdef"], allow_uplift_signature=True)
    explanation = webhook.explain(body, found)
    try:
        webhook.unwrap(body, found)
    except WebhookVerificationError:
        assert not explanation.verified
    else:
        assert explanation.verified
