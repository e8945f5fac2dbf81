"""The response header `Idempotency-Replayed`, which marks responses to repeated requests."""

from starlette.responses import Response

HEADER = "idempotency-replayed"


def mark_repeated(response: Response, *, repeated: bool) -> None:
    """Set `Idempotency-Replayed` in the response if `repeated` is true.

    A request is repeated if an earlier request with the same idempotency key created the object.
    """
    if repeated:
        response.headers[HEADER] = "true"
