"""Errors that several services raise."""

from collections.abc import Iterable

from uplift_server.core import ids
from uplift_server.core.deliveries.stream_limits import Exceeded
from uplift_server.core.problems import Problem
from uplift_server.service import errors
from uplift_server.store import idempotency
from uplift_server.store.errors import Conflict


def as_conflict(error: Conflict) -> errors.Conflict:
    """Convert a conflict of the store."""
    kind = errors.IdempotencyConflict if isinstance(error, idempotency.KeyReused) else errors.Conflict
    return kind(str(error))


def require_valid(problems: Iterable[Problem | None]) -> None:
    """Raise Invalid if there are problems. None stands for a check without a problem."""
    found = [problem for problem in problems if problem is not None]
    if found:
        raise errors.Invalid(found)


def parse_id(prefix: str, text: str, what: str) -> bytes:
    """Return the bytes of an ID. Raises NotFound if the text is not an ID with this prefix."""
    value = ids.parse_prefixed(prefix, text)
    if value is None:
        raise not_found(what, text)
    return value


def not_found(what: str, text: str) -> errors.NotFound:
    """Return the error for an object that does not exist or belongs to another account."""
    return errors.NotFound(f"There is no {what} {text[:100]} here.")


def too_many_streams(limit: Exceeded, what: str, fix: str) -> errors.ServiceError:
    """Return the error for one stream too many. `what` names the streams, `fix` is the instruction to stop one."""
    if limit is Exceeded.ACCOUNT:
        return errors.RateLimited(f"This account has reached its limit of {what}. {fix}, or try again later.")
    return errors.Busy(f"The server has reached its limit of {what}. Try again in a moment.")
