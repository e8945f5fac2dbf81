"""Validates the claims of an OpenID Connect ID token (Core 1.0, section 3.1.3.7), and returns the identified person."""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from uplift_server.core.limits import NAME_CHARACTERS_MAX
from uplift_server.core.people.accounts import check_email, check_name
from uplift_server.core.people.people import normalize_email
from uplift_server.core.security.oidc import TRANSACTION_MS, OidcClient

ALGORITHMS: Final = ("RS256", "ES256", "EdDSA", "Ed25519")
"""The accepted signature algorithms. All are asymmetric, so a client secret cannot sign a token. The server rejects
`none`."""
_KEY_TYPES: Final = dict(zip(ALGORITHMS, ("RSA", "EC", "OKP", "OKP"), strict=True))
_SAME_ALGORITHM: Final = {"EdDSA": ("EdDSA", "Ed25519"), "Ed25519": ("EdDSA", "Ed25519")}
"""The equivalent names of an algorithm. RFC 9864 introduced `Ed25519` for EdDSA with the curve Ed25519."""
_CURVES: Final = {"EC": "P-256", "OKP": "Ed25519"}
_RSA_CHARACTERS_MIN: Final = 342
"""Minimum length of an RSA modulus, in base64url characters. A 2048-bit modulus has this length."""
_KEYS_READ_MAX: Final = 100
_CANDIDATES_MAX: Final = 5
"""Maximum number of keys to try for a token without a key ID."""
CLOCK_SKEW_MS: Final = 120_000
"""Maximum difference in ms between the clocks of the provider and this server."""
_SUBJECT: Final = re.compile(r"[\x21-\x7e][\x20-\x7e]{0,254}")
"""A valid `sub` claim: ASCII, within the standard's length limit."""
GROUPS_READ_MAX: Final = 10_000
_SECONDS_MAX: Final = 2**40
_VERIFIED: Final = ("email_verified", "xms_edov")
"""The claims that state that the email address is verified.

The claim `xms_edov` of Microsoft Entra ID states that the owner of the email's domain is verified.
"""
_TRUE: Final = (True, "true", 1, "1")
"""The claim values that mean true. Amazon Cognito and Microsoft Entra ID send strings or numbers instead of booleans.
"""


class TokenHeader(NamedTuple):
    """The header of a signed token."""

    algorithm: str
    key_id: str | None


@dataclass(frozen=True, slots=True)
class Identity:
    """A person, as the identity provider describes them."""

    issuer: str
    subject: str
    """The provider's permanent ID for the person."""
    email: str | None
    """The email address in lower case, or None if the provider has not verified it."""
    name: str
    is_operator: bool
    """Whether the person is an operator. An operator has all permissions unless `is_read_only` is set."""
    is_read_only: bool
    authenticated_at: int | None
    """When the person last entered their credentials at the provider (Unix ms), or None if unknown."""


def read_header(token: str) -> TokenHeader | str:
    """Return the header of a signed token, or the reason why the server rejects it."""
    part = token.partition(".")[0]
    try:
        header = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        return "not a signed token"
    algorithm, key_id = header.get("alg"), header.get("kid")
    if algorithm not in ALGORITHMS:
        return f"the algorithm (alg) is not one of {', '.join(ALGORITHMS)}"
    return TokenHeader(algorithm, key_id if isinstance(key_id, str) else None)


def usable_keys(key_set: Mapping[str, Any], header: TokenHeader) -> list[dict[str, Any]]:
    """Return the provider's keys (JWK) that can verify a token with this header."""
    keys = key_set.get("keys")
    found = [] if not isinstance(keys, list) else [key for key in keys[:_KEYS_READ_MAX] if _can_verify(key, header)]
    return found[:_CANDIDATES_MAX]


def count_usable_keys(key_set: Mapping[str, Any]) -> int:
    """Count the provider's keys (JWK) that can verify a token with one of the ALGORITHMS."""
    keys = key_set.get("keys")
    headers = [TokenHeader(algorithm, None) for algorithm in ALGORITHMS]
    found = keys[:_KEYS_READ_MAX] if isinstance(keys, list) else []
    return sum(any(_can_verify(key, header) for header in headers) for key in found)


