"""Causes of failed attempts and how to fix them, for the API, the CLI, the dashboard and emails.

Each cause has a stable code, a title for lists, a sentence that states the cause, and a sentence that says how to fix
it.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from typing import Final, Protocol

from uplift_server.core.deliveries.auth_causes import CLIENT_CERTIFICATE, NO_TOKEN, TOKEN_URL_UNREACHABLE, Cause
from uplift_server.core.deliveries.health import Health
from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.deliveries.responses import REASONS, first_line, reason_in
from uplift_server.core.http.response_headers import mask_urls


@dataclass(frozen=True, slots=True)
class Explanation:
    """The cause of a failed attempt, and how to fix it."""

    code: str
    """A stable code by which callers can filter and group attempts."""
    title: str
    cause: str
    remedy: str

    @property
    def hint(self) -> str:
        """The cause and how to fix it, as one string for the API."""
        return f"{self.cause} {self.remedy}"


_LOCATION_CHARACTERS_SHOWN_MAX: Final = 200
_LOGIN_PAGE: Final = re.compile(
    r"log[-_]?in|(?<![a-z])(?:log[-_]?on|sign[-_]?in|sso|saml2?|oauth2?|oidc|auth|authorize|authenticate)(?![a-z])",
    re.IGNORECASE,
)
_UNPRINTABLE: Final = re.compile(r"[^ -~…]")
_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}

_LOGIN: Final = (
    "Your server responded with {status}: it requires a login or rejected the signature.",
    "Verify the raw body with this endpoint's secret, and do not require a login for the URL.",
)
BY_STATUS: Final[dict[int, tuple[str, str]]] = {
    400: (
        "Your server responded with 400: it could not parse the request or rejected the signature.",
        (
            "Verify the raw body with this endpoint's secret before you parse it. Follow the schema in the event "
            "catalog, and ignore unknown fields."
        ),
    ),
    401: _LOGIN,
    403: _LOGIN,
    404: (
        "Your server responded with 404: it has no route at this path.",
        "Correct the endpoint's URL, or deploy the route.",
    ),
    405: (
        "Your server responded with 405: this path does not accept POST.",
        "Accept POST in the route, or correct the endpoint's URL.",
    ),
    408: (
        "Your server responded with 408: it did not receive the request in time.",
        "Increase the request timeout of your server and of any proxy in front of it.",
    ),
    410: (
        "Your server responded with 410: this URL no longer exists.",
        "Change the endpoint's URL, or delete the endpoint if you no longer need its events.",
    ),
    413: (
        "Your server responded with 413: the body is too large.",
        "Increase the body size limit of your server, and of any proxy in front of it, to at least 512 KiB.",
    ),
    415: (
        "Your server responded with 415: it does not accept the content type application/json.",
        "Accept application/json in the route.",
    ),
    422: (
        "Your server responded with 422: it parsed the body but rejected its content.",
        (
            "Compare your server's validation with the schema in the event catalog, and ignore unknown event types and "
            "fields."
        ),
    ),
    429: (
        "Your server responded with 429: it receives more requests than it allows.",
        "Increase your server's limit, or set a rate limit on the endpoint; retries respect Retry-After.",
    ),
    502: (
        "Your server responded with 502: its proxy did not receive a valid response from your application.",
        "Check that the application is running and that the proxy forwards requests to it.",
    ),
    503: (
        "Your server responded with 503: it is overloaded or down for maintenance.",
        "Restore your server; retries continue on schedule, and you can resend failed deliveries.",
    ),
    504: (
        "Your server responded with 504: its proxy timed out waiting for your application.",
        "Store the event and respond with 2xx first, then process the event.",
    ),
}
"""For common HTTP status codes of a response: the cause of the failed attempt, and how to fix the cause."""
_OTHER_CLIENT_ERROR: Final = (
    "Your server responded with {status}: it rejected the request.",
    "Find this request in your server's log, and respond with 2xx once the event is stored.",
)
_OTHER_SERVER_ERROR: Final = (
    "Your server responded with {status}: it failed to handle the request.",
    "Find the error in your server's log, fix it, and resend the failed deliveries.",
)
BY_REASON: Final = {code: Explanation(code, *reason) for code, reason in REASONS.items()}
"""The explanation of a failed attempt, for each code of a reason that a receiver can state in its response."""
_CONNECTION_CUT: Final = Explanation(
    "connection_closed",
    "Connection closed early",
    "Your server, or a proxy in front of it, closed the connection before the response was complete.",
    "Check the log of your server or proxy for crashes and limits, and allow the egress IPs of Uplift Webhooks.",
)

_DNS: Final = Explanation(
    "dns",
    "Host name does not resolve",
    "The host name of the endpoint's URL does not resolve.",
    "Check the spelling of the name, and check that its DNS records are public.",
)


def _explained(causes: tuple[Cause, ...]) -> tuple[tuple[str, Explanation], ...]:
    return tuple((pattern, Explanation(*texts)) for pattern, *texts in causes)


# For each outcome, the first pattern that matches the attempt's error selects the explanation. The empty pattern
# matches every error. All other patterns have at least two words, so that no host name in an error can match.
# Release 0.1 stored "egress address" instead of "egress IP", and "speak TLS" instead of "support TLS".
_OWN_FAULTS: Final = (
    "egress (?:ip|address) |the egress proxy (?!could not reach)|the sender was closed|internal error: "
    "|too many open files|no buffer space|cannot allocate memory|cannot assign requested|address already in use"
)
BY_ERROR: Final[dict[Outcome, tuple[tuple[str, Explanation], ...]]] = {
    Outcome.TIMEOUT: (
        *_explained(TOKEN_URL_UNREACHABLE),
        ("still resolving", _DNS),
        (
            "did not accept a connection|still connecting|tls handshake|not open a tunnel|no tunnel to|proxy to reach",
            Explanation(
                "connect_timeout",
                "Connection timed out",
                "The connection to your server timed out.",
                "Check that your server is running and that its firewall allows the egress IPs of Uplift Webhooks.",
            ),
        ),
        (
            "",
            Explanation(
                "response_timeout",
                "Response timed out",
                "Your server did not send a complete response within the timeout.",
                "Store the event and respond with 2xx first, then process the event.",
            ),
        ),
    ),
    Outcome.DNS_ERROR: (*_explained(TOKEN_URL_UNREACHABLE), ("", _DNS)),
    Outcome.CONNECT_ERROR: (
        (
            _OWN_FAULTS,
            Explanation(
                "egress_failed",
                "Outbound connection failed on this server",
                "Uplift Webhooks could not open an outbound connection; your server is not the cause.",
                "You do not need to do anything: the failure does not count against your endpoint, and Uplift Webhooks "
                "retries the delivery.",
            ),
        ),
        *_explained(TOKEN_URL_UNREACHABLE),
        (
            "connection refused",
            Explanation(
                "connection_refused",
                "Connection refused",
                "The connection was refused: no program is listening on this address and port.",
                "Start your server, or correct the port in the endpoint's URL.",
            ),
        ),
        (
            "network is unreachable|no route to host",
            Explanation(
                "no_route",
                "No network route",
                "There is no network route to your server's address.",
                "Check that the DNS records of the host contain its current address, and check its network connection.",
            ),
        ),
        ("connection reset|closed the connection|broken pipe", _CONNECTION_CUT),
        (
            "",
            Explanation(
                "connect_failed",
                "Connection failed",
                "Uplift Webhooks could not connect to your server.",
                "Check that your server is running and that its firewall allows the egress IPs of Uplift Webhooks.",
            ),
        ),
    ),
    Outcome.TLS_ERROR: (
        *_explained(TOKEN_URL_UNREACHABLE),
        *_explained(CLIENT_CERTIFICATE),
        (
            "has expired",
            Explanation(
                "tls_certificate_expired",
                "TLS certificate expired",
                "Your server's certificate has expired.",
                "Renew the certificate, and set up automatic renewal.",
            ),
        ),
        (
            "not valid yet|not yet valid",
            Explanation(
                "tls_certificate_not_yet_valid",
                "TLS certificate not yet valid",
                "Your server's certificate is not valid yet.",
                "Wait until the certificate becomes valid, or install a valid certificate.",
            ),
        ),
        (
            "for another name|for another address|hostname mismatch|ip address mismatch",
            Explanation(
                "tls_name_mismatch",
                "TLS certificate for another name",
                "Your server's certificate was issued for another name.",
                "Install a certificate for the host of the endpoint's URL, or use the certificate's name in the URL.",
            ),
        ),
        (
            "is self-signed|self-signed certificate|not trusted|issuer of the certificate|local issuer",
            Explanation(
                "tls_untrusted",
                "TLS certificate not trusted",
                "Your server's certificate is not publicly trusted, or its chain is incomplete.",
                "Install a certificate from a public certificate authority, with its full chain of intermediate"
                " certificates.",
            ),
        ),
        (
            "does not (?:support|speak) tls|wrong version number",
            Explanation(
                "tls_missing",
                "No TLS on this port",
                "Your server does not use TLS on this port.",
                "Correct the port in the endpoint's URL, or enable TLS on your server.",
            ),
        ),
        (
            "older than 1.2|unsupported protocol|alert protocol version|handshake failure|no shared cipher",
            Explanation(
                "tls_version",
                "No common TLS version",
                "Your server and Uplift Webhooks have no TLS version or cipher in common.",
                "Enable TLS 1.2 or 1.3 on your server, and install a certificate for the host of the endpoint's URL.",
            ),
        ),
        ("ended the connection|tls connection (broke|failed)", _CONNECTION_CUT),
        (
            "",
            Explanation(
                "tls_failed",
                "TLS connection failed",
                "The TLS connection to your server failed.",
                "Check your server's certificate and TLS settings with an online TLS checker.",
            ),
        ),
    ),
    Outcome.PROTOCOL_ERROR: (
        *_explained(NO_TOKEN),
        ("(closed|dropped|broke|ended) the connection", _CONNECTION_CUT),
        (
            "longer than [0-9]+ bytes",
            Explanation(
                "headers_too_long",
                "Response headers too long",
                "Your server's response headers are too long.",
                "Respond with a few short headers, without cookies.",
            ),
        ),
        (
            "",
            Explanation(
                "invalid_response",
                "Invalid HTTP response",
                "Your server did not send a valid HTTP/1.1 response.",
                "Check that the port in the endpoint's URL belongs to an HTTP/1.1 server.",
            ),
        ),
    ),
    Outcome.BLOCKED: (
        *_explained(TOKEN_URL_UNREACHABLE),
        (
            "no egress (?:ip|address)",
            Explanation(
                "no_address_family",
                "No address for this IP version",
                "Your server's host has no address for the IP version (IPv4 or IPv6) that Uplift Webhooks uses.",
                "Add the missing DNS record for your server: A for IPv4, AAAA for IPv6.",
            ),
        ),
        (
            "does not allow a tunnel",
            Explanation(
                "proxy_rule",
                "Not allowed by the egress proxy",
                "The egress proxy of Uplift Webhooks does not allow connections to this address and port.",
                "Use port 443, or ask the operator to allow your server's address and port.",
            ),
        ),
        (
            "use https",
            Explanation(
                "https_required",
                "HTTPS required",
                "The endpoint's URL uses http, but its host has a public address.",
                "Change the endpoint's URL to https.",
            ),
        ),
        (
            "",
            Explanation(
                "address_not_allowed",
                "Address not allowed",
                "The host of the endpoint's URL resolves to an address that is not allowed.",
                "Use only public addresses in the DNS records of the host; to receive events on your own machine, see "
                "Local development in the documentation.",
            ),
        ),
    ),
}


def cause_of(health: Health) -> Explanation | None:
    """Explain why an endpoint is failing, based on its last attempt. Return None if the endpoint is not failing."""
    if health.failing_since is None or health.last_outcome is None:
        return None
    response = health.last_response
    return explain(
        health.last_outcome,
        status_code=health.last_status_code,
        error=health.last_error if response is None else None,
        location=health.last_location,
        response=response,
    )


SIGNED_WRONGLY: Final = "the server signed this request with a wrong key on purpose"
"""The error that the server stores for an attempt with a deliberately wrong signature, if the receiver responded."""
_WRONG_SIGNATURE: Final = Explanation(
    "wrong_signature",
    "Wrong signature",
    "A signature check sent this request with a wrong signature, and your server rejected it.",
    "You do not need to do anything.",
)


class FinishedAttempt(Protocol):
    """The results of a finished attempt, from which the server determines the cause of a failure."""

    @property
    def outcome(self) -> Outcome:
        """The outcome of the attempt."""

    @property
    def status_code(self) -> int | None:
        """The status code of the response, if any."""

    @property
    def error(self) -> str | None:
        """The attempt's error, if any."""

    @property
    def location(self) -> str | None:
        """The target of the response's redirect, if any."""

    @property
    def response_body(self) -> bytes:
        """The stored part of the response body."""


