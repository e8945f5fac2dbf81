"""Rows of the emitter outbox: their order, the request that sends them, and the rows that a rejection names."""

import json
from dataclasses import asdict, replace

from uplift_server.core.events.emitter_outbox import (
    BatchRejection,
    OutboxRow,
    batch_body,
    blocked,
    in_order,
    oversized,
    rejected,
)
from uplift_server.core.problems import Problem

ROW = OutboxRow("r0", "acc_1", "athlete.created", '{"n": 1.10}', None, None)
UNKNOWN = Problem("events.1.type", "event_type_unknown", "The event type does not exist.")


def test_a_locked_row_holds_only_later_rows_with_its_key() -> None:
    def row(name: str, account: str, key: str | None, *, is_locked: bool = True) -> OutboxRow:
        return ROW._replace(id=name, account=account, ordering_key=key, is_locked=is_locked)

    rows = [
        row("first", "acc_1", "a"),
        row("changing", "acc_1", "a", is_locked=False),
        row("later", "acc_1", "a"),
        row("same key of another account", "acc_2", "a"),
        row("other key", "acc_1", "b"),
        row("changing without a key", "acc_1", None, is_locked=False),
        row("without a key", "acc_1", None),
    ]

    found = [each.id for each in in_order(rows)]
    assert found == ["first", "same key of another account", "other key", "without a key"]


def test_a_row_that_waits_for_a_rejected_row_is_blocked() -> None:
    waiting = ROW._replace(id="waiting", ordering_key="a", waits_for="rejected")
    changing = waiting._replace(id="changing", is_locked=False)

    assert in_order([waiting, changing, ROW]) == [ROW]
    assert blocked([waiting, changing, ROW]) == [waiting]


def test_a_batch_contains_the_data_unchanged_and_only_the_given_fields() -> None:
    full = OutboxRow("r1", "Ü", 'quote "', "{}", "k", "2030-01-01T00:00:00.000Z")

    body = batch_body([ROW, full])

    assert b'"data": {"n": 1.10}}' in body
    assert json.loads(body) == {
        "events": [
            {"id": "r0", "account": "acc_1", "type": "athlete.created", "data": {"n": 1.1}},
            {
                "id": "r1",
                "account": "Ü",
                "type": 'quote "',
                "ordering_key": "k",
                "expires_at": "2030-01-01T00:00:00.000Z",
                "data": {},
            },
        ]
    }


def test_rows_with_too_much_data_are_rejected_without_a_request() -> None:
    [(row, problem)] = oversized([ROW, ROW._replace(id="large", data=None)]).items()

    assert row == "large"
    assert json.loads(problem)["code"] == "payload_too_large"


def test_a_rejection_names_rows_by_their_positions() -> None:
    rows = [ROW, ROW._replace(id="r1"), ROW._replace(id="r2")]
    errors = [
        UNKNOWN,
        replace(UNKNOWN, field="events.1.data.a.b"),
        replace(UNKNOWN, field="events.2"),
        replace(UNKNOWN, field="events.3.type"),
        replace(UNKNOWN, field="events"),
    ]

    found = rejected(rows, BatchRejection(422, "validation_failed", "3 fields are not valid.", errors))

    assert {row: json.loads(problem) for row, problem in found.items()} == {
        "r1": {
            "status": 422,
            "code": "validation_failed",
            "errors": [
                {"field": "type", "code": UNKNOWN.code, "message": UNKNOWN.message},
                {"field": "data.a.b", "code": UNKNOWN.code, "message": UNKNOWN.message},
            ],
        },
        "r2": {
            "status": 422,
            "code": "validation_failed",
            "errors": [{"field": "", "code": UNKNOWN.code, "message": UNKNOWN.message}],
        },
    }


def test_a_rejection_without_positions_applies_to_a_single_row() -> None:
    rejection = BatchRejection(413, "payload_too_large", "Too\x00 large.")

    assert rejected([ROW, ROW], rejection) == {}
    # jsonb cannot store the character NUL.
    assert json.loads(rejected([ROW], rejection)["r0"]) == {
        "status": 413,
        "code": "payload_too_large",
        "detail": "Too large.",
    }


def test_a_problem_may_quote_the_escape_of_a_character_that_jsonb_cannot_store() -> None:
    quoted = Problem("type", "event_type_unknown", r"The event type \u0000 does not exist.")
    rejection = BatchRejection(422, "validation_failed", "", [replace(quoted, field="events.0.type")])

    assert json.loads(rejected([ROW], rejection)["r0"])["errors"] == [asdict(quoted)]
