"""WSGI: a receiver application for any WSGI server or framework.

>>> app = WebhookApplication(Webhook(), handle)        # doctest: +SKIP
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

from uplift_webhooks.deduplication import EventInProgress
from uplift_webhooks.errors import WebhookVerificationError
from uplift_webhooks.events import AnyEvent
from uplift_webhooks.frameworks.rejections import (
    BODY_BYTES_MAX,
    CONTENT_TYPE,
    WRONG_LENGTH,
    WRONG_METHOD,
    Rejected,
    Rejection,
    in_progress,
    too_large,
    unverified,
)
from uplift_webhooks.webhook import Webhook

Environ = dict[str, Any]
StartResponse = Callable[..., object]
_REASONS: Final = {
    204: "No Content",
    400: "Bad Request",
    401: "Unauthorized",
    405: "Method Not Allowed",
    409: "Conflict",
    413: "Content Too Large",
}


class WebhookApplication:
    """Verifies POST requests at any path, passes each event to a handler, and responds with 204."""

    def __init__(
        self, webhook: Webhook, handler: Callable[[AnyEvent], None], *, body_bytes_max: int = BODY_BYTES_MAX
    ) -> None:
        self._webhook: Final = webhook
        self._handler: Final = handler
        self._body_bytes_max: Final = body_bytes_max

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request, as WSGI requires."""
        rejection = self._serve(environ)
        if rejection is None:
            start_response(f"204 {_REASONS[204]}", [])
            return []
        headers = {
            "Content-Type": CONTENT_TYPE,
            "Content-Length": str(len(rejection.content)),
            **rejection.headers,
        }
        start_response(f"{rejection.status} {_REASONS[rejection.status]}", list(headers.items()))
        return [rejection.content]

    def _serve(self, environ: Environ) -> Rejection | None:
        if environ["REQUEST_METHOD"] != "POST":
            return WRONG_METHOD
        try:
            event = self._webhook.unwrap(_body(environ, self._body_bytes_max), environ)
        except Rejected as error:
            return error.rejection
        except WebhookVerificationError as error:
            return unverified(error)
        try:
            self._handler(event)
        except EventInProgress as error:
            return in_progress(error)
        return None


def _body(environ: Environ, body_bytes_max: int) -> bytes:
    """Return the body. Raises Rejected if the body is too large or Content-Length is not valid.

    Without Content-Length, the body is empty unless the server marks the end of the input.
    """
    length = environ.get("CONTENT_LENGTH") or ""
    if length and not (length.isascii() and length.isdigit()):
        raise Rejected(WRONG_LENGTH)
    # Reject numbers of more than 18 digits without parsing them, because `int` is slow for long numbers.
    if len(length) > 18 or int(length or 0) > body_bytes_max:
        raise Rejected(too_large(body_bytes_max))
    if not length and not environ.get("wsgi.input_terminated"):
        return b""
    body: bytes = environ["wsgi.input"].read(int(length) if length else body_bytes_max + 1)
    if len(body) > body_bytes_max:
        raise Rejected(too_large(body_bytes_max))
    return body
