"""Outcome of an attempt from its exchange, and the explanation of a failure.

Each class of failure has one sentence of cause and one of remedy. API, CLI, dashboard and emails use them.
"""

import re
from dataclasses import dataclass
from typing import Final

from uplift_server.core.http.exchange import Exchange, Failure
from uplift_server.core.named_codes import NamedCode


class Outcome(NamedCode):
    """The result of an attempt. The database stores the number."""

    DELIVERED = 0
    REDIRECT = 1
    CLIENT_ERROR = 2
    SERVER_ERROR = 3
    THROTTLED = 4
    TIMEOUT = 5
    DNS_ERROR = 6
    CONNECT_ERROR = 7
    TLS_ERROR = 8
    PROTOCOL_ERROR = 9
    BLOCKED = 10


_BY_FAILURE: Final = {
    Failure.TIMEOUT: Outcome.TIMEOUT,
    Failure.DNS: Outcome.DNS_ERROR,
    Failure.CONNECT: Outcome.CONNECT_ERROR,
    Failure.TLS: Outcome.TLS_ERROR,
    Failure.PROTOCOL: Outcome.PROTOCOL_ERROR,
    Failure.BLOCKED: Outcome.BLOCKED,
    Failure.EGRESS: Outcome.CONNECT_ERROR,
}

_BY_STATUS_CLASS: Final = {
    2: Outcome.DELIVERED,
    3: Outcome.REDIRECT,
    4: Outcome.CLIENT_ERROR,
    5: Outcome.SERVER_ERROR,
}


