"""Telling that an answer repeats an earlier one."""

from starlette.responses import Response

HEADER = "idempotency-replayed"


def mark_repeated(response: Response, *, repeated: bool) -> None:
    """Say so in the answer's headers if the object had been created by an earlier request with the same key."""
    if repeated:
        response.headers[HEADER] = "true"
