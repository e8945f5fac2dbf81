"""The built-in event types: description, JSON Schema and example.

Uplift documents two of the types, but only with examples. Their schemas therefore require at least one property in
`data.object`, but no particular one, and allow properties that the schema does not list. The other types are our
extensions, as their descriptions state.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from uplift_server.core.events import operational
from uplift_server.core.events.envelope import API_VERSION_DEFAULT
from uplift_server.core.events.samples import sample_data

MOVEMENT_ANALYTICS_CREATED: Final = "movement.analytics.created"
WEBHOOK_CREATED: Final = "webhook.created"

EXTENSION_NOTE: Final = "This event type is an extension that Uplift does not document."
"""The last sentence in the description of each extension."""

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
# Fixed input for the sample generator, which also creates the examples. Examples and samples have the same structure.
_EXAMPLE_MS: Final = 1_764_000_000_000
_EXAMPLE_DRAW: Final = b"catalog"


@dataclass(frozen=True, slots=True)
class EventType:
    """One event type of the catalog."""

    name: str
    group: str
    """The heading above the event type in lists."""
    description: str
    """The description for users: when the event occurs and what it contains."""
    documented: bool
    """Whether Uplift documents the type. All other types are our extensions."""
    schema: Mapping[str, object]
    """The JSON Schema (2020-12) of the event's `data`."""
    example: Mapping[str, object]
    """An example of the event's `data`."""
    api_version: str = API_VERSION_DEFAULT


def _object(properties: Mapping[str, object], *required: str, description: str | None = None) -> dict[str, object]:
    schema: dict[str, object] = {"type": "object", "properties": properties}
    if required:
        schema["required"] = list(required)
    return schema if description is None else {**schema, "description": description}


def _of(kind: str | list[str], description: str) -> dict[str, object]:
    return {"type": kind, "description": description}


def _event_type(
    name: str, group: str, description: str, resource: Mapping[str, object], *, documented: bool = False
) -> EventType:
    return EventType(
        name=name,
        group=group,
        description=description if documented else f"{description} {EXTENSION_NOTE}",
        documented=documented,
        schema={"$schema": _DIALECT, "title": name, **_object({"object": {**resource, "minProperties": 1}}, "object")},
        example=sample_data(name, _EXAMPLE_MS, _EXAMPLE_DRAW),
    )