def explain_attempt(attempt: FinishedAttempt) -> Explanation | None:
    """Explain why an attempt failed and how to fix it. Return None if the attempt succeeded."""
    return explain(
        attempt.outcome,
        status_code=attempt.status_code,
        error=attempt.error,
        location=attempt.location,
        response=first_line(attempt.response_body),
    )


def explain(
    outcome: Outcome, *, status_code: int | None, error: str | None, location: str | None, response: str | None = None
) -> Explanation | None:
    """Explain why an attempt failed and how to fix it. Return None for the outcome `delivered`.

    `status_code`, `error` and `location` are the results of the attempt. The receiver chooses `location`, the target of
    a redirect, so the function truncates it, masks secrets in it and makes it printable. `response` is the first line
    of the response.
    """
    if outcome is Outcome.DELIVERED:
        return None
    if outcome is Outcome.REDIRECT:
        return _redirect(status_code, location)
    if outcome in BY_ERROR:
        return _by_error(outcome, (error or "").lower())
    if error == SIGNED_WRONGLY and outcome is Outcome.CLIENT_ERROR:
        return _WRONG_SIGNATURE
    reason = reason_in(response)
    return _by_status(outcome, status_code) if reason is None else BY_REASON[reason]


@lru_cache(4096)
def _by_error(outcome: Outcome, words: str) -> Explanation:
    return next(explanation for pattern, explanation in BY_ERROR[outcome] if re.search(pattern, words))


