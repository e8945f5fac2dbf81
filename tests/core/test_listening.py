import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.deliveries.listening import (
    DESCRIPTION_CHARACTERS_MAX,
    LOCAL_RESPONSE_BODY_BYTES_MAX,
    LOCAL_RESPONSE_ERROR_CHARACTERS_MAX,
    LocalResponse,
    check_description,
    event_frame,
    parse_local_response,
    session_secret,
)
from uplift_server.core.security.signing import check_secret

KEY = bytes(range(32))
RESPONSE: dict[str, Any] = {"kind": "answer", "place": "x", "status_code": 200, "duration_ms": 3}


def test_the_secret_of_a_key_is_stable_and_unique() -> None:
    secret = session_secret(KEY, b"a" * 16)
    assert secret == session_secret(KEY, b"a" * 16)
    assert len({secret, session_secret(KEY, b"b" * 16), session_secret(KEY[::-1], b"a" * 16)}) == 3
    assert check_secret(secret) is None
    assert len(base64.b64decode(secret.removeprefix("whsec_"))) == 32


def test_descriptions_are_one_line_and_short() -> None:
    assert check_description("ana-laptop") is None
    assert check_description("x" * DESCRIPTION_CHARACTERS_MAX) is None
    for wrong in ("x" * (DESCRIPTION_CHARACTERS_MAX + 1), "a\nb"):
        problem = check_description(wrong)
        assert problem is not None
        assert (problem.field, problem.code) == ("description", "description_invalid")


def test_a_frame_has_a_header_line_and_the_exact_body() -> None:
    body = '{"data":"ü\\n"}\n\n'.encode()
    line, rest = event_frame({"place": "p", "type": "a.b"}, body).split(b"\n", 1)
    assert json.loads(line) == {"kind": "event", "place": "p", "type": "a.b"}
    assert rest == body


def test_a_response_is_parsed_and_truncated() -> None:
    assert parse_local_response(json.dumps(RESPONSE)) == LocalResponse("x", 200, 3, None, "", redelivered=False)
    long = RESPONSE | {"status_code": None, "error": "e" * 1000, "body": "b" * 5000, "redelivered": True}
    assert parse_local_response(json.dumps(long)) == LocalResponse(
        "x", None, 3, "e" * LOCAL_RESPONSE_ERROR_CHARACTERS_MAX, "b" * LOCAL_RESPONSE_BODY_BYTES_MAX, redelivered=True
    )


def test_the_body_is_truncated_between_two_characters() -> None:
    for body in ("é" * 5000, "x" + "é" * 5000, "🦁" * 400, "x🦁" * 400):
        response = parse_local_response(json.dumps(RESPONSE | {"body": body}))
        assert response is not None
        assert body.startswith(response.body)
        assert LOCAL_RESPONSE_BODY_BYTES_MAX - 4 < len(response.body.encode()) <= LOCAL_RESPONSE_BODY_BYTES_MAX


def test_lone_surrogates_are_replaced() -> None:
    text = '{"kind": "answer", "place": "x", "status_code": null, "duration_ms": 3, "error": "a\\ud800", "body": "%s"}'
    assert parse_local_response(text % r"\ud800 \udc00b \ud83e\udd81") == LocalResponse(
        "x", None, 3, "a?", "? ?b 🦁", redelivered=False
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"kind": "event"},
        {"place": 1},
        {"status_code": 99},
        {"status_code": 600},
        {"status_code": True},
        {"status_code": "200"},
        {"duration_ms": -1},
        {"duration_ms": 1.5},
        {"duration_ms": 10**12},
        {"duration_ms": None},
        {"error": 1},
        {"body": None},
        {"body": []},
    ],
)
def test_invalid_responses_are_none(changed: dict[str, Any]) -> None:
    assert parse_local_response(json.dumps(RESPONSE | changed)) is None


@given(st.one_of(st.text(), st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps)))
def test_any_other_text_is_none(text: str) -> None:
    assert parse_local_response(text) is None


def test_deep_nesting_is_none() -> None:
    assert parse_local_response("[" * 100_000) is None