_TEXT_OR_NULL: Final = ["string", "null"]
_SUBJECT: Final[dict[str, object]] = {
    "url": _of("string", "The endpoint's URL."),
    "description": _of("string", "The endpoint's description."),
    "account": _of("string", "The ID of the account that owns the endpoint."),
    "account_uid": _of(_TEXT_OR_NULL, "The account's `uid`."),
    "account_name": _of("string", "The account's name."),
}
_CAUSE: Final[dict[str, object]] = {
    "cause_code": _of(_TEXT_OR_NULL, "The cause code, such as status_503."),
    "cause": _of(_TEXT_OR_NULL, "The cause of the last failed attempt."),
    "fix": _of(_TEXT_OR_NULL, "How to fix the cause."),
    "dashboard_url": _of("string", "Link to the dashboard page for the endpoint or delivery."),
}
_ENDPOINT: Final = _object(
    {
        "id": _of("string", "The endpoint's ID."),
        "uid": _of(_TEXT_OR_NULL, "The endpoint's `uid`."),
        **_SUBJECT,
        "state": {"enum": ["enabled", "disabled"], "description": "The endpoint's state."},
        "disabled_reason": {"enum": ["failing", "gone", None], "description": "Why the server disabled the endpoint."},
        "failing_since": _of(_TEXT_OR_NULL, "The time when the endpoint began to fail, ISO 8601."),
        "disable_at": _of(
            _TEXT_OR_NULL, "The time when the server disables the endpoint if it keeps failing, ISO 8601."
        ),
        "recovered_at": _of(_TEXT_OR_NULL, "The time of the first success after the warning, ISO 8601."),
        "failed_attempts": {"type": "integer", "minimum": 0, "description": "The number of failed attempts in a row."},
        **_CAUSE,
    },
    "id",
    "account",
    "state",
)
_FAILED_DELIVERY: Final = _object(
    {
        "id": _of("string", "The ID of the latest failed delivery."),
        "endpoint": _of("string", "The ID of the delivery's endpoint."),
        "endpoint_uid": _of(_TEXT_OR_NULL, "The endpoint's `uid`."),
        **_SUBJECT,
        "event": _of("string", "The ID of the delivery's event."),
        "event_type": _of("string", "The type of the delivery's event."),
        "failed_reason": {
            "enum": ["exhausted", "expired", None],
            "description": "Why the delivery failed. Null if the delivery has been resent since the failure.",
        },
        "attempts_made": {"type": "integer", "minimum": 0, "description": "The number of attempts for the delivery."},
        "failed_at": _of(_TEXT_OR_NULL, "The time when the delivery failed, ISO 8601."),
        "count": {
            "type": "integer",
            "minimum": 1,
            "description": "The number of failed deliveries to the endpoint since the previous `delivery.failed` event"
            " about it.",
        },
        "first_failed_at": _of("string", "The time when the first of the counted deliveries failed, ISO 8601."),
        **_CAUSE,
    },
    "id",
    "account",
    "endpoint",
    "count",
)
_ONLY_NAMED: Final = (
    "Only endpoints that name this type, or its group, in their subscription receive the event. An endpoint receives"
    " no events about itself."
)
_SESSION_ID: Final = _of("string", "The session's UUID, an underscore, and the repetition number.")
_ACTIVITY: Final = _of(_TEXT_OR_NULL, "The activity, such as baseball.")
_MOVEMENT: Final = _of(_TEXT_OR_NULL, "The movement within the activity, such as pitching.")
_LINK: Final = _object(
    {
        "url": _of(
            "string", "Signed link to a CSV file with one row per frame. Anyone with the link can read the data."
        ),
        "expires": _of("integer", "The time when the link expires, in Unix milliseconds."),
    },
    description="Link to the data. The event does not contain the data.",
)
_ATHLETE_PROPERTIES: Final[dict[str, object]] = {
    "id": _of("string", "The athlete's ID."),
    "first_name": _of("string", "First name."),
    "last_name": _of(_TEXT_OR_NULL, "Last name."),
    "date_of_birth": _of(_TEXT_OR_NULL, "Date of birth, YYYY-MM-DD."),
    "email": _of(_TEXT_OR_NULL, "Email address."),
    "height": _of(["number", "null"], "Height in inches."),
    "weight": _of(["number", "null"], "Weight in pounds."),
    "dominant_arm": {"enum": ["left", "right", "both", None], "description": "The dominant arm."},
    "dominant_leg": {"enum": ["left", "right", "both", None], "description": "The dominant leg."},
    "primary_activity": _of(_TEXT_OR_NULL, "The athlete's main activity."),
    "positions": {"type": "array", "items": {"type": "string"}, "description": "Positions on the field."},
    "level": {"enum": ["youth", "high_school", "college", "professional", None], "description": "Level of play."},
    "custom_attributes": {
        "type": "object",
        "additionalProperties": {"type": "string"},
        "description": "Attributes that the organization defines.",
    },
}

