"""Flask: a decorator that passes the verified event to a view.

>>> @app.post("/webhook")                     # doctest: +SKIP
... @verified(Webhook())
... def receive(event): ...
"""

import functools
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec

from flask import Request, Response, current_app, request
from flask.typing import ResponseReturnValue

from uplift_webhooks.deduplication import EventInProgress
from uplift_webhooks.errors import WebhookVerificationError
from uplift_webhooks.events import AnyEvent
from uplift_webhooks.frameworks.rejections import (
    BODY_BYTES_MAX,
    CONTENT_TYPE,
    WRONG_METHOD,
    Rejection,
    in_progress,
    too_large,
    unverified,
)
from uplift_webhooks.webhook import Webhook

P = ParamSpec("P")


def verified(
    webhook: Webhook, *, body_bytes_max: int = BODY_BYTES_MAX
) -> Callable[[Callable[Concatenate[AnyEvent, P], ResponseReturnValue | None]], Callable[P, ResponseReturnValue]]:
    """Decorate a view that takes the event and the route's parameters.

    If the view returns None, the response is 204.
    """

    def decorate(view: Callable[Concatenate[AnyEvent, P], ResponseReturnValue | None]) -> Callable[P, Any]:
        @functools.wraps(view)
        def serve(*args: P.args, **kwargs: P.kwargs) -> ResponseReturnValue:
            if request.method != "POST":
                return _response(WRONG_METHOD)
            body = _body(request, body_bytes_max)
            if body is None:
                return _response(too_large(body_bytes_max))
            try:
                event = webhook.unwrap(body, request.headers)
            except WebhookVerificationError as error:
                return _response(unverified(error))
            try:
                answer = current_app.ensure_sync(view)(event, *args, **kwargs)
            except EventInProgress as error:
                return _response(in_progress(error))
            return Response(status=204) if answer is None else answer

        return serve

    return decorate


def _body(sent: Request, body_bytes_max: int) -> bytes | None:
    """Return the body of the request, or None if it is too large."""
    if sent.content_length is None:
        # Read the stream, because `get_data` returns an empty body if there is no Content-Length.
        body = sent.stream.read(body_bytes_max + 1)
        return body if len(body) <= body_bytes_max else None
    return sent.get_data() if sent.content_length <= body_bytes_max else None


def _response(rejection: Rejection) -> Response:
    return Response(rejection.content, rejection.status, rejection.headers, content_type=CONTENT_TYPE)
