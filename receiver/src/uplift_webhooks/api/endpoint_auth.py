"""Types for an endpoint's `auth`, which states how the server authenticates to the endpoint."""

from typing import Literal, TypedDict


class _OAuthScope(TypedDict, total=False):
    scope: str | None


class OAuthClient(_OAuthScope):
    """OAuth 2.0 client credentials. The optional `scope` contains scopes separated by spaces."""

    type: Literal["oauth2_client_credentials"]
    token_url: str
    client_id: str
    client_secret: str


class ClientCertificate(TypedDict):
    """A client certificate (chain) and its private key for mutual TLS, in PEM."""

    type: Literal["mtls"]
    certificate: str
    private_key: str


EndpointAuth = OAuthClient | ClientCertificate
