"""Suggestions for names that do not exist."""

import pytest

from uplift_server.core.events.catalog import EVENT_TYPES
from uplift_server.core.limits import PROBLEMS_LISTED_MAX
from uplift_server.core.suggestions import SUGGESTIONS_MAX, closest, unknown_fields

TYPES = [each.name for each in EVENT_TYPES]
FIELDS = {"type", "data", "id", "idempotency_key", "expires_at", "account"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("athlete.create", "athlete.created"),
        ("Athlete.Created", "athlete.created"),
        ("athlete_updated", "athlete.updated"),
        ("athlete.udpated", "athlete.updated"),
        ("movement.created", "movement.analytics.created"),
        ("payment.settled", None),
        ("a" * 65, None),
        ("", None),
    ],
)
def test_the_most_similar_event_type_is_suggested(name: str, expected: str | None) -> None:
    assert closest(name, TYPES) == closest(name, TYPES[::-1]) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("typ", "type"),
        ("expiresAt", "expires_at"),
        ("idempotency-key", "idempotency_key"),
        ("eventType", "type"),
        ("event_type", "type"),
        ("account_id", "account"),
        ("customerAccount", "account"),
        ("customer_id", None),
        ("payload", None),
    ],
)
def test_the_most_similar_field_is_suggested(name: str, expected: str | None) -> None:
    assert closest(name, FIELDS) == expected


def test_only_the_first_candidates_are_compared() -> None:
    others = [f"other.type{n}" for n in range(300)]
    assert closest("athlete.create", ["athlete.created", *others]) == "athlete.created"
    assert closest("athlete.create", [*others, "athlete.created"]) is None


def test_unknown_fields_are_listed_with_suggestions() -> None:
    first, second, third = unknown_fields(
        ["typ", "data", "account", "nothing"], FIELDS - {"account"}, "events.1.", {"account": "Use the header."}
    )
    assert (first.field, first.code) == ("events.1.typ", "unknown_field")
    assert first.message == "The field does not exist. Did you mean type?"
    assert (second.field, second.message) == ("events.1.account", "Use the header.")
    assert third.message == "The field does not exist. Check its spelling, or omit it."


def test_the_number_of_problems_and_suggestions_is_limited() -> None:
    problems = unknown_fields([f"typ{n}" for n in range(1000)] + ["x" * 1000], FIELDS)
    assert len(problems) == PROBLEMS_LISTED_MAX + 1
    assert sum("Did you mean" in each.message for each in problems) == SUGGESTIONS_MAX
    [long] = unknown_fields(["x" * 1000], FIELDS)
    assert len(long.field) == 200
