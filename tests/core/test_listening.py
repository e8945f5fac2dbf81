import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.deliveries.listening import (
    ANSWER_BODY_BYTES_MAX,
    ANSWER_ERROR_CHARACTERS_MAX,
    DESCRIPTION_CHARACTERS_MAX,
    Answer,
    check_description,
    event_frame,
    read_answer,
    secret_of,
)
from uplift_server.core.security.signing import check_secret

KEY = bytes(range(32))
ANSWER: dict[str, Any] = {"kind": "answer", "place": "x", "status_code": 200, "duration_ms": 3}


def test_the_secret_of_a_key_is_always_the_same_and_nobody_elses() -> None:
    secret = secret_of(KEY, b"a" * 16)
    assert secret == secret_of(KEY, b"a" * 16)
    assert len({secret, secret_of(KEY, b"b" * 16), secret_of(KEY[::-1], b"a" * 16)}) == 3
    assert check_secret(secret) is None
    assert len(base64.b64decode(secret.removeprefix("whsec_"))) == 32


def test_descriptions_are_one_line_and_short() -> None:
    assert check_description("ana-laptop") is None
    assert check_description("x" * DESCRIPTION_CHARACTERS_MAX) is None
    for wrong in ("x" * (DESCRIPTION_CHARACTERS_MAX + 1), "a\nb"):
        problem = check_description(wrong)
        assert problem is not None
        assert (problem.field, problem.code) == ("description", "description_invalid")


def test_a_frame_has_a_line_that_describes_it_and_then_the_very_bytes() -> None:
    body = '{"data":"ü\\n"}\n\n'.encode()
    line, rest = event_frame({"place": "p", "type": "a.b"}, body).split(b"\n", 1)
    assert json.loads(line) == {"kind": "event", "place": "p", "type": "a.b"}
    assert rest == body


def test_an_answer_is_read_and_cut() -> None:
    assert read_answer(json.dumps(ANSWER)) == Answer("x", 200, 3, None, "", redelivered=False)
    long = ANSWER | {"status_code": None, "error": "e" * 1000, "body": "b" * 5000, "redelivered": True}
    assert read_answer(json.dumps(long)) == Answer(
        "x", None, 3, "e" * ANSWER_ERROR_CHARACTERS_MAX, "b" * ANSWER_BODY_BYTES_MAX, redelivered=True
    )


def test_the_body_of_an_answer_is_cut_to_bytes_between_two_characters() -> None:
    for body in ("é" * 5000, "x" + "é" * 5000, "🦁" * 400, "x🦁" * 400):
        answer = read_answer(json.dumps(ANSWER | {"body": body}))
        assert answer is not None
        assert body.startswith(answer.body)
        assert ANSWER_BODY_BYTES_MAX - 4 < len(answer.body.encode()) <= ANSWER_BODY_BYTES_MAX


def test_halves_of_surrogate_pairs_are_replaced_and_whole_pairs_stay() -> None:
    text = '{"kind": "answer", "place": "x", "status_code": null, "duration_ms": 3, "error": "a\\ud800", "body": "%s"}'
    assert read_answer(text % r"\ud800 \udc00b \ud83e\udd81") == Answer(
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
def test_what_is_no_answer_is_none(changed: dict[str, Any]) -> None:
    assert read_answer(json.dumps(ANSWER | changed)) is None


@given(st.one_of(st.text(), st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps)))
def test_nothing_that_is_sent_raises(text: str) -> None:
    assert read_answer(text) is None


def test_nesting_without_end_is_none() -> None:
    assert read_answer("[" * 100_000) is None
