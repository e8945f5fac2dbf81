"""Django: a decorator that passes the verified event to a view.

>>> @verified(Webhook())                       # doctest: +SKIP
... def receive(request, event): ...

The view does not need a CSRF token or a login, because the signature authenticates the sender.
"""

import functools
from collections.abc import Callable
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse
from django.http.request import UnreadablePostError

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

View = Callable[..., Any]


def verified(webhook: Webhook, *, body_bytes_max: int = BODY_BYTES_MAX) -> Callable[[View], View]:
    """Decorate a view, sync or async, that takes the request, the event, and the URL pattern's parameters.

    If the view returns None, the response is 204. Django's `DATA_UPLOAD_MAX_MEMORY_SIZE` also applies.
    """

    def decorate(view: View) -> View:
        @functools.wraps(view)
        def serve(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            try:
                return _answered(view(request, _event(request, webhook, body_bytes_max), *args, **kwargs))
            except Rejected as error:
                return _response(error.rejection)
            except EventInProgress as error:
                return _response(in_progress(error))

        @functools.wraps(view)
        async def serve_async(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            try:
                return _answered(await view(request, _event(request, webhook, body_bytes_max), *args, **kwargs))
            except Rejected as error:
                return _response(error.rejection)
            except EventInProgress as error:
                return _response(in_progress(error))

        decorated: Any = serve_async if iscoroutinefunction(view) else serve
        # Set the same attributes as Django's csrf_exempt and login_not_required (Django 5.1).
        decorated.csrf_exempt = True
        decorated.login_required = False
        return decorated  # type: ignore[no-any-return]

    return decorate


def _event(request: HttpRequest, webhook: Webhook, body_bytes_max: int) -> AnyEvent:
    """Return the verified event of a request. Raises Rejected if the request is not valid."""
    if request.method != "POST":
        raise Rejected(WRONG_METHOD)
    try:
        length = int(request.META.get("CONTENT_LENGTH") or 0)
    except ValueError:
        raise Rejected(WRONG_LENGTH) from None
    if length > body_bytes_max:
        raise Rejected(too_large(body_bytes_max))
    try:
        body: bytes = request.body
    except RequestDataTooBig:
        raise Rejected(too_large(body_bytes_max)) from None
    except UnreadablePostError:
        raise Rejected(Rejection(400, "The body is incomplete.")) from None
    if len(body) > body_bytes_max:
        raise Rejected(too_large(body_bytes_max))
    try:
        return webhook.unwrap(body, request.headers)
    except WebhookVerificationError as error:
        raise Rejected(unverified(error)) from error


def _answered(answer: object) -> object:
    return HttpResponse(status=204) if answer is None else answer


def _response(rejection: Rejection) -> HttpResponse:
    return HttpResponse(
        rejection.content, status=rejection.status, headers=rejection.headers, content_type=CONTENT_TYPE
    )
