"""The TLS of connections to PostgreSQL where the system's authorities are to be believed, which the driver cannot.

For all other addresses the driver makes its own. Parameters and files are those of PostgreSQL's own programs:
https://www.postgresql.org/docs/current/libpq-ssl.html
"""

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl

from uplift_server.core.operations.postgres_urls import split_postgres_url
from uplift_server.store.errors import Misaddressed
from uplift_server.store.postgres.connection_errors import unusable

SYSTEM: Final = "system"
"""The `sslrootcert` that stands for the system's authorities, since PostgreSQL 16."""
_PROTOCOL: Final = "postgresql"
"""Its name where it is agreed on within TLS."""


def is_left_to_system(url: str) -> bool:
    """Whether a certificate is to be judged with its host, and nobody says by whose authority.

    Without the host it would be no judgement: anybody has a certificate of an authority that systems trust. Raises
    Misaddressed where that is asked for.
    """
    given = _parameters(url)
    judges, authority = _given(given, "sslmode") == "verify-full", _given(given, "sslrootcert", "root.crt")
    if authority == SYSTEM and not judges:
        raise Misaddressed("sslrootcert=system is without sslmode=verify-full; write both in UPLIFT_DATABASE_URL")
    return judges and authority in (None, SYSTEM)


def system_trust(url: str) -> ssl.SSLContext:
    """A context that believes the system's authorities, for an address that leaves this to the system.

    Raises Misaddressed for a client's certificate or a list of revoked ones that cannot be used.
    """
    given = _parameters(url)
    # It verifies certificates and their hosts.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([_PROTOCOL])
    context.load_default_certs()
    certificate = _given(given, "sslcert", "postgresql.crt")
    if certificate is not None:
        key = _given(given, "sslkey", "postgresql.key")
        try:
            # A password that is asked for at the terminal would hold up the process.
            context.load_cert_chain(certificate, key, password="")
        except OSError as error:
            raise unusable(f"{certificate} with {key or 'the key in it'}", error) from error
    revoked = _given(given, "sslcrl", "root.crl")
    if revoked is not None:
        try:
            context.load_verify_locations(revoked)
        except OSError as error:
            raise unusable(revoked, error) from error
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
    return context


def _parameters(url: str) -> Mapping[str, str]:
    return dict(parse_qsl(split_postgres_url(url).query))


def _given(given: Mapping[str, str], name: str, file: str | None = None) -> str | None:
    """A parameter as PostgreSQL's own programs find it: in the address, the environment, or a file they look for."""
    value = given.get(name) or os.environ.get(f"PG{name.upper()}")
    if value or file is None:
        return value
    try:
        found = Path("~/.postgresql", file).expanduser()
        return str(found) if found.is_file() else None
    except (RuntimeError, OSError):
        # Nobody's home, or one that is closed to this process.
        return None
