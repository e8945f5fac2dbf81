"""FastAPI: a dependency that passes the verified event to a route.

>>> Verified = Annotated[AnyEvent, Depends(VerifiedEvent(Webhook()))]       # doctest: +SKIP
>>> @app.post("/webhook", status_code=204)                                   # doctest: +SKIP
... async def receive(event: Verified) -> None: ...

With Starlette alone, use the application in `uplift_webhooks.frameworks.asgi`.
"""

from collections.abc import AsyncIterator
from typing import Final

from fastapi import HTTPException, Request

from uplift_webhooks.deduplication import EventInProgress
from uplift_webhooks.errors import WebhookVerificationError
from uplift_webhooks.events import AnyEvent
from uplift_webhooks.frameworks.rejections import (
    BODY_BYTES_MAX,
    WRONG_METHOD,
    Rejection,
    in_progress,
    too_large,
    unverified,
)
from uplift_webhooks.webhook import Webhook


class VerifiedEvent:
    """A dependency that returns the request's event.

    Before the route runs, the dependency rejects requests that fail verification.
    """

    def __init__(self, webhook: Webhook, *, body_bytes_max: int = BODY_BYTES_MAX) -> None:
        self._webhook: Final = webhook
        self._body_bytes_max: Final = body_bytes_max

    async def __call__(self, request: Request) -> AsyncIterator[AnyEvent]:
        """Yield the request's verified event.

        Raises HTTPException if the request is not valid, or if the route raises EventInProgress.
        """
        if request.method != "POST":
            raise _exception(WRONG_METHOD)
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > self._body_bytes_max:
                raise _exception(too_large(self._body_bytes_max))
        try:
            event = self._webhook.unwrap(body, request.headers)
        except WebhookVerificationError as error:
            raise _exception(unverified(error)) from error
        try:
            yield event
        except EventInProgress as error:
            raise _exception(in_progress(error)) from error


def _exception(rejection: Rejection) -> HTTPException:
    return HTTPException(rejection.status, rejection.text, rejection.headers)