def check_claims(claims: Mapping[str, Any], client: OidcClient, nonce: str, now_ms: int) -> str | None:
    """Return the reason why the server rejects the claims of an ID token, if any.

    The caller has already verified the signature.
    """
    subject, expires_at, issued_at = claims.get("sub"), _ms(claims.get("exp")), _ms(claims.get("iat"))
    age_ms = None if issued_at is None else now_ms - issued_at
    checks = {
        "the issuer (iss) is not the configured one": claims.get("iss") == client.issuer,
        "the subject (sub) is not valid": isinstance(subject, str) and _SUBJECT.fullmatch(subject) is not None,
        "the audience (aud, azp) is not this client": _is_for(claims, client.client_id),
        "the token has expired (exp)": expires_at is not None and now_ms < expires_at + CLOCK_SKEW_MS,
        "the time of issue (iat) is too far from the current time": age_ms is not None
        and -CLOCK_SKEW_MS <= age_ms <= TRANSACTION_MS + CLOCK_SKEW_MS,
        "the nonce belongs to another sign-in": claims.get("nonce") == nonce,
    }
    return next((reason for reason, is_valid in checks.items() if not is_valid), None)


def needs_userinfo(claims: Mapping[str, Any], client: OidcClient) -> bool:
    """Return whether the ID token lacks claims that the userinfo response can contain."""
    wanted = ["email", *(["groups"] if client.has_operators else [])]
    return any(name not in claims for name in wanted)


def with_userinfo(claims: Mapping[str, Any], userinfo: Mapping[str, Any]) -> dict[str, Any]:
    """Return the claims of an ID token, and the userinfo claims that the ID token does not contain.

    The email and the claims that state whether it is verified come from the same source.
    """
    source = claims if "email" in claims else userinfo
    return {**userinfo, **claims, **{name: source.get(name) for name in ("email", *_VERIFIED)}}


def identity_of(claims: Mapping[str, Any], client: OidcClient) -> Identity:
    """Return the person that the claims describe. The caller has already checked the claims."""
    email = normalize_email(str(claims.get("email")))
    is_verified = any(claims.get(name) in _TRUE for name in _VERIFIED)
    verified = email if is_verified and check_email(email) is None else None
    names = (claims.get("name"), claims.get("preferred_username"), verified, claims["sub"][:NAME_CHARACTERS_MAX])
    name = next(each.strip() for each in names if isinstance(each, str) and check_name(each) is None)
    groups = _groups(claims.get("groups"))
    can_write, can_read = (
        group is not None and group in groups for group in (client.operator_group, client.read_only_group)
    )
    return Identity(
        client.issuer,
        claims["sub"],
        verified,
        name,
        can_write or can_read,
        can_read and not can_write,
        _ms(claims.get("auth_time")),
    )


def operator_name(identity: Identity) -> str:
    """Return the name of an operator for the audit log."""
    return identity.name if identity.email in (None, identity.name) else f"{identity.name} <{identity.email}>"


def _can_verify(key: object, header: TokenHeader) -> bool:
    if not isinstance(key, dict) or key.get("kty") != _KEY_TYPES[header.algorithm]:
        return False
    algorithms = (None, *_SAME_ALGORITHM.get(header.algorithm, (header.algorithm,)))
    if key.get("use") not in (None, "sig") or key.get("alg") not in algorithms:
        return False
    if key.get("crv") != _CURVES.get(key["kty"]):
        return False
    if key["kty"] == "RSA" and len(str(key.get("n"))) < _RSA_CHARACTERS_MIN:
        return False
    return header.key_id is None or key.get("kid") == header.key_id


def _is_for(claims: Mapping[str, Any], client_id: str) -> bool:
    audience, authorized = claims.get("aud"), claims.get("azp")
    audiences = audience if isinstance(audience, list) else [audience]
    if client_id not in audiences:
        return False
    return authorized == client_id if len(audiences) > 1 or authorized is not None else True


def _groups(value: object) -> list[object]:
    return value[:GROUPS_READ_MAX] if isinstance(value, list) else [value]


def _ms(seconds: object) -> int | None:
    """Return a number of seconds since 1970 as Unix ms, or None if the claim is not a valid number."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < _SECONDS_MAX:
        return None
    return int(seconds * 1000)
