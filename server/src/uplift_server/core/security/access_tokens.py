"""OAuth 2.0 access tokens (RFC 6749): the request for a token, and its response."""

import base64
import json
import re
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlencode

from uplift_server.core.http.exchange import Exchange, Failure
from uplift_server.core.limits import ERROR_CHARACTERS_MAX, TOKEN_RESPONSE_BYTES_MAX
from uplift_server.core.security.endpoint_auth import OAuthClient

FAILED: Final = "token request: "
"""The prefix of an attempt's error if the attempt could not get an access token.

The patterns that find the cause of an error contain this prefix.
"""
LIFETIME_MS_DEFAULT: Final = 300_000
"""The lifetime of a token, in ms, if the response does not state a lifetime."""
LIFETIME_MS_MIN: Final = 1_000
LIFETIME_MS_MAX: Final = 86_400_000
MARGIN_MS_MAX: Final = 60_000
"""The server stops using a token when a tenth of the token's lifetime remains, but at most this many ms before the
token expires."""
_SECONDS_DIGITS_MAX: Final = 18
"""Number of digits of `expires_in` that the server reads, because Python limits the number of digits of an integer."""
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")
# The error codes of RFC 6749, section 5.2. Other values could contain a secret.
_CODES: Final = frozenset(
    {
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
    }
)


@dataclass(frozen=True, slots=True)
class AccessToken:
    """An access token. The server keeps the token only in memory and never logs it."""

    header: bytes = field(repr=False)
    """The complete `authorization` header line, with its line break."""
    expires_at: int
    """The time (Unix ms) after which the server requests a new token."""


def token_request(client: OAuthClient, *, path: str, host_header: str, user_agent: str) -> tuple[bytes, bytes]:
    """Return the headers and the body of a token request. The client authenticates with `client_secret_basic`."""
    form = {"grant_type": "client_credentials"} | ({} if client.scope is None else {"scope": client.scope})
    body = urlencode(form).encode()
    # Percent-encoding is valid form encoding, and also works with servers that do not read `+` as a space.
    credentials = ":".join(quote(each, safe="") for each in (client.client_id, client.client_secret))
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {host_header}\r\ncontent-type: application/x-www-form-urlencoded\r\n"
        f"accept: application/json\r\nuser-agent: {user_agent}\r\n"
        f"authorization: Basic {base64.b64encode(credentials.encode()).decode()}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode("latin-1"), body


def read_token(exchange: Exchange, now_ms: int) -> AccessToken | str:
    """Return the token in the response to a token request, or the reason why the response contains no valid token."""
    if exchange.failure is not None:
        return exchange.error or ""
    values = _object(exchange.response_body)
    if exchange.status_code != 200:
        code = values.get("error")
        redirect = ", a redirect, which is not followed" if 300 <= (exchange.status_code or 0) < 400 else ""
        error = f" and the error {code}" if isinstance(code, str) and code in _CODES else ""
        return f"the server responded with {exchange.status_code}{redirect}{error}"
    if exchange.body_truncated:
        return f"the response has more than {TOKEN_RESPONSE_BYTES_MAX} bytes"
    token, kind = values.get("access_token"), values.get("token_type")
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        return "the response has no valid access_token"
    if not isinstance(kind, str) or kind.lower() != "bearer":
        return "the token_type of the response is not Bearer"
    return AccessToken(f"authorization: Bearer {token}\r\n".encode(), now_ms + _usable_ms(values.get("expires_in")))


def failed_attempt(exchange: Exchange, reason: str, *, started_at: int, now_ms: int) -> Exchange:
    """Return the failed exchange of an attempt that started at `started_at` but did not get an access token.

    The exchange does not contain the response from the token URL, because that response can contain secrets.
    """
    return Exchange(
        started_at,
        max(0, now_ms - started_at) * 1000,
        failure=Failure.PROTOCOL if exchange.failure is None else exchange.failure,
        error=f"{FAILED}{reason}"[:ERROR_CHARACTERS_MAX],
        remote_address=exchange.remote_address,
        dns_ms=exchange.dns_ms,
        connect_ms=exchange.connect_ms,
        tls_ms=exchange.tls_ms,
        retry_after=exchange.retry_after,
        bytes_sent=False,
    )


def _object(body: bytes) -> dict[str, Any]:
    """Return the JSON object in a body, or an empty object if the body is not a JSON object."""
    try:
        values = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _usable_ms(expires_in: object) -> int:
    """Return the time, in ms, for which this server uses a token.

    `expires_in` comes from the token response. Some authorization servers send this number as a string.
    """
    text = str(expires_in) if isinstance(expires_in, int | str) else ""
    seconds = int(text[:_SECONDS_DIGITS_MAX]) if text.isascii() and text.isdigit() else None
    lifetime = LIFETIME_MS_DEFAULT if seconds is None else min(seconds * 1000, LIFETIME_MS_MAX)
    return max(LIFETIME_MS_MIN, lifetime - min(lifetime // 10, MARGIN_MS_MAX))
