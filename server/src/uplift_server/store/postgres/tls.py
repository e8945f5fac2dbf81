"""Builds TLS contexts that trust the system's certificate authorities, for connections to PostgreSQL.

The driver cannot use these authorities. For all other certificate authorities, the driver builds the TLS context.
The parameters and files are the same as in libpq: https://www.postgresql.org/docs/current/libpq-ssl.html
"""

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl

from uplift_server.core.operations.postgres_urls import split_postgres_url
from uplift_server.store.errors import Misaddressed
from uplift_server.store.postgres.connection_errors import unusable_file

SYSTEM: Final = "system"
"""The value of `sslrootcert` for the system's authorities. PostgreSQL 16 introduced this value."""
_PROTOCOL: Final = "postgresql"
"""The ALPN name of the PostgreSQL protocol."""


def uses_system_trust(url: str) -> bool:
    """Whether the connection must verify the host's certificate with the system's authorities.

    Raises Misaddressed if the URL uses the system's authorities but does not verify the host name. Anyone with a
    certificate from such an authority could then pose as the host.
    """
    parameters = _parameters(url)
    is_verified, authority = _find(parameters, "sslmode") == "verify-full", _find(parameters, "sslrootcert", "root.crt")
    if authority == SYSTEM and not is_verified:
        raise Misaddressed("sslrootcert=system requires sslmode=verify-full; set both in UPLIFT_DATABASE_URL")
    return is_verified and authority in (None, SYSTEM)


def system_trust(url: str) -> ssl.SSLContext:
    """Build a TLS context that trusts the system's authorities.

    Raises Misaddressed if the client certificate or the revocation list is not usable.
    """
    parameters = _parameters(url)
    # This context verifies the certificate and the host.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([_PROTOCOL])
    context.load_default_certs()
    certificate = _find(parameters, "sslcert", "postgresql.crt")
    if certificate is not None:
        key = _find(parameters, "sslkey", "postgresql.key")
        try:
            # Pass an empty password. Otherwise, OpenSSL would ask for a password at the terminal.
            context.load_cert_chain(certificate, key, password="")
        except OSError as error:
            raise unusable_file(f"{certificate} with {key or 'the key in it'}", error) from error
    revoked = _find(parameters, "sslcrl", "root.crl")
    if revoked is not None:
        try:
            context.load_verify_locations(revoked)
        except OSError as error:
            raise unusable_file(revoked, error) from error
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
    return context


def _parameters(url: str) -> Mapping[str, str]:
    return dict(parse_qsl(split_postgres_url(url).query))


def _find(parameters: Mapping[str, str], name: str, file: str | None = None) -> str | None:
    """Return the value of a parameter, or the path of a default file.

    Like libpq, search the URL, the environment variables, and the default files, in this order.
    """
    value = parameters.get(name) or os.environ.get(f"PG{name.upper()}")
    if value or file is None:
        return value
    try:
        found = Path("~/.postgresql", file).expanduser()
        return str(found) if found.is_file() else None
    except (RuntimeError, OSError):
        # There is no home directory, or no permission to read it.
        return None
