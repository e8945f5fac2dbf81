"""The objects in event data, as the event catalog describes them.

If the event omits a field, or if the field is null or has the wrong type, the attribute is None (or an empty tuple or
dictionary). `raw` is the complete JSON object, including fields that this version of the library does not define.
`repr` omits personal data and links.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, TypeVar

Reader = Callable[[object], Any]
R = TypeVar("R", bound="Resource")
_JSON_NAME: Final = "json_name"
_READER: Final = "reader"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """Base class of the objects in event data."""

    raw: Mapping[str, Any] = field(default_factory=dict, hash=False, repr=False)


def _read_text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _read_integer(value: object) -> int | None:
    # In JSON Schema, 1.0 is an integer. In Python, booleans are integers.
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _read_number(value: object) -> float | None:
    return value if isinstance(value, float) else _read_integer(value)


def _read_text_or_integer(value: object) -> str | int | None:
    return value if isinstance(value, str) else _read_integer(value)


def _read_texts(value: object) -> tuple[str, ...]:
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list) else ()


def _read_text_by_name(value: object) -> dict[str, str]:
    return {name: each for name, each in value.items() if isinstance(each, str)} if isinstance(value, dict) else {}


def _text(json_name: str | None = None, *, shown: bool = True) -> Any:
    return field(default=None, repr=shown, metadata={_JSON_NAME: json_name, _READER: _read_text})


def _integer(json_name: str | None = None) -> Any:
    return field(default=None, metadata={_JSON_NAME: json_name, _READER: _read_integer})


def _number() -> Any:
    return field(default=None, repr=False, metadata={_READER: _read_number})


def _text_or_integer() -> Any:
    return field(default=None, metadata={_READER: _read_text_or_integer})


def _texts(json_name: str | None = None) -> Any:
    return field(default=(), metadata={_JSON_NAME: json_name, _READER: _read_texts})


def _text_by_name() -> Any:
    return field(default_factory=dict, hash=False, repr=False, metadata={_READER: _read_text_by_name})


def _nested(kind: type[Resource]) -> dict[str, Reader]:
    def read_nested(value: object) -> Resource | None:
        return _read(kind, value) if isinstance(value, dict) else None

    return {_READER: read_nested}


@dataclass(frozen=True, slots=True, kw_only=True)
class Link(Resource):
    """A link to data outside the event."""

    url: str | None = _text(shown=False)
    """Signed URL of a CSV file with one row per frame. Anyone with the URL can read the data."""
    expires: int | None = _integer()
    """The time when the link expires, in Unix milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner(Resource):
    """The IDs of the organization and the user that own a capture."""

    organization_id: str | None = _text("organizationId")
    user_id: str | None = _text("userId")
    role_name: str | None = _text("roleName")
    """The user's role in the organization, such as owner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Organization(Resource):
    """The organization and the user that own a capture."""

    id: Owner | None = field(default=None, metadata=_nested(Owner))
    user: str | None = _text()
    """The ID of the user who owns the capture, the same as `id.user_id`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Athlete(Resource):
    """The athlete of a processed capture."""

    id: str | None = _text()
    name: str | None = _text(shown=False)
    ebis_id: str | int | None = _text_or_integer()
    """The player's ID in eBIS, if any."""
    mlbam_id: str | int | None = _text_or_integer()
    """The player's ID at MLB Advanced Media, if any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session(Resource):
    """A processed capture."""

    id: str | None = _text()
    """The session's UUID, an underscore and the number of the repetition."""
    activity: str | None = _text()
    """Activity, such as baseball."""
    movement: str | None = _text()
    """Movement within the activity, such as pitching."""
    data: Link | None = field(default=None, metadata=_nested(Link))
    organization: Organization | None = field(default=None, metadata=_nested(Organization))
    athlete: Athlete | None = field(default=None, metadata=_nested(Athlete))


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredEndpoint(Resource):
    """A new endpoint, with the fields that it had when it was created."""

    id: str | None = _text()
    user_id: str | None = _text("userId")
    account_id: str | None = _text("accountId")
    event_type_ids: tuple[str, ...] = _texts("eventTypeIds")
    """Event types that the endpoint is subscribed to."""
    hook_url: str | None = _text("hookUrl", shown=False)
    description: str | None = _text()


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedCaptureAthlete(Resource):
    """The athlete of a failed capture."""

    id: str | None = _text()
    name: str | None = _text(shown=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedCapture(Resource):
    """A capture that was not processed or did not pass quality assurance."""

    id: str | None = _text()
    """The session's UUID, an underscore and the number of the repetition."""
    activity: str | None = _text()
    movement: str | None = _text()
    status: str | None = _text()
    """The capture's status in Uplift's API, which is always `error` in this event."""
    error: str | None = _text()
    """A human-readable error message."""
    capture_time: str | None = _text()
    """Time of the recording, ISO 8601."""
    athlete: FailedCaptureAthlete | None = field(default=None, metadata=_nested(FailedCaptureAthlete))


@dataclass(frozen=True, slots=True, kw_only=True)
class AthleteProfile(Resource):
    """An athlete's profile."""

    id: str | None = _text()
    first_name: str | None = _text(shown=False)
    last_name: str | None = _text(shown=False)
    date_of_birth: str | None = _text(shown=False)
    """Date of birth, as YYYY-MM-DD."""
    email: str | None = _text(shown=False)
    height: float | None = _number()
    """Height in inches."""
    weight: float | None = _number()
    """Weight in pounds."""
    dominant_arm: str | None = _text()
    """Dominant arm: `left`, `right` or `both`."""
    dominant_leg: str | None = _text()
    """Dominant leg: `left`, `right` or `both`."""
    primary_activity: str | None = _text()
    positions: tuple[str, ...] = _texts()
    level: str | None = _text()
    """Level: `youth`, `high_school`, `college` or `professional`."""
    custom_attributes: Mapping[str, str] = _text_by_name()
    """Attributes that the organization defines, by name."""
    changed: tuple[str, ...] = _texts()
    """In `athlete.updated`: the names of the changed properties."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Export(Resource):
    """A finished export job."""

    job_id: str | None = _text("jobId")
    status: str | None = _text()
    """The job's status in Uplift's API, which is always `COMPLETED` in this event."""
    activity: str | None = _text()
    movement: str | None = _text()
    start_time: int | None = _integer("startTime")
    """Start of the exported period, in Unix seconds."""
    end_time: int | None = _integer("endTime")
    """End of the exported period, in Unix seconds."""
    row_count: int | None = _integer("rowCount")
    created_at: str | None = _text("createdAt")
    """When the export was requested, ISO 8601."""
    completed_at: str | None = _text("completedAt")
    """When the job was completed, ISO 8601."""
    data: Link | None = field(default=None, metadata=_nested(Link))


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointHealth(Resource):
    """An endpoint whose health changed."""

    id: str | None = _text()
    uid: str | None = _text()
    """The `uid` of the endpoint, if it has one."""
    url: str | None = _text(shown=False)
    description: str | None = _text()
    account: str | None = _text()
    """ID of the account that owns the endpoint."""
    account_uid: str | None = _text()
    account_name: str | None = _text()
    state: str | None = _text()
    """The endpoint's state: `enabled` or `disabled`."""
    disabled_reason: str | None = _text()
    """Why the server disabled the endpoint: `failing` or `gone`."""
    failing_since: str | None = _text()
    """When the endpoint began to fail, ISO 8601."""
    disable_at: str | None = _text()
    """In `endpoint.warned`: the time at which the server disables the endpoint if it keeps failing, ISO 8601."""
    recovered_at: str | None = _text()
    failed_attempts: int | None = _integer()
    """Number of failed attempts since the last success."""
    cause_code: str | None = _text()
    cause: str | None = _text()
    """Cause of the last failed attempt."""
    fix: str | None = _text()
    dashboard_url: str | None = _text()


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedDelivery(Resource):
    """An endpoint's latest failed delivery."""

    id: str | None = _text()
    endpoint: str | None = _text()
    endpoint_uid: str | None = _text()
    """The `uid` of the endpoint, if it has one."""
    url: str | None = _text(shown=False)
    """URL of the endpoint."""
    description: str | None = _text()
    """Description of the endpoint."""
    account: str | None = _text()
    """ID of the account that owns the endpoint."""
    account_uid: str | None = _text()
    account_name: str | None = _text()
    event: str | None = _text()
    event_type: str | None = _text()
    failed_reason: str | None = _text()
    """Why the delivery failed: `exhausted` or `expired`."""
    attempts_made: int | None = _integer()
    failed_at: str | None = _text()
    """When the delivery failed, ISO 8601."""
    count: int | None = _integer()
    """Number of the endpoint's deliveries that have failed since the previous `delivery.failed` event."""
    first_failed_at: str | None = _text()
    """When the first of the `count` deliveries failed, ISO 8601."""
    cause_code: str | None = _text()
    cause: str | None = _text()
    """Cause of the last failed attempt."""
    fix: str | None = _text()
    dashboard_url: str | None = _text()


def json_names(kind: type[Resource]) -> dict[str, str]:
    """Return the JSON name of each field of a class. Omit `raw`."""
    return {each.name: each.metadata.get(_JSON_NAME) or each.name for each in fields(kind) if _READER in each.metadata}


def read(kind: type[R], data: object) -> R:
    """Return the `object` of an event's data as a resource."""
    return _read(kind, data.get("object") if isinstance(data, dict) else None)


def _read(kind: type[R], value: object) -> R:
    given = value if isinstance(value, dict) else {}
    found = {
        each.name: each.metadata[_READER](given.get(each.metadata.get(_JSON_NAME) or each.name))
        for each in fields(kind)
        if _READER in each.metadata
    }
    return kind(raw=given, **found)
