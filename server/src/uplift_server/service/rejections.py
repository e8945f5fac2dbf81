"""The refusals that all services make, in the same words."""

from collections.abc import Sequence

from uplift_server.core import ids
from uplift_server.core.deliveries.stream_limits import Exceeded
from uplift_server.core.problems import Problem
from uplift_server.service import errors
from uplift_server.store import idempotency
from uplift_server.store.errors import Conflict


def refusal(error: Conflict) -> errors.Conflict:
    """The store's conflict as a refusal."""
    kind = errors.IdempotencyConflict if isinstance(error, idempotency.KeyTaken) else errors.Conflict
    return kind(str(error))


def refuse(problems: Sequence[Problem]) -> None:
    """Raise Invalid if there are problems."""
    if problems:
        raise errors.Invalid(problems)


def parse_id(prefix: str, text: str, what: str) -> bytes:
    """The bytes of an id. Raises NotFound for any other text: there cannot be such a thing."""
    value = ids.parse_prefixed(prefix, text)
    if value is None:
        raise not_found(what, text)
    return value


def not_found(what: str, text: str) -> errors.NotFound:
    """Says that there is no such thing, in one text for those of others too."""
    return errors.NotFound(f"There is no {what} {text[:100]} here.")


def too_many_streams(limit: Exceeded, what: str, remedy: str) -> errors.ServiceError:
    """The rejection of one more stream. `what` names the streams; `remedy` is an instruction that makes room."""
    if limit is Exceeded.ACCOUNT:
        return errors.RateLimited(f"This account has reached its limit of {what}. {remedy}, or try again later.")
    return errors.Busy(f"The server has reached its limit of {what}. Try again in a moment.")
