"""Builds the data of operational events, which never contains data from other events or text from responses."""

from collections.abc import Mapping
from dataclasses import dataclass

from uplift_server.core.deliveries.causes import Explanation
from uplift_server.core.events.operational import OperationalKind
from uplift_server.core.timestamps import format_optional_timestamp


@dataclass(frozen=True, slots=True)
class Subject:
    """The endpoint that an operational event describes, and its account. The IDs have the form that the API returns."""

    endpoint: str
    uid: str | None
    url: str
    description: str
    account: str
    account_uid: str | None
    account_name: str


def endpoint_facts(
    subject: Subject,
    *,
    state: str,
    disabled_reason: str | None = None,
    failing_since: int | None,
    failed_attempts: int,
    cause: Explanation | None,
    disable_at: int | None = None,
    recovered_at: int | None = None,
) -> dict[str, object]:
    """Return the facts about a change in an endpoint's health. Times are Unix ms."""
    return {
        "id": subject.endpoint,
        "uid": subject.uid,
        **_shared_facts(subject),
        "state": state,
        "disabled_reason": disabled_reason,
        "failing_since": format_optional_timestamp(failing_since),
        "disable_at": format_optional_timestamp(disable_at),
        "recovered_at": format_optional_timestamp(recovered_at),
        "failed_attempts": failed_attempts,
        **_cause_facts(cause),
    }


def delivery_facts(
    subject: Subject,
    *,
    delivery: str,
    event: str,
    event_type: str,
    failed_reason: str | None,
    attempts_made: int,
    failed_at: int | None,
    count: int,
    first_failed_at: int,
    cause: Explanation | None,
) -> dict[str, object]:
    """Return the facts about failed deliveries: the latest failed delivery, and the number of failed deliveries.

    Times are Unix ms.
    """
    return {
        "id": delivery,
        "endpoint": subject.endpoint,
        "endpoint_uid": subject.uid,
        **_shared_facts(subject),
        "event": event,
        "event_type": event_type,
        "failed_reason": failed_reason,
        "attempts_made": attempts_made,
        "failed_at": format_optional_timestamp(failed_at),
        "count": count,
        "first_failed_at": format_optional_timestamp(first_failed_at),
        **_cause_facts(cause),
    }


def event_data(kind: OperationalKind, facts: Mapping[str, object], *, public_url: str) -> dict[str, object]:
    """Return the data of an operational event: its facts, and a link to the dashboard at `public_url`."""
    page = "deliveries" if kind is OperationalKind.DELIVERY_FAILED else "endpoints"
    return {"object": {**facts, "dashboard_url": f"{public_url}/{page}/{facts['id']}"}}


def _shared_facts(subject: Subject) -> dict[str, object]:
    return {
        "url": subject.url,
        "description": subject.description,
        "account": subject.account,
        "account_uid": subject.account_uid,
        "account_name": subject.account_name,
    }


def _cause_facts(cause: Explanation | None) -> dict[str, object]:
    # Use the title, which is constant, because the full sentence can contain a URL from a redirect.
    if cause is None:
        return {"cause_code": None, "cause": None, "fix": None}
    return {"cause_code": cause.code, "cause": cause.title, "fix": cause.remedy}
