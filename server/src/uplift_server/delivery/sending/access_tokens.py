"""Access tokens for endpoints that use OAuth 2.0 client credentials. The server keeps the tokens only in memory."""

from collections.abc import Callable
from typing import Final, NamedTuple

import structlog

from uplift_server.core.http.exchange import Exchange
from uplift_server.core.http.urls import parse_endpoint_url
from uplift_server.core.limits import TOKEN_RESPONSE_BYTES_MAX
from uplift_server.core.problems import Problem
from uplift_server.core.security.access_tokens import AccessToken, failed_attempt, read_token, token_request
from uplift_server.core.security.endpoint_auth import OAuthClient
from uplift_server.delivery.endpoint_cache import EndpointToken, LiveEndpoint
from uplift_server.delivery.ports import Clock
from uplift_server.delivery.request_parts import UNREACHABLE
from uplift_server.delivery.sending.http.request import Request, RequestSender
from uplift_server.delivery.targets import Target, to_ascii
from uplift_server.observe.counters import EngineCounters

AUTHORIZATION_MASKED: Final = b"authorization: ********\r\n"
"""The `Authorization` header in the stored request of an attempt, with the access token masked."""

_log = structlog.get_logger()

Waiter = Callable[[Exchange | None], None]
"""The callback of an attempt that waits for a token.

The argument is None if the token is available. If the token request failed, the argument is the failed exchange of the
attempt.
"""


class _Pending(NamedTuple):
    """A token request in flight, with the attempts that wait for it."""

    endpoint: LiveEndpoint
    auth: bytes | None
    waiters: list[tuple[int, Waiter]]
    """For each waiting attempt: the start of its wait (Unix ms), and its callback."""


class AccessTokens:
    """Requests access tokens, and keeps one token for each endpoint.

    After an update of the endpoint's authentication, the previous token is no longer used.
    """

    def __init__(self, sender: RequestSender, clock: Clock, counters: EngineCounters, user_agent: str) -> None:
        self._sender = sender
        self._clock = clock
        self._counters = counters
        self._user_agent = user_agent
        self._pending: dict[tuple[int, bytes | None], _Pending] = {}
        """The token requests in flight: at most one for each endpoint and version of its authentication."""

    def header_of(self, endpoint: LiveEndpoint) -> bytes | None:
        """Return the request header that contains an endpoint's valid token, or None if there is no valid token."""
        held = endpoint.token
        if held is None or held.auth != endpoint.record.auth or self._clock.now_ms() >= held.token.expires_at:
            return None
        return held.token.header

    def request(self, endpoint: LiveEndpoint, client: OAuthClient, waiter: Waiter) -> None:
        """Request a token for an endpoint, unless a request for this token is already in flight.

        After the response, call `waiter` exactly once, in a later iteration of the event loop.
        """
        now, key = self._clock.now_ms(), (endpoint.seq, endpoint.record.auth)
        pending = self._pending.get(key)
        if pending is not None:
            pending.waiters.append((now, waiter))
            return
        # The sender checks the address of the host, as it does for endpoints.
        url = parse_endpoint_url(client.token_url, None, to_ascii=to_ascii)
        if isinstance(url, Problem):
            url = UNREACHABLE
        head, body = token_request(client, path=url.path, host_header=url.host_header, user_agent=self._user_agent)
        target = Target(url.host, url.port, url.encrypted, endpoint.record.account_seq)
        pending = _Pending(endpoint, endpoint.record.auth, [(now, waiter)])
        request = Request(target, head, body, pending, response_bytes_max=TOKEN_RESPONSE_BYTES_MAX)
        self._sender.send(request, self._done)
        self._pending[key] = pending

    def discard(self, endpoint: LiveEndpoint, sent_at: int) -> None:
        """Discard an endpoint's token after a 401 response to an attempt that started at `sent_at` (Unix ms).

        Keep a token that was received after `sent_at`, because the attempt did not use this token.
        """
        if endpoint.token is not None and endpoint.token.received_at <= sent_at:
            endpoint.token = None

    def _done(self, request: Request, exchange: Exchange) -> None:
        pending: _Pending = request.context
        endpoint, auth, waiters = pending
        del self._pending[endpoint.seq, auth]
        now = self._clock.now_ms()
        try:
            found = read_token(exchange, now)
        except Exception:
            _log.exception("access token response failed")
            found = "internal error"
        if isinstance(found, AccessToken):
            self._counters.tokens_received += 1
            if auth == endpoint.record.auth:
                endpoint.token = EndpointToken(found, auth, now)
        else:
            self._counters.token_requests_failed += 1
        for since, waiter in waiters:
            failed = None
            if not isinstance(found, AccessToken):
                failed = failed_attempt(exchange, found, started_at=since, now_ms=now)
            try:
                waiter(failed)
            except Exception:
                # The other attempts also wait for this call.
                _log.exception("attempt failed after its access token")
