"""OpenID Connect: the metadata of the identity provider, and the requests to it (Discovery 1.0, RFC 6749, RFC 7636)."""

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlencode

from uplift_server.core.http.exchange import Exchange
from uplift_server.core.http.urls import EndpointUrl, parse_endpoint_url
from uplift_server.core.problems import Problem

CALLBACK_PATH: Final = "/sign-in/oidc/callback"
"""The path of the redirect URI, relative to the public URL."""
SCOPE: Final = "openid email profile"
METADATA_TTL_MS: Final = 3_600_000
"""How long, in ms, the server keeps the provider's metadata and keys in memory."""
KEYS_REFRESH_MS_MIN: Final = 60_000
"""Minimum interval, in ms, between two refreshes of the provider's keys. An unknown key ID causes a refresh."""
TRANSACTION_MS: Final = 10 * 60_000
"""How long, in ms, a person has to complete the sign-in at the provider."""
RESPONSE_BYTES_MAX: Final = 64 * 1024
RANDOM_BYTES: Final = 32
"""The number of random bytes in `state`, `nonce` and the PKCE code verifier."""
CODE_CHARACTERS_MAX: Final = 4096
SIGN_OUT_URL_CHARACTERS_MAX: Final = 8000
"""Maximum number of characters in a sign-out URL. Common web servers reject longer URLs."""
# The error codes of OAuth 2.0 and OpenID Connect. Other values could contain any text.
_ERROR_CODES: Final = frozenset(
    {
        "access_denied",
        "account_selection_required",
        "consent_required",
        "interaction_required",
        "invalid_client",
        "invalid_grant",
        "invalid_request",
        "invalid_scope",
        "login_required",
        "server_error",
        "temporarily_unavailable",
        "unauthorized_client",
        "unsupported_response_type",
    }
)


@dataclass(frozen=True, slots=True)
class OidcClient:
    """This server's registration as a client of the identity provider."""

    issuer: str
    """The issuer, exactly as the provider's tokens contain it."""
    client_id: str
    client_secret: str = field(repr=False)
    redirect_uri: str
    operator_group: str | None
    """The group whose members are operators."""
    read_only_group: str | None
    """The group whose members are read-only operators, if they are not in `operator_group`."""

    @property
    def has_operators(self) -> bool:
        """Whether a group of operators is configured."""
        return self.operator_group is not None or self.read_only_group is not None

    @property
    def operator_grant(self) -> bytes:
        """A digest of the settings that determine who is an operator.

        If the digest changes, the server ends all operator sessions that began with single sign-on.
        """
        named = "\0".join((self.issuer, self.client_id, self.operator_group or "", self.read_only_group or ""))
        return hashlib.sha256(named.encode()).digest()


@dataclass(frozen=True, slots=True)
class ProviderMetadata:
    """The endpoints and capabilities of the provider."""

    authorization_endpoint: str
    token_endpoint: EndpointUrl
    jwks_uri: EndpointUrl
    userinfo_endpoint: EndpointUrl | None
    end_session_endpoint: str | None
    secret_in_body: bool
    """Whether the token endpoint accepts the client secret only in the request body."""
    names_issuer: bool
    """Whether each authorization response names the issuer (RFC 9207)."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens in a response from the token endpoint."""

    id_token: str = field(repr=False)
    access_token: str | None = field(repr=False)


def metadata_url(issuer: str) -> str:
    """Return the URL of the provider's metadata document."""
    return f"{issuer.rstrip('/')}/.well-known/openid-configuration"


def provider_url(text: str, *, to_ascii: Callable[[str], str]) -> EndpointUrl | str:
    """Parse a provider URL to which the server sends requests. Return the reason if the URL is not valid."""
    # Without a policy, this call only parses. The sender checks the host's address, and rejects public http URLs.
    found = parse_endpoint_url(text, None, to_ascii=to_ascii)
    return found.message if isinstance(found, Problem) else found


def read_json(exchange: Exchange, what: str) -> dict[str, Any] | str:
    """Return the JSON object in a response, or the reason why the response contains no object.

    The reason begins with `what`, a name for the response.
    """
    if exchange.failure is not None:
        return f"{what}: {exchange.error}"
    values = _json(exchange.response_body)
    if exchange.status_code != 200:
        return f"{what}: the provider responded with {exchange.status_code}{_code(values)}"
    if exchange.body_truncated:
        return f"{what}: the response has more than {RESPONSE_BYTES_MAX} bytes"
    return values if isinstance(values, dict) else f"{what}: the response is not a JSON object"


