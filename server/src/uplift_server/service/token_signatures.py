"""Verifies the signatures of ID tokens.

The server imports this module on first use, because most servers do not use single sign-on.
"""

import json
import warnings
from collections.abc import Mapping
from typing import Any, Final

from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import JWKRegistry
from joserfc.jws import JWSRegistry, deserialize_compact

from uplift_server.core.security.id_tokens import ALGORITHMS


def verified_claims(token: str, key: Mapping[str, Any]) -> dict[str, Any] | None:
    """Verify a token's signature with a key (JWK). Return the claims, or None if the signature is not valid."""
    try:
        with warnings.catch_warnings():
            # Ignore the library's warning about EdDSA, because RFC 9864 only renames this algorithm.
            warnings.simplefilter("ignore", SecurityWarning)
            verified = deserialize_compact(token, JWKRegistry.import_key(dict(key)), registry=_SIGNATURES)
        claims = json.loads(verified.payload or b"")
    except (JoseError, ValueError, TypeError, RecursionError):
        return None
    return claims if isinstance(claims, dict) else None


_SIGNATURES: Final = JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)
_SIGNATURES.max_header_length = 8 * 1024
"""The maximum size of a token's header, in bytes. The size allows for headers that contain certificates."""
