"""The authentication fields in the form that creates or edits an endpoint."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from uplift_server.core.problems import Problem
from uplift_server.core.security.endpoint_auth import (
    CERTIFICATE_WARNINGS_MS,
    ClientCertificate,
    EndpointAuth,
    OAuthClient,
)
from uplift_server.dashboard.forms import Form
from uplift_server.service.endpoints import ShownEndpoint
from uplift_server.service.fields import UNSET, Unset

AUTH_TYPES: Final = (
    ("", "None"),
    (OAuthClient.type, "OAuth 2.0 client credentials"),
    (ClientCertificate.type, "Client certificate (mutual TLS)"),
)
"""The authentication types in the form, with their labels."""
_SHOWN: Final = ("token_url", "client_id", "scope")
_AGAIN: Final = "Enter the client secret. Every change to these settings requires it."
_BOTH: Final = "Enter the certificate and its private key."


@dataclass(frozen=True, slots=True)
class FilledAuth:
    """The values of the authentication fields."""

    auth_type: str = ""
    token_url: str = ""
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    scope: str = ""
    certificate: str = field(default="", repr=False)
    private_key: str = field(default="", repr=False)


def filled_auth(shown: Mapping[str, Any] | None) -> FilledAuth:
    """Return the field values for stored authentication settings.

    The fields for secrets are empty. A secret changes only if the user fills in its field.
    """
    if shown is None:
        return FilledAuth()
    return FilledAuth(auth_type=shown["type"], **{name: shown.get(name) or "" for name in _SHOWN})


def sent_auth(form: Form) -> FilledAuth:
    """Return the submitted field values, so that the page can show the form again."""
    return FilledAuth(**{name: form.text(name) for name in FilledAuth.__dataclass_fields__})


def auth_in(form: Form, stored: ShownEndpoint | None, problems: list[Problem]) -> EndpointAuth | Unset | None:
    """Return the authentication settings in a form.

    Return None if the form removes the settings, or UNSET if the form does not change them. If a secret is missing, add
    a problem and return UNSET.
    """
    sent, shown = sent_auth(form), None if stored is None else stored.auth
    if sent.auth_type == OAuthClient.type:
        if sent.client_secret:
            return OAuthClient(sent.token_url, sent.client_id, sent.client_secret, sent.scope or None)
        if shown is None or any((shown.get(name) or "") != getattr(sent, name) for name in _SHOWN):
            problems.append(Problem("auth.client_secret", "required", _AGAIN))
        return UNSET
    if sent.auth_type == ClientCertificate.type:
        if sent.certificate and sent.private_key:
            return ClientCertificate(sent.certificate, sent.private_key)
        is_stored = shown is not None and shown["type"] == ClientCertificate.type
        if sent.certificate or sent.private_key or not is_stored:
            missing = "private_key" if sent.certificate else "certificate"
            problems.append(Problem(f"auth.{missing}", "required", _BOTH))
        return UNSET
    # A form that an earlier release rendered does not have the field `auth_type`.
    return None if shown is not None and form.flag("auth_type") else UNSET


def at_auth_fields(problems: Iterable[Problem]) -> list[Problem]:
    """Remove the prefix `auth.` from each problem's field, because the form's field names have no prefix."""
    return [
        Problem(each.field.removeprefix("auth."), each.code, each.message) if each.field.startswith("auth.") else each
        for each in problems
    ]


def expiring_certificate(shown: ShownEndpoint, now: int) -> int | None:
    """Return the time when the client certificate expires (Unix ms), or None if no certificate expires soon."""
    expires_at = shown.endpoint.certificate_expires_at
    return expires_at if expires_at is not None and expires_at - now <= CERTIFICATE_WARNINGS_MS[0] else None