def classify(exchange: Exchange) -> Outcome:
    """Return the outcome of an attempt. Success is a complete exchange with status 200 to 299."""
    if exchange.failure is not None:
        return _BY_FAILURE[exchange.failure]
    status = exchange.status_code or 0
    if status == 429:
        return Outcome.THROTTLED
    return _BY_STATUS_CLASS.get(status // 100, Outcome.PROTOCOL_ERROR)


def is_own_fault(exchange: Exchange) -> bool:
    """Whether a failure is not the receiver's fault and must not count against its health."""
    return exchange.failure in (Failure.EGRESS, Failure.BLOCKED)


@dataclass(frozen=True, slots=True)
class Explanation:
    """Cause of a failed attempt and how to fix it."""

    cause: str
    remedy: str

    @property
    def hint(self) -> str:
        """Both sentences, as the API shows them."""
        return f"{self.cause} {self.remedy}"


_LOCATION_CHARACTERS_SHOWN_MAX: Final = 200
_UNPRINTABLE: Final = re.compile(r"[^ -~]")

_LOGIN: Final = Explanation(
    "Your server answered {status}: it asks for a login, or did not accept the signature.",
    "Secret or login required: give your receiver this endpoint's secret, verify the bytes exactly as received, and "
    "let our requests pass any login in front of it.",
)
_BY_STATUS: Final = {
    400: Explanation(
        "Your server answered 400: it could not read the request, or did not accept the signature.",
        "Many receivers answer 400 when the signature does not verify: give yours this endpoint's secret, and verify "
        "the bytes exactly as received; else parse the body as JSON of the type's schema in the catalog, and "
        "ignore fields you do not know.",
    ),
    401: _LOGIN,
    403: _LOGIN,
    404: Explanation(
        "Your server answered 404: nothing is at this path.",
        "Correct the endpoint's URL, or deploy the route it names.",
    ),
    405: Explanation(
        "Your server answered 405: this path does not take POST.",
        "Let the route accept POST, or correct the endpoint's URL.",
    ),
    408: Explanation(
        "Your server answered 408: it grew tired of waiting for the request.",
        "Raise the time that your server or the proxy in front of it waits for a request.",
    ),
    410: Explanation(
        "Your server answered 410: it says this address is gone for good.",
        "Register the new address, or delete the endpoint if you no longer want its events.",
    ),
    413: Explanation(
        "Your server answered 413: the body is too large for it.",
        "Raise the limit of your server, and of any proxy in front of it, to 512 KiB at least.",
    ),
    415: Explanation(
        "Your server answered 415: it does not take the content type application/json.",
        "Let the route accept application/json.",
    ),
    422: Explanation(
        "Your server answered 422: it read the body and did not accept what it says.",
        "Compare what your server expects with the type's schema in the catalog, and ignore types and fields you do "
        "not know.",
    ),
    429: Explanation(
        "Your server answered 429: more requests than it accepts.",
        "Raise its limit, or set a rate limit on the endpoint; we wait as long as its Retry-After says.",
    ),
    502: Explanation(
        "Your server answered 502: the proxy in front of it got no proper answer from your application.",
        "Check that the application runs and where the proxy forwards to.",
    ),
    503: Explanation(
        "Your server answered 503: it is overloaded or down for maintenance.",
        "Bring it up again; until then we try again as the schedule says, and what failed for good can be resent.",
    ),
    504: Explanation(
        "Your server answered 504: the proxy in front of it waited too long for your application.",
        "Answer first, work later: store the event, answer 2xx, and process it afterwards.",
    ),
}
_OTHER_CLIENT_ERROR: Final = Explanation(
    "Your server answered {status}: it refuses the request.",
    "See your server's log for this request, and answer 2xx once the event is stored.",
)
_OTHER_SERVER_ERROR: Final = Explanation(
    "Your server answered {status}: it failed while handling the request.",
    "See your server's log for the error at this time; once it is fixed, resend what failed.",
)
_CONNECTION_CUT: Final = Explanation(
    "Your server, or something in front of it, cut the connection before its answer was complete.",
    "See its log for crashes and limits, and let its firewall pass our source addresses.",
)

_DNS: Final = Explanation(
    "The host name of the endpoint's URL could not be resolved.",
    "Check how the name is written, and that its DNS records can be seen from the internet.",
)

# If an outcome has several texts, the first pattern that matches the attempt's error decides. The patterns are
# phrases of the sender or the system with at least two words, so that no host name in the error can match.
_OWN_FAULTS: Final = (
    "egress address |the egress proxy (?!could not reach)|the sender was closed|internal error: |too many open files"
    "|no buffer space|cannot allocate memory|cannot assign requested|address already in use"
)
_BY_ERROR: Final[dict[Outcome, tuple[tuple[str, Explanation], ...]]] = {
    Outcome.TIMEOUT: (
        ("still resolving", _DNS),
        (
            "did not accept a connection|still connecting|tls handshake|no tunnel to|proxy to reach",
            Explanation(
                "No connection to your server came about in time.",
                "Check that it runs and that a firewall lets our source addresses in.",
            ),
        ),
        (
            "",
            Explanation(
                "Your server did not answer completely within the deadline.",
                "Answer first, work later: store the event, answer 2xx, and process it afterwards.",
            ),
        ),
    ),
    Outcome.DNS_ERROR: (("", _DNS),),
    Outcome.CONNECT_ERROR: (
        (
            _OWN_FAULTS,
            Explanation(
                "Our own way out to the internet failed; your server has nothing to do with it.",
                "Nothing is asked of you: this does not count against your endpoint, and we try again.",
            ),
        ),
        (
            "connection refused",
            Explanation(
                "The connection was refused: nothing listens at this address and port.",
                "Start your server, or correct the port in the endpoint's URL.",
            ),
        ),
        (
            "network is unreachable|no route to host",
            Explanation(
                "No route leads to the address of your server.",
                "Check that its DNS records name its present address and that it is connected to the internet.",
            ),
        ),
        ("connection reset|closed the connection|broken pipe", _CONNECTION_CUT),
        (
            "",
            Explanation(
                "No connection to your server came about.",
                "Check that it runs and that a firewall lets our source addresses in.",
            ),
        ),
    ),
    Outcome.TLS_ERROR: (
        (
            "has expired",
            Explanation(
                "The certificate of your server has expired.", "Renew it, and let it renew itself from now on."
            ),
        ),
        (
            "not valid yet|not yet valid",
            Explanation(
                "The certificate of your server is not valid yet.",
                "Wait until it is, or install one that is valid now.",
            ),
        ),
        (
            "for another name|for another address|hostname mismatch|ip address mismatch",
            Explanation(
                "The certificate of your server was issued for another name.",
                "Install one that names the host of the endpoint's URL, or register the name it was issued for.",
            ),
        ),
        (
            "is self-signed|self-signed certificate|not trusted|issuer of the certificate|local issuer",
            Explanation(
                "The certificate of your server was issued by an authority that is not publicly trusted, or the chain "
                "to it is incomplete.",
                "Install a certificate of a public authority together with all intermediate ones (the full chain).",
            ),
        ),
        (
            "does not speak tls|wrong version number",
            Explanation(
                "What answered at this port does not speak TLS.",
                "Correct the port in the endpoint's URL, or switch TLS on there.",
            ),
        ),
        (
            "older than 1.2|unsupported protocol|alert protocol version|handshake failure|no shared cipher",
            Explanation(
                "Your server and we found no common version or cipher of TLS.",
                "Let your server offer TLS 1.2 or 1.3, and serve a certificate for the host of the endpoint's URL.",
            ),
        ),
        ("ended the connection|tls connection broke", _CONNECTION_CUT),
        (
            "",
            Explanation(
                "No secure connection to your server came about.",
                "Check its certificate and its TLS settings with a public TLS test.",
            ),
        ),
    ),
    Outcome.PROTOCOL_ERROR: (
        ("(closed|broke|ended) the connection", _CONNECTION_CUT),
        (
            "longer than [0-9]+ bytes",
            Explanation(
                "The headers of your server's answer are too long.",
                "Answer with a few short headers; cookies and traces mean nothing to us.",
            ),
        ),
        (
            "",
            Explanation(
                "What came back is not a valid HTTP/1.1 response.",
                "Check that the port in the endpoint's URL belongs to a web server that speaks HTTP/1.1.",
            ),
        ),
    ),
    Outcome.BLOCKED: (
        (
            "no egress address",
            Explanation(
                "Your server has no address of the IP version that we send over.",
                "Let its DNS records name one of the other version as well: A is for IPv4, AAAA for IPv6.",
            ),
        ),
        (
            "does not allow a tunnel",
            Explanation(
                "The proxy that our requests go through does not allow connections to this address and port.",
                "Let your server listen at port 443, or ask whoever runs this service to allow yours.",
            ),
        ),
        (
            "use https",
            Explanation(
                "The address behind the endpoint's URL is public, and http is only for an operator's own machine.",
                "Register the endpoint with https.",
            ),
        ),
        (
            "",
            Explanation(
                "The host of the endpoint's URL leads to an address that we do not connect to.",
                "Let its DNS records name public addresses only; to receive on your own machine, register the https "
                "address of a tunnel to it.",
            ),
        ),
    ),
}


def explain(
    outcome: Outcome, *, status_code: int | None, error: str | None, location: str | None
) -> Explanation | None:
    """Explain why an attempt failed and how to fix it; None for `delivered`.

    `status_code`, `error` and `location` are those of the attempt's exchange. The location comes from the receiver, so
    it is truncated and made printable.
    """
    if outcome is Outcome.DELIVERED:
        return None
    if outcome is Outcome.REDIRECT:
        return _redirect(status_code, location)
    texts = _BY_ERROR.get(outcome)
    if texts is not None:
        words = (error or "").lower()
        return next(explanation for pattern, explanation in texts if re.search(pattern, words))
    other = _OTHER_SERVER_ERROR if outcome is Outcome.SERVER_ERROR else _OTHER_CLIENT_ERROR
    explanation = _BY_STATUS.get(status_code or 0, other)
    return Explanation(explanation.cause.format(status=status_code), explanation.remedy)


def _redirect(status_code: int | None, location: str | None) -> Explanation:
    if not location:
        return Explanation(
            f"Your server answered {status_code}, a redirect without an address.",
            "Let the route answer 2xx itself; redirects are never followed.",
        )
    shown = _UNPRINTABLE.sub("?", location)
    if len(shown) > _LOCATION_CHARACTERS_SHOWN_MAX:
        shown = shown[:_LOCATION_CHARACTERS_SHOWN_MAX] + "…"
    return Explanation(
        f"Your server answered {status_code}, a redirect to {shown}, and redirects are never followed.",
        "Register that address if it is yours, or let this one answer 2xx itself.",
    )
