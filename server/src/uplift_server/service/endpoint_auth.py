"""Validates and stores the credentials that authenticate the server's requests to endpoints."""

import ssl
from dataclasses import replace
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from msgspec import structs

from uplift_server.core.limits import CLIENT_KEY_RSA_BITS_MAX
from uplift_server.core.problems import Problem
from uplift_server.core.security.endpoint_auth import (
    ClientCertificate,
    EndpointAuth,
    OAuthClient,
    auth_from_text,
    auth_text,
    check_auth,
)
from uplift_server.delivery.sending.http.tls import error_text, load_identity
from uplift_server.delivery.targets import ClientIdentity
from uplift_server.service.fields import Unset
from uplift_server.service.registration import UrlChecker
from uplift_server.store.encryption import Cipher
from uplift_server.store.records import Endpoint

_ENCRYPTED: Final = "The private key is encrypted. Send an unencrypted key, such as the output of `openssl pkey`."
_NO_KEY: Final = "The field has no private key in PEM. Send the key with its BEGIN and END lines."
_KEY_KIND: Final = f"The key is not supported. Use an EC key, or an RSA key of at most {CLIENT_KEY_RSA_BITS_MAX} bits."
_NO_CERTIFICATE: Final = "The field has no valid certificate in PEM. Send the certificate with its BEGIN and END lines."
_KEY_UNREADABLE: Final = (
    "The server cannot read the public key of the first certificate. Send a certificate with another kind of key."
)
_EXPIRED: Final = "The certificate, or one in its chain, has expired. Send a valid certificate."
_MISMATCH: Final = "The private key does not belong to the first certificate. Send the key of this certificate."


class AuthColumns(NamedTuple):
    """The endpoint columns that store the authentication settings."""

    encrypted: bytes | None
    certificate_expires_at: int | None


class StoredAuth:
    """Reads and writes the authentication settings of endpoints."""

    def __init__(self, cipher: Cipher) -> None:
        self._cipher = cipher

    def of(self, endpoint: Endpoint) -> EndpointAuth | None:
        """Return an endpoint's authentication settings, including the secrets."""
        if endpoint.auth is None:
            return None
        return auth_from_text(self._cipher.decrypt(endpoint.auth, endpoint.id, "auth"))

    def columns(self, auth: EndpointAuth | Unset | None, endpoint_id: bytes) -> AuthColumns:
        """Return the column values that store these authentication settings. The settings must be valid."""
        if auth is None or isinstance(auth, Unset):
            return AuthColumns(None, None)
        # Always bind the encrypted value to the endpoint. Every release that has this column can read bound values.
        stored = with_facts(auth)
        encrypted = self._cipher.encrypt(auth_text(stored), endpoint_id, "auth")
        return AuthColumns(encrypted, stored.expires_at if isinstance(stored, ClientCertificate) else None)

    def changed(self, stored: Endpoint, sent: EndpointAuth | Unset | None) -> Endpoint:
        """Return the endpoint with the authentication settings from a request.

        If the settings have not changed, return `stored` itself, so that the cached tokens remain valid.
        """
        if isinstance(sent, Unset) or (None if sent is None else with_facts(sent)) == self.of(stored):
            return stored
        encrypted, expires_at = self.columns(sent, stored.id)
        return structs.replace(stored, auth=encrypted, certificate_expires_at=expires_at, certificate_warned_at=None)


async def auth_problems(auth: EndpointAuth | Unset | None, url_checker: UrlChecker, now: int) -> list[Problem]:
    """Return the problems with the authentication settings in a request.

    The field of each problem is `auth.<name>`. `now` is Unix ms.
    """
    if auth is None or isinstance(auth, Unset):
        return []
    found = check_auth(auth)
    if isinstance(auth, OAuthClient):
        problem = await url_checker.check(auth.token_url)
        return found if problem is None else [replace(problem, field="auth.token_url"), *found]
    problem = None if found else _certificate_problem(auth, now)
    return found if problem is None else [problem]


def with_facts(auth: EndpointAuth) -> EndpointAuth:
    """Return the authentication settings with the subject and the fingerprint of the client certificate.

    The result also contains the earliest expiration time in the certificate chain. Settings without a client
    certificate stay unchanged. The settings must be valid.
    """
    if isinstance(auth, OAuthClient):
        return auth
    leaf, *_ = chain = x509.load_pem_x509_certificates(auth.certificate.encode())
    return replace(
        auth,
        subject=leaf.subject.rfc4514_string(),
        fingerprint=leaf.fingerprint(SHA256()).hex(),
        expires_at=min(map(_expires_at, chain)),
    )


def _certificate_problem(auth: ClientCertificate, now: int) -> Problem | None:
    chain = _read_chain(auth.certificate, now)
    key = _read_key(auth.private_key)
    if isinstance(chain, Problem):
        return chain
    if isinstance(key, Problem):
        return key
    try:
        certified = chain[0].public_key()
    except (ValueError, UnsupportedAlgorithm):
        return Problem("auth.certificate", "certificate_invalid", _KEY_UNREADABLE)
    if key.public_key() != certified:
        return Problem("auth.private_key", "private_key_mismatch", _MISMATCH)
    try:
        load_identity(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ClientIdentity(auth.certificate, auth.private_key))
    except ssl.SSLError as error:
        text = f"The server cannot use the certificate ({error_text(error)}). Send another certificate."
        return Problem("auth.certificate", "certificate_invalid", text)
    return None


def _read_chain(text: str, now: int) -> list[x509.Certificate] | Problem:
    try:
        chain = x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        return Problem("auth.certificate", "certificate_invalid", _NO_CERTIFICATE)
    if min(map(_expires_at, chain)) <= now:
        return Problem("auth.certificate", "certificate_expired", _EXPIRED)
    return chain


def _read_key(text: str) -> EllipticCurvePrivateKey | RSAPrivateKey | Problem:
    try:
        # Checking that the factors of an RSA key are prime takes seconds for a long key.
        key = load_pem_private_key(text.encode(), None, unsafe_skip_rsa_key_validation=True)
    except TypeError:
        return Problem("auth.private_key", "private_key_invalid", _ENCRYPTED)
    except (ValueError, UnsupportedAlgorithm):
        return Problem("auth.private_key", "private_key_invalid", _NO_KEY)
    if isinstance(key, EllipticCurvePrivateKey):
        return key
    if isinstance(key, RSAPrivateKey) and key.key_size <= CLIENT_KEY_RSA_BITS_MAX:
        return key
    return Problem("auth.private_key", "private_key_invalid", _KEY_KIND)


def _expires_at(certificate: x509.Certificate) -> int:
    return int(certificate.not_valid_after_utc.timestamp() * 1000)
