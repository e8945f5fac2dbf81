"""Errors of use cases, each with a stable code that the public API returns.

The API and the dashboard convert the errors to responses.
"""

from collections.abc import Sequence
from typing import ClassVar

from uplift_server.core.limits import PROBLEMS_LISTED_MAX
from uplift_server.core.problems import Problem


class ServiceError(Exception):
    """Base class of all errors. `detail` states the problem and how to fix it."""

    code: ClassVar[str]
    retry_after_s: int | None = None
    """How many seconds to wait before a retry. None if the cause is not temporary."""

    def __init__(self, detail: str, problems: Sequence[Problem] = ()) -> None:
        """Create the error with at most PROBLEMS_LISTED_MAX of the problems."""
        super().__init__(detail)
        self.detail = detail
        self.problems = tuple(problems[:PROBLEMS_LISTED_MAX])


class Malformed(ServiceError):
    """The request body is not valid JSON."""

    code = "malformed_json"


class DuplicateHeader(ServiceError):
    """The request repeats a header that is allowed only once."""

    code = "duplicate_header"


class Unauthorized(ServiceError):
    """The caller is not authenticated."""

    code = "unauthorized"

    def __init__(self, detail: str = "The request has no API key. Send `Authorization: Bearer <key>`.") -> None:
        super().__init__(detail)


class Forbidden(ServiceError):
    """The caller does not have permission for the request."""

    code = "forbidden"


class ConfirmationRequired(Forbidden):
    """The signed-in person must confirm their identity again before this request."""

    def __init__(self) -> None:
        super().__init__("This action requires a recent password confirmation. Enter your password again.")


class NotFound(ServiceError):
    """The object does not exist or belongs to another account. Both cases have the same response."""

    code = "not_found"


class Conflict(ServiceError):
    """The request conflicts with the current state of an object."""

    code = "conflict"


class PreconditionFailed(Conflict):
    """The object changed after the caller read it."""

    code = "precondition_failed"

    def __init__(self) -> None:
        super().__init__("The object changed after you read it. Get it again, and repeat your change.")


class IdempotencyConflict(Conflict):
    """An earlier request used the idempotency key or event ID with different content."""

    code = "idempotency_conflict"


class NotReady(ServiceError):
    """The server process cannot accept events at the moment."""

    code = "unavailable"
    retry_after_s = 1


class Busy(ServiceError):
    """The server has reached a temporary limit."""

    code = "unavailable"
    retry_after_s = 1


class RateLimited(ServiceError):
    """The request exceeds a rate limit."""

    code = "rate_limited"

    def __init__(self, detail: str, retry_after_s: int = 1) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class PayloadTooLarge(ServiceError):
    """The request is too large."""

    code = "payload_too_large"


class UnsupportedMediaType(ServiceError):
    """The content type of the request is not JSON."""

    code = "unsupported_media_type"


class Invalid(ServiceError):
    """Fields of the request are invalid."""

    code = "validation_failed"

    def __init__(self, problems: Sequence[Problem]) -> None:
        count = len(problems)
        text = "1 field is not valid." if count == 1 else f"{count} fields are not valid."
        if count > PROBLEMS_LISTED_MAX:
            text = (
                f"More than {PROBLEMS_LISTED_MAX} fields are not valid. `errors` lists the first {PROBLEMS_LISTED_MAX}."
            )
        super().__init__(text, problems)


class AccountRequired(ServiceError):
    """An operator or a service key must name an account for this request, or for each event of a batch."""

    code = "account_required"

    def __init__(self, problems: Sequence[Problem] = ()) -> None:
        super().__init__("This call requires an account. Send its ID or uid in the header `Uplift-Account`.", problems)
