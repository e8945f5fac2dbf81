"""How a call of the API fails: the server refuses it, or gives no answer."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing that is wrong with a request."""

    field: str
    """Where: a field of the body or a query parameter, such as `url` or `events.3.data`."""
    code: str
    """A stable code, such as `https_required`; docs/api.md lists them."""
    message: str
    """For people."""


class ApiFailure(Exception):
    """A call that did not succeed. Its text never holds the key."""


class ApiError(ApiFailure):
    """The server refused a call."""

    status: int
    """The answer's HTTP status."""
    code: str
    """A stable code, such as `not_found` or `validation_failed`; empty where the answer has none."""
    detail: str
    """One sentence for people."""
    errors: tuple[FieldError, ...]
    """Everything that is wrong with the request, where that is why."""
    retry_after_seconds: float | None
    """After how long to ask again, where the server says so."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        errors: Iterable[FieldError] = (),
        retry_after_seconds: float | None = None,
    ) -> None:
        """Keep all of it as `args` too, so that the error survives pickling."""
        self.errors = tuple(errors)
        super().__init__(status, code, detail, self.errors, retry_after_seconds)
        self.status = status
        self.code = code
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds

    def __str__(self) -> str:
        """What is wrong, where, and the code, in one line."""
        fields = " ".join(f"{error.field}: {error.message}" for error in self.errors)
        return f"{self.detail} {fields}".rstrip() + f" [{self.status} {self.code}]".replace(" ]", "]")


class ApiUnreachable(ApiFailure):
    """No usable answer came: nobody is there, it took too long, TLS or a proxy failed, or another server answers.

    Whether the server did what it was asked is not known. Reading can be repeated, and so can a POST with the same
    `idempotency_key`.
    """


class ApiMisaddressed(ApiUnreachable):
    """What answers there is something else than a server of Uplift Webhooks. Trying again does not help."""
