"""Converts an endpoint's secret to the keys that verify the two signatures of a request."""

import base64
import binascii
from dataclasses import dataclass, field
from typing import Final

from uplift_webhooks.errors import WebhookVerificationError

PREFIX: Final = "whsec_"
"""Prefix of a Standard Webhooks secret. The rest of the secret is the key in base64."""
TOKEN_CHARACTERS_MIN: Final = 16
TOKEN_CHARACTERS_MAX: Final = 256
# The limits of custom tokens also apply to keys, because `whsec_…` can encode a token. Generated keys have 32 bytes.
KEY_BYTES_MIN: Final = TOKEN_CHARACTERS_MIN
KEY_BYTES_MAX: Final = TOKEN_CHARACTERS_MAX

_COPY = "Copy the complete secret of the endpoint. The dashboard shows it."


@dataclass(frozen=True, slots=True)
class Secret:
    """The keys of a secret, one for each signature header."""

    standard_key: bytes = field(repr=False)
    """The key for the signatures in the header `webhook-signature`."""
    uplift_key: bytes = field(repr=False)
    """The key for the signature in the header `x-uplift-signature-256`: the complete text of the secret."""


def parse_secret(text: object) -> Secret:
    """Return the keys of a generated secret (`whsec_…`) or a custom token.

    This function removes white space around the secret.

    Raises:
        WebhookVerificationError: `secret_invalid`. The error does not quote the secret.
    """
    if not isinstance(text, str):
        raise WebhookVerificationError(
            "secret_invalid",
            f"The secret has the type {type(text).__name__}, not str.",
            f"Pass the secret as a str. {_COPY}",
        )
    token = text.strip()
    if not token.startswith(PREFIX):
        return _chosen(token)
    encoded = token[len(PREFIX) :]
    try:
        # Add the padding, because some tools omit it from a key.
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):  # ValueError: non-ASCII characters
        raise WebhookVerificationError(
            "secret_invalid", f"The part of the secret after {PREFIX!r} is not base64.", _COPY
        ) from None
    if not KEY_BYTES_MIN <= len(key) <= KEY_BYTES_MAX:
        raise WebhookVerificationError(
            "secret_invalid",
            f"The secret decodes to {len(key)} bytes; {KEY_BYTES_MIN} to {KEY_BYTES_MAX} are allowed.",
            f"The secret may be incomplete. {_COPY}",
        )
    return Secret(standard_key=key, uplift_key=token.encode("ascii"))


def _chosen(token: str) -> Secret:
    """Return the keys of a custom token. Both keys are the bytes of the token."""
    if not TOKEN_CHARACTERS_MIN <= len(token) <= TOKEN_CHARACTERS_MAX:
        raise WebhookVerificationError(
            "secret_invalid",
            f"The secret has {len(token)} characters; {TOKEN_CHARACTERS_MIN} to {TOKEN_CHARACTERS_MAX} are allowed.",
            _COPY,
        )
    if not all("!" <= character <= "~" for character in token):
        raise WebhookVerificationError(
            "secret_invalid", "The secret contains a space or a character that is not printable ASCII.", _COPY
        )
    key = token.encode("ascii")
    return Secret(standard_key=key, uplift_key=key)
