"""Why a request is refused: one class a reason, each with the stable code the outside world sees.

The edges decide how to tell: an HTTP status, an exit code, a banner. The texts are for people.
"""

from collections.abc import Sequence
from typing import ClassVar

from uplift_server.core.limits import PROBLEMS_LISTED_MAX
from uplift_server.core.problems import Problem


class ServiceError(Exception):
    """What every refusal is. `detail` says what happened and what to do."""

    code: ClassVar[str]
    retry_after_s: int | None = None
    """Where it passes by itself: when to ask again."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class Malformed(ServiceError):
    """The request cannot be read at all."""

    code = "malformed_json"


class DuplicateHeader(ServiceError):
    """A header that may be sent once was repeated."""

    code = "duplicate_header"


class Unauthorized(ServiceError):
    """Nobody known asks."""

    code = "unauthorized"

    def __init__(self, detail: str = "Send a valid key as `Authorization: Bearer <key>`.") -> None:
        super().__init__(detail)


class Forbidden(ServiceError):
    """The caller is known and may not do this."""

    code = "forbidden"


class ConfirmationRequired(Forbidden):
    """Whoever is signed in may do this with a password that was just given."""

    def __init__(self) -> None:
        super().__init__("Give your password once more: this is shown only for ten minutes after it.")


class NotFound(ServiceError):
    """There is no such thing, or it is somebody else's: the answer is the same."""

    code = "not_found"


class Conflict(ServiceError):
    """What is asked contradicts the present state."""

    code = "conflict"


class IdempotencyConflict(Conflict):
    """An idempotency key (or a chosen event id) belongs to other content."""

    code = "idempotency_conflict"


class NotReady(ServiceError):
    """The process cannot do its part now."""

    code = "unavailable"
    retry_after_s = 1


class Busy(ServiceError):
    """There is no room for it now; soon there is."""

    code = "unavailable"
    retry_after_s = 1


class RateLimited(ServiceError):
    """It would be more than a rate limit allows."""

    code = "rate_limited"

    def __init__(self, detail: str, retry_after_s: int = 1) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class PayloadTooLarge(ServiceError):
    """The request is larger than a limit."""

    code = "payload_too_large"


class UnsupportedMediaType(ServiceError):
    """The request's body is no JSON by its own word."""

    code = "unsupported_media_type"


class Invalid(ServiceError):
    """Something is wrong with what was sent; `problems` has all of it, up to PROBLEMS_LISTED_MAX."""

    code = "validation_failed"

    def __init__(self, problems: Sequence[Problem]) -> None:
        count = len(problems)
        text = "1 field is wrong." if count == 1 else f"{count} fields are wrong."
        if count > PROBLEMS_LISTED_MAX:
            text = f"More than {PROBLEMS_LISTED_MAX} fields are wrong; these are the first {PROBLEMS_LISTED_MAX}."
        super().__init__(text)
        self.problems = tuple(problems[:PROBLEMS_LISTED_MAX])


class AccountRequired(ServiceError):
    """An operator must name an account for this."""

    code = "account_required"

    def __init__(self) -> None:
        super().__init__("This call is about one account: name it in the header `Uplift-Account: acc_…`.")
