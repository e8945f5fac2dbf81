"""Verification of requests."""

import base64
import json
import pickle
import time
from typing import Any

import pytest

from uplift_webhooks import SECRET_VARIABLE, Webhook, WebhookVerificationError
from uplift_webhooks.testing import sign

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_" + base64.b64encode(bytes(32)).decode()
CHOSEN = "0f" * 20
NOW = 1_764_000_000
BODY = json.dumps(
    {"id": "0197f0c2-0000-7000-8000-000000000001", "type": "t.u", "created": 1, "data": {"object": {"name": "Zoë 🏀"}}},
    ensure_ascii=False,
).encode()


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The library's clock, which tests change."""
    now = [NOW + 0.9]
    monkeypatch.setattr(time, "time", lambda: now[0])
    return now


def _rejection(webhook: Webhook, body: Any, headers: Any) -> WebhookVerificationError:
    with pytest.raises(WebhookVerificationError) as caught:
        webhook.verify(body, headers)
    with pytest.raises(WebhookVerificationError) as again:
        webhook.unwrap(body, headers)
    assert again.value.args == caught.value.args
    return caught.value


def test_the_published_vector_verifies(clock: list[float]) -> None:
    clock[0] = 1614265330
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }

    assert Webhook(SECRET).verify(b'{"test": 2432232314}', headers) is None
    with pytest.raises(WebhookVerificationError, match="body_not_event"):
        Webhook(SECRET).unwrap(b'{"test": 2432232314}', headers)


@pytest.mark.parametrize("secret", [SECRET, CHOSEN])
def test_a_signed_request_unwraps(secret: str) -> None:
    event = Webhook(secret).unwrap(BODY, sign(BODY, secret))

    assert (event.id, event.type, event.data.object) == (
        "0197f0c2-0000-7000-8000-000000000001",
        "t.u",
        {"name": "Zoë 🏀"},
    )


@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize("header", [{}, {"x-uplift-test": "true"}])
def test_only_the_signed_body_marks_a_test(marked: bool, header: dict[str, str]) -> None:
    """A header that someone adds or removes changes nothing."""
    body = json.dumps({**json.loads(BODY), "test": marked}).encode()
    signed = sign(body, SECRET)
    assert ("x-uplift-test" in signed) is marked
    signed.pop("x-uplift-test", None)

    assert Webhook(SECRET).unwrap(body, {**signed, **header}).test is marked


def test_a_bytearray_is_accepted() -> None:
    Webhook(SECRET).verify(bytearray(BODY), sign(BODY, SECRET))


@pytest.mark.parametrize(
    ("body", "kind"), [({}, "dict"), ("{}", "str"), (None, "NoneType"), (memoryview(b""), "memory")]
)
def test_a_body_that_is_not_bytes_is_rejected_with_a_fix(body: object, kind: str) -> None:
    error = _rejection(Webhook(SECRET), body, sign(BODY, SECRET))

    assert error.reason == "body_not_bytes"
    assert kind in error.cause
    assert "get_data()" in error.hint