def read_metadata(values: dict[str, Any], issuer: str, *, to_ascii: Callable[[str], str]) -> ProviderMetadata | str:
    """Return the provider's endpoints according to its metadata, or the reason why the server cannot use them."""
    named = values.get("issuer")
    if named != issuer:
        return f"the provider's issuer is {str(named)[:200]!r}, not {issuer!r}"
    texts: dict[str, str] = {}
    urls: dict[str, EndpointUrl] = {}
    for name, is_required in _ENDPOINTS.items():
        text = values.get(name)
        if text is None and not is_required:
            continue
        if not isinstance(text, str):
            return f"{name} is missing"
        found = provider_url(text, to_ascii=to_ascii)
        if isinstance(found, str):
            return f"{name} is not valid: {found}"
        if issuer.startswith("https:") and not found.encrypted:
            return f"{name} does not use https"
        texts[name], urls[name] = text, found
    methods = values.get("token_endpoint_auth_methods_supported")
    return ProviderMetadata(
        texts["authorization_endpoint"],
        urls["token_endpoint"],
        urls["jwks_uri"],
        urls.get("userinfo_endpoint"),
        texts.get("end_session_endpoint"),
        isinstance(methods, list) and "client_secret_basic" not in methods and "client_secret_post" in methods,
        values.get("authorization_response_iss_parameter_supported") is True,
    )


_ENDPOINTS: Final = {
    "authorization_endpoint": True,
    "token_endpoint": True,
    "jwks_uri": True,
    "userinfo_endpoint": False,
    "end_session_endpoint": False,
}
"""The endpoints that the metadata can contain. The value is True for required endpoints."""


def random_text(random: bytes) -> str:
    """Encode random bytes as text that is safe in a URL."""
    return base64.urlsafe_b64encode(random).rstrip(b"=").decode()


def authorization_url(
    metadata: ProviderMetadata, client: OidcClient, *, state: str, nonce: str, verifier: str, again: bool
) -> str:
    """Return the URL of the provider's sign-in page. If `again` is true, the provider asks for credentials again."""
    challenge = random_text(hashlib.sha256(verifier.encode()).digest())
    query = {
        "response_type": "code",
        "client_id": client.client_id,
        "redirect_uri": client.redirect_uri,
        "scope": SCOPE,
        "state": state,
        "nonce": nonce,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    return _with_query(metadata.authorization_endpoint, query | ({"prompt": "login", "max_age": "0"} if again else {}))


def sign_out_url(metadata: ProviderMetadata, client: OidcClient, *, id_token: str | None, back: str) -> str | None:
    """Return the URL that ends the person's session at the provider and then redirects to `back`.

    If the URL would be too long with `id_token`, omit the token. Return None if the provider has no such URL.
    """
    if metadata.end_session_endpoint is None:
        return None
    query = {"client_id": client.client_id, "post_logout_redirect_uri": back}
    if id_token is not None:
        url = _with_query(metadata.end_session_endpoint, query | {"id_token_hint": id_token})
        if len(url) <= SIGN_OUT_URL_CHARACTERS_MAX:
            return url
    return _with_query(metadata.end_session_endpoint, query)


def get_request(url: EndpointUrl, user_agent: str, access_token: str | None = None) -> bytes:
    """Return the headers of a GET request.

    The `connection: close` header ends the connection after the response. Therefore, the client never reuses a
    connection, and never has to repeat the request on a new one.
    """
    bearer = "" if access_token is None else f"authorization: Bearer {access_token}\r\n"
    head = (
        f"GET {url.path} HTTP/1.1\r\nhost: {url.host_header}\r\naccept: application/json\r\n"
        f"user-agent: {user_agent}\r\n{bearer}connection: close\r\n\r\n"
    )
    return head.encode("latin-1")


def code_request(
    metadata: ProviderMetadata, client: OidcClient, code: str, verifier: str, user_agent: str
) -> tuple[bytes, bytes]:
    """Return the headers and the body of the request that exchanges a code for tokens."""
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": client.redirect_uri,
        "code_verifier": verifier,
    }
    authorization = ""
    if metadata.secret_in_body:
        form |= {"client_id": client.client_id, "client_secret": client.client_secret}
    else:
        credentials = ":".join(quote(each, safe="") for each in (client.client_id, client.client_secret))
        authorization = f"authorization: Basic {base64.b64encode(credentials.encode()).decode()}\r\n"
    url, body = metadata.token_endpoint, urlencode(form).encode()
    head = (
        f"POST {url.path} HTTP/1.1\r\nhost: {url.host_header}\r\ncontent-type: application/x-www-form-urlencoded\r\n"
        f"accept: application/json\r\nuser-agent: {user_agent}\r\n{authorization}content-length: {len(body)}\r\n"
        "connection: close\r\n\r\n"
    )
    return head.encode("latin-1"), body


def read_tokens(values: dict[str, Any]) -> Tokens | str:
    """Return the tokens in a response from the token endpoint, or the reason why the response contains no tokens."""
    id_token, access_token = values.get("id_token"), values.get("access_token")
    if not isinstance(id_token, str):
        return "token response: no id_token"
    is_usable = isinstance(access_token, str) and access_token.isascii() and access_token.isprintable()
    return Tokens(id_token, access_token if is_usable else None)


def known_error(code: str) -> str:
    """Return the provider's error code for the log, or `unknown error` if the standards do not define the code."""
    return code if code in _ERROR_CODES else "unknown error"


def _with_query(url: str, query: dict[str, str]) -> str:
    return f"{url}{'&' if '?' in url else '?'}{urlencode(query, quote_via=quote)}"


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _code(values: object) -> str:
    code = values.get("error") if isinstance(values, dict) else None
    return f" and the error {code}" if isinstance(code, str) and code in _ERROR_CODES else ""
