"""The stored texts about rejected events."""

from typing import Any

from uplift_server.core.events.rejected import VALUE_OMITTED, stored_problem, stored_text
from uplift_server.core.limits import (
    REJECTED_EVENT_ERRORS_MAX,
    REJECTED_EVENT_MESSAGE_CHARACTERS_MAX,
    REJECTED_EVENT_TEXT_CHARACTERS_MAX,
)

PROBLEM = {"type": "/docs/errors#x", "title": "Invalid", "status": 422, "detail": "Wrong.", "code": "x"}


def error(field: str, code: str, message: str = "secret") -> dict[str, Any]:
    """Return the JSON of a problem with a field."""
    return {"field": field, "code": code, "message": message}


def test_a_text_is_bounded_and_storable() -> None:
    assert stored_text("athlete-7") == "athlete-7"
    assert stored_text("a\0b\ud800c\n") == "a?b?c?"
    whole = "x" * REJECTED_EVENT_TEXT_CHARACTERS_MAX
    assert stored_text(whole) == whole
    assert stored_text(whole + "x") == whole[1:] + "…"


def test_problems_in_the_data_keep_their_path_and_code_but_no_values() -> None:
    kept = [error("type", "event_type_unknown"), error("data", "required"), error("data", "type_object")]
    wrong = [error("data", "not_checkable"), error("data.object.email", "schema_mismatch"), error("datax", "x")]
    stored = stored_problem({**PROBLEM, "errors": [*kept, *wrong]}, None)
    assert stored["errors"] == [
        *kept,
        error("data", "not_checkable", VALUE_OMITTED),
        error("data.object.email", "schema_mismatch", VALUE_OMITTED),
        error("datax", "x"),
    ]
    assert {name: stored[name] for name in PROBLEM} == PROBLEM


def test_a_problem_is_bounded() -> None:
    long = "x" * 10_000
    stored = stored_problem({**PROBLEM, "detail": long, "errors": [error(long, long, long)] * 1000, "more": long}, None)
    short = "x" * (REJECTED_EVENT_MESSAGE_CHARACTERS_MAX - 1) + "…"
    assert stored == {
        **PROBLEM,
        "detail": short,
        "errors": [error(short, short, short)] * REJECTED_EVENT_ERRORS_MAX,
    }
    assert stored_problem(PROBLEM, None) == PROBLEM


def test_a_problem_does_not_repeat_the_idempotency_key() -> None:
    key = "athlete-7-" + "x" * 240
    conflict = {**PROBLEM, "detail": f"The idempotency key {key} was already used for event 0197f0c2."}
    expected = {**PROBLEM, "detail": "The idempotency key was already used for event 0197f0c2."}
    assert stored_problem(conflict, key) == expected
    assert stored_problem(PROBLEM, key) == PROBLEM
