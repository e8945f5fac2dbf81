"""Rejected events in the API: fields, filters, and the events of unknown accounts."""

from typing import Any

import pytest
from tests.rejected_events import PROBLEM

from uplift_server.core.events.rejected import VALUE_OMITTED
from uplift_server.core.timestamps import format_timestamp

PATH = "/v1/rejected-events"


def found_ids(client: Any, query: str = "") -> list[str]:
    """Return the IDs of the rejected events that a client sees."""
    return [each["id"] for each in client.get(f"{PATH}?limit=500{query}").json["data"]]


def test_a_rejected_event_has_the_problem_without_values(server: Any) -> None:
    account = server.account()
    owner = server.owner(account, ["events:read"])
    wrong = {"field": "data.object.email", "code": "schema_mismatch", "message": "'caleb@example.com' is too long"}
    rejected = server.reject(
        account, event_id="0197f0c2", problem={**PROBLEM, "errors": [wrong]}, published_at=1_750_000_000_123
    )
    found = owner.get(f"{PATH}/{rejected}").json
    assert found == {
        "id": rejected,
        "subject": "uplift.events.club-17",
        "type": "athlete.updatet",
        "event_id": "0197f0c2",
        "idempotency_key": "athlete-7",
        "problem": {**PROBLEM, "errors": [{**wrong, "message": VALUE_OMITTED}]},
        "size_bytes": 412,
        "published_at": "2025-06-15T15:06:40.123Z",
        "rejected_at": found["rejected_at"],
    }
    assert owner.get(PATH).json["data"] == [found]
    assert server.operator.get(f"{PATH}/{rejected}").json == {**found, "account": account}
    assert server.client(server.operator_key, account).get(PATH).json["data"] == [found]
    for unknown in ("rej_x", rejected.replace("rej_", "acc_"), f"rej_{'0' * 32}"):
        assert owner.get(f"{PATH}/{unknown}").code == "not_found"


def test_only_callers_for_all_accounts_see_those_of_unknown_accounts(server: Any) -> None:
    account = server.account()
    mine, unknown = server.reject(account), server.reject(None, event_type=None)
    for client in (server.owner(account), server.client(server.operator_key, account)):
        assert found_ids(client) == [mine]
        assert client.get(f"{PATH}/{unknown}").code == "not_found"
    assert found_ids(server.operator)[:2] == [unknown, mine]
    shown = server.operator.get(f"{PATH}/{unknown}").json
    assert (shown["account"], shown["type"]) == (None, None)


def test_filters_and_order(server: Any) -> None:
    account = server.account()
    owner = server.owner(account)
    at = server.services.context.now()
    ids = [
        server.reject(account, event_type=name, rejected_at=at + number)
        for number, name in enumerate(("a.b", "a.c", "a.b", "a.d"))
    ]
    assert found_ids(owner, "&order=asc") == ids
    assert found_ids(owner, "&event_type=a.b") == [ids[2], ids[0]]
    assert found_ids(owner, "&event_type=a.b&event_type=a.d") == [ids[3], ids[2], ids[0]]
    assert found_ids(owner, "&event_type=no.such") == []
    known = server.reject(account, event_id="0197f0c2", idempotency_key="k" * 200)
    assert found_ids(owner, "&event_id=0197f0c2") == [known]
    assert found_ids(owner, "&event_id=0197f0c2%00") == []
    assert found_ids(owner, f"&idempotency_key={'k' * 200}") == [known]
    assert found_ids(owner, "&event_id=0197f0c2&idempotency_key=athlete-7") == []
    assert found_ids(server.owner(server.account()), "&event_id=0197f0c2") == []
    since, until = format_timestamp(at + 1), format_timestamp(at + 3)
    assert found_ids(owner, f"&since={since}&until={until}") == [ids[2], ids[1]]


@pytest.mark.parametrize("query", ["type=a.b", "created_after=2025-01-01T00:00:00Z"])
def test_filters_of_other_lists_are_rejected(server: Any, query: str) -> None:
    assert server.operator.get(f"{PATH}?{query}").problems == {(query.partition("=")[0], "unknown_field")}
