"""Models for endpoint authentication, in requests and responses."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from uplift_server.core.limits import CLIENT_KEY_RSA_BITS_MAX
from uplift_server.core.security.endpoint_auth import ClientCertificate
from uplift_server.core.timestamps import format_timestamp


class _Credentials(BaseModel):
    model_config = ConfigDict(extra="forbid")


class OAuthNew(_Credentials):
    """Credentials for requesting access tokens (OAuth 2.0 client credentials, `client_secret_basic`)."""

    type: Literal["oauth2_client_credentials"] = Field(description="OAuth 2.0 client credentials.")
    token_url: str = Field(
        description="URL that issues the access tokens. It must follow the same rules as the endpoint's URL.",
        examples=["https://login.example.com/oauth/token"],
    )
    client_id: str = Field(description="Client ID: printable ASCII.", examples=["uplift"])
    client_secret: str = Field(description="Client secret: printable ASCII. The API never returns it.")
    scope: str | None = Field(default=None, description="Scopes separated by spaces.", examples=["webhooks:write"])


class CertificateNew(_Credentials):
    """A client certificate for mutual TLS. The endpoint needs an https URL."""

    type: Literal["mtls"] = Field(description="Mutual TLS.")
    certificate: str = Field(description="Certificate in PEM, followed by its intermediate certificates.")
    private_key: str = Field(
        description=f"Private key in PEM without a password: EC, or RSA of at most {CLIENT_KEY_RSA_BITS_MAX} bits."
        " The API never returns it."
    )


Auth = Annotated[
    Annotated[OAuthNew | CertificateNew, Field(discriminator="type")] | None,
    Field(description="Authentication to the endpoint, in addition to the signature. Null: no authentication."),
]


class OAuthView(BaseModel):
    """Credentials for requesting access tokens, without the client secret."""

    type: Literal["oauth2_client_credentials"] = Field(description="OAuth 2.0 client credentials.")
    token_url: str = Field(description="URL that issues the access tokens.")
    client_id: str = Field(description="Client ID.")
    scope: str | None = Field(description="Scopes separated by spaces.")


class CertificateView(BaseModel):
    """A client certificate for mutual TLS, without its private key."""

    type: Literal["mtls"] = Field(description="Mutual TLS.")
    subject: str = Field(description="The certificate's subject.")
    fingerprint: str = Field(description="The certificate's SHA-256 fingerprint, in hexadecimal.")
    expires_at: Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})] = Field(
        description="Earliest expiration of a certificate in the chain."
    )


AuthView = Annotated[OAuthView | CertificateView, Field(discriminator="type")]


def auth_view(shown: Mapping[str, Any] | None) -> OAuthView | CertificateView | None:
    """Return the API model of an endpoint's authentication."""
    if shown is None:
        return None
    if shown["type"] == ClientCertificate.type:
        return CertificateView(**{**shown, "expires_at": format_timestamp(shown["expires_at"])})
    return OAuthView(**shown)
