"""One receiver per adapter, with the same behavior, for shared tests."""

import asyncio
import io
from collections.abc import Callable
from typing import Annotated, Any

import django
import flask
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.test import Client as DjangoClient
from django.test import override_settings
from django.urls import path
from django.views import View
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.routing import Route

from uplift_webhooks import AnyEvent, Webhook
from uplift_webhooks.frameworks import asgi, wsgi
from uplift_webhooks.frameworks.django import verified as django_verified
from uplift_webhooks.frameworks.fastapi import VerifiedEvent
from uplift_webhooks.frameworks.flask import verified as flask_verified

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY_BYTES_MAX = 5000
Handle = Callable[[AnyEvent], None]


def asgi_application(handle: Handle) -> Any:
    """ASGI with a coroutine function."""

    async def handler(event: AnyEvent) -> None:
        await asyncio.sleep(0)
        handle(event)

    return asgi.WebhookApplication(Webhook(SECRET), handler, body_bytes_max=BODY_BYTES_MAX)


def asgi_application_with_a_function(handle: Handle) -> Any:
    """ASGI with a function that runs in a thread."""
    return asgi.WebhookApplication(Webhook(SECRET), handle, body_bytes_max=BODY_BYTES_MAX)


def starlette_route(handle: Handle) -> Any:
    """The ASGI application in a Starlette route."""
    return Starlette(routes=[Route("/webhook", asgi_application(handle))])


def wsgi_application(handle: Handle) -> Any:
    """Plain WSGI."""
    return wsgi.WebhookApplication(Webhook(SECRET), handle, body_bytes_max=BODY_BYTES_MAX)


def flask_application(handle: Handle) -> Any:
    """Flask with two views, one of them with a parameter."""
    app = flask.Flask("receiver")
    app.testing = True

    @app.route("/webhook", methods=["GET", "POST", "PUT"])
    @flask_verified(Webhook(SECRET), body_bytes_max=BODY_BYTES_MAX)
    def receive(event: AnyEvent) -> None:
        handle(event)

    @app.post("/webhook/<team>")
    @flask_verified(Webhook(SECRET))
    def receive_for(event: AnyEvent, team: str) -> tuple[str, int]:
        return f"{event.type} for {team}", 202

    return app


def fastapi_application(handle: Handle) -> Any:
    """FastAPI with two routes, one of which returns content."""
    app = FastAPI()
    verified = VerifiedEvent(Webhook(SECRET), body_bytes_max=BODY_BYTES_MAX)
    Verified = Annotated[AnyEvent, Depends(verified)]

    @app.api_route("/webhook", methods=["GET", "POST", "PUT"], status_code=204)
    async def receive(event: Verified) -> None:
        handle(event)

    @app.post("/webhook/{team}", status_code=202)
    def receive_for(event: Verified, team: str) -> str:
        return f"{event.type} for {team}"

    return app


_django_handle: list[Handle] = []


@django_verified(Webhook(SECRET), body_bytes_max=BODY_BYTES_MAX)
def _django_view(request: Any, event: AnyEvent) -> None:
    _django_handle[-1](event)


@django_verified(Webhook(SECRET), body_bytes_max=BODY_BYTES_MAX)
async def _django_async_view(request: Any, event: AnyEvent) -> None:
    await asyncio.sleep(0)
    _django_handle[-1](event)


class _DjangoAsyncView(View):
    """An async class-based view."""

    async def post(self, request: Any, event: AnyEvent) -> None:
        await asyncio.sleep(0)
        _django_handle[-1](event)


@django_verified(Webhook(SECRET))
def _django_view_for(request: Any, event: AnyEvent, team: str) -> Any:
    from django.http import HttpResponse

    return HttpResponse(f"{event.type} for {team}", status=202)


class Urls:
    """Django's URLconf."""

    urlpatterns = [  # noqa: RUF012 - Django's form
        path("webhook", _django_view),
        path("async/webhook", _django_async_view),
        path(
            "class/webhook",
            django_verified(Webhook(SECRET), body_bytes_max=BODY_BYTES_MAX)(_DjangoAsyncView.as_view()),
        ),
        path("webhook/<team>", _django_view_for),
    ]


def _django(handle: Handle) -> None:
    if not settings.configured:
        settings.configure(
            ROOT_URLCONF=Urls,
            ALLOWED_HOSTS=["*"],
            SECRET_KEY="x",
            MIDDLEWARE=["django.middleware.csrf.CsrfViewMiddleware"],
            DATA_UPLOAD_MAX_MEMORY_SIZE=8000,
        )
        django.setup(set_prefix=False)
    _django_handle[:] = [handle]


def as_django(urlpatterns: list[Any]) -> Any:
    """Django with only these URLs."""
    _django(print)
    application = get_wsgi_application()

    def with_urls(environ: Any, start_response: Any) -> Any:
        with override_settings(ROOT_URLCONF=tuple(urlpatterns)):
            return application(environ, start_response)

    return with_urls


def django_wsgi(handle: Handle) -> Any:
    """A Django view behind the CSRF middleware."""
    _django(handle)
    return get_wsgi_application()


def django_asgi(handle: Handle, prefix: str = "/async") -> Any:
    """An async Django view."""
    _django(handle)
    application = get_asgi_application()

    async def with_prefix(scope: Any, receive: Any, send: Any) -> None:
        await application({**scope, "path": f"{prefix}{scope['path']}"}, receive, send)

    return with_prefix


def django_class(handle: Handle) -> Any:
    """An async class-based Django view."""
    return django_asgi(handle, "/class")


APPLICATIONS: dict[str, Callable[[Handle], Any]] = {
    "asgi": asgi_application,
    "asgi with a function": asgi_application_with_a_function,
    "starlette": starlette_route,
    "wsgi": wsgi_application,
    "flask": flask_application,
    "fastapi": fastapi_application,
    "django": django_wsgi,
    "django async": django_asgi,
    "django async class": django_class,
}


def flask_client(handle: Handle) -> Any:
    """Flask's test client."""
    return flask_application(handle).test_client()


def fastapi_client(handle: Handle) -> Any:
    """FastAPI's test client."""
    return TestClient(fastapi_application(handle))


def django_client(handle: Handle) -> Any:
    """Django's test client with CSRF checks."""
    _django(handle)
    return DjangoClient(enforce_csrf_checks=True)


CLIENTS: dict[str, Callable[[Handle], Any]] = {
    "flask": flask_client,
    "fastapi": fastapi_client,
    "django": django_client,
}


class Stream(io.BytesIO):
    """A body stream that records the size of the largest read."""

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self.largest = 0

    def read(self, size: int | None = -1) -> bytes:
        """Read a part of the body."""
        data = super().read(size)
        self.largest = max(self.largest, len(data))
        return data