def _by_status(outcome: Outcome, status_code: int | None) -> Explanation:
    if outcome is Outcome.THROTTLED:
        status_code = HTTPStatus.TOO_MANY_REQUESTS
    first, other = (5, _OTHER_SERVER_ERROR) if outcome is Outcome.SERVER_ERROR else (4, _OTHER_CLIENT_ERROR)
    if status_code is None or status_code // 100 != first:
        # The status code is unknown if an earlier release stored the endpoint's health.
        cause, remedy = other
        return Explanation(f"status_{first}xx", f"{first}xx status", cause.format(status=f"a {first}xx status"), remedy)
    cause, remedy = BY_STATUS.get(status_code, other)
    phrase = _PHRASES.get(status_code)
    title = f"{status_code} {phrase}" if phrase else f"Status {status_code}"
    return Explanation(f"status_{status_code}", title, cause.format(status=status_code), remedy)


def _redirect(status_code: int | None, location: str | None) -> Explanation:
    status, target = status_code or "a 3xx status", shown_location(location or "")
    code, title = "redirect", "Redirect"
    if not target:
        cause = f"Your server responded with {status}, a redirect without a Location header."
        remedy = "Respond with 2xx instead of a redirect, because Uplift Webhooks does not follow redirects."
    elif _LOGIN_PAGE.search(target):
        code, title = "login_redirect", "Redirect to a login page"
        cause = f"Your server responded with {status}, a redirect to the login page {target}."
        remedy = "Do not require a login for the endpoint's URL: verify the signature of each request instead."
    else:
        cause = f"Your server responded with {status}, a redirect to {target}, which Uplift Webhooks does not follow."
        remedy = "If you own the redirect target, set the endpoint's URL to it. Otherwise, respond with 2xx."
    return Explanation(code, title, cause, remedy)


def shown_location(location: str) -> str:
    """Return a redirect target that is safe to show: printable, truncated and without secrets."""
    shown = _UNPRINTABLE.sub("_", mask_urls(location))
    if len(shown) > _LOCATION_CHARACTERS_SHOWN_MAX:
        shown = shown[:_LOCATION_CHARACTERS_SHOWN_MAX] + "…"
    return shown
