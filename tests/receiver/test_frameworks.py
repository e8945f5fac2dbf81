"""Adapters: a verified event reaches the handler, and other requests get the documented response."""

import asyncio
import functools
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift_webhooks import AnyEvent, MovementAnalyticsCreated, Webhook
from uplift_webhooks.deduplication import EventInProgress
from uplift_webhooks.frameworks import asgi, wsgi
from uplift_webhooks.testing import Answer, Sender, make_event, sign
from uplift_webhooks.testing.sender import _post_to_asgi, _post_to_wsgi

from .receivers import APPLICATIONS, BODY_BYTES_MAX, SECRET, Stream, django_wsgi, flask_application

Handled = list[AnyEvent]


@pytest.fixture
def handled() -> Handled:
    """The handled events."""
    return []


@pytest.fixture(params=APPLICATIONS)
def make_application(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Return a function that creates a receiver with a handler. Each test runs once per adapter."""
    return APPLICATIONS[request.param]


@pytest.fixture
def sender(make_application: Callable[..., Any], handled: Handled) -> Sender:
    """A sender that posts events to the receiver."""
    return Sender(make_application(handled.append), SECRET)


def test_a_verified_event_reaches_the_handler_and_returns_204(sender: Sender, handled: Handled) -> None:
    response = sender.post(make_event(athlete={"name": "Zoë"}))

    assert (response.status, response.body, response.accepted) == (204, b"", True)
    [event] = handled
    assert isinstance(event, MovementAnalyticsCreated)
    assert event.object.athlete is not None
    assert event.object.athlete.name == "Zoë"


REJECTED: list[tuple[int, str, bytes, dict[str, str]]] = [
    (401, "missing_header", make_event(), {"webhook-signature": ""}),
    (401, "missing_header", make_event(), {"webhook-id": ""}),
    (401, "no_matching_signature", make_event(), {"webhook-id": "another"}),
    (401, "no_matching_signature", make_event(), {"webhook-signature": "v1,AAAA"}),
    (401, "timestamp_too_old", make_event(), {"webhook-timestamp": "1600000000"}),
    (401, "timestamp_too_new", make_event(), {"webhook-timestamp": "99999999999"}),
    (400, "malformed_header", make_event(), {"webhook-timestamp": "yesterday"}),
    (400, "malformed_header", make_event(), {"webhook-signature": "sha256=00"}),
    (400, "body_not_json_object", b"[]", {}),
    (400, "body_not_json_object", b"", {}),
    (400, "body_not_json_object", b"\xff\xfe", {}),
    (400, "body_not_event", b'{"id":5}', {}),
]


@pytest.mark.parametrize(("status", "reason", "body", "headers"), REJECTED)
def test_rejected_requests_have_the_documented_status(
    sender: Sender, handled: Handled, caplog: Any, status: int, reason: str, body: bytes, headers: dict[str, str]
) -> None:
    if reason == "body_not_event":
        headers = sign(body, SECRET, message_id="x")

    response = sender.post(body, headers=headers)

    assert (response.status, handled) == (status, [])
    assert f"[{reason}]" in response.body.decode()
    assert response.headers["content-type"].startswith(("text/plain", "application/json"))
    [logged] = [record for record in caplog.records if record.name == "uplift_webhooks"]
    assert logged.levelno == logging.WARNING
    assert f"webhook rejected with {status}" in logged.getMessage()


def test_a_bad_signature_is_rejected(sender: Sender, handled: Handled) -> None:
    response = sender.post_with_bad_signature()

    assert (response.status, response.accepted, handled) == (401, False, [])


def _send(make_application: Callable[..., Any], handled: Handled, method: str, body: bytes, **headers: str) -> Answer:
    """Send one request with any method."""
    application = make_application(handled.append)
    sent = {**sign(body, SECRET), **{name.replace("_", "-"): value for name, value in headers.items()}}
    if asyncio.iscoroutinefunction(application) or asyncio.iscoroutinefunction(type(application).__call__):

        async def with_method(scope: Any, receive: Any, send: Any) -> None:
            await application({**scope, "method": method}, receive, send)

        return _post_to_asgi(with_method, "/webhook", body, sent)
    return _post_to_wsgi(
        lambda environ, start: application({**environ, "REQUEST_METHOD": method}, start), "/webhook", body, sent
    )


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_only_post_is_allowed(make_application: Callable[..., Any], handled: Handled, method: str) -> None:
    response = _send(make_application, handled, method, make_event())

    assert (response.status, response.headers["allow"], handled) == (405, "POST", [])


def test_the_size_of_a_body_is_limited(make_application: Callable[..., Any], handled: Handled) -> None:
    allowed = make_event("x", data="x" * (BODY_BYTES_MAX - 500))
    allowed += b" " * (BODY_BYTES_MAX - len(allowed))

    assert Sender(make_application(handled.append), SECRET).post(allowed).status == 204
    assert Sender(make_application(handled.append), SECRET).post(allowed + b" ").status == 413
    assert Sender(make_application(handled.append), SECRET).post(allowed + b" " * 5000).status == 413
    assert len(handled) == 1


def test_an_event_in_progress_returns_409_without_retry_after(make_application: Callable[..., Any]) -> None:
    def handle(event: AnyEvent) -> None:
        raise EventInProgress(12.3)

    response = Sender(make_application(handle), SECRET).post()

    assert (response.status, response.headers.get("retry-after")) == (409, None)
    assert "Another handler is processing this event" in response.body.decode()


@pytest.mark.parametrize("name", [name for name in APPLICATIONS if not name.startswith("django")])
def test_a_handler_error_is_raised_to_the_framework(name: str) -> None:
    def handle(event: AnyEvent) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Sender(APPLICATIONS[name](handle), SECRET).post()


@pytest.mark.parametrize("name", ["django", "django async", "django async class"])
def test_django_returns_500_for_a_view_error(name: str) -> None:
    def handle(event: AnyEvent) -> None:
        raise ZeroDivisionError

    assert Sender(APPLICATIONS[name](handle), SECRET).post().status == 500


@pytest.mark.parametrize("name", ["flask", "fastapi", "django"])
def test_a_view_can_return_a_response_and_use_url_parameters(name: str, handled: Handled) -> None:
    response = Sender(APPLICATIONS[name](handled.append), SECRET, "/webhook/blue").post()

    assert response.status == 202
    assert b"movement.analytics.created for blue" in response.body


bodies = st.binary(max_size=200) | st.sampled_from([make_event(), b"{}", b"[" * 3000, b"x" * 6000])
texts = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=60)
names = st.sampled_from(
    ["webhook-id", "webhook-timestamp", "webhook-signature", "content-type", "x-uplift-signature-256"]
)


@pytest.mark.parametrize("name", APPLICATIONS)
@given(body=bodies, replaced=st.dictionaries(names, texts, max_size=3), signed=st.booleans())
def test_no_request_causes_a_500_response(name: str, body: bytes, replaced: dict[str, str], signed: bool) -> None:
    headers = replaced if signed else {"webhook-signature": "v1,x", **replaced}
    latin = {key: value.encode("latin-1").decode("latin-1") for key, value in headers.items()}
    if name not in {"flask", "django", "wsgi"}:
        # The testing kit encodes ASGI headers as UTF-8.
        latin = {key: value.encode("ascii", "ignore").decode() for key, value in latin.items()}

    response = Sender(APPLICATIONS[name](lambda event: None), SECRET).post(body, headers=latin)

    assert response.status in {204, 400, 401, 413}


@pytest.mark.parametrize("length", ["x", "-1", "1.5", "²", "9" * 5000])
def test_wsgi_rejects_an_invalid_content_length(length: str) -> None:
    application = wsgi.WebhookApplication(Webhook(SECRET), lambda event: None)

    def with_length(environ: Any, start: Any) -> Any:
        return application({**environ, "CONTENT_LENGTH": length}, start)

    assert Sender(with_length, SECRET).post().status == (413 if length.startswith("9") else 400)


@pytest.mark.parametrize("make_wsgi", [APPLICATIONS["wsgi"], flask_application])
@pytest.mark.parametrize(("terminated", "padding", "status"), [(True, 0, 204), (True, 9000, 413), (False, 0, 401)])
def test_wsgi_reads_a_body_without_a_length_if_it_is_terminated(
    make_wsgi: Callable[..., Any], handled: Handled, terminated: bool, padding: int, status: int
) -> None:
    application = make_wsgi(handled.append)
    streams: list[Stream] = []

    def chunked(environ: Any, start: Any) -> Any:
        streams.append(Stream(environ["wsgi.input"].read()))
        changed = {**environ, "wsgi.input": streams[-1], **({"wsgi.input_terminated": True} if terminated else {})}
        del changed["CONTENT_LENGTH"]
        return application(changed, start)

    assert Sender(chunked, SECRET).post(make_event() + b" " * padding).status == status
    assert len(handled) == (status == 204)
    assert streams[-1].largest <= BODY_BYTES_MAX + 1


def test_django_rejects_an_invalid_length_and_an_incomplete_body(handled: Handled) -> None:
    application = django_wsgi(handled.append)

    class Broken(Stream):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError("the client went away")

    def changed(**changes: Any) -> Answer:
        return Sender(lambda environ, start: application({**environ, **changes}, start), SECRET).post()

    assert changed(CONTENT_LENGTH="x").status == 400
    assert changed(**{"wsgi.input": Broken(b"")}).status == 400
    assert changed(**{"wsgi.input": Stream(b"")}).status == 401


def test_djangos_own_size_limit_applies(handled: Handled, settings_restored: Any) -> None:
    application = django_wsgi(handled.append)
    settings_restored.DATA_UPLOAD_MAX_MEMORY_SIZE = 100

    assert Sender(application, SECRET).post().status == 413


@pytest.fixture
def settings_restored() -> Any:
    """Restore Django's settings."""
    from django.conf import settings
    from django.test.utils import override_settings

    django_wsgi(lambda event: None)
    with override_settings():
        yield settings


def test_django_async_limits_bodies_without_a_length(handled: Handled) -> None:
    application = APPLICATIONS["django async"](handled.append)

    async def chunked(scope: Any, receive: Any, send: Any) -> None:
        headers = [each for each in scope["headers"] if each[0] != b"content-length"]
        await application({**scope, "headers": headers}, receive, send)

    assert Sender(chunked, SECRET).post(make_event() + b" " * 5000).status == 413
    assert Sender(chunked, SECRET).post(make_event()).status == 204
    assert len(handled) == 1


async def _run_asgi(application: Any, scope: dict[str, Any], *messages: dict[str, Any]) -> list[dict[str, Any]]:
    received = list(messages)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return received.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    await application(scope, receive, send)
    return sent


async def test_asgi_handles_lifespan_and_rejects_websockets() -> None:
    application = asgi.WebhookApplication(Webhook(SECRET), lambda event: None)

    sent = await _run_asgi(
        application, {"type": "lifespan"}, {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}
    )
    assert [each["type"] for each in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    sent = await _run_asgi(application, {"type": "websocket"}, {"type": "websocket.connect"})
    assert [each["type"] for each in sent] == ["websocket.close"]


async def test_asgi_handles_chunked_bodies_and_disconnects(handled: Handled) -> None:
    body = make_event()
    headers = [(name.encode(), value.encode()) for name, value in sign(body, SECRET).items()]
    scope = {"type": "http", "method": "POST", "headers": headers}
    application = asgi.WebhookApplication(Webhook(SECRET), handled.append)
    first = {"type": "http.request", "body": body[:100], "more_body": True}

    sent = await _run_asgi(application, scope, first, {"type": "http.request", "body": body[100:]})
    assert (sent[0]["status"], len(handled)) == (204, 1)
    sent = await _run_asgi(application, scope, first, {"type": "http.disconnect"})
    assert (sent[0]["status"], len(handled)) == (401, 1)


class Handler:
    """A handler object with an async `__call__`."""

    def __init__(self) -> None:
        self.handled: list[str] = []

    async def __call__(self, event: AnyEvent) -> None:
        await asyncio.sleep(0)
        self.handled.append(event.id)


def test_asgi_accepts_any_kind_of_handler() -> None:
    handler = Handler()
    Sender(asgi.WebhookApplication(Webhook(SECRET), handler), SECRET).post(make_event(id="a"))
    Sender(asgi.WebhookApplication(Webhook(SECRET), functools.partial(handler)), SECRET).post(make_event(id="b"))

    assert handler.handled == ["a", "b"]


def test_flask_views_can_be_coroutines(handled: Handled) -> None:
    import flask

    from uplift_webhooks.frameworks.flask import verified

    app = flask.Flask("receiver")

    @app.post("/webhook")
    @verified(Webhook(SECRET))
    async def receive(event: AnyEvent) -> Any:
        await asyncio.sleep(0)
        handled.append(event)
        return json.dumps(event.type)

    assert Sender(app, SECRET).post().status == 200
    assert len(handled) == 1
