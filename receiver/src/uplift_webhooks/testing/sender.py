"""Sends events to a receiver in the same process: once, twice, out of order, or with an invalid signature."""

import asyncio
import inspect
import io
import json
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from uplift_webhooks.testing.events import make_event
from uplift_webhooks.testing.signing import sign

PATH: Final = "/webhook"
_OTHER_SECRET: Final = "whsec_" + "A" * 44
_ONE_MINUTE_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class Answer:
    """A receiver's response to a test request."""

    status: int
    headers: dict[str, str]
    """The response headers. The keys are the headers' names in lowercase."""
    body: bytes

    @property
    def accepted(self) -> bool:
        """Whether the status code is 200 to 299."""
        return 200 <= self.status < 300


Exchange = Callable[[str, bytes, dict[str, str]], Answer]


class Sender:
    """Sends events to one path of a receiver, signed with a secret.

    The receiver is a WSGI or ASGI application (such as Flask, FastAPI, Starlette or Django), or a test client for one
    of these frameworks. The methods raise the same errors as the receiver or the test client.
    """

    def __init__(self, receiver: Any, secret: str, path: str = PATH) -> None:
        self._exchange: Final = _exchange_with(receiver)
        self._secret: Final = secret
        self._path: Final = path

    def post(self, event: bytes | None = None, *, headers: Mapping[str, str] | None = None) -> Answer:
        """Send a signed event. Without `event`, send a new `movement.analytics.created`.

        `headers` adds or replaces request headers.
        """
        body = make_event() if event is None else event
        return self._send(body, sign(body, self._secret), headers)

    def post_twice(self, event: bytes | None = None) -> tuple[Answer, Answer]:
        """Send the same event twice, as if the first response had been lost.

        The second request has a new timestamp and signature.
        """
        body = make_event() if event is None else event
        return self.post(body), self.post(body, headers={"x-uplift-attempt": "2"})

    def post_out_of_order(self, older: bytes | None = None, newer: bytes | None = None) -> tuple[Answer, Answer]:
        """Send the newer event, then the older event.

        Without `older`, the older event has the type and data of the newer event, and was created 1 minute before it.
        Without `newer`, the newer event is a new `movement.analytics.created`.
        """
        if newer is None:
            newer = make_event()
        if older is None:
            late = json.loads(newer)
            older = make_event(late["type"], data=late["data"], created=late["created"] - _ONE_MINUTE_MS)
        return self.post(newer), self.post(older)

    def post_with_bad_signature(self, event: bytes | None = None) -> Answer:
        """Send an event with an invalid signature. A receiver must reject it with 401 or 400."""
        body = make_event() if event is None else event
        return self._send(body, sign(body, _OTHER_SECRET), None)

    def _send(self, body: bytes, signed: dict[str, str], headers: Mapping[str, str] | None) -> Answer:
        replaced = {name.lower(): value for name, value in (headers or {}).items()}
        sent = {"user-agent": "Uplift-Webhooks/testing", "x-uplift-attempt": "1", **signed, **replaced}
        return self._exchange(self._path, body, sent)


def _exchange_with(receiver: Any) -> Exchange:
    """Return a function that sends a request through the receiver's interface (WSGI, ASGI or a test client)."""
    if hasattr(receiver, "build_request"):  # httpx: the clients of Starlette and FastAPI
        return lambda path, body, headers: _from_httpx(receiver.post(path, content=body, headers=headers))
    if hasattr(receiver, "generic"):  # Django
        return lambda path, body, headers: _post_to_django(receiver, path, body, headers)
    if hasattr(receiver, "open"):  # Werkzeug: the client of Flask
        return lambda path, body, headers: _from_werkzeug(receiver.post(path, data=body, headers=headers))
    if inspect.iscoroutinefunction(receiver) or inspect.iscoroutinefunction(getattr(receiver, "__call__", None)):  # noqa: B004 - asked for its kind
        return lambda path, body, headers: _post_to_asgi(receiver, path, body, headers)
    if callable(receiver):
        return lambda path, body, headers: _post_to_wsgi(receiver, path, body, headers)
    raise TypeError(
        f"An object of the type {type(receiver).__name__} is not a receiver: pass a WSGI or ASGI application, or a"
        " framework's test client."
    )


def _answer(status: int, headers: Any, body: bytes) -> Answer:
    return Answer(status, {str(name).lower(): str(value) for name, value in headers}, body)


def _from_httpx(response: Any) -> Answer:
    return _answer(response.status_code, response.headers.items(), response.content)


def _from_werkzeug(response: Any) -> Answer:
    return _answer(response.status_code, response.headers.items(), response.get_data())


def _environ(headers: dict[str, str]) -> dict[str, str]:
    return {
        f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items() if name != "content-type"
    }


def _post_to_django(client: Any, path: str, body: bytes, headers: dict[str, str]) -> Answer:
    response = client.generic("POST", path, body, headers["content-type"], **_environ(headers))
    return _answer(response.status_code, response.items(), b"".join(response))


def _post_to_wsgi(application: Any, path: str, body: bytes, headers: dict[str, str]) -> Answer:
    environ = {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "CONTENT_TYPE": headers["content-type"],
        "CONTENT_LENGTH": str(len(body)),
        "SERVER_NAME": "testserver",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "testserver",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        **_environ(headers),
    }
    started: list[tuple[str, list[tuple[str, str]]]] = []
    written: list[bytes] = []

    def start_response(status: str, fields: list[tuple[str, str]], _: object = None) -> Callable[[bytes], None]:
        started.append((status, fields))
        return written.append

    content = application(environ, start_response)
    try:
        written.extend(content)
    finally:
        # PEP 3333 requires the server to call `close` if there is one.
        getattr(content, "close", list)()
    status, fields = started[-1]
    return _answer(int(status.split()[0]), fields, b"".join(written))


def _post_to_asgi(application: Any, path: str, body: bytes, headers: dict[str, str]) -> Answer:
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [
            (name.encode(), value.encode())
            for name, value in {"host": "testserver", "content-length": str(len(body)), **headers}.items()
        ],
        "client": ("127.0.0.1", 1),
        "server": ("testserver", 80),
    }
    to_receive = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[dict[str, Any]] = []

    async def run() -> None:
        ended = asyncio.Event()

        async def receive() -> dict[str, Any]:
            if to_receive:
                return to_receive.pop()
            await ended.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                ended.set()

        await application(scope, receive, send)

    _run_apart(run)
    fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in sent[0].get("headers", ())]
    return _answer(sent[0]["status"], fields, b"".join(message.get("body", b"") for message in sent[1:]))


def _run_apart(run: Callable[[], Any]) -> None:
    """Run a coroutine on a new thread with a new event loop, because the test may already run in an event loop."""
    raised: list[BaseException] = []

    def work() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            # The test's thread raises this error after `join`.
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
