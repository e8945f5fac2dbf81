"""Errors from API calls: the server rejected the call, or there was no valid response."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FieldError:
    """A problem with one field of a request."""

    field: str
    """The invalid body field or query parameter, such as `url` or `events.3.data`."""
    code: str
    """Stable code, such as `https_required`. `/docs/errors` on your server lists all codes."""
    message: str
    """Description of the problem, for users."""


class ApiFailure(Exception):
    """Base class of API call errors. The message never contains the key."""


class ApiError(ApiFailure):
    """The server rejected a call."""

    status: int
    """Status code of the response."""
    code: str
    """Stable code, such as `not_found` or `validation_failed`. Empty if the response has no code."""
    detail: str
    """The cause in one sentence, for users."""
    errors: tuple[FieldError, ...]
    """The problems with single fields, if any."""
    retry_after_seconds: float | None
    """The `Retry-After` of the response in seconds, if any."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        errors: Iterable[FieldError] = (),
        retry_after_seconds: float | None = None,
    ) -> None:
        """Set the attributes. Set `args`, too, so that pickle can copy the error."""
        self.errors = tuple(errors)
        super().__init__(status, code, detail, self.errors, retry_after_seconds)
        self.status = status
        self.code = code
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds

    def __str__(self) -> str:
        """Return the cause, the fields and the code in one line."""
        fields = " ".join(f"{error.field}: {error.message}" for error in self.errors)
        return f"{self.detail} {fields}".rstrip() + f" [{self.status} {self.code}]".replace(" ]", "]")


class ApiUnreachable(ApiFailure):
    """There was no valid response, for example because of a timeout, or because another kind of server responded.

    The server may have executed the call. It is safe to repeat a read, or a POST with the same `idempotency_key`.
    """


class ApiMisaddressed(ApiUnreachable):
    """The response does not come from an Uplift Webhooks server, usually because the URL is wrong."""