EVENT_TYPES: Final = (
    _event_type(
        MOVEMENT_ANALYTICS_CREATED,
        "movement",
        "The kinematics of a capture are ready. The event contains the session, the athlete, and a link to the data. "
        "The link is valid for seven days. If a session is processed again, another event with the same session ID "
        "follows: keep the newest event.",
        _object(
            {
                "id": _SESSION_ID,
                "activity": _ACTIVITY,
                "movement": _MOVEMENT,
                "data": _LINK,
                "organization": _object(
                    {
                        "id": _object(
                            {
                                "organizationId": _of("string", "The organization's ID."),
                                "userId": _of("string", "The ID of the user who owns the capture."),
                                "roleName": _of("string", "The user's role, such as owner."),
                            },
                        ),
                        "user": _of("string", "The ID of the user who owns the capture."),
                    },
                    description="The owner of the capture.",
                ),
                "athlete": {
                    "type": ["object", "null"],
                    "properties": {
                        "id": _of("string", "The athlete's ID."),
                        "name": _of(_TEXT_OR_NULL, "The athlete's name (personal data)."),
                        "ebis_id": _of(["string", "integer", "null"], "The player's ID in eBIS, if any."),
                        "mlbam_id": _of(
                            ["string", "integer", "null"], "The player's ID at MLB Advanced Media, if any."
                        ),
                    },
                    "description": "The captured athlete.",
                },
            },
        ),
        documented=True,
    ),
    _event_type(
        WEBHOOK_CREATED,
        "webhook",
        "An endpoint was created. The server sends this event once to the new endpoint, regardless of its "
        "subscription, so that you can check the endpoint.",
        _object(
            {
                "id": _of("string", "The endpoint's ID."),
                "userId": _of(_TEXT_OR_NULL, "The ID of the user who owns the endpoint."),
                "accountId": _of(_TEXT_OR_NULL, "The ID of the account that owns the endpoint."),
                "eventTypeIds": {
                    "type": "array",
                    "items": {"type": "string"},
                    "description": "The event types in the endpoint's subscription.",
                },
                "hookUrl": _of("string", "The endpoint's URL."),
                "description": _of(_TEXT_OR_NULL, "The endpoint's description."),
            },
        ),
        documented=True,
    ),
    _event_type(
        "capture.processing.failed",
        "capture",
        "A capture could not be processed, or its result failed quality assurance. The capture has no data.",
        _object(
            {
                "id": _SESSION_ID,
                "activity": _ACTIVITY,
                "movement": _MOVEMENT,
                "status": {"const": "error", "description": "The capture's status in Uplift's API."},
                "error": _of("string", "A human-readable error message."),
                "capture_time": _of(_TEXT_OR_NULL, "The recording time, ISO 8601."),
                "athlete": {
                    "type": ["object", "null"],
                    "properties": {
                        "id": _of("string", "The athlete's ID."),
                        "name": _of(_TEXT_OR_NULL, "The athlete's name (personal data)."),
                    },
                    "description": "The captured athlete.",
                },
            },
            "id",
            "status",
            "error",
        ),
    ),
    _event_type(
        "athlete.created",
        "athlete",
        "An athlete was added to the organization.",
        _object(_ATHLETE_PROPERTIES, "id", "first_name"),
    ),
    _event_type(
        "athlete.updated",
        "athlete",
        "An athlete's properties changed. The event contains all current properties and the names of the changed"
        " properties.",
        _object(
            {
                **_ATHLETE_PROPERTIES,
                "changed": {
                    "type": "array",
                    "items": {"type": "string"},
                    "description": "The properties that changed.",
                },
            },
            "id",
            "first_name",
        ),
    ),
    _event_type(
        "export.completed",
        "export",
        "A requested data export is ready. The event contains the job and a link to the rows.",
        _object(
            {
                "jobId": _of("string", "The ID of the export job."),
                "status": {"const": "COMPLETED", "description": "The job's status in Uplift's API."},
                "activity": _ACTIVITY,
                "movement": _MOVEMENT,
                "startTime": _of("integer", "Start of the exported period, in Unix seconds."),
                "endTime": _of("integer", "End of the exported period, in Unix seconds."),
                "rowCount": {"type": "integer", "minimum": 0, "description": "The number of rows."},
                "createdAt": _of("string", "The time of the request, ISO 8601."),
                "completedAt": _of("string", "The time of completion, ISO 8601."),
                "data": _LINK,
            },
            "jobId",
            "status",
        ),
    ),
    _event_type(
        "endpoint.warned",
        operational.GROUP,
        "An endpoint has been failing for a long time. If the endpoint keeps failing, the server disables it at"
        f" `disable_at`. {_ONLY_NAMED}",
        _ENDPOINT,
    ),
    _event_type(
        "endpoint.disabled",
        operational.GROUP,
        f"The server disabled an endpoint, and holds its deliveries until you enable it. {_ONLY_NAMED}",
        _ENDPOINT,
    ),
    _event_type(
        "endpoint.recovered",
        operational.GROUP,
        f"An attempt to deliver to an endpoint succeeded after a warning. {_ONLY_NAMED}",
        _ENDPOINT,
    ),
    _event_type(
        "delivery.failed",
        operational.GROUP,
        "Deliveries to an endpoint failed, and the server does not retry them. The event contains the latest failed"
        " delivery. The server sends at most one event per endpoint per minute, with the number of failed deliveries."
        f" {_ONLY_NAMED}",
        _FAILED_DELIVERY,
    ),
)
"""The built-in event types. Operators can add other types."""
