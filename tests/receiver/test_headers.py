"""Headers in the forms of different frameworks."""

import email.message
from types import MappingProxyType
from typing import Any

import pytest
from urllib3 import HTTPHeaderDict
from werkzeug.datastructures import EnvironHeaders, Headers

from uplift_webhooks.errors import WebhookVerificationError
from uplift_webhooks.headers import read_headers

EXPECTED = {
    "webhook-id": "msg_1",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,abc",
    "x-uplift-signature-256": "sha256=00",
}
TITLED = {name.title(): value for name, value in EXPECTED.items()}
ENVIRON = {
    "REQUEST_METHOD": "POST",
    "CONTENT_TYPE": "application/json",
    "wsgi.input": object(),
    "wsgi.version": (1, 0),
    **{"HTTP_" + name.upper().replace("-", "_"): value for name, value in EXPECTED.items()},
}


def _message() -> email.message.Message:
    message = email.message.Message()
    for name, value in TITLED.items():
        message[name] = value
    return message


@pytest.mark.parametrize(
    "headers",
    [
        EXPECTED,
        TITLED,
        MappingProxyType(TITLED),
        {name.encode(): value.encode() for name, value in TITLED.items()},
        list(TITLED.items()),
        iter(TITLED.items()),
        [[name.encode(), value.encode()] for name, value in EXPECTED.items()],
        {name: [value] for name, value in TITLED.items()},
        ENVIRON,
        Headers(TITLED),
        EnvironHeaders(ENVIRON),
        HTTPHeaderDict(TITLED),
        _message(),
        [*EXPECTED.items(), ("webhook-id", "msg_1")],
        [*EXPECTED.items(), ("accept", "é"), ("x-other", None)],
    ],
)
def test_all_usual_forms_give_the_same_headers(headers: Any) -> None:
    assert read_headers(headers) == EXPECTED


@pytest.mark.parametrize("headers", [{}, [], {"webhook-id": None}, {"webhook-id": []}, {"webhook_id": "x"}, b""])
def test_absent_headers_are_omitted(headers: Any) -> None:
    assert read_headers(headers) == {}


class _Hostile:
    def items(self) -> object:
        raise KeyError("broken")


@pytest.mark.parametrize(
    "headers",
    [None, 5, "webhook-id: x", [("webhook-id",)], [1], {"webhook-id": 5}, {5: "x"}, {"webhook-id": [5]}, _Hostile()],
)
def test_other_objects_are_unreadable(headers: Any) -> None:
    with pytest.raises(WebhookVerificationError) as caught:
        read_headers(headers)
    assert caught.value.reason == "headers_unreadable"
    assert type(headers).__name__ in caught.value.cause


@pytest.mark.parametrize(
    "headers",
    [
        [("webhook-id", "a"), ("Webhook-Id", "b")],
        {"webhook-id": ["a", "b"]},
        {"webhook-id": "é"},
        {"webhook-id": b"\xff"},
        {"webhook-id": "a\nb"},
        {"webhook-timestamp": "١٢٣"},
        {"webhook-signature": "v1,\x00"},
    ],
)
def test_conflicting_and_non_ascii_values_are_malformed(headers: Any) -> None:
    with pytest.raises(WebhookVerificationError) as caught:
        read_headers(headers)
    assert caught.value.reason == "malformed_header"
