"""Errors that several services raise."""

from collections.abc import Iterable
from typing import Final

from uplift_server.core import ids
from uplift_server.core.deliveries.stream_limits import Exceeded
from uplift_server.core.own_data import check_uid
from uplift_server.core.problems import Problem
from uplift_server.core.suggestions import did_you_mean
from uplift_server.service import errors
from uplift_server.service.fields import Unset
from uplift_server.store import idempotency
from uplift_server.store.errors import Conflict

ENDPOINT_UNKNOWN: Final = Problem("endpoint", "endpoint_unknown", "The endpoint does not exist. Check the ID or uid.")

_JSON_REASONS: Final = {"Input data was truncated": "it is empty or incomplete"}


def as_conflict(error: Conflict) -> errors.Conflict:
    """Convert a store conflict to a service error."""
    kind = errors.IdempotencyConflict if isinstance(error, idempotency.KeyReused) else errors.Conflict
    return kind(str(error))


def malformed_json(error: Exception) -> errors.Malformed:
    """Return the error for a body that is not JSON. `error` is the decoder's error."""
    if isinstance(error, UnicodeDecodeError):
        return errors.Malformed("The body is not valid UTF-8. Send JSON in UTF-8.")
    if isinstance(error, RecursionError):
        return errors.Malformed("The JSON has too many levels of nested objects or lists. Remove some levels.")
    reason = str(error).removeprefix("JSON is malformed: ")
    return errors.Malformed(f"The JSON is not valid: {_JSON_REASONS.get(reason, reason)}. Correct the JSON.")


def require_valid(problems: Iterable[Problem | None]) -> None:
    """Raise Invalid if there are problems. Ignore each None, which means that a check found no problem."""
    found = [problem for problem in problems if problem is not None]
    if found:
        raise errors.Invalid(found)


def parse_id(prefix: str, text: str, what: str) -> bytes:
    """Return the bytes of an ID. Raises NotFound if the string is not an ID with this prefix."""
    value = ids.parse_prefixed(prefix, text)
    if value is None:
        raise not_found(what, text)
    return value


def not_found(what: str, text: str) -> errors.NotFound:
    """Return the error for an object that does not exist or belongs to another account."""
    key = {"event type": "name", "account": "ID or uid", "endpoint": "ID or uid"}.get(what, "ID")
    return errors.NotFound(f"The {what} {text[:100]} does not exist. Check the {key}.")


def own_uid_problems(named: str, sent: str | Unset | None) -> list[Problem | None]:
    """Return a problem if the uid in the path of a PUT request is invalid or differs from the uid in the body."""
    if isinstance(sent, str) and sent != named:
        text = "The field differs from the path. Omit it. To change the uid, use PATCH."
        return [Problem("uid", "uid_mismatch", text)]
    return [check_uid(named)]


def unknown_event_type(name: str | None, field: str = "type", catalog: Iterable[str] = ()) -> Problem:
    """Return the problem with an event type that the catalog does not contain.

    `name` is None if a request names no event type and the event catalog has no usable type. `catalog` contains the
    names to suggest, if any.
    """
    if name is None:
        return Problem(
            field, "event_type_unknown", "No event type in the catalog accepts events. Ask the operator for one."
        )
    suggestion = did_you_mean(name, catalog)
    text = f"The event type {name[:200]} does not exist.{suggestion} See the event catalog (GET /v1/event-types)."
    return Problem(field, "event_type_unknown", text)


def archived_event_type(name: str, field: str = "type") -> Problem:
    """Return the problem with an archived event type."""
    text = f"The event type {name} is archived and does not accept new events. Use another event type."
    return Problem(field, "event_type_archived", text)


def reserved_event_type(name: str, field: str = "type") -> Problem:
    """Return the problem with an event type that only the server sends."""
    text = f"Only the server sends {name} events. Use another event type."
    return Problem(field, "event_type_reserved", text)


def too_many_streams(limit: Exceeded, what: str, fix: str) -> errors.ServiceError:
    """Return the error for an account or a server that has reached its limit of streams.

    `what` names the streams, and `fix` says how to stop one of them.
    """
    if limit is Exceeded.ACCOUNT:
        return errors.RateLimited(f"The account has reached its limit of {what}. {fix}, or try again later.")
    return errors.Busy(f"The server has reached its limit of {what}. Try again in a moment.")
