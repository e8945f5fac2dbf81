"""The API client for programs without asyncio."""

import json
import math
import os
import random
import time
import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Final
from urllib.parse import urlencode

from uplift_webhooks import __version__
from uplift_webhooks.api.calls import Blocking
from uplift_webhooks.api.connections import ApiResponse, Connections
from uplift_webhooks.api.everything import Everything
from uplift_webhooks.api.failures import ApiError, ApiFailure, ApiMisaddressed, FieldError
from uplift_webhooks.api.pages import Instant, Versioned
from uplift_webhooks.api.reconciliation import Reconciliation

URL_VARIABLE: Final = "UPLIFT_API_URL"
KEY_VARIABLE: Final = "UPLIFT_API_KEY"
TIMEOUT_SECONDS: Final = 30.0
RETRIES: Final = 2
RETRY_AFTER_SECONDS_MAX: Final = 30.0
"""Longest `Retry-After` that the client obeys, in seconds. After a longer one, the client does not retry the call."""
_BACKOFF_SECONDS: Final = 0.5


class Client(Everything[Blocking]):
    """Client for the HTTP API. Uses one API key, reuses connections and is thread-safe.

    Objects are dictionaries. The API reference (`/docs/api` on your server) describes their fields. A call raises
    ApiError if the server rejects it, and ApiUnreachable if there is no valid response. Both are subclasses of
    ApiFailure.
    """

    def __init__(
        self,
        api_url: str | None = None,
        api_key: str | None = None,
        *,
        account: str | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        retries: int = RETRIES,
        use_proxy: bool = True,
    ) -> None:
        """Create a client. The environment variables `UPLIFT_API_URL` and `UPLIFT_API_KEY` set the default URL and key.

        The client removes a `/v1` at the end of the URL.

        With an operator key or a service key, `account` (an ID or uid) selects the account. `timeout_seconds` limits
        each request, including its response. `retries` is the maximum number of retries. The client retries every call
        after a 429 or 503 response with a `Retry-After` of at most 30 seconds. It also retries a GET request that gets
        no complete response, or a 429 or 503 response without `Retry-After`. Every POST has an idempotency key, so
        that a retry never creates an object twice.

        With `use_proxy`, the client uses the proxy that the environment variables set (`HTTPS_PROXY`, `NO_PROXY`). It
        trusts the certificate authorities of the system, or those in `SSL_CERT_FILE`.

        Raises:
            ValueError: an argument or an environment variable is not valid. The message never contains the key.
        """
        url = os.environ.get(URL_VARIABLE, "").strip() if api_url is None else api_url
        if not url:
            raise ValueError(f"The API URL is not set: pass api_url, or set {URL_VARIABLE}.")
        if not 0 < timeout_seconds < math.inf or retries < 0:
            raise ValueError("timeout_seconds must be finite and greater than 0, and retries must be 0 or greater.")
        key = os.environ.get(KEY_VARIABLE, "").strip() if api_key is None else api_key
        self._headers: Final = {"accept": "application/json", "user-agent": f"uplift-webhooks/{__version__}"}
        if key:
            self._headers["authorization"] = f"Bearer {for_header(key, KEY_VARIABLE if api_key is None else 'api_key')}"
        if account is not None:
            self._headers["uplift-account"] = for_header(account, "account")
        self._retries: Final = retries
        self._connections: Final = Connections(
            url,
            timeout_seconds,
            called=URL_VARIABLE if api_url is None else "api_url",
            use_proxy=use_proxy,
        )
        super().__init__(self.request, Blocking)

    def __enter__(self) -> "Client":
        """Return the client. The end of the `with` block closes it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the client."""
        self.close()

    def close(self) -> None:
        """Close the idle connections. Later calls open new connections."""
        self._connections.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Make any API call. Send `body` as JSON and return the decoded response, or None if the response is empty.

        If `body` is bytes, it must already be JSON.

        `path` starts with `/`. Parameters in `query` that are None are omitted. If a value is a list, the parameter is
        repeated for each item. `query` and `body` may contain datetimes.

        Raises:
            ApiError: the server rejected the call.
            ApiUnreachable: there was no valid response.
            ValueError: an argument is not valid.
        """
        return self._answered(method, path, query, body, headers)[1]

    def content(self, path: str, *, query: Mapping[str, object] | None = None) -> bytes:
        """Return the unchanged bytes of the response to a GET request.

        Raises:
            ApiFailure, ValueError: see `request`.
        """
        return self._answered("GET", path, query, None, None)[0]

    def reconcile(
        self,
        cursor: str | None = None,
        types: Iterable[str] | None = None,
        *,
        created_after: Instant | None = None,
        include_tests: bool = False,
    ) -> Reconciliation:
        """Return an iterable of all events in the account, oldest first, whether or not they were delivered.

        `cursor` continues an earlier reconciliation. Without `cursor`, the first event is the oldest event, or the
        first event after `created_after`. `types` contains names, and patterns such as `movement.*`. The default is all
        types. The iteration omits test events unless `include_tests` is set. The iteration ends after the newest event.
        See `Reconciliation` for how to store the cursor.
        """
        return Reconciliation(self.request, cursor, types, created_after, include_tests=include_tests)

    def _answered(
        self,
        method: str,
        path: str,
        query: Mapping[str, object] | None,
        body: object,
        headers: Mapping[str, str] | None,
    ) -> tuple[bytes, Any]:
        """Make a call. Return the response as bytes and as decoded JSON. Raises the same errors as `request`."""
        if not path.startswith("/"):
            raise ValueError("path must start with '/', such as '/v1/endpoints'.")
        asked = [
            (name, _for_query(each))
            for name, value in (query or {}).items()
            for each in (value if isinstance(value, list | tuple) else [value])
            if each is not None
        ]
        target = f"{path}?{urlencode(asked)}" if asked else path
        own = {name.lower(): value for name, value in (headers or {}).items()}
        for name, value in own.items():
            # http.client encodes headers as Latin-1. It also accepts numbers and bytes.
            text = str(value)
            if not text.isprintable() or any(character > "\xff" for character in text):
                raise ValueError(f"The header {name} must contain only printable characters of Latin-1.")
        sent = {**self._headers, **own}
        content = None
        if body is not None:
            content = body if isinstance(body, bytes) else json_bytes(body)
            sent["content-type"] = "application/json"
        # The server rejects an event with two different keys.
        if method == "POST" and not (isinstance(body, Mapping) and body.get("idempotency_key") is not None):
            sent.setdefault("idempotency-key", uuid.uuid4().hex)
        for number in range(self._retries + 1):
            try:
                answer = self._connections.exchange(method, target, content, sent)
                return answer.content, self._read(answer)
            except ApiFailure as failure:
                wait_seconds = _wait_seconds(failure, method, number)
                if wait_seconds is None or number == self._retries:
                    raise
            time.sleep(wait_seconds)
        raise AssertionError

    def _read(self, answer: ApiResponse) -> Any:
        """Return the decoded JSON of a response. Raises ApiFailure for an error status or a body that is not JSON."""
        if not 200 <= answer.status < 300:
            raise api_error(answer)
        try:
            found = json.loads(answer.content) if answer.content else None
        except (ValueError, RecursionError):
            raise ApiMisaddressed(
                f"The server at {self._connections.url} is not an Uplift Webhooks server: its response is not JSON."
            ) from None
        etag = answer.headers.get("etag")
        return found if etag is None or not isinstance(found, dict) else Versioned(found, etag)


def api_error(answer: ApiResponse) -> ApiError:
    """Return an ApiError for a response whose status is not 2xx.

    If the response contains RFC 9457 problem details, the error contains them too.
    """
    try:
        problem = json.loads(answer.content)
    except (ValueError, RecursionError):
        problem = None
    if not isinstance(problem, dict):
        problem = {}
    detail = problem.get("detail") or problem.get("title")
    if not detail:
        detail = f"The server responded with {answer.status}"
        detail += ", a redirect. Set api_url to the final URL." if 300 <= answer.status < 400 else "."
    listed = problem.get("errors")
    errors = [
        FieldError(str(each.get("field", "")), str(each.get("code", "")), str(each.get("message", "")))
        for each in (listed if isinstance(listed, list) else [])
        if isinstance(each, dict)
    ]
    after = answer.headers.get("retry-after", "")
    seconds = float(after) if after.isascii() and after.isdigit() else None
    return ApiError(answer.status, str(problem.get("code") or ""), str(detail), errors, seconds)


def _wait_seconds(failure: ApiFailure, method: str, number: int) -> float | None:
    """Return the seconds to wait before retry `number` (0 is the first), or None if the client must not retry."""
    reading = method == "GET"
    if isinstance(failure, ApiMisaddressed):
        return None
    if isinstance(failure, ApiError):
        if failure.status not in {429, 503}:
            return None
        if failure.retry_after_seconds is not None:
            return failure.retry_after_seconds if failure.retry_after_seconds <= RETRY_AFTER_SECONDS_MAX else None
    # Jitter spreads the retries of clients that failed at the same time.
    return _BACKOFF_SECONDS * 2**number * (0.5 + random.random()) if reading else None  # noqa: S311 - no secret


def for_header(value: object, name: str) -> str:
    """Return `value` if it is valid in a header. Otherwise, raise ValueError with `name` in the message."""
    if not isinstance(value, str) or not value or not all("!" <= character <= "~" for character in value):
        raise ValueError(f"{name} must have one or more printable ASCII characters and no spaces.")
    return value


def _for_query(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return _written(value) if isinstance(value, datetime) else str(value)


def json_bytes(value: object) -> bytes:
    """Return a value as JSON in UTF-8. Raises ValueError or TypeError if JSON cannot represent the value."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_for_json).encode()


def _for_json(value: object) -> str:
    """Return a datetime as text. Raises ValueError for any other type."""
    if isinstance(value, datetime):
        return _written(value)
    kind = type(value).__name__
    raise ValueError(
        f"JSON cannot contain the type {kind}. Use only strings, numbers, booleans, None, lists and dictionaries."
    )


def _written(instant: datetime) -> str:
    if instant.tzinfo is None:
        raise ValueError("A datetime must have a time zone, such as datetime.now(timezone.utc).")
    return instant.isoformat()