class TestSecrets:
    """The secrets of a verifier."""

    @pytest.mark.parametrize(
        "secrets", [[SECRET, OTHER], (OTHER, SECRET), {SECRET: 1, OTHER: 2}, iter([OTHER, SECRET])]
    )
    def test_any_of_several_secrets_verifies(self, secrets: Any) -> None:
        webhook = Webhook(secrets)

        webhook.verify(BODY, sign(BODY, SECRET))
        webhook.verify(BODY, sign(BODY, OTHER))
        assert _rejection(webhook, BODY, sign(BODY, CHOSEN)).reason == "no_matching_signature"

    def test_one_of_two_signatures_is_sufficient(self) -> None:
        headers = sign(BODY, [OTHER, SECRET])

        Webhook(SECRET).verify(BODY, headers)
        Webhook(OTHER).verify(BODY, headers)

    def test_every_pair_is_compared_even_after_a_match(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import hmac

        compared = []

        def compare(a: bytes, b: bytes) -> bool:
            compared.append((a, b))
            return a == b

        monkeypatch.setattr(hmac, "compare_digest", compare)
        Webhook([SECRET, OTHER]).verify(BODY, sign(BODY, [SECRET, OTHER]))

        assert len(compared) == 4

    def test_the_default_secrets_are_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(SECRET_VARIABLE, f" {SECRET}\n{CHOSEN} ")

        Webhook().verify(BODY, sign(BODY, SECRET))
        Webhook(None).verify(BODY, sign(BODY, CHOSEN))

    @pytest.mark.parametrize("value", [None, "", "  "])
    def test_an_empty_variable_is_reported(self, monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
        monkeypatch.delenv(SECRET_VARIABLE, raising=False)
        if value is not None:
            monkeypatch.setenv(SECRET_VARIABLE, value)

        with pytest.raises(WebhookVerificationError, match="UPLIFT_WEBHOOK_SECRET") as caught:
            Webhook()
        assert caught.value.reason == "secret_missing"

    def test_an_empty_list_is_rejected(self) -> None:
        with pytest.raises(WebhookVerificationError) as caught:
            Webhook([])
        assert caught.value.reason == "secret_missing"

    @pytest.mark.parametrize("secret", ["", "short", b"0123456789abcdef", 5, [SECRET, ""], [None]])
    def test_an_invalid_secret_is_rejected(self, secret: Any) -> None:
        with pytest.raises(WebhookVerificationError) as caught:
            Webhook(secret)
        assert caught.value.reason == "secret_invalid"


class TestTimestamp:
    """Limits of the timestamp."""

    @pytest.mark.parametrize("offset", [-300, -299, 0, 299, 300])
    def test_within_the_tolerance(self, offset: int) -> None:
        Webhook(SECRET).verify(BODY, sign(BODY, SECRET, timestamp=NOW + offset))

    @pytest.mark.parametrize(("offset", "reason"), [(-301, "timestamp_too_old"), (301, "timestamp_too_new")])
    def test_beyond_the_tolerance(self, offset: int, reason: str) -> None:
        error = _rejection(Webhook(SECRET), BODY, sign(BODY, SECRET, timestamp=NOW + offset))

        assert error.reason == reason
        assert "301 s" in error.cause

    @pytest.mark.parametrize(("tolerance", "offset", "passes"), [(0, 0, True), (0, -1, False), (10**9, -(10**9), True)])
    def test_the_tolerance_can_be_set(self, tolerance: int, offset: int, passes: bool) -> None:
        webhook = Webhook(SECRET, tolerance_seconds=tolerance)
        headers = sign(BODY, SECRET, timestamp=NOW + offset)

        if passes:
            webhook.verify(BODY, headers)
        else:
            assert _rejection(webhook, BODY, headers).reason == "timestamp_too_old"

    @pytest.mark.parametrize("tolerance", [-1, float("nan")])
    def test_an_invalid_tolerance_is_rejected(self, tolerance: float) -> None:
        with pytest.raises(ValueError, match="tolerance_seconds"):
            Webhook(SECRET, tolerance_seconds=tolerance)

    @pytest.mark.parametrize("text", ["now", "-5", "1.5", "1e9", " 5", "0x5", "9" * 16, "9" * 10_000, "nan"])
    def test_an_invalid_timestamp_is_malformed(self, text: str) -> None:
        error = _rejection(Webhook(SECRET), BODY, {**sign(BODY, SECRET), "webhook-timestamp": text})

        assert error.reason == "malformed_header"

    def test_the_timestamp_is_signed(self) -> None:
        error = _rejection(Webhook(SECRET), BODY, {**sign(BODY, SECRET), "webhook-timestamp": str(NOW + 1)})

        assert error.reason == "no_matching_signature"


class TestSignatures:
    """The tokens of `webhook-signature`."""

    @pytest.mark.parametrize(
        "surroundings",
        ["stray {}", "v1a,xyz {}", "v1 {}", "v1, {}", "v1,a,b {}", "{} v2,abc", "  {}  ", "v1,{{}}!? {}", ",, {}"],
    )
    def test_other_tokens_are_ignored(self, surroundings: str) -> None:
        headers = sign(BODY, SECRET)
        headers["webhook-signature"] = surroundings.format(headers["webhook-signature"])

        Webhook(SECRET).verify(BODY, headers)

    @pytest.mark.parametrize("value", ["v1", "v1a,abc", "sha256=00", "V1,abc", " ", "v1,a " * 17])
    def test_a_header_without_a_v1_token_or_with_too_many_is_malformed(self, value: str) -> None:
        assert _rejection(Webhook(SECRET), BODY, {**sign(BODY, SECRET), "webhook-signature": value}).reason == (
            "malformed_header"
        )

    @pytest.mark.parametrize("change", [lambda body: body + b"\n", lambda body: json.dumps(json.loads(body)).encode()])
    def test_a_changed_body_does_not_match(self, change: Any) -> None:
        error = _rejection(Webhook(SECRET), change(BODY), sign(BODY, SECRET))

        assert error.reason == "no_matching_signature"
        assert "raw bytes" in error.hint

    def test_a_changed_id_does_not_match(self) -> None:
        assert (
            _rejection(Webhook(SECRET), BODY, sign(BODY, SECRET) | {"webhook-id": "x"}).reason
            == "no_matching_signature"
        )

    @pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
    @pytest.mark.parametrize("allow", [False, True])
    def test_each_header_is_required_despite_the_uplift_signature(self, name: str, allow: bool) -> None:
        headers = sign(BODY, SECRET)
        del headers[name]

        error = _rejection(Webhook(SECRET, allow_uplift_signature=allow), BODY, headers)

        assert error.reason == "missing_header"
        assert name in error.cause

    def test_a_wrong_standard_signature_fails_despite_a_valid_uplift_one(self) -> None:
        headers = sign(BODY, SECRET) | {"webhook-signature": "v1,AAAA"}

        error = _rejection(Webhook(SECRET, allow_uplift_signature=True), BODY, headers)

        assert error.reason == "no_matching_signature"


class TestUpliftSignature:
    """`x-uplift-signature-256` alone."""

    @staticmethod
    def _headers(secret: str) -> dict[str, str]:
        return {"X-Uplift-Signature-256": sign(BODY, secret)["x-uplift-signature-256"]}

    @pytest.mark.parametrize("secret", [SECRET, CHOSEN])
    def test_the_signature_verifies_if_allowed(self, secret: str) -> None:
        webhook = Webhook([OTHER, secret], allow_uplift_signature=True)

        webhook.verify(BODY, self._headers(secret))
        assert webhook.unwrap(BODY, self._headers(secret)).type == "t.u"

    def test_the_signature_is_rejected_by_default(self) -> None:
        error = _rejection(Webhook(SECRET), BODY, self._headers(SECRET))

        assert error.reason == "missing_header"
        assert "allow_uplift_signature" in error.hint

    @pytest.mark.parametrize("value", ["sha256=00", "sha1=00", "00", "sha256="])
    def test_a_wrong_signature_does_not_match(self, value: str) -> None:
        error = _rejection(Webhook(SECRET, allow_uplift_signature=True), BODY, {"x-uplift-signature-256": value})

        assert error.reason == "no_matching_signature"

    @pytest.mark.parametrize("headers", [{}, {"x-uplift-signature-256": ""}])
    def test_a_missing_signature(self, headers: dict[str, str]) -> None:
        assert _rejection(Webhook(SECRET, allow_uplift_signature=True), BODY, headers).reason == "missing_header"


@pytest.mark.parametrize("body", [b"", b"[]", b"not json", b'"x"', b"\xff"])
@pytest.mark.parametrize(
    "names", [{"webhook-id", "webhook-timestamp", "webhook-signature"}, {"x-uplift-signature-256"}]
)
def test_a_signed_body_that_is_not_an_object_is_rejected(body: bytes, names: set[str]) -> None:
    headers = {name: value for name, value in sign(body, SECRET).items() if name in names}

    assert _rejection(Webhook(SECRET, allow_uplift_signature=True), body, headers).reason == "body_not_json_object"


def test_the_error_is_one_line_and_picklable() -> None:
    error = _rejection(Webhook(SECRET), BODY, {})
    copy = pickle.loads(pickle.dumps(error))

    assert (copy.reason, copy.cause, copy.hint) == (error.reason, error.cause, error.hint)
    assert str(copy) == str(error)
    assert "\n" not in str(error)
    assert str(error).endswith("[missing_header]")
    assert isinstance(error, ValueError)


def test_an_error_contains_no_secret_or_valid_signature() -> None:
    headers = sign(BODY, SECRET)
    right = headers["webhook-signature"].removeprefix("v1,")

    error = _rejection(Webhook(SECRET), BODY, headers | {"webhook-signature": "v1,AAAA"})

    assert right not in repr(error)
    assert SECRET[6:] not in repr(error)
