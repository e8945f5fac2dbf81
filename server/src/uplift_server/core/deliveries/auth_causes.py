"""Patterns that match the errors of failed authentication to an endpoint, and the explanations of these errors."""

from typing import Final

from uplift_server.core.security.access_tokens import FAILED

Cause = tuple[str, str, str, str, str]
"""An error pattern (a regular expression), and the explanation of matching errors: code, title, cause, and how to fix
it."""

_REJECTIONS: Final = (
    "bad certificate|unsupported certificate|certificate (revoked|expired|unknown)|unknown ca|access denied"
    "|decrypt error"
)
TOKEN_URL_UNREACHABLE: Final[tuple[Cause, ...]] = (
    (
        f"^{FAILED}",
        "token_url_unreachable",
        "Token URL not reachable",
        "Uplift Webhooks could not reach the token URL of the endpoint's authentication.",
        "Check the token URL and its server, and check that its firewall allows the egress IPs of Uplift Webhooks.",
    ),
)
NO_TOKEN: Final[tuple[Cause, ...]] = (
    (
        f"^{FAILED}the server responded with 40[013]",
        "token_rejected",
        "Client credentials rejected",
        "The token URL rejected the client credentials of the endpoint's authentication.",
        "Correct the client ID, the client secret and the scope of the endpoint's authentication.",
    ),
    (
        f"^{FAILED}",
        "token_missing",
        "No access token",
        "The token URL of the endpoint's authentication did not return an access token.",
        "Check the token URL: its server must respond with 200 and a bearer token in JSON.",
    ),
)
CLIENT_CERTIFICATE: Final[tuple[Cause, ...]] = (
    (
        "failed: certificate required",
        "client_certificate_required",
        "Client certificate required",
        "Your server requires a client certificate (mutual TLS).",
        "Add a client certificate to the endpoint's authentication, or do not require the certificate on your server.",
    ),
    (
        f"failed: ({_REJECTIONS})|client certificate is not usable",
        "client_certificate_rejected",
        "Client certificate rejected",
        "Your server rejected the client certificate in the endpoint's authentication.",
        "Check that the certificate is valid and that your server trusts its issuer, or replace the certificate.",
    ),
)
