"""Authentication of the server to an endpoint: OAuth 2.0 client credentials, or a TLS client certificate."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Final

from uplift_server.core.limits import (
    CLIENT_CERTIFICATE_CHARACTERS_MAX,
    CLIENT_ID_CHARACTERS_MAX,
    CLIENT_KEY_CHARACTERS_MAX,
    CLIENT_SECRET_CHARACTERS_MAX,
    OAUTH_SCOPE_CHARACTERS_MAX,
)
from uplift_server.core.people.audit import without_query
from uplift_server.core.problems import Problem
from uplift_server.core.timestamps import format_timestamp

AUTHORIZATION: Final = "authorization"
"""The request header that carries an access token."""
CERTIFICATE_WARNINGS_MS: Final = (30 * 86_400_000, 7 * 86_400_000)
"""The times in ms before the expiry of a client certificate at which the server sends warnings, longest time first."""
# The characters that client credentials and scopes may contain (RFC 6749, appendix A).
_VISIBLE: Final = re.compile(r"[\x20-\x7e]+")
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*")


@dataclass(frozen=True, slots=True)
class OAuthClient:
    """The client credentials with which the server requests access tokens (RFC 6749, section 4.4)."""

    type: ClassVar[str] = "oauth2_client_credentials"
    hidden: ClassVar[tuple[str, ...]] = ("client_secret",)

    token_url: str
    client_id: str
    client_secret: str = field(repr=False)
    scope: str | None = None
    """The requested scopes, separated by spaces."""


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A client certificate with its private key, for mutual TLS.

    The fingerprint and the expiry come from the certificate.
    """

    type: ClassVar[str] = "mtls"
    hidden: ClassVar[tuple[str, ...]] = ("certificate", "private_key")

    certificate: str = field(repr=False)
    """The client's certificate, then its intermediate certificates, as PEM."""
    private_key: str = field(repr=False)
    """The unencrypted private key, as PEM."""
    subject: str = ""
    fingerprint: str = ""
    """The SHA-256 digest of the certificate, in hexadecimal."""
    expires_at: int = 0
    """The earliest expiry of the certificates in the chain (Unix ms)."""


EndpointAuth = OAuthClient | ClientCertificate
_KINDS: Final[dict[str, type[EndpointAuth]]] = {kind.type: kind for kind in (OAuthClient, ClientCertificate)}


def auth_of(values: Mapping[str, Any]) -> EndpointAuth:
    """Create authentication settings from their fields. The fields come from the API or from the stored form."""
    return _KINDS[values["type"]](**{name: value for name, value in values.items() if name != "type"})


def auth_from_text(text: str) -> EndpointAuth:
    """Parse the stored form of authentication settings."""
    return auth_of(json.loads(text))


def auth_text(auth: EndpointAuth) -> str:
    """Return authentication settings in their stored form: a JSON object that includes the secrets."""
    return json.dumps({"type": auth.type, **asdict(auth)}, ensure_ascii=False, separators=(",", ":"))


def shown_auth(auth: EndpointAuth | None) -> dict[str, Any] | None:
    """Return the API fields of authentication settings, without the secrets."""
    if auth is None:
        return None
    names = [each.name for each in fields(auth) if each.name not in auth.hidden]
    return {"type": auth.type, **{name: getattr(auth, name) for name in names}}


def audited_auth(auth: EndpointAuth | None) -> dict[str, Any] | None:
    """Return authentication settings for the audit log, without secrets and without the query of the token URL."""
    if auth is None:
        return None
    if isinstance(auth, OAuthClient):
        changed: dict[str, Any] = {"token_url": without_query(auth.token_url)}
    else:
        changed = {"expires_at": format_timestamp(auth.expires_at)}
    return {**(shown_auth(auth) or {}), **changed}


def auth_secrets(auth: EndpointAuth | None) -> tuple[str, ...]:
    """Return the secrets in authentication settings, so that callers can compare the secrets."""
    return () if auth is None else tuple(getattr(auth, name) for name in auth.hidden)


def check_auth(auth: EndpointAuth) -> list[Problem]:
    """Return the problems with the lengths and characters of the fields in authentication settings.

    The field of each problem is `auth.<name>`.
    """
    found: tuple[Problem | None, ...]
    if isinstance(auth, ClientCertificate):
        found = (
            _too_long("certificate", auth.certificate, CLIENT_CERTIFICATE_CHARACTERS_MAX),
            _too_long("private_key", auth.private_key, CLIENT_KEY_CHARACTERS_MAX),
        )
    else:
        scope = auth.scope
        found = (
            _check_text("client_id", auth.client_id, CLIENT_ID_CHARACTERS_MAX),
            _check_text("client_secret", auth.client_secret, CLIENT_SECRET_CHARACTERS_MAX),
            None if scope is None else _check_scope(scope),
        )
    return [problem for problem in found if problem is not None]


def check_auth_with(auth: EndpointAuth | None, url: str, headers: Mapping[str, str]) -> Problem | None:
    """Return the conflict between authentication settings and the endpoint's URL or custom headers, if any."""
    if isinstance(auth, ClientCertificate) and not url.lower().startswith("https:"):
        text = "The client certificate of the endpoint needs TLS. Use an https URL, or remove the authentication."
        return Problem("url", "https_required", text)
    if isinstance(auth, OAuthClient):
        for name in headers:
            if name.lower() == AUTHORIZATION:
                text = "The OAuth authentication of the endpoint sets this header. Remove the header."
                return Problem(f"headers.{name}", "header_forbidden", text)
    return None


def certificate_warning_at(expires_at: int, warned_at: int | None) -> int | None:
    """Return the time (Unix ms) of the next warning about a client certificate's expiry.

    Return None after the last scheduled warning. `warned_at` is the time of the latest warning that was sent. A late
    warning replaces any earlier warnings that were not sent.
    """
    times = (expires_at - before for before in CERTIFICATE_WARNINGS_MS)
    return next((at for at in times if warned_at is None or warned_at < at), None)


def _check_scope(scope: str) -> Problem | None:
    if not _SCOPE.fullmatch(scope):
        text = "The scope is not valid. Separate scopes with single spaces, or omit the field."
        return Problem("auth.scope", "characters_invalid", text)
    return _too_long("scope", scope, OAUTH_SCOPE_CHARACTERS_MAX)


def _check_text(name: str, value: str, longest: int) -> Problem | None:
    if not value:
        return Problem(f"auth.{name}", "required", "The field is required.")
    if not _VISIBLE.fullmatch(value):
        text = "The text is not valid. Use printable ASCII characters."
        return Problem(f"auth.{name}", "characters_invalid", text)
    return _too_long(name, value, longest)


def _too_long(name: str, value: str, longest: int) -> Problem | None:
    if len(value) <= longest:
        return None
    text = f"The text has {len(value)} characters. Use at most {longest}."
    return Problem(f"auth.{name}", "too_long", text)
