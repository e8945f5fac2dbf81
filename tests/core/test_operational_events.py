"""The data of operational events."""

import json
from typing import Any

import jsonschema_rs
import pytest

from uplift_server.core.deliveries.causes import explain
from uplift_server.core.deliveries.operational_events import Subject, delivery_facts, endpoint_facts, event_data
from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.events.catalog import EVENT_TYPES
from uplift_server.core.events.operational import GROUP, OPERATIONAL_TYPES, OperationalKind

NOW = 1_764_000_000_000
SUBJECT = Subject("ep_1", "warehouse", "https://lab.example/hook", "Warehouse", "acc_1", None, "Rapids Academy")
SECRET_TARGET = "https://login.lab.example/sessions/athlete-4711"
REDIRECT = explain(Outcome.REDIRECT, status_code=302, error=None, location=SECRET_TARGET)


def warned() -> dict[str, object]:
    return endpoint_facts(
        SUBJECT, state="enabled", failing_since=NOW, failed_attempts=40, cause=REDIRECT, disable_at=NOW + 1000
    )


def failed(count: int = 3) -> dict[str, object]:
    return delivery_facts(
        SUBJECT,
        delivery="dlv_1",
        event="0197f0c2-0000-7000-8000-000000000000",
        event_type="a.b",
        failed_reason="exhausted",
        attempts_made=10,
        failed_at=NOW,
        count=count,
        first_failed_at=NOW - 1000,
        cause=None,
    )


FACTS: dict[OperationalKind, dict[str, object]] = {
    OperationalKind.ENDPOINT_WARNED: warned(),
    OperationalKind.ENDPOINT_DISABLED: endpoint_facts(
        SUBJECT, state="disabled", disabled_reason="gone", failing_since=NOW, failed_attempts=1, cause=None
    ),
    OperationalKind.ENDPOINT_RECOVERED: endpoint_facts(
        SUBJECT, state="enabled", failing_since=NOW, failed_attempts=0, cause=None, recovered_at=NOW + 1
    ),
    OperationalKind.DELIVERY_FAILED: failed(),
}


def test_the_catalog_has_every_kind_in_one_group() -> None:
    assert {each.name for each in EVENT_TYPES if each.group == GROUP} == OPERATIONAL_TYPES
    assert len(OPERATIONAL_TYPES) == len(OperationalKind)


@pytest.mark.parametrize("kind", OperationalKind)
def test_the_data_matches_the_schema_and_has_the_properties_of_the_example(kind: OperationalKind) -> None:
    [event_type] = [each for each in EVENT_TYPES if each.name == kind.type_name]
    data: dict[str, Any] = event_data(kind, FACTS[kind], public_url="https://webhooks.example")
    jsonschema_rs.Draft202012Validator(json.loads(json.dumps(event_type.schema))).validate(data)
    example: Any = event_type.example["object"]
    assert set(data["object"]) == set(example)
    assert set(data["object"]) == set(json.loads(json.dumps(event_type.schema))["properties"]["object"]["properties"])


@pytest.mark.parametrize(
    ("kind", "url"),
    [
        (OperationalKind.ENDPOINT_WARNED, "https://webhooks.example/endpoints/ep_1"),
        (OperationalKind.DELIVERY_FAILED, "https://webhooks.example/deliveries/dlv_1"),
    ],
)
def test_the_link_leads_to_the_object(kind: OperationalKind, url: str) -> None:
    data: dict[str, Any] = event_data(kind, FACTS[kind], public_url="https://webhooks.example")
    assert data["object"]["dashboard_url"] == url


def test_the_cause_does_not_repeat_the_response() -> None:
    """Otherwise, the data of an erased event could remain in an operational event."""
    assert REDIRECT is not None
    assert "athlete-4711" in REDIRECT.cause
    facts = warned()
    assert "athlete-4711" not in json.dumps(facts)
    assert facts["cause"] == "Redirect to a login page"
    assert facts["fix"] == REDIRECT.remedy


def test_times_are_text() -> None:
    assert (warned()["failing_since"], warned()["disable_at"], warned()["recovered_at"]) == (
        "2025-11-24T16:00:00.000Z",
        "2025-11-24T16:00:01.000Z",
        None,
    )
    assert failed()["first_failed_at"] == "2025-11-24T15:59:59.000Z"
